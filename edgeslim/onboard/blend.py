"""Blend: class probabilities of overlapping tiles, summed in one row band, handed on when no later window adds to them.

A window's weight is the product of its two axis weights, so a row of windows is first summed along the columns
(classes, width), then spread down its rows. Tiles that are skipped add neither value nor weight: what remains is
normalised by the weight that did arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.grid import Axis, AxisWindow

F32 = NDArray[np.float32]
LEAST_VALID = 0.5
"""Tiles with a smaller share of valid pixels are skipped."""


@dataclass(slots=True)
class Settled:
    """Rows that are finished."""

    row: int
    """First row."""
    probabilities: F32
    """(classes, rows, width), 0 where nothing is known."""
    known: NDArray[np.bool_]
    """(rows, width): valid pixel under at least one classified tile."""
    raw: F32
    """Raw band values (bands, rows, width) of the same rows, for the quicklook."""
    valid: NDArray[np.bool_]
    """(rows, width): valid pixel of the scene."""


def softmax(logits: F32) -> F32:
    """Probabilities (n, classes)."""
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: F32 = exponential / exponential.sum(axis=1, keepdims=True)
    return result


class TileRow:
    """The tiles of one row of windows: which to classify, and their pixels."""

    def __init__(self, raw: F32, valid: NDArray[np.bool_], columns: Axis, missing_rows: int) -> None:
        """`raw` (bands, h, width) and `valid` (h, width) are a row band; `missing_rows` are added by reflection."""
        self._raw, self._valid, self._columns, self._missing = raw, valid, columns, missing_rows
        per_column = np.concatenate([[0], np.cumsum(valid.sum(axis=0, dtype=np.int64))])
        shares = [
            (per_column[w.stop] - per_column[w.start]) / (raw.shape[1] * (w.stop - w.start)) for w in columns.windows
        ]
        self._full = [share == 1 for share in shares]
        self.taken = [i for i, share in enumerate(shares) if share >= LEAST_VALID]
        """Numbers of the windows to classify."""

    def batches(self, size: int) -> Iterator[tuple[list[int], F32]]:
        """Window numbers and tiles (n, bands, tile, tile), n <= size."""
        for first in range(0, len(self.taken), size):
            numbers = self.taken[first : first + size]
            yield numbers, np.stack([self._tile(i) for i in numbers])

    def _tile(self, number: int) -> F32:
        window = self._columns.windows[number]
        tile = self._raw[:, :, window.start : window.stop]
        if not self._full[number]:
            valid = self._valid[:, window.start : window.stop]
            # The band's own mean is the least remarkable value to put where nothing was seen.
            means = tile[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32)
            tile = np.where(valid, tile, means[:, None, None])
        if self._missing or self._columns.missing_px:
            pad = ((0, 0), (0, self._missing), (0, self._columns.missing_px))
            tile = np.pad(tile, pad, mode="reflect")
        return tile


class Blender:
    """Sums rows of windows and yields finished rows in order."""

    def __init__(self, rows: Axis, columns: Axis, classes: int) -> None:
        """Memory: (classes + 1) * tile * width float32."""
        self._rows, self._columns, self._classes = rows, columns, classes
        depth = min(rows.tile_px, rows.size)
        self._sum = np.zeros((classes, depth, columns.size), np.float32)
        self._weight = np.zeros((depth, columns.size), np.float32)
        self._row = 0

    def add_row(
        self,
        index: int,
        raw: F32,
        valid: NDArray[np.bool_],
        infer: Callable[[F32], F32],
        batch: int,
    ) -> tuple[Settled, int, int]:
        """Classify window row `index`; `raw` and `valid` are its rows [start, stop).

        Returns the rows that it settles, and how many tiles were classified and skipped.
        """
        window = self._rows.windows[index]
        tiles = TileRow(raw, valid, self._columns, self._rows.missing_px)
        line = np.zeros((self._classes, self._columns.size), np.float32)
        line_weight = np.zeros(self._columns.size, np.float32)
        for numbers, pixels in tiles.batches(batch):
            for number, probabilities in zip(numbers, softmax(infer(pixels)), strict=True):
                column = self._columns.windows[number]
                weights = self._columns.weights(column)
                line[:, column.fill_start : column.fill_stop] += probabilities[:, None] * weights
                line_weight[column.fill_start : column.fill_stop] += weights
        self._spread(window, line, line_weight)
        settled = self._settle(window, self._rows.settled(index), raw, valid)
        return settled, len(tiles.taken), len(self._columns.windows) - len(tiles.taken)

    def _spread(self, window: AxisWindow, line: F32, line_weight: F32) -> None:
        weights = self._rows.weights(window)[:, None]
        here = slice(window.fill_start - self._row, window.fill_stop - self._row)
        for total, values in zip(self._sum, line, strict=True):  # by class: the temporary stays small
            total[here] += weights * values
        self._weight[here] += weights * line_weight

    def _settle(self, window: AxisWindow, stop: int, raw: F32, valid: NDArray[np.bool_]) -> Settled:
        count = stop - self._row
        source = slice(self._row - window.start, stop - window.start)
        weight = self._weight[:count]
        known = (weight > 0) & valid[source]
        divisor: F32 = np.where(weight > 0, weight, np.ones_like(weight))
        probabilities: F32 = self._sum[:, :count] / divisor
        settled = Settled(self._row, probabilities, known, raw[:, source], valid[source])
        for array in (*self._sum, self._weight):
            array[: array.shape[0] - count] = array[count:].copy()
            array[array.shape[0] - count :] = 0
        self._row = stop
        return settled
