"""Retention: what an encoder keeps at each width and depth on one set of tiles. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeslim.cuts import Cut


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
    front: bool = False
    """Whether no other width and depth scores as much by this probe for as few FLOP: the Pareto front of both."""

    @property
    def cut(self) -> Cut:
        """Its width, and the blocks that were run, whether these are all or not."""
        return Cut(self.width_multiplier, self.blocks)


@dataclass(frozen=True, slots=True)
class Choice:
    """The width, or the width and depth, that cross-validation chose, seed by seed, and what it scored."""

    probe: str
    """As of Kept."""
    widths: tuple[float, ...]
    """One a seed."""
    score: Mean
    """On tiles that had no part in the choice."""
    blocks: tuple[int, ...] = ()
    """One a seed: the depth that was chosen with the width; empty where the choice was among widths alone."""


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
    cut_choices: tuple[Choice, ...] = ()
    """One a probe, among all widths and depths; of equals the one of the fewest FLOP."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": 1, **asdict(self)}

    def at_full_depth(self, probe: str) -> list[Kept]:
        """The widths, ascending."""
        return [one for one in self.kept if one.probe == probe and one.blocks == self.deepest]

    def front(self, probe: str) -> list[Kept]:
        """Widths and depths that no other beats in score and GFLOP, ascending by GFLOP."""
        return sorted((one for one in self.kept if one.front and one.probe == probe), key=lambda one: one.gflop)

    @property
    def deepest(self) -> int:
        """Blocks of the whole encoder."""
        return max(one.blocks for one in self.kept)


def with_fronts(kept: Iterable[Kept]) -> tuple[Kept, ...]:
    """The same rows in their order, those on the front of their probe marked."""
    rows, best, on_front = list(kept), dict[str, float](), set[tuple[str, Cut]]()
    for one in sorted(rows, key=lambda one: (one.gflop, -one.score.value)):
        if one.score.value > best.get(one.probe, -1.0):
            best[one.probe] = one.score.value
            on_front.add((one.probe, one.cut))
    return tuple(replace(one, front=(one.probe, one.cut) in on_front) for one in rows)
