"""Regrid: a raster on another grid, rectangle by rectangle, by bilinear interpolation or by averaging.

The two grids are parallel, so the work is separable: along each axis a pixel of the new grid is a weighted sum of a few
source pixels. Weights depend on absolute pixel numbers alone and are summed in a fixed order, so a pixel's value does
not depend on the rectangle in which it was asked for. (GDAL's warper does this too, but decodes the source anew for
each of its own chunks, and its footprint in memory is not ours to state.)

Finer or equal grid: bilinear between pixel centres, the outermost pixels extended by half of their size. Coarser grid:
mean over the area that the new pixel covers. Invalid source pixels have no weight; a new pixel is valid where at least
half of its weight is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.reading.raster import Raster

LEAST_WEIGHT = 0.5
"""Share of a pixel's weight that must be valid."""
_ROUNDING = 1e-4
"""Weights are float32 sums: this much short of 1 is 1."""
_SNAP_PX = 1e-3
"""Grids this close to whole source pixels coincide; transforms are written with few digits."""


@dataclass(frozen=True, slots=True)
class Taps:
    """How pixels start ... stop of an axis come about: sum over k of weights[k] * source[first + index[k]]."""

    first: int
    """First source pixel needed."""
    stop: int
    """One past the last one; not above `first` where none is needed."""
    index: NDArray[np.intp]
    """(k, n), counted from `first`."""
    weights: NDArray[np.float32]
    """(k, n); they sum to the share of the pixel that lies on the source."""


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Along one axis: pixel i of the new grid covers source coordinates offset + scale * [i, i + 1]."""

    size: int
    """Source pixels."""
    scale: float
    """Source pixels a new pixel."""
    offset: float
    """Source coordinate (in pixels, 0 at the outer edge) at which new pixel 0 begins."""
    count: int
    """New pixels."""

    @property
    def coincides(self) -> bool:
        """Whether both axes are one and the same."""
        return self.scale == 1 and self.offset == 0 and self.count == self.size

    @property
    def covered(self) -> bool:
        """Whether every new pixel lies on the source."""
        return self.offset >= 0 and self.offset + self.scale * self.count <= self.size + _ROUNDING

    def taps(self, start: int, stop: int) -> Taps:
        """Sources and weights of new pixels start ... stop."""
        number = np.arange(start, stop, dtype=np.float64)
        if self.scale <= 1:
            middle = self.offset + self.scale * (number + 0.5)
            lower = np.floor(middle - 0.5)
            share = middle - 0.5 - lower
            index = np.stack([lower, lower + 1])
            weights = np.stack([1 - share, share]) * ((middle >= 0) & (middle <= self.size))
        else:
            low = self.offset + self.scale * number
            high = low + self.scale
            index = np.floor(low) + np.arange(math.ceil(self.scale) + 1)[:, None]
            overlap = np.minimum(high, np.minimum(index + 1, self.size)) - np.maximum(low, np.maximum(index, 0))
            weights = np.maximum(overlap, 0) / self.scale
        used = np.clip(index, 0, self.size - 1).astype(np.intp)
        if not weights.any():
            return Taps(0, 0, np.zeros_like(used), weights.astype(np.float32))
        needed = used[weights > 0]
        first, last = int(needed.min()), int(needed.max())
        return Taps(first, last + 1, np.clip(used, first, last) - first, weights.astype(np.float32))

    def span(self, count: int) -> int:
        """Most source pixels that `count` new ones may need."""
        return min(self.size, math.ceil(count * self.scale) + 2)


def axis_map(size: int, scale: float, offset: float, count: int) -> AxisMap:
    """An axis map, snapped to whole source pixels where that moves none of `count` new pixels noticeably."""
    if abs(scale - round(scale)) * count < _SNAP_PX and round(scale) >= 1:
        scale = float(round(scale))
    if abs(1 / scale - round(1 / scale)) * count * scale < _SNAP_PX:
        scale = 1 / round(1 / scale)
    fine = offset * 2 * max(1, round(1 / scale))  # halves of a new pixel: where sensors' grids meet
    if abs(fine - round(fine)) < _SNAP_PX:
        offset = round(fine) / (2 * max(1, round(1 / scale)))
    return AxisMap(size, scale, offset, count)


class Regrid:
    """A raster as it appears on another grid."""

    def __init__(self, raster: Raster, down: AxisMap, across: AxisMap) -> None:
        """`down` maps rows, `across` columns. The raster's bands are selected already."""
        self.raster, self._down, self._across = raster, down, across
        self.copies = down.coincides and across.coincides
        """True: the grids are one, values pass untouched."""
        wide = raster.dtype.itemsize > 4 or raster.dtype in (np.dtype(np.int32), np.dtype(np.uint32))
        self.dtype = raster.dtype if self.copies else np.dtype(np.float64 if wide else np.float32)
        self.always_valid = raster.always_valid and down.covered and across.covered

    @property
    def block_px(self) -> tuple[int, int]:
        """(rows, columns) of the new grid that a block of the raster makes, about."""
        high, wide = self.raster.block_px
        return max(1, round(high / self._down.scale)), max(1, round(wide / self._across.scale))

    def cache_bytes(self, row: int, column: int, rows: int, columns: int) -> int:
        """As Decoding.cache_bytes, of a rectangle of the new grid."""
        if self.copies:
            return self.raster.decoding.cache_bytes(row, column, rows, columns)
        # A source block serves neighbours on all sides, whatever the rectangle: as if never aligned.
        return self.raster.decoding.cache_bytes(1, 1, self._down.span(rows), self._across.span(columns))

    def read_bytes(self, rows: int, columns: int) -> int:
        """As Raster.read_bytes, of a rectangle of the new grid."""
        if self.copies:
            return self.raster.read_bytes(rows, columns)
        high, wide = self._down.span(rows), self._across.span(columns)
        source = high * wide * (self.raster.dtype.itemsize * len(self.raster.bands) + 1)
        item = self.dtype.itemsize
        work = item * (high * wide + 3 * rows * wide + 3 * rows * columns) + 4 * rows * columns
        base = self.raster.read_bytes(high, wide) - self.raster.decoding.cache_bytes(0, 0, high, wide)
        return base + self.cache_bytes(0, 0, rows, columns) + source + work

    @property
    def fills(self) -> bool:
        """As Raster.fills."""
        return self.copies and self.raster.fills

    def read(
        self, row: int, column: int, rows: int, columns: int, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As Raster.read, of a rectangle of the new grid. Invalid pixels are 0 unless the grids coincide."""
        if self.copies:
            return self.raster.read(row, column, rows, columns, out)
        down, across = self._down.taps(row, row + rows), self._across.taps(column, column + columns)
        result = np.zeros((len(self.raster.bands), rows, columns), self.dtype)
        high, wide = down.stop - down.first, across.stop - across.first
        if high <= 0 or wide <= 0:
            return result, np.zeros((rows, columns), bool)
        values, valid = self.raster.read(down.first, across.first, high, wide)
        inside = all(bool((t.weights.sum(axis=0) > 1 - _ROUNDING).all()) for t in (down, across))
        if inside and valid.strides == (0, 0):
            for plane, target in zip(values, result, strict=True):
                _resample(plane.astype(self.dtype), down, across, target)
            return result, np.broadcast_to(np.True_, (rows, columns))
        weight = np.zeros((rows, columns), np.float32)
        _resample(valid.astype(np.float32), down, across, weight)
        # Divided only where something is missing: elsewhere the value is that of a rectangle without gaps, bit for bit.
        partial = (weight > 0) & (weight <= 1 - _ROUNDING)
        known = weight >= LEAST_WEIGHT - _ROUNDING
        for plane, target in zip(values, result, strict=True):
            _resample(np.where(valid, plane, 0).astype(self.dtype, copy=False), down, across, target)
            np.divide(target, weight, out=target, where=partial)
            target[~known] = 0
        return result, known


def _resample(plane: NDArray[Any], down: Taps, across: Taps, out: NDArray[Any]) -> None:
    """Add the weighted sums of `plane` (h, w) to `out` (rows, columns), rows first."""
    middle = np.zeros((out.shape[0], plane.shape[1]), out.dtype)
    for index, weights in zip(down.index, down.weights, strict=True):
        part = plane[index]
        part *= weights[:, None]
        middle += part
    for index, weights in zip(across.index, across.weights, strict=True):
        part = middle.take(index, axis=1)
        part *= weights
        out += part
