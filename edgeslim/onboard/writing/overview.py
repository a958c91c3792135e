"""Overviews: half the rows and columns of a map; class codes are never averaged, nodata never wins over a pixel."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.writing.maps import NODATA
from edgeslim.scene_buffers import RESULT_BLOCK

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


def only_value(part: U8) -> int:
    """The one value that a block holds, -1 where it holds more."""
    value = part[0, 0]
    # The first row tells most blocks of several values apart before all of it is looked at.
    return int(value) if (part[0] == value).all() and (part == value).all() else -1


def halve_by_runs(rows: U8, only: NDArray[np.int16], halve: Callable[[U8], U8]) -> U8:
    """`halve` of rows (bands, h, w), for which blocks side by side that hold one value need not be looked at again.

    `only` (bands, blocks): the one value of each block of a block row, negative where it holds more.
    """
    even = (only[0] >= 0) & (only == only[0]).all(axis=0)
    kinds = np.where(even, only[0], -1)
    starts = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist()]
    if len(starts) == 1 and not even[0]:
        return halve(rows)
    height = -(-rows.shape[1] // 2)
    parts = []
    for start, stop in pairwise([*starts, len(kinds)]):
        run = rows[:, :, start * RESULT_BLOCK : stop * RESULT_BLOCK]
        shape = (len(rows), height, -(-run.shape[2] // 2))
        parts.append(np.full(shape, kinds[start], np.uint8) if even[start] else halve(run))
    return np.concatenate(parts, axis=2)


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
