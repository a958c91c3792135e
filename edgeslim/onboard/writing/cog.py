"""COG: rows into a cloud-optimised GeoTIFF, compressed and thinned as they come, laid out at the end.

GDAL's COG driver wants the whole raster on disk first and decodes it twice more. Here every block is compressed once,
when its rows are complete, and kept in a nameless file; overviews grow beside it. At the end the blocks are copied
behind directories that GDAL itself wrote for a raster of these tags (`layer.py`), in the driver's order: directories
from large to small, then blocks from small to large, each between its size and its last bytes
(https://gdal.org/en/stable/drivers/raster/cog.html#file-format-details).
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.onboard.writing.maps import NODATA
from edgeslim.onboard.writing.overview import halve_by_runs, only_value
from edgeslim.onboard.writing.spool import close_quietly, open_spool
from edgeslim.onboard.writing.tiff import (
    CLASSIC_LIMIT,
    IMAGE_LENGTH,
    IMAGE_WIDTH,
    NEW_SUBFILE_TYPE,
    TILE_BYTE_COUNTS,
    TILE_OFFSETS,
    Directory,
    array_tag,
    directory_bytes,
    header,
    long_tag,
    pack_directory,
)
from edgeslim.scene_buffers import RESULT_BLOCK, halved_rows, level_sizes

U8 = NDArray[np.uint8]
_LEVEL = 1
"""Of zlib. Level 6 costs three to five times the time of level 1 for a quarter to a half of the size."""
_LEADER = _TRAILER = 4
_STRUCTURE = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_STRUCTURE) + _STRUCTURE
"""Tells readers how the blocks lie, so that they fetch size and pixels at once."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one raster is thinned and compressed."""

    halve: Callable[[U8], U8]
    """(bands, h, w) -> (bands, ceil(h / 2), ceil(w / 2))."""
    differences: bool
    """TIFF predictor 2: each pixel minus its left neighbour; shortens smooth rasters, not codes."""


class _Level:
    """One resolution: the rows that wait for their blocks, and where finished blocks lie."""

    def __init__(self, bands: int, height: int, width: int) -> None:
        self.height, self.width = height, width
        shape = (bands, min(RESULT_BLOCK, height), width)
        # Mapped, because the allocator would keep for itself what is given back before the page is drawn.
        self.waiting: U8 = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
        self.count = 0
        """Rows that wait."""
        self.down, self.across = -(-height // RESULT_BLOCK), -(-width // RESULT_BLOCK)
        self.done = 0
        """Rows of blocks that are finished."""
        self.places = np.zeros((bands, self.down, self.across), np.uint64)
        """Of the compressed blocks, in the nameless file."""
        self.sizes = np.zeros((bands, self.down, self.across), np.uint32)


class CogWriter:
    """A raster of one or more uint8 bands, given from top to bottom."""

    def __init__(self, path: Path, bands: int, height: int, width: int, encoding: Encoding) -> None:
        """Nothing named appears before `finish`. Raises InputError if the folder cannot be written."""
        self._path, self._encoding = path, encoding
        self._levels = [_Level(bands, *size) for size in level_sizes(height, width)]
        self._tile = np.empty((RESULT_BLOCK, RESULT_BLOCK), np.uint8)
        self._even: dict[int, bytes] = {}
        """Value -> the compressed block that holds nothing else: empty ground and wide classes are full of them."""
        self._row = self._spooled = 0
        try:
            self._spool = open_spool(path.parent)
        except OSError as error:
            raise self._failed(error) from None

    def append(self, rows: U8) -> None:
        """Add the next rows (bands, n, width). Raises InputError if the disk does not take them."""
        self._row += rows.shape[1]
        try:
            self._add(0, rows)
        except OSError as error:
            raise self._failed(error) from None

    def _add(self, number: int, rows: U8) -> None:
        level = self._levels[number]
        at = 0
        while at < rows.shape[1]:
            take = min(level.waiting.shape[1] - level.count, rows.shape[1] - at)
            level.waiting[:, level.count : level.count + take] = rows[:, at : at + take]
            level.count, at = level.count + take, at + take
            if level.count == RESULT_BLOCK or level.done * RESULT_BLOCK + level.count == level.height:
                self._flush(number)

    def _flush(self, number: int) -> None:
        """Compress the rows that wait, and hand them on halved."""
        level = self._levels[number]
        ready = level.waiting[:, : level.count]
        only = np.empty((len(ready), level.across), np.int16)
        for band, plane in enumerate(ready):
            for column in range(level.across):
                part = plane[:, column * RESULT_BLOCK : (column + 1) * RESULT_BLOCK]
                only[band, column] = value = only_value(part)
                packed = self._compress(part, value)
                level.places[band, level.done, column] = self._spooled
                level.sizes[band, level.done, column] = len(packed)
                self._spool.write(packed)
                self._spooled += len(packed)
        level.done, level.count = level.done + 1, 0
        if number + 1 < len(self._levels):
            step = halved_rows(len(ready))
            for first in range(0, ready.shape[1], step):
                self._add(number + 1, halve_by_runs(ready[:, first : first + step], only, self._encoding.halve))

    def _compress(self, part: U8, only: int) -> bytes:
        """`only` is the block's one value, or negative."""
        if only < 0 or part.shape != self._tile.shape:
            return self._deflate(part)
        if only not in self._even:
            self._even[only] = self._deflate(part)
        return self._even[only]

    def _deflate(self, part: U8) -> bytes:
        tile: Any = self._tile  # numpy's stubs do not say that an array is a buffer
        height, width = part.shape
        if part.shape != tile.shape:
            tile[:] = NODATA
            tile[:height, :width] = part
            part = tile.copy() if self._encoding.differences else tile
        if self._encoding.differences:
            tile[:, 0] = part[:, 0]
            np.subtract(part[:, 1:], part[:, :-1], out=tile[:, 1:])
        elif part is not tile:
            tile[:] = part
        return zlib.compress(tile, _LEVEL)

    def finish(self, directory: Directory, overview: Directory) -> None:
        """Write the file; `directory` and `overview` are the tags of the raster and of each overview.

        Sizes and places of blocks are filled in here. Raises InputError if the disk does not take it.
        """
        if self._row != self._levels[0].height:
            raise ValueError(f"{self._path.name}: {self._row} of {self._levels[0].height} rows were given")
        for level in self._levels:
            level.waiting = np.empty((0, 0, 0), np.uint8)
        blocks = sum(level.sizes.size for level in self._levels)
        data = self._spooled + blocks * (_LEADER + _TRAILER)
        directories = [self._directory(overview if i else directory, i) for i in range(len(self._levels))]
        big = self._start(directories, big=False)[-1] + data >= CLASSIC_LIMIT
        starts = self._start(directories, big)
        try:
            with self._path.open("xb") as file:
                self._lay_out(file, directories, starts, big)
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self.abandon()

    def _directory(self, tags: Directory, number: int) -> Directory:
        level = self._levels[number]
        changed = {IMAGE_WIDTH: long_tag(level.width), IMAGE_LENGTH: long_tag(level.height)}
        return {**tags, **changed, **({NEW_SUBFILE_TYPE: long_tag(1)} if number else {})}

    def _start(self, directories: list[Directory], big: bool) -> list[int]:
        """Where each directory lies, and last where the blocks begin."""
        at = (16 if big else 8) + len(GHOST)
        starts = []
        for directory, level in zip(directories, self._levels, strict=True):
            at += -at % 8
            starts.append(at)
            empty = np.zeros(level.sizes.size, np.uint64)
            full = {**directory, TILE_OFFSETS: array_tag(empty, big), TILE_BYTE_COUNTS: array_tag(empty, False)}
            at += directory_bytes(full, big)
        return [*starts, at]

    def _lay_out(self, file: IO[bytes], directories: list[Directory], starts: list[int], big: bool) -> None:
        at = starts[-1]
        places: list[NDArray[np.uint64]] = []
        for level in reversed(self._levels):
            steps = level.sizes.ravel().astype(np.uint64) + np.uint64(_LEADER + _TRAILER)
            ends = np.cumsum(steps, dtype=np.uint64) + np.uint64(at)
            places.insert(0, ends - steps + np.uint64(_LEADER))
            at = int(ends[-1])
        file.write(header(starts[0], big) + GHOST)
        for number, directory in enumerate(directories):
            level = self._levels[number]
            full = {
                **directory,
                TILE_OFFSETS: array_tag(places[number], big),
                TILE_BYTE_COUNTS: array_tag(level.sizes.ravel().astype(np.uint64), False),
            }
            following = starts[number + 1] if number + 1 < len(directories) else 0
            file.write(b"\0" * (starts[number] - file.tell()))
            file.write(pack_directory(full, starts[number], following, big))
        file.write(b"\0" * (starts[-1] - file.tell()))
        for level in reversed(self._levels):
            for place, size in zip(level.places.ravel().tolist(), level.sizes.ravel().tolist(), strict=True):
                self._spool.seek(place)
                packed = self._spool.read(size)
                file.write(size.to_bytes(4, "little") + packed + packed[-4:])

    def abandon(self) -> None:
        """Drop everything that is not finished."""
        close_quietly(self._spool)

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"{self._path}: cannot be written ({error.strerror}); free some space, or choose another -o")
