"""Sample: a few pixels from all over a scene, cheaply, because the first tile waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.raster import Raster

if TYPE_CHECKING:
    from edgeslim.onboard.scene import Scene

_BUDGETS = ((5, 16 << 20, 1024), (16, 128 << 20, 256))
"""Places along each axis, decoded bytes and pixels a place: at first sight, and when that was not enough."""
_OVERVIEW_PX = 1 << 18
"""Largest overview that is read whole."""
_MOST_PX = 1 << 15
"""Taken from an overview."""


def sample(scene: Scene, raster: Raster | None, thorough: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels (bands, n) spread over a scene, and their validity (n,).

    `raster` is the scene's one file, whose grid is used where the scene itself is resampled; None: several. At first
    sight an overview serves where there is one; `thorough` reads the pixels themselves, and more of them. A block is
    decoded once at most, and few of them.
    """
    source: Scene | Raster = scene if raster is None else raster
    if raster is not None and not thorough:
        small = raster.read_overview(_OVERVIEW_PX)
        if small is not None:
            step = -(-small[1].size // _MOST_PX) | 1  # odd, so that it walks through the columns
            return small[0].reshape(small[0].shape[0], -1)[:, ::step], small[1].ravel()[::step]
    places, budget, most_px = _BUDGETS[thorough]
    high, wide = source.block_px
    cost = high * wide * 8 * len(source.bands) if raster is None else raster.block_cost_bytes
    count = max(1, min(places * places, budget // max(1, cost)))
    down, across = -(-source.height // high), -(-source.width // wide)
    along = max(1, min(across, places, round(count**0.5)))
    rows = _spread(down, max(1, min(places * places // along, count // along)))
    if raster is not None and raster.sequential:
        # Rows of one long strip come in order only: the first ones must do.
        rows = rows[rows * raster.block_cost_bytes <= budget]
    parts_values, parts_valid = [], []
    for block_row in rows:
        for block_column in _spread(across, along):
            top, left = int(block_row) * high, int(block_column) * wide
            h, w = min(high, source.height - top), min(wide, source.width - left)
            take_h = min(h, max(1, most_px // min(w, 32)))
            take_w = min(w, max(1, most_px // take_h))
            values, valid = source.read(top + (h - take_h) // 2, left + (w - take_w) // 2, take_h, take_w)
            parts_values.append(values.reshape(len(values), -1))
            parts_valid.append(valid.ravel())
    return np.concatenate(parts_values, axis=1), np.concatenate(parts_valid)


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of 0 ... total - 1, evenly: the middles of as many parts."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)
