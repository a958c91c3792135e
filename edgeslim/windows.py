"""Windows: where they lie along an axis of a scene. Arithmetic only, so that a plan counts tiles without numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeslim.errors import InputError

_LISTED_SPANS = 1000
"""Of an axis that are gone through one by one."""


@dataclass(frozen=True, slots=True)
class AxisWindow:
    """One window along an axis. It reads [start, stop) and answers for [fill_start, fill_stop)."""

    start: int
    """First pixel read."""
    stop: int
    """One past the last pixel read; stop - start is the tile, or the whole axis where that is shorter."""
    fill_start: int
    """First pixel that this window answers for."""
    fill_stop: int
    """One past the last pixel that this window answers for."""
    blends: bool
    """True: shares its pixels with overlapping windows by triangular weights. False: answers for them alone."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of an axis, computed when asked for. Ascending by start, stop and fill."""

    size: int
    """Pixels of the axis."""
    tile_px: int
    """Side of a tile, px."""
    stride_px: int
    """Step between regular windows, px."""

    @property
    def regular(self) -> int:
        """How many of them lie on the stride; they come first."""
        return (self.size - self.tile_px) // self.stride_px + 1 if self.size >= self.tile_px else 0

    def ended(self, pixel: int) -> int:
        """How many windows stop at or before a pixel."""
        if pixel >= self.size:
            return len(self)
        return min(self.regular, max(0, (pixel - self.tile_px) // self.stride_px + 1))

    def kept_px(self, step_px: int) -> int:
        """Most pixels before a span of `step_px` that its windows still need: as Axis.kept_px, one span at a time.

        Of an axis of very many spans, the most that it can be.
        """
        if self.size // step_px > _LISTED_SPANS:
            return self.tile_px - 1
        kept = 0
        for start in range(step_px, self.size, step_px):
            ended = self.ended(start)
            if ended < self.regular:
                pending = ended * self.stride_px
            else:
                pending = start if len(self) == self.regular else max(0, self.size - self.tile_px)
            kept = max(kept, start - pending)
        return kept

    def __len__(self) -> int:
        covered = (self.regular - 1) * self.stride_px + self.tile_px if self.regular else 0
        return self.regular + (covered < self.size)

    def __getitem__(self, index: int) -> AxisWindow:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index < self.regular:
            start = index * self.stride_px
            return AxisWindow(start, start + self.tile_px, start, start + self.tile_px, True)
        covered = (self.regular - 1) * self.stride_px + self.tile_px if self.regular else 0
        return AxisWindow(max(0, self.size - self.tile_px), self.size, covered, self.size, False)

    def __iter__(self) -> Iterator[AxisWindow]:
        return (self[index] for index in range(len(self)))


def require_axis(size: int, tile_px: int, stride_px: int) -> None:
    """Raise InputError unless 1 <= stride <= tile and size >= 1."""
    if size < 1:
        raise InputError(f"grid: found an axis of {size} px, expected at least 1")
    if not 1 <= stride_px <= tile_px:
        raise InputError(f"stride: found {stride_px} px, expected 1 to {tile_px} (the tile)")
