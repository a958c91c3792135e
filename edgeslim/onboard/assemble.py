"""Assemble: results of chunks, in order, into everything that is delivered. The journal holds just these results."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.onboard.blend import Blender, CellRows, softmax
from edgeslim.onboard.chunks import Chunk, ChunkPlan
from edgeslim.onboard.known import LIMIT
from edgeslim.onboard.writing.maps import MapRows
from edgeslim.onboard.writing.thumbnail import Thumbnail

F32 = NDArray[np.float32]
_HEAD = struct.Struct("<IIII")
_FAST = 1
"""zlib level: masks shrink by a lot at any."""


@dataclass(slots=True)
class ChunkResult:
    """All that is kept of a finished chunk."""

    number: int
    """Of the chunk."""
    taken: NDArray[np.bool_]
    """(window rows, window columns): classified, not skipped."""
    logits: F32
    """(classified windows, classes), row by row, as the network gave them."""
    valid: NDArray[np.uint8] | None
    """Validity of the new pixels as bits (rows, ceil(columns / 8)); None: all valid."""
    box_sums: F32
    """(channels, box rows, box columns): what the chunk adds to the thumbnail."""
    box_counts: NDArray[np.uint32]
    """(box rows, box columns): from how many pixels."""

    def to_bytes(self) -> bytes:
        """As a journal keeps it."""
        parts = [
            np.packbits(self.taken).tobytes(),
            b"" if self.valid is None else zlib.compress(self.valid.tobytes(), _FAST),
            self.box_sums.tobytes() + self.box_counts.tobytes(),
        ]
        head = _HEAD.pack(self.number, *(len(part) for part in parts))
        return b"".join([head, *parts, np.ascontiguousarray(self.logits, np.float32).tobytes()])

    @staticmethod
    def from_bytes(data: bytes, plan: ChunkPlan, thumbnail: Thumbnail, classes: int) -> ChunkResult:
        """Read it back. Raises InputError where it is not a chunk of this plan."""
        try:
            number, *lengths = _HEAD.unpack_from(data)
            rows, columns = plan.spans(number)
            ends = np.cumsum([_HEAD.size, *lengths])
            packed, masked, sums = (data[a:b] for a, b in pairwise(ends))
            taken, boxes = (np.frombuffer(part, np.uint8) for part in (packed, sums))
            valid = np.frombuffer(zlib.decompress(masked) if masked else b"", np.uint8)
            shape = (rows.last - rows.first, columns.last - columns.first)
            flags = np.unpackbits(taken, count=shape[0] * shape[1]).view(np.bool_).reshape(shape)
            box_rows, box_columns = thumbnail.boxes(rows, columns)
            boxes_shape = (len(box_rows), len(box_columns))
            count = boxes_shape[0] * boxes_shape[1]
            bits = -(-(columns.stop - columns.start) // 8)
            return ChunkResult(
                number,
                flags,
                np.frombuffer(data[ends[-1] :], np.float32).reshape(int(flags.sum()), classes),
                valid.reshape(rows.stop - rows.start, bits) if valid.size else None,
                boxes[: -4 * count or None].view(np.float32).reshape(-1, *boxes_shape),
                boxes[len(boxes) - 4 * count :].view(np.uint32).reshape(boxes_shape),
            )
        except (struct.error, zlib.error, ValueError):
            raise InputError("journal: a chunk does not fit this run; start anew with --overwrite") from None


def result_of(chunk: Chunk, logits: F32, thumbnail: Thumbnail) -> ChunkResult:
    """The result of a chunk whose classified windows have these logits."""
    valid = chunk.new_valid
    sums, counts = thumbnail.sums_of(chunk)
    packed = None if valid is None else np.packbits(valid, axis=1)
    return ChunkResult(chunk.number, chunk.taken, logits, packed, sums, counts)


class Assembler:
    """Takes chunk results in order; hands on finished rows."""

    def __init__(
        self,
        plan: ChunkPlan,
        classes: int,
        thumbnail: Thumbnail,
        log_odds: F32 | None,
        on_pixels: Callable[[MapRows], None] | None,
        on_cells: Callable[[CellRows], None] | None,
        probabilities: bool,
        tells_unknown: bool = False,
    ) -> None:
        """`log_odds` are added to logits: how frequent classes are taken to be.

        `tells_unknown`: the last of `classes` is no class, and in its column of logits stand distances, by which
        windows are unknown (edgeslim.onboard.known).
        """
        self._plan, self._classes, self._log_odds = plan, classes, log_odds
        self._thumbnail = thumbnail
        self._blender = Blender(plan.rows, plan.columns, classes, on_pixels, on_cells, probabilities)
        self.classified = self.skipped = 0
        """Tiles so far."""
        self.unknown: int | None = 0 if tells_unknown else None
        """Of those classified, called unknown."""
        self._band: list[ChunkResult] = []

    def add(self, result: ChunkResult) -> bool:
        """The next chunk; True where it completes a row of chunks."""
        self.classified += len(result.logits)
        self.skipped += result.taken.size - len(result.logits)
        self._thumbnail.add_sums(*self._plan.spans(result.number), result.box_sums, result.box_counts)
        self._band.append(result)
        if len(self._band) < self._plan.across:
            return False
        self._finish_band()
        self._band = []
        return True

    def _finish_band(self) -> None:
        span = self._plan.spans(self._band[0].number)[0]
        self._blender.add_valid(span.stop - span.start, self._valid_bits(span.stop - span.start))
        if span.last == span.first:
            return
        columns = len(self._plan.columns.windows)
        taken = np.concatenate([r.taken for r in self._band], axis=1)
        chances = np.zeros((span.last - span.first, columns, self._classes), np.float32)
        start = 0
        for result in self._band:
            stop = start + result.taken.shape[1]
            if len(result.logits):
                chances[:, start:stop][result.taken] = self._chances(result.logits)
            start = stop
        for row in range(span.last - span.first):
            self._blender.add_windows(span.first + row, chances[row], taken[row])

    def _chances(self, logits: F32) -> F32:
        """Probabilities (n, classes) of windows; an unknown one is nothing but unknown."""
        if self.unknown is None:
            return softmax(logits if self._log_odds is None else logits + self._log_odds)
        known = logits[:, :-1] if self._log_odds is None else logits[:, :-1] + self._log_odds
        beyond = logits[:, -1] > LIMIT
        self.unknown += int(beyond.sum())
        chances = np.zeros_like(logits)
        chances[:, :-1] = softmax(known)
        chances[beyond] = 0
        chances[beyond, -1] = 1
        return chances

    def _valid_bits(self, height: int) -> NDArray[np.uint8] | None:
        """Validity of the band's rows over the whole width, as bits; None: all valid."""
        if all(r.valid is None for r in self._band):
            return None
        bits = np.empty((height, -(-self._plan.columns.size // 8)), np.uint8)
        at = 0
        for result in self._band:  # chunks begin at whole bytes
            span = self._plan.spans(result.number)[1]
            count = -(-(span.stop - span.start) // 8)
            bits[:, at : at + count] = 255 if result.valid is None else result.valid
            at += count
        return bits
