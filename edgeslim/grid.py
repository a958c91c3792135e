"""Grid: where windows lie along an axis, which pixels each one fills, and how they blend.

The plan of a raster is the product of two axes, so all of it is said for one axis. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError

F32 = NDArray[np.float32]


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
    windows: tuple[AxisWindow, ...]
    """Ascending by start and by fill."""
    _triangle: F32 = field(repr=False, compare=False)

    def weights(self, window: AxisWindow) -> F32:
        """Blending weights of a window's filled pixels, (fill_stop - fill_start,), all above 0 and at most 1.

        They are not normalised: with skipped tiles only the sum over the classified ones can be.
        """
        if window.blends:
            return self._triangle
        return np.ones(window.fill_stop - window.fill_start, np.float32)

    def settled(self, index: int) -> int:
        """One past the last pixel that no window after number `index` touches."""
        return self.windows[index + 1].fill_start if index + 1 < len(self.windows) else self.size

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
    if size < 1:
        raise InputError(f"grid: found an axis of {size} px, expected at least 1")
    if not 1 <= stride_px <= tile_px:
        raise InputError(f"stride: found {stride_px} px, expected 1 to {tile_px} (the tile)")
    ramp = np.arange(1, tile_px + 1, dtype=np.float32)
    triangle = np.minimum(ramp, ramp[::-1]) / np.float32((tile_px + 1) // 2)
    if size < tile_px:
        windows = [AxisWindow(0, size, 0, size, False)]
    else:
        windows = [AxisWindow(s, s + tile_px, s, s + tile_px, True) for s in range(0, size - tile_px + 1, stride_px)]
        if (end := windows[-1].stop) < size:
            windows.append(AxisWindow(size - tile_px, size, end, size, False))
    return Axis(size, tile_px, stride_px, tuple(windows), triangle)
