"""Thumbnail: box means of the scene and samples of the class map, gathered chunk by chunk in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.grid import Span
from edgeslim.onboard.chunks import Chunk
from edgeslim.onboard.writing.maps import NODATA
from edgeslim.onboard.writing.style import rgb_of
from edgeslim.profile import Band, ClassLabel
from edgeslim.scene_buffers import STACKED_FROM, panel_size, panel_step

U8 = NDArray[np.uint8]
EMPTY_RGB = (228, 230, 232)
"""Where nothing is known."""


class Thumbnail:
    """The two panels of a quicklook."""

    def __init__(self, size: tuple[int, int], map_size: tuple[int, int], bands: Sequence[Band]) -> None:
        """`size` and `map_size` are (height, width) of the scene and of the class raster."""
        height, width = size
        self.stacked = width > STACKED_FROM * height
        self.panel = panel_size(height, width)
        names = [b.common_name for b in bands]
        colour = all(c in names for c in ("red", "green", "blue"))
        self._channels = [names.index(c) for c in ("red", "green", "blue")] if colour else [0]
        self._size = size
        self._small = (min(self.panel[0], height), min(self.panel[1], width))
        self._step = panel_step(height, width)
        self._sum = np.zeros((len(self._channels), *self._small), np.float64)
        self._count = np.zeros(self._small, np.int64)
        small_map = tuple(min(p, m) for p, m in zip(self.panel, map_size, strict=True))
        self._map_rows, self._map_columns = (
            ((np.arange(s) + 0.5) * m / s).astype(int) for s, m in zip(small_map, map_size, strict=True)
        )
        self._map = np.full(small_map, NODATA, np.uint8)
        self._map_row = 0

    @property
    def channels(self) -> int:
        """3 for true colour, 1 for a grey picture of the first band."""
        return len(self._channels)

    def boxes(self, rows: Span, columns: Span) -> tuple[range, range]:
        """Rows and columns of the boxes that the new pixels of a chunk fall into."""
        return self._boxes(0, rows), self._boxes(1, columns)

    def _boxes(self, axis: int, span: Span) -> range:
        small, size = self._small[axis], self._size[axis]
        return range(span.start * small // size, (span.stop - 1) * small // size + 1)

    def sums_of(self, chunk: Chunk) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """What a chunk adds: sums (channels, box rows, box columns) of valid pixels, and how many there were.

        Only every `step`-th pixel each way is looked at: a box has at least 4 of them, or all that it has.
        """
        spans = (chunk.rows, chunk.columns)
        boxes = self.boxes(*spans)
        sums = np.zeros((self.channels, len(boxes[0]), len(boxes[1])), np.float32)
        counts = np.zeros(sums.shape[1:], np.uint32)
        rows, columns = (slice(-(-s.start // self._step) * self._step, s.stop, self._step) for s in spans)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return sums, counts
        raw, valid = chunk.raw(rows, columns)
        planes = raw[self._channels]
        seen = np.ones(planes.shape[1:], np.uint32) if valid is None else valid.astype(np.uint32)
        if valid is not None:
            planes[:, ~valid] = 0
        (row_edges, at_rows), (column_edges, at_columns) = (
            self._edges(0, spans[0], rows),
            self._edges(1, spans[1], columns),
        )
        planes = np.add.reduceat(np.add.reduceat(planes, row_edges, axis=1), column_edges, axis=2)
        sums[:, at_rows[:, None], at_columns] = planes
        counts[at_rows[:, None], at_columns] = np.add.reduceat(
            np.add.reduceat(seen, row_edges, axis=0), column_edges, axis=1
        )
        return sums, counts

    def _edges(self, axis: int, span: Span, picked: slice) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where the picked pixels pass into a new box, and the number of that box within the chunk's."""
        pixels = np.arange(picked.start, picked.stop, picked.step)
        box = pixels * self._small[axis] // self._size[axis]
        edges = np.flatnonzero(np.diff(box, prepend=-1))
        return edges, box[edges] - self._boxes(axis, span).start

    def add_sums(self, rows: Span, columns: Span, sums: NDArray[np.float32], counts: NDArray[np.uint32]) -> None:
        """Take in what `sums_of` found of a chunk."""
        y, x = (slice(r.start, r.stop) for r in self.boxes(rows, columns))
        self._sum[:, y, x] += sums
        self._count[y, x] += counts

    def add_map(self, classes: U8) -> None:
        """Take part in the next finished rows (n, width) of the class raster."""
        first, last = np.searchsorted(self._map_rows, [self._map_row, self._map_row + classes.shape[0]])
        picked = classes[self._map_rows[first:last] - self._map_row]
        self._map[first:last] = picked[:, self._map_columns]
        self._map_row += classes.shape[0]

    def scene_panel(self) -> U8:
        """(height, width, 3): true colour, one stretch for all channels so that hues stay."""
        known = self._count > 0
        image = np.broadcast_to(np.array(EMPTY_RGB, np.uint8), (*known.shape, 3)).copy()
        if known.any():
            # In single precision and plane by plane: the page must not need more memory than the maps did.
            means = np.zeros(self._sum.shape, np.float32)
            np.divide(self._sum, self._count, out=means, where=known, casting="same_kind")
            sample = np.concatenate([plane[known][::4] for plane in means])
            low, high = (float(v) for v in np.percentile(sample, [1, 98.5]))
            del sample
            for channel in range(3):
                grey = means[channel % len(means)][known]
                grey = np.clip((grey - low) / max(high - low, 1e-9), 0, 1) ** 0.8
                image[:, :, channel][known] = (grey * 255).astype(np.uint8)
        return _enlarge(image, self.panel)

    def map_panel(self, classes: Sequence[ClassLabel]) -> U8:
        """(height, width, 3): the class map in its colours."""
        colours = np.empty((256, 3), np.uint8)
        colours[:] = EMPTY_RGB
        for index, label in enumerate(classes):
            colours[index] = rgb_of(label.color)
        return _enlarge(colours[self._map], self.panel)


def _enlarge(image: U8, size: tuple[int, int]) -> U8:
    rows, columns = (np.arange(s) * i // s for s, i in zip(size, image.shape, strict=False))
    enlarged: U8 = image[rows][:, columns]
    return enlarged
