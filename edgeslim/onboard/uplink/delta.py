"""Delta: what changed between two artifacts, in one file.

    b"edgeslim delta 1"   SHA-256 of the rest (32 bytes)   the rest: an xz stream of
        u32 length, JSON: the seals of both manifests; of every file of the new artifact its size and SHA-256, the
                          SHA-256 of the old file of that name, and the bytes of its steps and of what is new in it
        of every file that is not the old one, manifest.json first, then by name:
            steps         (new bytes, copied bytes, where those lie, from where the last copy ended), each a varint
            new bytes     what no step copies

The old file is copied from as it is read, so memory is bounded on board whatever the file's size. The same two
artifacts give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_BYTES, MANIFEST_NAME, Manifest, parse_manifest, sha256_of
from edgeslim.onboard.uplink.bundle import MOST_BYTES, MOST_FILES, Files, manifest_bytes_of, opened
from edgeslim.onboard.uplink.matching import copies, mapped
from edgeslim.onboard.uplink.packed import PIECE_BYTES, Packer, Unpacker, require_free
from edgeslim.shelf import read_record, shown
from edgeslim.whole import new_file

DELTA_MAGIC = b"edgeslim delta 1"
_SCHEMA = 1
_HEADER_BYTES = 1 << 20
"""More than any header takes."""
_STEPS_BYTES = 16 << 20
"""Of one file; one whose steps would take more is sent whole."""
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of the new artifact."""

    name: str
    """In the artifact."""
    size: int
    """Bytes, new."""
    sha256: str
    """Of it, new."""
    old_sha256: str | None
    """Of the old file of that name; None: there is none."""
    steps: int
    """Bytes of its steps."""
    fresh: int
    """Bytes that the old file does not have; with the steps: what is sent of it, before packing."""

    def __post_init__(self) -> None:
        if not all(0 <= value <= MOST_BYTES for value in (self.size, self.steps, self.fresh)):
            raise InputError("sizes: found one out of range")

    @property
    def same(self) -> bool:
        """Whether it is the old file, of which nothing is sent."""
        return self.sha256 == self.old_sha256


@dataclass(frozen=True, slots=True)
class End:
    """One of the two artifacts."""

    name: str
    """Encoder and width."""
    seal: str
    """SHA-256 of its manifest's content."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a delta needs and makes."""

    schema: int
    """1."""
    old: End
    """What must stand."""
    new: End
    """What will stand."""
    files: tuple[FileChange, ...]
    """Of the new artifact, manifest.json first."""

    def __post_init__(self) -> None:
        if self.schema != _SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {_SCHEMA}; use a matching edgeslim")
        if not 1 <= len(self.files) <= MOST_FILES + 1 or self.files[0].name != MANIFEST_NAME:
            raise InputError(f"files: found {len(self.files)}, expected {MANIFEST_NAME} and at most {MOST_FILES}")


@dataclass(frozen=True, slots=True)
class Difference:
    """What `write_delta` wrote."""

    header: Header
    """What it needs and makes."""
    removed: tuple[str, ...]
    """Files of the old artifact that the new one has not."""
    size: int
    """Bytes of the delta."""

    def to_dict(self) -> dict[str, object]:
        """Plain types."""
        record = asdict(self.header)
        files = [{**asdict(change), "same": change.same} for change in self.header.files]
        return {**record, "files": files, "removed": list(self.removed), "bytes": self.size}


def write_delta(old: Path, new: Path, path: Path, *, overwrite: bool = False) -> Difference:
    """Write what turns the artifact `old` into the artifact `new`; each is a folder or a bundle.

    Raises InputError where one is no artifact, both are the same, or `path` cannot be written or stands already;
    UntrustedResult where one is damaged.
    """
    require_free(path, overwrite)
    with opened(old) as (old_home, old_manifest), opened(new) as (new_home, new_manifest):
        ends = [
            End(manifest.name, parse_manifest(manifest_bytes_of(home), home / MANIFEST_NAME)[1])
            for home, manifest in ((old_home, old_manifest), (new_home, new_manifest))
        ]
        if ends[0].seal == ends[1].seal:
            raise InputError(f"{new}: found the same artifact as {old}, expected another; there is nothing to send")
        changes, steps = [], []
        for name in (MANIFEST_NAME, *sorted(new_manifest.files)):
            known = name == MANIFEST_NAME or name in old_manifest.files
            change, packed = _compare(old_home / name if known else None, new_home / name)
            changes.append(change)
            steps.append(packed)
        header = Header(_SCHEMA, ends[0], ends[1], tuple(changes))
        text = json.dumps(asdict(header), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        with new_file(path, "-o") as file:
            file.write(DELTA_MAGIC + bytes(32))
            packer = Packer(file)
            packer.write(_LENGTH.pack(len(text)) + text)
            for change, packed in zip(changes, steps, strict=True):
                if not change.same:
                    packer.write(packed)
                    for piece in _fresh(new_home / change.name, packed):
                        packer.write(piece)
            packer.finish()
            size = file.tell()
            digest = _digest(file, len(DELTA_MAGIC) + 32)
            file.seek(len(DELTA_MAGIC))
            file.write(digest)
        return Difference(header, tuple(sorted(set(old_manifest.files) - set(new_manifest.files))), size)


def _compare(old: Path | None, new: Path) -> tuple[FileChange, bytes]:
    """What changed in one file, and its steps."""
    data = mapped(new)
    digest, before = sha256_of(new), None if old is None else sha256_of(old)
    if digest == before:
        return FileChange(new.name, len(data), digest, before, 0, 0), b""
    packed, at, source, fresh = bytearray(), 0, 0, 0
    for copy in [] if old is None else copies(mapped(old), data):
        step = _varint(copy.new - at) + _varint(copy.length) + _varint(_zigzag(copy.old - source))
        if len(packed) + len(step) > _STEPS_BYTES - 32:
            break
        packed += step
        fresh += copy.new - at
        at, source = copy.new + copy.length, copy.old + copy.length
    if at < len(data):
        packed += _varint(len(data) - at) + _varint(0) + _varint(0)
        fresh += len(data) - at
    return FileChange(new.name, len(data), digest, before, len(packed), fresh), bytes(packed)


def _fresh(new: Path, packed: bytes) -> Iterator[memoryview]:
    """The bytes of a new file that its steps do not copy."""
    data, at = mapped(new), 0
    for count, copied, _ in _steps(packed, new.name):
        for start in range(at, at + count, PIECE_BYTES):
            yield data[start : min(start + PIECE_BYTES, at + count)].data
        at += count + copied


def _digest(file: BinaryIO, begin: int) -> bytes:
    """SHA-256 of a file from `begin` to its end."""
    digest = hashlib.sha256()
    file.seek(begin)
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.digest()


class Delta:
    """A delta that is being read, from its beginning to its end."""

    kind = "delta"

    def __init__(self, file: BinaryIO, where: str) -> None:
        """`file` stands at its beginning. Raises InputError for one that is not whole."""
        self._where = where
        start = len(DELTA_MAGIC) + 32
        file.seek(len(DELTA_MAGIC))
        told = file.read(32)
        self._stream = Unpacker(file, where)
        if _digest(file, start) != told:
            raise self._stream.damaged("its SHA-256 is not its own")
        file.seek(start)
        (length,) = _LENGTH.unpack(self._stream.read(_LENGTH.size))
        if length > _HEADER_BYTES:
            raise self._stream.damaged("its header is too long")
        try:
            record = json.loads(self._stream.read(length))
        except (ValueError, RecursionError):
            raise self._stream.damaged("its header is no JSON") from None
        self.header = read_record(Header, record, where)

    def manifest_bytes(self, old: bytes) -> bytes:
        """Of the new artifact, given the old one's. Raises InputError where that is not the one it was made of."""
        change = self.header.files[0]
        if change.size > MANIFEST_BYTES:
            raise self._stream.damaged("its manifest is too long")
        if hashlib.sha256(old).hexdigest() != change.old_sha256:
            raise InputError(f"{self._where}: was made of another {MANIFEST_NAME}; send a bundle")
        data = b"".join(self._rebuilt(change, _Bytes(old)))
        if hashlib.sha256(data).hexdigest() != change.sha256:
            raise self._stream.damaged(f"{MANIFEST_NAME} does not come out right")
        return data

    def files(self, manifest: Manifest, home: Path) -> Files:
        """The new artifact's files, each to be read whole before the next; the old ones lie in `home`.

        Their hashes are those of the manifest once what was read proves so; nothing is proven here.
        """
        rest = self.header.files[1:]
        if [(c.name, c.sha256) for c in rest] != sorted(manifest.files.items()):
            raise self._stream.damaged("its files are not those of its manifest")
        for change in rest:
            if change.old_sha256 is None:
                yield change.name, change.size, self._rebuilt(change, _Bytes(b""))
                continue
            path = home / change.name
            try:
                old = path.open("rb")
            except OSError as error:
                raise _unreadable(path, error) from None
            with old:
                yield change.name, change.size, self._rebuilt(change, _File(old, path))
        self._stream.require_end()

    def _rebuilt(self, change: FileChange, old: _Bytes | _File) -> Iterator[bytes]:
        """A new file, out of the old one."""
        if change.same:
            yield from self._copied(change, old, 0, change.size)
            return
        if change.steps > _STEPS_BYTES:
            raise self._stream.damaged(f"the steps of {shown(change.name)} are too many")
        left, fresh, source = change.size, change.fresh, 0
        for count, copied, shift in _steps(self._stream.read(change.steps), self._where):
            left, fresh, source = left - count - copied, fresh - count, source + shift
            if left < 0 or fresh < 0:
                raise self._stream.damaged(f"{shown(change.name)} does not come out right")
            yield from self._stream.pieces(count)
            yield from self._copied(change, old, source, copied)
            source += copied
        if left or fresh:
            raise self._stream.damaged(f"{shown(change.name)} does not come out right")

    def _copied(self, change: FileChange, old: _Bytes | _File, start: int, count: int) -> Iterator[bytes]:
        while count:
            piece = old.read(start, min(count, PIECE_BYTES))
            if not piece:
                raise self._stream.damaged(f"the old {shown(change.name)} is shorter than it says")
            yield piece
            start, count = start + len(piece), count - len(piece)


class _Bytes:
    """An old file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, start: int, count: int) -> bytes:
        return self._data[start : start + count] if start >= 0 else b""


class _File:
    """An old file on disk."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, start: int, count: int) -> bytes:
        if start < 0:
            return b""
        try:
            self._file.seek(start)
            return self._file.read(count)
        except OSError as error:
            raise _unreadable(self._path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror}); send a bundle")


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _steps(packed: bytes, where: str) -> Iterator[tuple[int, int, int]]:
    """(new bytes, copied bytes, where those begin, from where the last copy ended). Raises InputError."""
    numbers: list[int] = []
    value = bits = 0
    for byte in packed:
        value |= (byte & 0x7F) << bits
        bits += 7
        if byte & 0x80:
            if bits > 63:
                break
            continue
        numbers.append(value)
        value = bits = 0
        if len(numbers) == 3:
            count, copied, shift = numbers
            yield count, copied, shift >> 1 if not shift & 1 else -((shift + 1) >> 1)
            numbers.clear()
    if numbers or bits:
        raise InputError(f"{where}: damaged or not whole (its steps end early); send it again")
