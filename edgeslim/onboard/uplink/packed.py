"""Packed: an xz stream that is written the same every time, and read in bounded memory, trusting nothing."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeslim.errors import InputError
from edgeslim.units import MEGA
from edgeslim.whole import named, require_makeable

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 << 20, "lc": 1, "lp": 2, "pb": 2}]
"""Spelled out, so that no default decides the bytes; positions modulo four, because weights are float32."""
READ_MEMORY_BYTES = 32 << 20
"""The decoder's; a stream that asks for more was not written here."""
_GROWTH, _SMALL_BYTES = 64, 64 << 20
"""A stream gives at most so many times its own bytes, beside a few: weights shrink to half, not to a thousandth."""
PIECE_BYTES = 1 << 20
"""Read or written at once."""


class Packer:
    """Bytes into an xz stream."""

    def __init__(self, file: BinaryIO) -> None:
        """Written to `file`, which stays open."""
        self._file = file
        self._xz = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=FILTERS)

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises OSError."""
        self._file.write(self._xz.compress(data))

    def finish(self) -> None:
        """End the stream. Raises OSError."""
        self._file.write(self._xz.flush())


class Unpacker:
    """Bytes out of an xz stream that is the rest of a file."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """`where` names the file in errors."""
        self._file, self._where = file, where
        self._left = _SMALL_BYTES + _GROWTH * os.fstat(file.fileno()).st_size
        self._xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=READ_MEMORY_BYTES)

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes, at most PIECE_BYTES at a time. Raises InputError where the stream has no such."""
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"{self._where}: would grow to more than {_GROWTH} times its size, expected about twice; it was not "
                "made by edgeslim"
            )
        while count:
            try:
                if self._xz.eof:
                    raise self.damaged("it ends early")
                data = b""
                if self._xz.needs_input and not (data := self._file.read(PIECE_BYTES)):
                    raise self.damaged("it ends early")
                piece = self._xz.decompress(data, min(count, PIECE_BYTES))
            except lzma.LZMAError as error:
                raise self.damaged(str(error)) from None
            except OSError as error:
                raise InputError(f"{self._where}: cannot be read ({error.strerror})") from None
            count -= len(piece)
            if piece:
                yield piece

    def read(self, count: int) -> bytes:
        """The next `count` bytes at once: for what was found to be small. Raises as `pieces` does."""
        return b"".join(self.pieces(count))

    def require_end(self) -> None:
        """Raise InputError where anything follows, in the stream or behind it."""
        try:
            while not self._xz.eof:
                data = self._file.read(PIECE_BYTES) if self._xz.needs_input else b""
                if self._xz.needs_input and not data:
                    raise self.damaged("it ends early")
                if self._xz.decompress(data, 1):
                    raise self.damaged("more follows what it should hold")
            if self._xz.unused_data or self._file.read(1):
                raise self.damaged("more follows its end")
        except lzma.LZMAError as error:
            raise self.damaged(str(error)) from None
        except OSError as error:
            raise InputError(f"{self._where}: cannot be read ({error.strerror})") from None

    def damaged(self, why: str) -> InputError:
        """The error of a stream that is not what was written."""
        return InputError(f"{self._where}: damaged or not whole ({why}); send it again")


def require_room(folder: Path, size: int) -> None:
    """Raise InputError where the disk of `folder` has not that many bytes free."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"{folder}: cannot be looked at ({error.strerror})") from None
    if size > free:
        raise InputError(f"{folder}: found {free / MEGA:,.1f} MB free, expected {size / MEGA:,.1f}; make room")


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about PIECE_BYTES: many small steps are not to be as many small writes."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def require_free(path: Path, overwrite: bool, flag: str = "-o") -> None:
    """Raise InputError unless a file may be written to `path`, given by `flag`.

    A folder, a device or a pipe never may, a file only where it was asked to be replaced.
    """
    if path.is_dir():
        raise InputError(f"{flag} {path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise InputError(f"{flag} {path}: is a device or a pipe, expected the name of a file to write")
    if path.exists() and not overwrite:
        mend = "add --overwrite" if flag == "-o" else "remove it"
        raise InputError(f"{flag} {path}: exists already; choose another name or {mend}")
    require_makeable(named(path), flag)
