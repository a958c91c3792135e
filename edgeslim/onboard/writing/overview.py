"""Overviews: half the rows and columns of a map; class codes are never averaged, nodata never wins over a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.writing.maps import NODATA

U8 = NDArray[np.uint8]


def _all_known(rows: U8) -> U8 | None:
    """Rows without nodata, odd edges filled up with themselves, which counts each of two pixels twice; or None."""
    if int(rows.max(initial=0)) == NODATA:
        return None
    height, width = rows.shape[1:]
    return np.pad(rows, ((0, 0), (0, height % 2), (0, width % 2)), "edge") if height % 2 or width % 2 else rows


def _in_pairs(rows: U8) -> bool:
    """Whether each row is the same as its neighbour: windows side by side make many such."""
    return np.array_equal(rows[:, ::2], rows[:, 1::2])


def _quarters(rows: U8) -> list[U8]:
    """The four pixels (each (bands, h, w)) under every overview pixel; odd edges are filled up with nodata."""
    height, width = rows.shape[1:]
    if height % 2 or width % 2:
        rows = np.pad(rows, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=NODATA)
    return [np.ascontiguousarray(rows[:, i::2, j::2]) for i in (0, 1) for j in (0, 1)]


def most_frequent(rows: U8) -> U8:
    """(bands, ceil(h / 2), ceil(w / 2)) of (bands, h, w): the most frequent known value of each four.

    Among equally frequent ones the first in reading order; 255 where none is known.
    """
    known = _all_known(rows)
    if known is not None and _in_pairs(known):
        return np.ascontiguousarray(known[:, ::2, ::2])  # two of each: the first wins
    a, b, c, d = _quarters(rows if known is None else known)
    if known is not None:
        # Either the first value has a twin, or a pair among the others outvotes it, or all are different.
        outvoted = ((b == c) | (b == d) | (c == d)) & (a != b) & (a != c) & (a != d)
        if not outvoted.any():
            return a
        return np.where(outvoted, np.where(c == d, c, b), a)
    twin = (a != NODATA) & ((a == b) | (a == c) | (a == d))
    first = a
    for other in (b, c, d):
        first = np.where(first == NODATA, other, first)
    b_twin = ((b == c) | (b == d)) & (b != NODATA)
    later = np.where(b_twin, b, np.where((c == d) & (c != NODATA), c, first))
    return np.where(twin, a, later)


def mean_known(rows: U8) -> U8:
    """(bands, ceil(h / 2), ceil(w / 2)) of (bands, h, w): the mean of the known ones of each four, halves up."""
    whole = _all_known(rows)
    if whole is not None:
        if _in_pairs(whole):
            left, right = whole[:, ::2, ::2], whole[:, ::2, 1::2]
            return (left | right) - ((left ^ right) >> 1)  # (left + right + 1) // 2 without a carry
        pairs = whole[:, ::2].astype(np.uint16)
        pairs += whole[:, 1::2]
        total = pairs[:, :, ::2] + pairs[:, :, 1::2]
        total += 2
        total >>= 2
        return total.astype(np.uint8)
    quarters = _quarters(rows)
    known = np.zeros(quarters[0].shape, np.uint16)
    total = known.copy()
    for quarter in quarters:
        here = quarter != NODATA
        known += here
        total += quarter * here
    mean = (2 * total + known) // np.maximum(2 * known, 1)
    return np.where(known > 0, mean, NODATA).astype(np.uint8)
