"""Grid: where windows lie along an axis, which pixels each one fills, how they blend, and in which spans they are read.

The plan of a raster is the product of two axes, so all of it is said for one axis. Nothing is listed: an axis of 16
million pixels takes as little memory as one of 60. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeslim.windows import AxisWindow, Windows, require_axis

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """One step of reading along an axis: new pixels, and the windows that they complete."""

    keep: int
    """First pixel that the windows of this span need; pixels from here to `start` were read with earlier spans."""
    start: int
    """First new pixel."""
    stop: int
    """One past the last new pixel."""
    first: int
    """Number of the first window that stops in (start, stop]."""
    last: int
    """One past the number of the last such window."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The windows along one axis.

    Regular windows start at 0, s, 2s, ... while they fit. What they leave at the end is filled by one window pulled
    back to end with the axis; it answers for those pixels alone, so an edge never changes its neighbours. An axis
    shorter than a tile has one window, whose missing pixels are reflected.
    """

    size: int
    """Pixels."""
    tile_px: int
    """Side of a tile, px."""
    stride_px: int
    """Step between regular windows, px; 1 ... tile_px."""
    windows: Windows
    """Ascending by start and by fill."""
    triangle: F32 = field(repr=False, compare=False)
    """Blending weights of a regular window, (tile_px,), above 0 and at most 1."""

    def weights(self, window: AxisWindow) -> F32:
        """Blending weights of a window's filled pixels, (fill_stop - fill_start,), all above 0 and at most 1.

        They are not normalised: with skipped tiles only the sum over the classified ones can be.
        """
        if window.blends:
            return self.triangle
        return np.ones(window.fill_stop - window.fill_start, np.float32)

    def settled(self, index: int) -> int:
        """One past the last pixel that no window after number `index` touches."""
        return self.windows[index + 1].fill_start if index + 1 < len(self.windows) else self.size

    def spans(self, step_px: int) -> int:
        """How many spans of `step_px` new pixels cover the axis; the last may be shorter."""
        return -(-self.size // step_px)

    def span(self, index: int, step_px: int) -> Span:
        """Span number `index`: pixels [index * step, (index + 1) * step) and the windows that end in it."""
        start, stop = index * step_px, min((index + 1) * step_px, self.size)
        first, last = self.windows.ended(start) if index else 0, self.windows.ended(stop)
        # What follows needs a window's pixels only from the first one that has not ended yet.
        keep = min(start, self.windows[first].start) if first < len(self.windows) else start
        return Span(keep, start, stop, first, last)

    def kept_px(self, step_px: int) -> int:
        """Most pixels before a span of `step_px` that its windows still need; at most tile - 1, often fewer."""
        starts = np.arange(1, self.spans(step_px), dtype=np.int64) * step_px
        ended = np.clip((starts - self.tile_px) // self.stride_px + 1, 0, self.windows.regular)
        pending = np.where(ended < self.windows.regular, ended * self.stride_px, max(0, self.size - self.tile_px))
        if len(self.windows) == self.windows.regular:  # nothing is pending behind the last one
            pending = np.where(ended < self.windows.regular, pending, starts)
        return int(np.maximum(starts - pending, 0).max(initial=0))

    @property
    def missing_px(self) -> int:
        """Pixels by which the axis is shorter than a tile."""
        return max(0, self.tile_px - self.size)

    @property
    def cells(self) -> int:
        """Cells of one stride each that cover the axis; the last may be partial."""
        return -(-self.size // self.stride_px)


def plan_axis(size: int, tile_px: int, stride_px: int) -> Axis:
    """Lay windows along an axis of `size` px. Raises InputError unless 1 <= stride <= tile and size >= 1."""
    require_axis(size, tile_px, stride_px)
    ramp = np.arange(1, tile_px + 1, dtype=np.float32)
    triangle = np.minimum(ramp, ramp[::-1]) / np.float32((tile_px + 1) // 2)
    return Axis(size, tile_px, stride_px, Windows(size, tile_px, stride_px), triangle)
