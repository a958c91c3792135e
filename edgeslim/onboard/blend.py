"""Blend: class probabilities of windows into finished rows of pixels and cells.

A window's weight is the product of its two axis weights, so a row of windows is first summed along the columns into a
line (classes, width), and a pixel row is a sum of few lines. Regular windows lie on the stride, so lines and rows are
summed stride by stride, all windows at once. Windows that were skipped add neither value nor weight: what remains is
normalised by the weight that did arrive. Nothing here grows with the height of the scene.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.grid import Axis
from edgeslim.onboard.writing.maps import NODATA, PROBABILITY_ONE, MapRows

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
_COLUMNS = 2048
"""Columns that are blended at once: what is computed for them stays in the processor's cache."""


@dataclass(slots=True)
class CellRows:
    """A finished row of cells of one stride each."""

    row: int
    """Number of the row of cells."""
    probabilities: F32
    """(classes, cells): mean over the known pixels of each cell; 0 where none is known."""
    known: F32
    """(cells,): share of each cell's pixels that is known."""


@dataclass(slots=True)
class _Line:
    index: int
    values: F32
    """(classes, width), weighted by column."""
    weight: F32
    """(width,)."""


def softmax(logits: F32) -> F32:
    """Probabilities (n, classes)."""
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: F32 = exponential / exponential.sum(axis=1, keepdims=True)
    return result


def decide(probabilities: F32, known: NDArray[np.bool_]) -> tuple[U8, U8]:
    """Class and confidence in percent, both (n,), of probabilities (classes, n)."""
    best = np.where(known, probabilities.argmax(axis=0), NODATA).astype(np.uint8)
    percent = np.where(known, np.rint(probabilities.max(axis=0) * 100), NODATA).astype(np.uint8)
    return best, percent


class Blender:
    """Takes rows of windows in order and hands on finished rows of pixels and cells.

    Rows that are the same all the way down are handed on as read-only views of one row.
    """

    def __init__(
        self,
        rows: Axis,
        columns: Axis,
        classes: int,
        on_pixels: Callable[[MapRows], None] | None,
        on_cells: Callable[[CellRows], None] | None,
        probabilities: bool = False,
    ) -> None:
        """Rows are computed for the callbacks that are given; `probabilities` asks for those of every class."""
        self._rows, self._columns, self._classes = rows, columns, classes
        self._on_pixels, self._on_cells, self._wanted = on_pixels, on_cells, probabilities
        self._overlap = -(-rows.tile_px // rows.stride_px)
        self._steps = self._weights_by_step(rows), self._weights_by_step(columns)
        self._lines: deque[_Line] = deque(maxlen=self._overlap)
        self._row = 0
        self._valid = _ValidRows(columns.size)
        self._cells = _CellSums(rows, columns, classes) if on_cells else None

    @staticmethod
    def _weights_by_step(axis: Axis) -> F32:
        """The triangle cut into strides, (overlap, stride), 0 behind its end."""
        steps = np.zeros((-(-axis.tile_px // axis.stride_px), axis.stride_px), np.float32)
        steps.reshape(-1)[: axis.tile_px] = axis.triangle
        return steps

    def add_valid(self, count: int, packed: U8 | None) -> None:
        """Validity of the next `count` rows: bits (count, ceil(width / 8)) as numpy.packbits gives; None: all valid."""
        self._valid.add(count, packed)

    def add_windows(self, index: int, probabilities: F32, taken: NDArray[np.bool_]) -> None:
        """Window row `index`: probabilities (windows, classes), read where `taken` (windows,)."""
        self._lines.append(self._line(index, probabilities, taken))
        stop = self._rows.settled(index)
        while self._row < stop:
            self._emit(stop)

    def _line(self, index: int, probabilities: F32, taken: NDArray[np.bool_]) -> _Line:
        axis, stride = self._columns, self._columns.stride_px
        regular = axis.windows.regular
        strides = regular + self._overlap
        width = max(strides * stride, axis.size)
        values = np.zeros((self._classes, width), np.float32)
        weight = np.zeros(width, np.float32)
        if regular:
            chances = np.where(taken[:regular], probabilities[:regular].T, np.float32(0))
            there = taken[:regular].astype(np.float32)
            planes, plane = (
                a[..., : strides * stride].reshape(*a.shape[:-1], strides, stride) for a in (values, weight)
            )
            for step, triangle in enumerate(self._steps[1]):
                planes[:, step : step + regular] += chances[:, :, None] * triangle
                plane[step : step + regular] += there[:, None] * triangle
        values, weight = values[:, : axis.size], weight[: axis.size]
        if len(axis.windows) > regular:
            fill = axis.windows[regular].fill_start
            values[:, fill:] = probabilities[regular][:, None] if taken[regular] else 0
            weight[fill:] = taken[regular]
        return _Line(index, values, weight)

    def _emit(self, stop: int) -> None:
        """Finish the next rows: at most one stride, at most up to `stop`."""
        axis, stride, first = self._rows, self._rows.stride_px, self._row
        regular = axis.windows.regular
        covered = axis.windows[regular - 1].stop if regular else 0
        number = first // stride
        last = min((number + 1) * stride, stop)
        parts: list[tuple[_Line, F32]] = []
        if first >= covered:  # the pulled-back window answers for what is left, alone
            parts.append((self._lines[-1], np.ones(last - first, np.float32)))
        else:
            last = min(last, covered)
            for line in self._lines:
                step = number - line.index
                if 0 <= step < self._overlap and line.index < regular:
                    weights = self._steps[0][step, : last - first]
                    if weights.any():
                        parts.append((line, weights))
        valid = self._valid.take(first, last)
        if len(parts) == 1 and parts[0][1].all():
            self._emit_one(first, last, parts[0][0], valid)
        else:
            self._emit_blended(first, last, parts, valid)
        self._row = last

    def _emit_one(self, first: int, last: int, line: _Line, valid: NDArray[np.bool_] | None) -> None:
        """Rows that one line answers for: every row is the same, but for what is invalid."""
        seen = line.weight > 0
        chances = np.divide(line.values, line.weight, out=np.zeros_like(line.values), where=seen)
        shape = (last - first, self._columns.size)
        if self._on_pixels:
            best, percent = decide(chances, seen)
            every = np.rint(chances * PROBABILITY_ONE).astype(np.uint8) if self._wanted else None
            if every is not None:
                every[:, ~seen] = NODATA
            if valid is None:
                rows = (np.broadcast_to(best, shape), np.broadcast_to(percent, shape))
                planes = None if every is None else np.broadcast_to(every[:, None], (self._classes, *shape))
            else:
                struck = valid.view(np.uint8) - np.uint8(1)  # 0, or 255 where invalid: less work than np.where
                planes = None if every is None else every[:, None] | struck
                rows = (best | struck, np.bitwise_or(percent, struck, out=struck))
            self._on_pixels(MapRows(first, *rows, planes))
        if self._cells and self._on_cells:
            count = np.full(shape[1], shape[0]) if valid is None else valid.sum(axis=0)
            count = np.where(seen, count, 0)
            self._cells.add(first, last, chances * count.astype(np.float32), count, self._on_cells)

    def _emit_blended(
        self, first: int, last: int, parts: list[tuple[_Line, F32]], valid: NDArray[np.bool_] | None
    ) -> None:
        """Rows that several lines share. Classes are compared before they are normalised: the winner is the same."""
        height, width = last - first, self._columns.size
        best, percent = (np.empty((height, width), np.uint8) for _ in range(2))
        every = np.empty((self._classes, height, width), np.uint8) if self._wanted else None
        summed = np.zeros((self._classes, width), np.float32)
        counts = np.zeros(width, np.int64)
        weights = [column[:, None] for _, column in parts]
        for left in range(0, width, _COLUMNS):
            here = slice(left, min(left + _COLUMNS, width))
            plane, scratch, norm = (np.empty((height, here.stop - left), np.float32) for _ in range(3))
            _weigh([line.weight[here] for line, _ in parts], weights, norm, scratch)
            known = norm > 0 if valid is None else (norm > 0) & valid[:, here]
            whole = bool(known.all())
            share = np.divide(np.float32(1), norm, out=np.zeros_like(norm), where=known)
            top, index = np.zeros_like(plane), np.zeros(plane.shape, np.uint8)
            for number in range(self._classes):
                _weigh([line.values[number, here] for line, _ in parts], weights, plane, scratch)
                np.copyto(index, np.uint8(number), where=plane > top)
                np.maximum(top, plane, out=top)
                if self._cells:
                    summed[number, here] = np.einsum("yx,yx->x", plane, share)
                if every is not None:
                    every[number, :, here] = np.rint(np.minimum(plane * share, np.float32(1)) * PROBABILITY_ONE)
            np.multiply(top, share, out=top)
            np.multiply(top, np.float32(100), out=top)
            percent[:, here] = np.rint(top, out=top)
            best[:, here] = index
            if not whole:
                best[:, here][~known] = NODATA
                percent[:, here][~known] = NODATA
                if every is not None:
                    every[:, :, here][:, ~known] = NODATA
            counts[here] = height if whole else known.sum(axis=0)
        if self._on_pixels:
            self._on_pixels(MapRows(first, best, percent, every))
        if self._cells and self._on_cells:
            self._cells.add(first, last, summed, counts, self._on_cells)


def _weigh(rows: list[F32], weights: list[F32], out: F32, scratch: F32) -> None:
    """Out (height, width) = sum of rows (width,) times weights (height, 1)."""
    np.multiply(rows[0], weights[0], out=out)
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        np.multiply(row, weight, out=scratch)
        np.add(out, scratch, out=out)


class _ValidRows:
    """Validity of rows that are not finished yet, as bits."""

    def __init__(self, width: int) -> None:
        self._width, self._stop = width, 0
        self._parts: deque[tuple[int, int, U8 | None]] = deque()

    def add(self, count: int, packed: U8 | None) -> None:
        self._parts.append((self._stop, self._stop + count, packed))
        self._stop += count

    def take(self, first: int, last: int) -> NDArray[np.bool_] | None:
        """(rows, width) of rows [first, last), None where all are valid. Rows before `last` are forgotten."""
        found: list[NDArray[np.bool_]] = []
        whole = True
        for start, stop, packed in self._parts:
            low, high = max(first, start), min(last, stop)
            if low >= high:
                continue
            if packed is None:
                found.append(np.broadcast_to(np.True_, (high - low, self._width)))
            else:
                bits = np.unpackbits(packed[low - start : high - start], axis=1, count=self._width)
                found.append(bits.view(np.bool_))
                whole = False
        while self._parts and self._parts[0][1] <= last:
            self._parts.popleft()
        if whole:
            return None
        return found[0] if len(found) == 1 else np.concatenate(found)


class _CellSums:
    """Sums probabilities of known pixels by cell; a cell is done when its last row of pixels is."""

    def __init__(self, rows: Axis, columns: Axis, classes: int) -> None:
        self._size, self._step, self._width = rows.size, rows.stride_px, columns.size
        self._edges = np.arange(0, columns.size, columns.stride_px)
        self._sum = np.zeros((classes, columns.cells), np.float64)
        self._count = np.zeros(columns.cells, np.int64)

    def add(
        self, first: int, last: int, summed: F32, counts: NDArray[np.int64], done: Callable[[CellRows], None]
    ) -> None:
        """Rows [first, last), all of one row of cells: sums (classes, width) and counts (width,) of known pixels."""
        self._sum += np.add.reduceat(summed, self._edges, axis=1, dtype=np.float64)
        self._count += np.add.reduceat(counts, self._edges)
        number = first // self._step
        end = min((number + 1) * self._step, self._size)
        if last < end:
            return
        pixels = np.diff(self._edges, append=self._width) * (end - number * self._step)
        mean = self._sum / np.maximum(self._count, 1)
        done(CellRows(number, mean.astype(np.float32), (self._count / pixels).astype(np.float32)))
        self._sum[:] = 0
        self._count[:] = 0
