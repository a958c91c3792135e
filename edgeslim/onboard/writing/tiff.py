"""TIFF: the directory of a file as a table of tags, taken from what GDAL wrote and laid out anew.

Only what a writer of cloud-optimised files needs; pixels are not looked at. TIFF 6.0 and the BigTIFF design.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS = 254, 256, 257, 324, 325
_LONG, _LONG8 = 4, 16
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
CLASSIC_LIMIT = 1 << 32
"""A file of this many bytes or more is a BigTIFF."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory."""

    kind: int
    """TIFF field type."""
    count: int
    """Values."""
    payload: bytes
    """The values, little-endian."""


Directory = dict[int, Tag]
"""Tag number -> value."""


def long_tag(value: int) -> Tag:
    """One 32-bit number."""
    return Tag(_LONG, 1, struct.pack("<I", value))


def array_tag(values: NDArray[np.uint64], big: bool) -> Tag:
    """File positions or sizes: 64-bit numbers in a BigTIFF, 32-bit ones else."""
    return Tag(_LONG8 if big else _LONG, values.size, values.astype("<u8" if big else "<u4").tobytes())


def read_directory(data: bytes) -> Directory:
    """The first directory of a classic little-endian TIFF that lies in memory."""
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    found: Directory = {}
    for index in range(entries):
        entry = at + 2 + 12 * index
        number, kind, count = struct.unpack_from("<HHI", data, entry)
        size = _BYTES[kind] * count
        start = entry + 8 if size <= 4 else struct.unpack_from("<I", data, entry + 8)[0]
        found[number] = Tag(kind, count, data[start : start + size])
    return found


def header(first: int, big: bool) -> bytes:
    """The first bytes of a file whose first directory lies at `first`."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)


def directory_bytes(directory: Directory, big: bool) -> int:
    """Size of a directory with everything it points to, but pixels."""
    inline = 8 if big else 4
    fixed = 16 + 20 * len(directory) if big else 6 + 12 * len(directory)
    return _even(fixed) + sum(_even(len(t.payload)) for t in directory.values() if len(t.payload) > inline)


def pack_directory(directory: Directory, at: int, following: int, big: bool) -> bytes:
    """A directory that lies at `at`, with its values behind it; `following` is the place of the next one, or 0."""
    inline, entry_form, pointer = (8, "<HHQ", "<Q") if big else (4, "<HHI", "<I")
    head = struct.pack("<Q" if big else "<H", len(directory))
    behind = at + _even(16 + 20 * len(directory) if big else 6 + 12 * len(directory))
    entries, values = [], []
    for number in sorted(directory):
        tag = directory[number]
        if len(tag.payload) <= inline:
            field = tag.payload.ljust(inline, b"\0")
        else:
            field = struct.pack(pointer, behind)
            padded = tag.payload.ljust(_even(len(tag.payload)), b"\0")
            values.append(padded)
            behind += len(padded)
        entries.append(struct.pack(entry_form, number, tag.kind, tag.count) + field)
    fixed = head + b"".join(entries) + struct.pack(pointer, following)
    return fixed.ljust(_even(len(fixed)), b"\0") + b"".join(values)


def _even(size: int) -> int:
    return size + size % 2
