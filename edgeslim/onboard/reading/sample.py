"""Sample: a few pixels from all over a scene, cheaply, because the first tile waits for them."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.reading.raster import Raster

_BUDGETS = ((5, 16 << 20, 1024), (16, 128 << 20, 256))
"""Places along each axis, decoded bytes and pixels a place: at first sight, and when that was not enough."""
_OVERVIEW_PX = 1 << 18
"""Largest overview that is read whole."""
_WHOLE_BYTES = 1 << 20
"""Largest block that is read whole, then thinned; larger ones GDAL thins, unless it would turn to an overview."""
_WHOLE_PX = 1 << 18
"""Largest part of a block that is read otherwise."""
_MOST_SIDE = 512
"""And its most rows."""
_MOST_PX = 1 << 15
"""Taken from an overview."""


class Readable(Protocol):
    """What is asked of a scene, or of a raster, to sample it."""

    height: int
    """Rows."""
    width: int
    """Columns."""

    @property
    def bands(self) -> Sized:
        """Those that a read returns."""

    @property
    def block_px(self) -> tuple[int, int]:
        """Rows and columns of what is decoded at once."""

    def read(self, row: int, column: int, rows: int, columns: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, rows, columns) and validity (rows, columns) of a rectangle."""


def sample(scene: Readable, raster: Raster | None, thorough: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (bands, n) spread over a scene, and their validity (n,).

    `raster` is the scene's one file, whose grid is used where the scene itself is resampled; None: several. At first
    sight an overview serves where there is one; `thorough` reads the pixels themselves, and more of them. A block is
    decoded once at most, and few of them.
    """
    source = scene if raster is None else raster
    if raster is not None and not thorough:
        small = raster.read_overview(_OVERVIEW_PX)
        if small is not None:
            step = -(-small[1].size // _MOST_PX) | 1  # odd, so that it walks through the columns
            return small[0].reshape(small[0].shape[0], -1)[:, ::step], small[1].ravel()[::step]
    places, budget, most_px = _BUDGETS[thorough]
    high, wide = source.block_px
    cost = high * wide * 8 * len(source.bands) if raster is None else raster.decoding.block_bytes
    count = max(1, min(places * places, budget // max(1, cost)))
    down, across = -(-source.height // high), -(-source.width // wide)
    along = max(1, min(across, places, round(count**0.5)))
    rows = _spread(down, max(1, min(places * places // along, count // along)))
    if raster is not None and raster.decoding.sequential:
        # Rows of one long strip come in order only: the first ones must do.
        rows = rows[rows * raster.decoding.block_bytes <= budget]
    parts_values, parts_valid = [], []
    for block_row in rows:
        for block_column in _spread(across, along):
            top, left = int(block_row) * high, int(block_column) * wide
            h, w = min(high, source.height - top), min(wide, source.width - left)
            values, valid = _thin(source, (top, left, h, w), most_px)
            parts_values.append(values.reshape(len(values), -1))
            parts_valid.append(valid.ravel())
    return np.concatenate(parts_values, axis=1), np.concatenate(parts_valid)


def _thin(source: Readable, block: tuple[int, int, int, int], most_px: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """At most `most_px` pixels from all over a block (row, column, rows, columns), which is decoded once."""
    row, column, rows, columns = block
    step = max(1, math.ceil(math.sqrt(rows * columns / most_px)))
    down = max(1, min(step, rows // 2)) | 1  # odd, so that it falls in step with no pattern of even size
    across = max(1, min(-(-columns * -(-rows // down) // most_px), columns)) | 1
    if isinstance(source, Raster) and source.decoding.block_bytes > _WHOLE_BYTES and not source.has_overviews:
        return source.read_thinned(row, column, rows, columns, (-(-rows // down), -(-columns // across)))
    rows, columns = min(rows, _MOST_SIDE), min(columns, max(1, _WHOLE_PX // min(rows, _MOST_SIDE)))
    values, valid = source.read(row, column, rows, columns)
    return values[:, ::down, ::across], valid[::down, ::across]


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of 0 ... total - 1, evenly: the middles of as many parts."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)
