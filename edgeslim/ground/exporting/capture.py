"""Capture: what is exported, as which artifacts and proven with what; and one width of it, ready to be converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.cuts import Cut
from edgeslim.errors import CaptureError, InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.proof import Reference, answers
from edgeslim.ground.flight import FlightModel, flight_model
from edgeslim.ground.formats import Written
from edgeslim.ground.golden import GoldenTiles, hostile_tiles
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.known import Known
from edgeslim.profile import Profile, licence_obstacle
from edgeslim.shelf import shown
from edgeslim.target import Target

MAX_DROP = 0.01
"""Share of agreement, and of score, that int8 may cost."""


@dataclass(frozen=True, slots=True)
class Request:
    """One artifact to make."""

    target: Target
    """Format."""
    precision: str = "fp32"
    """One of the target's."""

    def __post_init__(self) -> None:
        if self.precision not in self.target.precisions:
            raise InputError(
                f"--precision {self.precision}: {self.target.id} is exported in {', '.join(self.target.precisions)}"
            )

    @property
    def name(self) -> str:
        """Folder beside others."""
        return f"{self.target.id}-{self.precision}"


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported."""

    profile: Profile
    """Encoder card."""
    checkpoint: Checkpoint
    """At full width."""
    checkpoint_sha256: str
    """Of its file."""
    width_multiplier: float
    """To slim it to, in width."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Noted in the manifest."""
    accept_licence: bool = False
    """Bundle the weights whatever their licence says."""
    known: tuple[Known, dict[str, NDArray[np.float32]]] | None = None
    """How the head tells tiles unlike those that it was fitted on, and what with; None: it does not."""
    depth: int | None = None
    """Blocks to keep, the first ones; None: all."""

    @property
    def cut(self) -> Cut:
        """What is kept of the encoder."""
        return Cut(self.width_multiplier, self.depth)


@dataclass(frozen=True, slots=True)
class Proving:
    """What an export is proven with."""

    golden: GoldenTiles
    """Tiles that fly with it."""
    tiles: GoldenTiles | None = None
    """Real tiles to prove it on; None: the golden ones."""
    calibration: NDArray[np.float32] | None = None
    """Real tiles (n, bands, H, W) that static int8 takes its ranges from."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes to prove it at, and that a static format writes files for."""
    max_drop: float = MAX_DROP
    """Share of agreement, and of score, that int8 may cost; above 0, at most 0.01 counts."""


@dataclass(slots=True)
class Captured:
    """One width, ready to be converted."""

    source: Source
    """What it was made of."""
    slimmed: Checkpoint
    """Weights of this width."""
    model: FlightModel
    """What flies, in torch."""
    reference: Reference
    """What torch says."""
    proving: Proving
    """What it is proven with."""
    converted: dict[str, Written] = field(default_factory=dict)
    """Target, or TARGET-unfolded, for fp16 -> its files in fp32."""
    ranked: list[str] | None = None
    """Layers, the one that int8 harms most first."""


def check_licence(source: Source) -> None:
    """Raise InputError where the licence of the weights has an obstacle that nobody accepted."""
    profile = source.profile
    obstacle = licence_obstacle(profile.licence)
    if obstacle is not None and not source.accept_licence:
        raise InputError(
            f"encoder {profile.id!r}: licence of the weights: found {shown(profile.licence)}, {obstacle}; expected an "
            f"open one; --accept-licence bundles them all the same, if its terms allow what you plan"
        )


def capture(source: Source, proving: Proving, say: Callable[[str], None]) -> Captured:
    """Slim, and ask torch. Raises InputError without a head of that cut, CaptureError where it does not run."""
    profile, width, depth = source.profile, source.width_multiplier, source.depth
    say(f"1/4 capture: {profile.id} at width {source.cut}")
    # It says which widths have a head, before any work.
    source.checkpoint.head(profile.architecture.at(width).units_of_width, depth)
    try:
        slimmed = slimmed_checkpoint(source.checkpoint, width, depth=depth)
        model = flight_model(profile, slimmed)
        golden = answers(model, proving.golden)
        hostile = answers(model, hostile_tiles(profile))
        if golden.logits.shape[1] != profile.num_classes:
            raise InputError(
                f"encoder {profile.id!r}: head has {golden.logits.shape[1]} classes, its card {profile.num_classes}"
            )
        proof = golden if proving.tiles is None else answers(model, proving.tiles)
    except InputError:
        raise
    except RuntimeError as error:
        raise CaptureError(f"stage 1, capture: {first_line(error)}; does the card fit the weights?") from None
    return Captured(source, slimmed, model, Reference(proof, golden, hostile), proving)


def first_line(error: Exception) -> str:
    """Of what a library said, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
