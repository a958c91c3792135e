"""PNG: whether a picture is whole, which GDAL does not say."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 1 << 20


def require_whole_png(file: BinaryIO) -> None:
    """Raise ValueError or struct.error for a PNG that is torn or damaged, which GDAL would read as black from there on.

    Chunks of length, kind, data and CRC-32 up to the last, IEND (ISO/IEC 15948, 5.3).
    """
    file.seek(len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        left, kind = struct.unpack(">I4s", file.read(8))
        found = zlib.crc32(kind)
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise ValueError("it ends within a chunk")
            found, left = zlib.crc32(piece, found), left - len(piece)
        (checksum,) = struct.unpack(">I", file.read(4))
        if found != checksum:
            raise ValueError("a chunk's checksum is not that of its data")
