"""Felt: how much of what part of a block loses reaches the features, and its curve of losses in that unit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

FELT = 64
"""Tiles, at most, on which the features' change is looked at."""


def felt_tiles(held_out: int, count: int) -> slice:
    """Those of `count` tiles on which the features' change is looked at: of those that weights are fitted to.

    The first ones, which are held out, are to judge what comes of it.
    """
    return slice(held_out, min(held_out + FELT, count))


def felt(features: Tensor, changed: Tensor) -> float:
    """Change of (n, d) features, as a share of their variance. A change that all tiles share is none."""
    return float((changed - features).double().var(0).sum() / features.double().var(0).sum().clamp_min(1e-300))


def scaled(losses: Sequence[float], at: float, reaching: float) -> list[float]:
    """Losses that are `reaching` where they were `at`; none where there was none."""
    scale = reaching / at if at > 0 else 0.0
    return [scale * loss for loss in losses]
