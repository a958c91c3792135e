"""Tile files: the images under a folder or inside a zip, whoever labels them."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from edgeslim.errors import InputError, shown

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
"""Of tiles: JPEG, PNG and GeoTIFF."""
LARGEST_BYTES = 1 << 28
"""Of a tile's file."""
_MACS_OWN = "__MACOSX"
"""In a zip of a Mac: the folder of what it keeps beside each file, under the file's own name."""
_ENCRYPTED = 1
"""Flag of an entry of a zip."""
_ENTRY_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
"""What zipfile raises for a damaged entry, or one that it cannot unpack, beside OSError."""


def tile_files(source: Path, suffixes: Collection[str] = SUFFIXES) -> dict[str, Callable[[], bytes]]:
    """Path inside `source` -> what reads it (raises OSError), in the order of the paths.

    Hidden files and folders are none of a person's tiles: previews, checkpoints of notebooks, a Mac's own. Links to
    folders are followed, each folder once. Raises InputError where `source` is neither a folder nor a zip, is
    encrypted, or has a tile whose name is no text.
    """
    found: dict[str, Callable[[], bytes]]
    if source.is_dir():
        paths = sorted(path for path in _walk(source) if path.suffix.lower() in suffixes and path.is_file())
        found = {path.relative_to(source).as_posix(): partial(_read_file, path) for path in paths}
    elif source.is_file() and zipfile.is_zipfile(source):
        found = _entries(source, suffixes)
    else:
        raise InputError(f"--tiles {source}: found neither a folder nor a zip, expected tiles")
    for name in found:
        if not name.isprintable():
            raise InputError(f"--tiles {source}: '{shown(name)}' is no printable text in UTF-8; rename it")
    return found


def _walk(source: Path) -> Iterator[Path]:
    """Files that are not hidden, at any depth. Of a folder that links lead to again, those of the first path to it."""
    seen: set[str] = set()
    for folder, inside, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not _hidden(name))
        yield from (Path(folder) / name for name in names if not _hidden(name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == _MACS_OWN


def _entries(source: Path, suffixes: Collection[str]) -> dict[str, Callable[[], bytes]]:
    try:
        archive = zipfile.ZipFile(source)  # stays open for as long as anything that reads from it does
    except (OSError, *_ENTRY_ERRORS) as error:
        raise InputError(f"--tiles {source}: a damaged zip ({error}); copy it again") from None
    entries = [
        entry
        for entry in archive.infolist()
        if PurePosixPath(entry.filename).suffix.lower() in suffixes
        and not any(_hidden(part) for part in PurePosixPath(entry.filename).parts)
    ]
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise InputError(f"--tiles {source}: found an encrypted zip, expected one without a password; unpack it")
    return {name: partial(_read_entry, archive, name) for name in sorted(entry.filename for entry in entries)}


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_BYTES:
        raise OSError(f"larger than {LARGEST_BYTES >> 20} MiB")
    return path.read_bytes()


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST_BYTES:
        raise OSError(f"larger than {LARGEST_BYTES >> 20} MiB")
    try:
        return archive.read(name)
    except _ENTRY_ERRORS as error:
        raise OSError(f"cannot be unpacked ({error})") from None
