"""Header: what a TIFF claims about itself, read and doubted before GDAL allocates anything for it.

A header of a few hundred bytes can claim gigabytes of pixels. GDAL believes it and fails late, or never; here a claim
that the file cannot hold is refused in one line. What is merely odd is left to GDAL. Tags: TIFF 6.0, and BigTIFF as
libtiff's design document lays it out.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each TIFF type."""
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Of the types that count or point."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 258, 259, 277, 284
_STRIP_OFFSETS, _STRIP_ROWS, _STRIP_COUNTS = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_EXTRA_SAMPLES, _ASSOCIATED_ALPHA = 338, 1
_UNCOMPRESSED = 1
_DENSEST = 1 << 16
"""No codec that meets real pixels packs more of them into a byte."""
_LARGE_BYTES = 64 << 20
"""Blocks below this are GDAL's affair, whatever they claim."""
_SUBFILE_TYPE, _MASK_BIT = 254, 4
_MOST_DIRECTORIES = 4096
_MOST_TAGS = 4096


@dataclass(frozen=True, slots=True)
class Header:
    """One image of a TIFF, as it describes itself."""

    width: int
    """Pixels a row."""
    height: int
    """Rows."""
    block_rows: int
    """Of a strip or tile."""
    block_columns: int
    """Of a strip or tile."""
    block_bytes: int
    """Of a decoded block: every band of it where they are interleaved by pixel."""
    blocks: int
    """That the size asks for."""
    packed_bytes: int
    """Of the largest block as stored, never more than the file; 0: unknown."""
    premultiplied: bool
    """Whether its colours were multiplied by its alpha."""


def check_header(path: Path, directory: int = 1) -> Header | None:
    """Read image number `directory` (from 1, as GDAL counts them) of a TIFF. None: not for us to say, ask GDAL.

    Raises InputError for one that claims what the file cannot hold.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            reader = _Reader(file, size)
            tags = reader.directory(directory)
            return None if tags is None else _judge(path, reader, tags, size)
    except (OSError, struct.error, OverflowError):
        return None


def holds_mask(path: Path) -> bool:
    """Whether any image of a TIFF says that it is a mask, of whichever image."""
    try:
        with path.open("rb") as file:
            reader = _Reader(file, os.fstat(file.fileno()).st_size)
            for tags in reader.directories():
                entry = tags.get(_SUBFILE_TYPE)
                values = None if entry is None else reader.numbers(entry, 1)
                if values is not None and values.size and int(values[0]) & _MASK_BIT:
                    return True
    except (OSError, struct.error, OverflowError):  # for GDAL to tell
        pass
    return False


def _judge(path: Path, reader: _Reader, tags: dict[int, _Entry], size: int) -> Header | None:
    def number(tag: int, default: int | None = None) -> int | None:
        entry = tags.get(tag)
        values = None if entry is None else reader.numbers(entry, 1)
        return default if values is None or not values.size else int(values[0])

    width, height, samples = number(_WIDTH), number(_HEIGHT), number(_SAMPLES, 1)
    tiled = _TILE_WIDTH in tags
    block_rows = number(_TILE_HEIGHT if tiled else _STRIP_ROWS, None if tiled else height)
    block_columns = number(_TILE_WIDTH) if tiled else width
    if not (width and height and samples and block_rows and block_columns):
        return None
    block_rows = block_rows if tiled else min(block_rows, height)
    bits, planes = number(_BITS, 1) or 1, samples if number(_PLANAR, 1) == 2 else 1
    block_bytes = block_rows * (-(-block_columns * bits * (samples // planes) // 8))
    blocks = math.ceil(width / block_columns) * math.ceil(height / block_rows) * planes
    claim = f"{path}: found a header that claims {width} × {height} px × {samples} bands"
    mend = "the file is damaged or incomplete, copy it again"
    offsets, counts = (
        tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS),
        tags.get(_TILE_COUNTS if tiled else _STRIP_COUNTS),
    )
    indices = (offsets, counts)
    for tag, entry in tags.items():
        if entry not in indices and _LARGE_BYTES < entry.bytes <= size:
            raise InputError(
                f"{path}: found {entry.bytes >> 20} MiB in tag {tag}, expected at most {_LARGE_BYTES >> 20}; copy it "
                "without its metadata"
            )
    for index in indices:
        if index is not None and index.place + index.bytes > size:
            raise InputError(f"{claim}, whose index of {index.count} blocks does not fit into its {size} bytes; {mend}")
        if index is not None and 0 < index.count < blocks:  # libtiff takes the others for empty
            raise InputError(f"{claim} in {blocks} blocks, but lists {index.count}; {mend}")
    if block_bytes > _LARGE_BYTES and block_bytes > size * _DENSEST:
        raise InputError(f"{claim} in blocks of {block_bytes >> 20} MiB, but holds {size} bytes; {mend}")
    starts = None if offsets is None else reader.numbers(offsets)
    lengths = None if counts is None else reader.numbers(counts)
    if starts is not None and (starts >= size).any():
        raise InputError(
            f"{claim}, of whose {starts.size} blocks {int((starts >= size).sum())} lie beyond its {size} bytes; {mend}"
        )
    if starts is not None and lengths is not None and starts.size == lengths.size > 1:
        lost = int(((starts > 0) != (lengths > 0)).sum())  # an empty block of a sparse file has neither
        if lost:
            raise InputError(f"{claim}, of whose {starts.size} blocks {lost} have a place or a size, not both; {mend}")
    if number(_COMPRESSION, 1) == _UNCOMPRESSED and block_bytes > _LARGE_BYTES and starts is not None:
        last_rows = height - (blocks // planes - 1) * block_rows if not tiled else block_rows
        stored = starts[starts > 0]
        needed = block_bytes // block_rows * min(block_rows, max(1, last_rows))
        if stored.size and int(stored.max()) + needed > size:
            raise InputError(f"{claim} in uncompressed blocks of {block_bytes >> 20} MiB, but ends early; {mend}")
    packed = min(size, int(lengths.max())) if lengths is not None and lengths.size else 0
    extra = reader.numbers(tags[_EXTRA_SAMPLES]) if _EXTRA_SAMPLES in tags else None
    premultiplied = extra is not None and bool((extra == _ASSOCIATED_ALPHA).any())
    return Header(width, height, block_rows, block_columns, block_bytes, blocks, packed, premultiplied)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tag: where its values lie."""

    kind: int
    count: int
    place: int

    @property
    def bytes(self) -> int:
        return _SIZES.get(self.kind, 1) * self.count


class _Reader:
    """TIFF directories of an open file, of either byte order and either size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        head = file.read(16)
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(self._order + "H", head[2:4])[0] if self._order and len(head) >= 8 else 0
        self._big = version == 43
        self._first = 0
        if version == 42:
            self._first = struct.unpack(self._order + "I", head[4:8])[0]
        elif self._big:
            self._first = struct.unpack(self._order + "Q", head[8:16])[0]

    def directory(self, number: int) -> dict[int, _Entry] | None:
        """Tags of directory `number` (from 1); None where there is none."""
        return next(islice(self.directories(), number - 1, None), None)

    def directories(self) -> Iterator[dict[int, _Entry]]:
        """Tags of each directory, in order."""
        place, seen = self._first, set[int]()
        while 0 < place < self._size and place not in seen and len(seen) < _MOST_DIRECTORIES:
            seen.add(place)
            tags, place = self._tags(place)
            yield tags

    def _tags(self, place: int) -> tuple[dict[int, _Entry], int]:
        head, row, link = (8, 20, 8) if self._big else (2, 12, 4)
        count = struct.unpack(self._order + ("Q" if self._big else "H"), self._at(place, head))[0]
        if count > _MOST_TAGS:
            raise struct.error("more tags than any TIFF has")
        data = self._at(place + head, count * row + link)
        tags: dict[int, _Entry] = {}
        for i in range(count):
            tag, kind = struct.unpack_from(self._order + "HH", data, i * row)
            (values,) = struct.unpack_from(self._order + ("Q" if self._big else "I"), data, i * row + 4)
            inside = place + head + i * row + (12 if self._big else 8)
            room = 8 if self._big else 4
            if _SIZES.get(kind, 1) * values > room:
                (inside,) = struct.unpack_from(self._order + ("Q" if self._big else "I"), data, i * row + row - room)
            tags.setdefault(tag, _Entry(kind, values, inside))
        (following,) = struct.unpack_from(self._order + ("Q" if self._big else "I"), data, count * row)
        return tags, following

    def numbers(self, entry: _Entry, most: int | None = None) -> NDArray[np.uint64] | None:
        """Values of a tag that holds whole numbers; None for any other."""
        code = _CODES.get(entry.kind)
        if code is None:
            return None
        count = entry.count if most is None else min(most, entry.count)
        data = self._at(entry.place, count * _SIZES[entry.kind])
        return np.frombuffer(data, np.dtype(self._order + code)).astype(np.uint64)

    def _at(self, place: int, count: int) -> bytes:
        if place + count > self._size:
            raise struct.error("ends early")
        self._file.seek(place)
        data = self._file.read(count)
        if len(data) < count:
            raise struct.error("ends early")
        return data
