"""Retention: what an encoder keeps at each width and depth on one set of tiles. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds."""

    value: float
    """Of all seeds."""
    low: float
    """Of the 95 % interval: Student's t over the seeds, each with a split of its own."""
    high: float
    """Of the interval."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What one width and depth keeps, by one probe."""

    width_multiplier: float
    """Kept fraction of each block's inner widths; 0: pixel statistics, no network."""
    blocks: int
    """That were run; the last LayerNorm follows them."""
    gflop: float
    """A tile, encoder without head, 1 MAC = 2 FLOP."""
    probe: str
    """"k-NN": five nearest neighbours by cosine; "linear": a ridge classifier; both fitted anew."""
    score: Mean
    """Of the held-out tiles."""
    checked: float
    """Mean score in five-fold cross-validation inside the training parts: what a width is chosen by."""
    ratio: Mean | None
    """score / full score; None for pixel statistics."""
    above_pixels: Mean | None
    """(score - pixels) / (full - pixels), where the full encoder beats the pixels; None elsewhere."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The width that cross-validation chose, seed by seed, and what it scored."""

    probe: str
    """As of Kept."""
    widths: tuple[float, ...]
    """One a seed."""
    score: Mean
    """On tiles that had no part in the choice."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What `edgeslim measure` measured."""

    encoder: str
    """Profile card, or name of the checkpoint."""
    dataset: str
    """Name of the folder or zip."""
    tiles: int
    """That were used."""
    left_out: dict[str, int]
    """Why tiles could not be used -> how many."""
    method: str
    """How widths were slimmed."""
    metric: str
    """"accuracy", or "mAP" where tiles have several classes."""
    split: str
    """How tiles to fit and to score on came apart."""
    seeds: tuple[int, ...]
    """One split each."""
    pixels: tuple[Kept, ...]
    """Mean, deviation and quantiles of each band, without any network: one a probe."""
    kept: tuple[Kept, ...]
    """Every width, depth and probe; ascending by width, then by blocks."""
    choices: tuple[Choice, ...]
    """One a probe, among the widths at full depth."""
    warnings: tuple[str, ...]
    """What a person should know."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": 1, **asdict(self)}

    def at_full_depth(self, probe: str) -> list[Kept]:
        """The widths, ascending."""
        deepest = max(one.blocks for one in self.kept)
        return [one for one in self.kept if one.probe == probe and one.blocks == deepest]

    def front(self, probe: str) -> list[Kept]:
        """Widths and depths that no other beats in score and GFLOP, ascending by GFLOP."""
        found: list[Kept] = []
        for one in sorted((k for k in self.kept if k.probe == probe), key=lambda k: (k.gflop, -k.score.value)):
            if not found or one.score.value > found[-1].score.value:
                found.append(one)
        return found
