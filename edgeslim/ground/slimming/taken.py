"""Taken: which of several ways to calibrate an encoder is the best, by the neighbours of held-out tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from edgeslim.ground.encoder import AnyEncoder

FIRST = "first"
"""Name of the way whose weights are those of the method of that name."""
NEIGHBOURS = 3
"""Neighbours of a held-out tile that the choice between the ways looks at. More of them, or neighbours among the fitted
tiles, told whose features are alike at large; those were not the better ones for a classifier."""
Encoder = TypeVar("Encoder", bound=AnyEncoder)


@dataclass(frozen=True, slots=True)
class Calibrated(Generic[Encoder]):
    """What a calibration made."""

    encoder: Encoder
    """In the shape of "first", in evaluation mode."""
    way: str
    """The one that was taken, in words: what it mends, and the weight of the class token where that is the feature."""
    neighbours: dict[str, float]
    """Way -> share of the held-out tiles' neighbours that its features keep, as `neighbours_kept`."""


def taken(
    encoders: Mapping[str, Encoder], found: Mapping[str, Tensor], expected: Tensor, say: Callable[[str], None]
) -> Calibrated[Encoder]:
    """The way whose (n, d) features of held-out tiles keep most of the neighbours that the full encoder's have."""
    kept = {name: neighbours_kept(features, expected) for name, features in found.items()}
    # What is not finite has no neighbours: topk would name some.
    best = max(kept, key=lambda name: (bool(found[name].isfinite().all()), kept[name]))
    say(f"neighbours kept: {', '.join(f'{share:.0%} by {name}' for name, share in kept.items())}; taken: {best}")
    return Calibrated(encoders[best], best, kept)


def neighbours_kept(found: Tensor, expected: Tensor) -> float:
    """Share of each tile's NEIGHBOURS nearest tiles, in Euclidean distance, that two sets of (n, d) features share.

    What a k-NN classifier, which needs labels, would make of them follows it closely.
    """
    nearest = []
    for features in (found.double(), expected.double()):
        apart = torch.cdist(features, features).fill_diagonal_(torch.inf)
        nearest.append(apart.topk(NEIGHBOURS, largest=False).indices)
    same = nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)
    return float(same.any(2).double().mean())
