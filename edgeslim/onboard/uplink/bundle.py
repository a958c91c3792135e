"""Bundle: an artifact as one archive, always the same bytes for the same artifact.

A tar file in xz (`tar xJf` unpacks it): manifest.json first, then the manifest's files by name, each as a plain file of
mode 644, owner 0 and time 0. Tar, because it is read in one pass from beginning to end: nothing has to be believed of a
directory at its end, and nothing lies between its members. Xz, because the weights of an encoder that was trained in
half precision shrink to about half. The reader knows exactly one way in which a member's header may be written, its
own, and compares all 512 bytes: a link, a path, a device, a sparse file, an extension, a member too many or in another
place is refused without being interpreted.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_BYTES, MANIFEST_NAME, Manifest, parse_manifest, read_standing, verify_files
from edgeslim.onboard.uplink.packed import PIECE_BYTES, Packer, Unpacker, require_free, require_room
from edgeslim.shelf import read_small_file, shown
from edgeslim.whole import new_file

XZ_MAGIC = b"\xfd7zXZ\x00"
MOST_FILES = 64
"""More than any artifact has."""
MOST_BYTES = 8**11 - 1
"""Of a file: what a tar header can say, 8 GiB."""
_BLOCK = 512
_MAGIC_END = bytes(2 * _BLOCK)
_RESERVED = ("previous.json", MANIFEST_NAME)
"""Names in an artifact's folder that are not its files'."""

Files = Iterator[tuple[str, int, Iterator[bytes]]]
"""Name, bytes, and the content in pieces."""


def write_bundle(artifact: Path, path: Path, *, overwrite: bool = False) -> int:
    """Write the artifact that stands under `artifact` as one archive; returns its bytes.

    Raises InputError where there is no artifact or `path` cannot be written or stands already, UntrustedResult where
    the artifact is damaged.
    """
    require_free(path, overwrite, "--bundle")
    home, manifest = read_standing(artifact)
    verify_files(home, manifest)
    require_plain(manifest, str(artifact))
    with new_file(path, "--bundle") as file:
        packer = Packer(file)
        for name in (MANIFEST_NAME, *sorted(manifest.files)):
            source = home / name
            size = source.stat().st_size
            packer.write(_header(name, size))
            with source.open("rb") as content:
                while piece := content.read(PIECE_BYTES):
                    packer.write(piece)
            packer.write(bytes(-size % _BLOCK))
        packer.write(_MAGIC_END)
        packer.finish()
        return file.tell()


def require_plain(manifest: Manifest, where: str) -> None:
    """Raise InputError for files that an artifact's folder cannot hold beside what `edgeslim apply` keeps there."""
    if len(manifest.files) > MOST_FILES:
        raise InputError(f"{where}: found {len(manifest.files)} files, expected at most {MOST_FILES}; export it again")
    for name in manifest.files:
        if name in _RESERVED or name.endswith(".part") or len(name.encode("utf-8", "replace")) > 100:
            raise InputError(f"{where}: found a file named {shown(name)}, expected another name; export it again")


class Bundle:
    """A bundle that is being read, from its beginning to its end."""

    kind = "bundle"

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._where, self._stream = where, Unpacker(file, where)

    def manifest_bytes(self) -> bytes:
        """Of the artifact in it. Raises InputError for anything that is no bundle."""
        size = self._member(MANIFEST_NAME)
        if size > MANIFEST_BYTES:
            raise InputError(f"{self._where}: its manifest takes {size} bytes, expected at most {MANIFEST_BYTES}")
        data = self._stream.read(size)
        self._padding(size)
        return data

    def files(self, manifest: Manifest) -> Files:
        """The files of the manifest, in its order, each to be read whole before the next."""
        for name in sorted(manifest.files):
            size = self._member(name)
            yield name, size, self._stream.pieces(size)
            self._padding(size)
        if any(self._stream.read(len(_MAGIC_END))):
            raise InputError(f"{self._where}: found a file that its manifest does not name, expected none; bundle anew")
        self._stream.require_end()

    def _member(self, name: str) -> int:
        """Bytes of the next member, which must be the plain file `name`."""
        found = self._stream.read(_BLOCK)
        size = re.fullmatch(rb"([0-7]{11})\0", found[124:136])
        if size is None or found != _header(name, int(size[1], 8)):
            what = found[:100].rstrip(b"\0").decode("utf-8", "replace")
            raise InputError(
                f"{self._where}: found {shown(what)}, or not as a plain file, expected {name} as `edgeslim export "
                "--bundle` writes it; bundle the artifact anew"
            )
        return int(size[1], 8)

    def _padding(self, size: int) -> None:
        if any(self._stream.read(-size % _BLOCK)):
            raise self._stream.damaged("its padding is not empty")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, Manifest]]:
    """Where the files of an artifact lie, and its manifest: of a folder, or of a bundle unpacked meanwhile.

    Raises InputError where there is neither, UntrustedResult for a damaged one.
    """
    if not path.is_file():
        home, manifest = read_standing(path)
        verify_files(home, manifest)
        require_plain(manifest, str(path))
        yield home, manifest
        return
    with tempfile.TemporaryDirectory(prefix="edgeslim-") as name, path.open("rb") as file:
        folder = Path(name)
        if file.read(len(XZ_MAGIC)) != XZ_MAGIC:
            raise InputError(f"{path}: found another kind of file, expected an artifact's folder or a bundle")
        file.seek(0)
        bundle = Bundle(file, str(path))
        data = bundle.manifest_bytes()
        manifest, _ = parse_manifest(data, path)
        require_plain(manifest, str(path))
        try:
            (folder / MANIFEST_NAME).write_bytes(data)
            for member, size, pieces in bundle.files(manifest):
                require_room(folder, size)
                with (folder / member).open("xb") as target:
                    for piece in pieces:
                        target.write(piece)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); make room") from None
        verify_files(folder, manifest)
        yield folder, manifest


def manifest_bytes_of(home: Path) -> bytes:
    """Of the artifact whose files lie in `home`. Raises InputError."""
    return read_small_file(home / MANIFEST_NAME, MANIFEST_BYTES)


def _header(name: str, size: int) -> bytes:
    """The one tar header (POSIX ustar) that a plain file of this name and size has here."""
    if size > MOST_BYTES:
        raise InputError(f"{name}: found {size} bytes, expected at most {MOST_BYTES}; a bundle holds no larger file")
    fields = b"".join(
        [
            name.encode("utf-8", "replace").ljust(100, b"\0"),
            b"0000644\0",
            b"0000000\0" * 2,  # owner and group
            b"%011o\0" % size,
            b"%011o\0" % 0,  # time
            b" " * 8,  # checksum, taken as blanks
            b"0".ljust(101, b"\0"),  # a plain file, linked to nothing
            b"ustar\x0000".ljust(255, b"\0"),
        ]
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]
