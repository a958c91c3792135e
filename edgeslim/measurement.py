"""Measurement: how long one cut of an encoder took on a board, timed there. A row of the board's card."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.cuts import Cut
from edgeslim.errors import InputError
from edgeslim.figure import must_be_known
from edgeslim.shelf import shown
from edgeslim.units import ARITHMETIC, MOST_BATCH


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one cut of an encoder took on this board. Invalid values cannot be built."""

    encoder: str
    """Profile card."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    gflop: float
    """A tile, of what was timed (1 MAC = 2 FLOP): another encoder of the same name has another figure."""
    runtime: str
    """Of the same card."""
    precision: str
    """As exported: one of edgeslim.units.ARITHMETIC."""
    power_mode: str
    """In which it was timed."""
    batch: int
    """Tiles a call."""
    workers: int
    """Calls at the same time, each on its share of the cores: 1, or as many as the board has cores."""
    p50_ms: float
    """Of a tile (a call's time / batch): half of the calls were at most so slow."""
    p95_ms: float
    """Of a tile: 95 of 100 were."""
    source: str
    """What measured it, and with which versions; never empty."""
    depth: int | None = None
    """Blocks that were kept, the first ones; None: all."""

    def __post_init__(self) -> None:
        must_be_known(self.precision, ARITHMETIC, "precision")
        if not 0 < self.width_multiplier <= 1:
            raise InputError(f"width_multiplier: found {self.width_multiplier:g}, expected more than 0, at most 1")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"depth: found {self.depth}, expected at least 1 block")
        for key, number in (("gflop", self.gflop), ("p50_ms", self.p50_ms)):
            if not number > 0:
                raise InputError(f"{key}: found {number:g}, expected more than 0")
        if not self.p95_ms >= self.p50_ms:
            raise InputError(f"p95_ms: found {self.p95_ms:g}, expected at least p50_ms {self.p50_ms:g}")
        for key, count in (("batch", self.batch), ("workers", self.workers)):
            if not 1 <= count <= MOST_BATCH:
                raise InputError(f"{key}: found {count}, expected a whole number from 1 to {MOST_BATCH}")
        for key, text in (("encoder", self.encoder), ("runtime", self.runtime), ("source", self.source)):
            if not text.strip():
                raise InputError(f"{key}: found {shown(text)}, expected a text")

    @property
    def cut(self) -> Cut:
        """What was kept of the encoder."""
        return Cut(self.width_multiplier, self.depth)

    @property
    def what(self) -> tuple[str, Cut, str, str, str, int, int]:
        """All that was asked of it: a card holds one row of each."""
        return (
            self.encoder,
            self.cut,
            self.runtime,
            self.precision,
            self.power_mode,
            self.batch,
            self.workers,
        )
