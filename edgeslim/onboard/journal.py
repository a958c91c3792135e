"""Journal: what is done survives a power cut.

One append-only file of records, each framed by its length and a CRC-32 that also covers its number:

    b"esj1" | kind u8 | 3 zero bytes | number u32 | length u32 | crc32 u32 | payload

Reading stops at the first record that is cut short, out of order or fails its sum, and writing goes on there: whatever
a power cut lost, tore or reordered behind the last sync is as if it had never been written. Everything that a run
delivers is derived from these records, so a resumed run has nothing else to trust.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from edgeslim.errors import InputError
from edgeslim.onboard.disk import Disk

JOURNAL_NAME = "journal"
_MAGIC = b"esj1"
_FRAME = struct.Struct("<4sB3xIII")


class Kind(IntEnum):
    """What a record says."""

    RUN = 1
    """JSON: what is computed from what. The first record, and only the first."""
    SCENE = 2
    """JSON: SHA-256 of the scene's files, known once they were read whole."""
    CHUNK = 3
    """A finished chunk: logits, validity, thumbnail sums. In order from chunk 0."""
    CHECK = 4
    """JSON: the golden tiles agreed; chunks before it are trusted."""
    SUSPECT = 5
    """JSON: why chunks since the last CHECK must not be used."""


_KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read back."""

    kind: Kind
    """What it says."""
    payload: bytes
    """Its content."""
    end: int
    """Offset of the byte after it."""

    def json(self) -> dict[str, Any]:
        """The payload of a JSON record."""
        value: dict[str, Any] = json.loads(self.payload)
        return value


class Journal:
    """An open journal. Every method that writes raises InputError in one line where the disk does not take it."""

    def __init__(self, folder: Path, disk: Disk, file: BinaryIO, number: int) -> None:
        self.folder = folder
        self._disk, self._file, self._number = disk, file, number
        self._unsynced = False

    @classmethod
    def start(cls, folder: Path, disk: Disk, run: dict[str, Any]) -> Journal:
        """A new journal in an existing folder, synced with its first record."""
        try:
            file = disk.create(folder / JOURNAL_NAME)
        except OSError as error:
            raise _not_written(folder, error) from None
        journal = cls(folder, disk, file, 0)
        try:
            _lock(folder, file)
            journal.append(Kind.RUN, as_json(run))
            journal.sync()
            disk.sync_folder(folder)
        except OSError as error:
            journal.close()
            raise _not_written(folder, error) from None
        except InputError:
            journal.close()
            raise
        return journal

    @classmethod
    def resume(cls, folder: Path, disk: Disk, size: int, number: int) -> Journal:
        """Go on after the first `number` records, which end at `size`."""
        try:
            require_idle(folder)
            file = disk.append_to(folder / JOURNAL_NAME, size)
        except OSError as error:
            raise _not_written(folder, error) from None
        journal = cls(folder, disk, file, number)
        journal._unsynced = True
        try:
            _lock(folder, file)
            journal.sync()
        except InputError:
            journal.close()
            raise
        return journal

    def append(self, kind: Kind, payload: bytes) -> None:
        """Add a record; it lasts after the next `sync`."""
        frame = _FRAME.pack(_MAGIC, kind, self._number, len(payload), _sum(kind, self._number, payload))
        try:
            self._disk.append(self._file, frame + payload)
        except OSError as error:
            raise _not_written(self.folder, error) from None
        self._number += 1
        self._unsynced = True

    def sync(self) -> None:
        """Make every record so far last."""
        if not self._unsynced:
            return
        try:
            self._disk.sync(self._file)
        except OSError as error:
            raise _not_written(self.folder, error) from None
        self._unsynced = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def require_idle(folder: Path) -> None:
    """Raise InputError where another process is at work on the journal; OSError where it cannot be opened."""
    with (folder / JOURNAL_NAME).open("rb") as file:
        _lock(folder, file)


def _lock(folder: Path, file: BinaryIO) -> None:
    """Hold the journal until the file is closed, by a crash too."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{folder.parent}: another edgeslim is at work there; wait for it, or choose another -o"
        ) from None
    except OSError:  # a file system without locks
        return


def as_json(data: dict[str, Any]) -> bytes:
    """Canonical JSON."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_records(folder: Path) -> Iterator[Record]:
    """Records of a journal up to the first that is not whole. Empty where there is none.

    Raises InputError for a journal that cannot be read.
    """
    try:
        with (folder / JOURNAL_NAME).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = number = 0
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                magic, kind, found, length, checksum = _FRAME.unpack(frame)
                if magic != _MAGIC or found != number or length > size - end or kind not in _KINDS:
                    return
                payload = file.read(length)
                if len(payload) != length or _sum(kind, number, payload) != checksum:
                    return
                number, end = number + 1, end + _FRAME.size + length
                if kind != Kind.CHUNK and not _is_object(payload):
                    return
                yield Record(Kind(kind), payload, end)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder / JOURNAL_NAME}: cannot be read ({error.strerror})") from None


def _is_object(payload: bytes) -> bool:
    try:
        return isinstance(json.loads(payload), dict)
    except (ValueError, RecursionError):
        return False


def _sum(kind: int, number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<BII", kind, number, len(payload))))


def _not_written(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder / JOURNAL_NAME}: cannot be written ({error.strerror or error}); finished bands are kept, make room "
        "and go on with --resume"
    )
