"""Chunks: a scene read block by block, each block once, with what the next windows still need carried over.

A chunk is a row span times a column span of new pixels. Its windows are those that end in it; they reach back over at
most tile - 1 rows and columns that were read before and are kept here, in the scene's own type. Memory is two chunks,
one strip of rows and one of columns, whatever the height of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.grid import Axis, Span
from edgeslim.onboard.reading.scene import Scene

F32 = NDArray[np.float32]
LEAST_VALID = 0.5
"""Tiles with a smaller share of valid pixels are skipped."""
_MOST_REFLECTANCE = 100.0
"""Of a pixel: the glint of the sun on water or glass stays far below."""


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How a scene is cut into chunks, row by row."""

    rows: Axis
    """Windows along the height."""
    columns: Axis
    """Windows along the width."""
    height_px: int
    """New pixel rows of a chunk; the last may have fewer."""
    width_px: int
    """New pixel columns of a chunk; the last may have fewer. A multiple of 8, so that validity bits fill bytes."""

    def __post_init__(self) -> None:
        if self.height_px < 1 or self.width_px < 8 or self.width_px % 8:
            raise InputError(
                f"chunk: found {self.height_px} x {self.width_px} px, expected at least 1 row and columns in eights"
            )

    @property
    def bands(self) -> int:
        """Rows of chunks."""
        return self.rows.spans(self.height_px)

    @property
    def across(self) -> int:
        """Chunks of a row."""
        return self.columns.spans(self.width_px)

    @property
    def count(self) -> int:
        """All chunks."""
        return self.bands * self.across

    @property
    def tiles(self) -> int:
        """All windows."""
        return len(self.rows.windows) * len(self.columns.windows)

    def spans(self, number: int) -> tuple[Span, Span]:
        """Rows and columns of chunk `number`."""
        band, across = divmod(number, self.across)
        return self.rows.span(band, self.height_px), self.columns.span(across, self.width_px)

    @property
    def kept_px(self) -> tuple[int, int]:
        """Most rows and columns that a chunk keeps of earlier ones."""
        return self.rows.kept_px(self.height_px), self.columns.kept_px(self.width_px)

    @property
    def largest_px(self) -> tuple[int, int]:
        """Rows and columns of the largest chunk with what it keeps of earlier ones."""
        down, across = self.kept_px
        return min(self.rows.size, self.height_px + down), min(self.columns.size, self.width_px + across)


class Chunk:
    """Pixels of one chunk and the windows that end in it. Read by many threads, written by none."""

    def __init__(
        self, number: int, spans: tuple[Span, Span], scene: Scene, plan: ChunkPlan, values: NDArray[Any], valid: Any
    ) -> None:
        """`values` (bands, h, w) in the scene's type and `valid` (h, w), or None where all are, from `keep` on."""
        self.number, self.rows, self.columns = number, *spans
        self._scene, self._plan, self.values, self.valid = scene, plan, values, valid
        self.across = self.columns.last - self.columns.first
        self._tops = self._starts(plan.rows, self.rows)
        self._lefts = self._starts(plan.columns, self.columns)
        shape = (len(self._tops), self.across)
        self._full = np.ones(shape, bool)
        self.taken = np.ones(shape, bool)
        """(window rows, window columns): whether to classify."""
        self._seen_px = min(plan.rows.tile_px, plan.rows.size), min(plan.columns.tile_px, plan.columns.size)
        if not self.taken.size:
            return
        self._under = sliding_window_view(values, self._seen_px, axis=(1, 2))
        """(bands, tops, lefts, h, w): the pixels under a window at every place, nothing copied."""
        if valid is not None:
            share = self._valid_shares(valid)
            self._full, self.taken = share == 1, share >= LEAST_VALID

    def _valid_shares(self, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Share of valid pixels of each window, summed one axis at a time."""
        height, width = self._seen_px
        by_row = np.stack([valid[top : top + height].sum(axis=0, dtype=np.int64) for top in self._tops])
        total = np.concatenate([np.zeros((len(by_row), 1), np.int64), by_row.cumsum(axis=1)], axis=1)
        lefts = np.array(self._lefts)
        shares: NDArray[np.float64] = (total[:, lefts + width] - total[:, lefts]) / (height * width)
        return shares

    @staticmethod
    def _starts(axis: Axis, span: Span) -> list[int]:
        return [axis.windows[i].start - span.keep for i in range(span.first, span.last)]

    def tiles(self, numbers: NDArray[np.intp], room: F32) -> F32:
        """Raw band values (n, bands, tile, tile) of windows, numbered row by row within the chunk.

        They are put into the first n of `room` (at least n, bands, tile, tile).
        """
        rows, columns = self._plan.rows, self._plan.columns
        height, width = self._seen_px
        tiles, at = room[: len(numbers)], 0
        for i, j, count in self._side_by_side(numbers.tolist()):
            left, last = self._lefts[j], self._lefts[j + count - 1]
            under = self._under[:, self._tops[i], left : last + 1 : columns.stride_px].swapaxes(0, 1)
            some = tiles[at : at + count, :, :height, :width]
            self._scene.to_raw(under, some)
            for k in np.flatnonzero(~self._full[i, j : j + count]).tolist():
                self._fill(i, j + k, some[k])
            at += count
        if rows.missing_px or columns.missing_px:
            pad = ((0, 0), (0, 0), (0, rows.missing_px), (0, columns.missing_px))
            tiles[:] = np.pad(tiles[:, :, :height, :width], pad, mode="reflect")
        return tiles

    def _side_by_side(self, numbers: list[int]) -> Iterator[tuple[int, int, int]]:
        """Windows one stride apart in a row are cut in one step: (window row, first window column, how many)."""
        stride, start = self._plan.columns.stride_px, 0
        for at in range(1, len(numbers) + 1):
            i, j = divmod(numbers[at - 1], self.across)
            if (
                at == len(numbers)
                or numbers[at] != numbers[at - 1] + 1
                or j + 1 == self.across
                or self._lefts[j + 1] - self._lefts[j] != stride
            ):
                yield i, j - (at - 1 - start), at - start
                start = at

    def _fill(self, i: int, j: int, raw: F32) -> None:
        """Put the band's own mean where nothing was seen: the least remarkable value there is."""
        (height, width), top, left = self._seen_px, self._tops[i], self._lefts[j]
        valid = self.valid[top : top + height, left : left + width]
        means = raw[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32)
        np.copyto(raw, means[:, None, None], where=~valid)

    def require_earthly(self, numbers: NDArray[np.intp]) -> None:
        """Raise InputError where a valid pixel under these windows holds what nothing on Earth reflects.

        Asked only once the network's answers are out of range, to tell a fault of the scene from one of the network.
        """
        height, width = self._seen_px
        radiometry = self._scene.radiometry
        for number in numbers.tolist():
            i, j = divmod(number, self.across)
            here = np.s_[self._tops[i] : self._tops[i] + height, self._lefts[j] : self._lefts[j] + width]
            stored = self.values[:, here[0], here[1]]
            reflectance = self._scene.to_raw(stored).astype(np.float64) * radiometry.scale + radiometry.offset
            if self.valid is not None:
                reflectance[:, ~self.valid[here]] = 0
            at = np.unravel_index(int(np.abs(reflectance).argmax()), reflectance.shape)
            if not abs(reflectance[at]) <= _MOST_REFLECTANCE:
                row, column = self.rows.keep + self._tops[i] + at[1], self.columns.keep + self._lefts[j] + at[2]
                raise InputError(
                    f"{self._scene.path}: found {stored[at]:g} at row {row}, column {column}, which as reflectance is "
                    f"{reflectance[at]:.3g}, expected at most {_MOST_REFLECTANCE:g}; if it stands for no data, say so "
                    f"with gdal_edit -a_nodata {stored[at]:g}, or else check --scale"
                )

    def raw(self, rows: slice, columns: slice) -> tuple[F32, NDArray[np.bool_] | None]:
        """Raw band values (bands, h, w) and validity (h, w), or None where all are valid, of pixels of the scene."""
        here = np.s_[
            rows.start - self.rows.keep : rows.stop - self.rows.keep : rows.step,
            columns.start - self.columns.keep : columns.stop - self.columns.keep : columns.step,
        ]
        return self._scene.to_raw(self.values[:, here[0], here[1]]), None if self.valid is None else self.valid[here]

    @property
    def new_valid(self) -> NDArray[np.bool_] | None:
        """Validity (h, w) of the new pixels, None where all are valid."""
        if self.valid is None:
            return None
        new: NDArray[np.bool_] = self.valid[
            self.rows.start - self.rows.keep :, self.columns.start - self.columns.keep :
        ]
        return None if new.all() else new


class ChunkReader:
    """Reads chunks in order into two buffers by turns. Used by one thread."""

    def __init__(self, scene: Scene, plan: ChunkPlan, first: int) -> None:
        """Begin at chunk `first`: what earlier chunks would have left is read again."""
        self._scene, self._plan, self._first = scene, plan, first
        bands, height, width = len(scene.bands), *plan.largest_px
        down, across = plan.kept_px
        dtype = np.dtype(scene.dtype)
        self._buffers = [np.empty(bands * height * width, dtype) for _ in range(2)]
        self._above = np.empty((bands, down, plan.columns.size), dtype)
        self._left = np.empty((bands, height, across), dtype)
        self._masked = not scene.always_valid
        if self._masked:
            self._masks = [np.empty(height * width, bool) for _ in range(2)]
            self._mask_above = np.empty(self._above.shape[1:], bool)
            self._mask_left = np.empty(self._left.shape[1:], bool)

    def read(self, number: int) -> Chunk:
        """The next chunk. The buffer of the chunk before the last is used again. Raises InputError on damage."""
        rows, columns = self._plan.spans(number)
        band, across = divmod(number, self._plan.across)
        first_band, first_across = divmod(self._first, self._plan.across)
        top, left = rows.start - rows.keep, columns.start - columns.keep
        shape = (rows.stop - rows.keep, columns.stop - columns.keep)
        values = self._buffers[number % 2][: len(self._scene.bands) * shape[0] * shape[1]]
        values = values.reshape(-1, *shape)
        valid = self._masks[number % 2][: shape[0] * shape[1]].reshape(shape) if self._masked else None
        # The first chunk lacks its left side; until a whole row of chunks was read, what lies above is lacking too.
        fresh_top = top > 0 and (band == first_band or (band == first_band + 1 and across < first_across))
        fresh_left = left > 0 and number == self._first
        row, column = rows.keep if fresh_top else rows.start, columns.keep if fresh_left else columns.start
        inner = np.s_[row - rows.keep :, column - columns.keep :]
        new = values[:, inner[0], inner[1]]
        _, seen = self._scene.read(row, column, rows.stop - row, columns.stop - column, new)
        if not fresh_top:
            values[:, :top, column - columns.keep :] = self._above[:, :top, column : columns.stop]
        if not fresh_left:
            values[:, :, :left] = self._left[:, : shape[0], :left]
        if valid is not None:
            valid[inner] = seen
            if not fresh_top:
                valid[:top, column - columns.keep :] = self._mask_above[:top, column : columns.stop]
            if not fresh_left:
                valid[:, :left] = self._mask_left[: shape[0], :left]
        self._keep(band, across, rows, columns, values, valid)
        if valid is not None and valid.all():
            valid = None
        return Chunk(number, (rows, columns), self._scene, self._plan, values, valid)

    def _keep(self, band: int, across: int, rows: Span, columns: Span, values: NDArray[Any], valid: Any) -> None:
        """Carry over what the chunk to the right and the one below need."""
        if across + 1 < self._plan.across:
            following = self._plan.columns.span(across + 1, self._plan.width_px)
            source = following.keep - columns.keep
            count = following.start - following.keep
            self._left[:, : values.shape[1], :count] = values[:, :, source:]
            if valid is not None:
                self._mask_left[: values.shape[1], :count] = valid[:, source:]
        if band + 1 < self._plan.bands:
            below = self._plan.rows.span(band + 1, self._plan.height_px)
            source, new = below.keep - rows.keep, columns.start - columns.keep
            count = below.start - below.keep
            self._above[:, :count, columns.start : columns.stop] = values[:, source:, new:]
            if valid is not None:
                self._mask_above[:count, columns.start : columns.stop] = valid[source:, new:]
