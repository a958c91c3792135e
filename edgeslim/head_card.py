"""Head card: what a fitted head is, what it takes and how it did. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.cuts import Cut
from edgeslim.errors import InputError
from edgeslim.profile import Band, ClassLabel, Radiometry
from edgeslim.shelf import shown

LINEAR = ("logistic", "ridge")
"""Kinds that fly: one matrix product on the features."""
KINDS = (*LINEAR, "knn")


@dataclass(frozen=True, slots=True)
class HeadCard:
    """What a head is, and how it did."""

    encoder: str
    """Encoder card or path of the checkpoint that it was fitted on."""
    checkpoint_sha256: str
    """Of the encoder's weights."""
    architecture: AnyArchitecture
    """Of the encoder at full width, with the tile's side that the head takes."""
    width_multiplier: float
    """Of the encoder that gave the features."""
    kind: str
    """"logistic", "ridge" or "knn"."""
    multi_label: bool
    """Whether a tile may have several classes."""
    classes: tuple[ClassLabel, ...]
    """In the order of the logits."""
    land_share_source: str | None
    """Where the classes' land shares come from."""
    bands: tuple[Band, ...]
    """In the encoder's order."""
    gsd_m: float | None
    """Metres a pixel of its tiles; None: not known."""
    radiometry: Radiometry
    """What a raw band value means."""
    strength: float
    """Of the regularisation; of neighbours, their number."""
    temperature: float
    """By which the logits were divided; 1 of neighbours."""
    dataset: str
    """Name of the folder of tiles."""
    split: str
    """How the held-out tiles were chosen."""
    fitted_tiles: int
    """That it was fitted on."""
    scored_tiles: int
    """That it was scored on."""
    metric: str
    """"accuracy" or "micro F1"."""
    score: float
    """On the held-out tiles, 0 ... 1."""
    interval: tuple[float, float]
    """95 % interval of the score."""
    interval_basis: str
    """How that was found."""
    calibration_error: float
    """Expected calibration error on the held-out tiles, 0 ... 1."""
    unknown_share: float | None = None
    """Of tiles like those that it was fitted on, that its limits were set to call unknown; None: it has no limits."""
    rejected_share: float | None = None
    """Of the held-out tiles, that it calls unknown."""
    depth: int | None = None
    """Blocks that gave the features, the first ones; None: all."""

    @property
    def cut(self) -> Cut:
        """Of the encoder that gave the features."""
        return Cut(self.width_multiplier, self.depth)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind: found {shown(self.kind)}, expected one of {', '.join(KINDS)}")
        if len(self.classes) < 2:
            raise InputError(f"classes: found {len(self.classes)}, expected at least 2")
        if not self.temperature > 0:
            raise InputError(f"temperature: found {self.temperature:g}, expected more than 0")
        self.architecture.at(*self.cut)
