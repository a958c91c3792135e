"""Whole: a file that appears whole or not at all; and a text, never in the place of somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeslim.errors import InputError, UsageError
from edgeslim.work import work_folder


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file that edgeslim writes."""

    name: str
    """In messages: "plan"."""
    flag: str
    """Of the command line, that gives its name: "-o"."""
    is_one: Callable[[Path], bool]
    """Whether an existing file is one of this kind, which may be replaced."""
    suffix: str = ""
    """Of every file of this kind, as other programs go by it; "": of any name."""


def require_makeable(path: Path, flag: str) -> None:
    """Raise InputError unless a file could be made at `path`, with the folders above it: asked before long work."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{flag} {path}: found a file at {above}, expected a folder; choose another name")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {path}: cannot be written (no permission in {above}); choose another place")


def require_free(path: Path, kind: Kind, *, overwrite: bool = False) -> None:
    """Raise InputError if `path` is a folder, a file of another kind that is not to be replaced, or cannot be made.

    UsageError for a name whose suffix is that of another kind.
    """
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected a file's name for the {kind.name}; give one by {kind.flag}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: found a device or a pipe, expected a file's name; give one by {kind.flag}")
    if path.exists() and not overwrite and not kind.is_one(path):
        raise InputError(
            f"{path}: found a file that is no {kind.name}, kept it; give another name by {kind.flag} or --overwrite"
        )
    if not path.name.endswith(kind.suffix):
        raise UsageError(f"{kind.flag} {path}: found suffix {path.suffix!r}, expected {kind.suffix}")
    require_makeable(named(path), kind.flag)


@contextmanager
def new_file(path: Path, flag: str) -> Iterator[BinaryIO]:
    """A file that appears at `path`, given by `flag`, whole or not at all; the folders above it are made.

    It replaces what stands there; where that is a link, what the link names. What a killed process left of it goes with
    the next one of that name. Raises InputError where it cannot be written.
    """
    place = named(path)
    try:
        with work_folder(place.parent, place.name, "new") as work:
            made = work / place.name
            with made.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, place)
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written ({error.strerror}); choose another place") from None


def named(path: Path) -> Path:
    """What a link names, which is written in its place: the link stays one. Any other path as it was given."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def write_whole(path: Path, text: str, kind: Kind, *, overwrite: bool = False) -> None:
    """Write a text as UTF-8, whole or not at all, making the folders above it.

    A file of another kind is replaced only with `overwrite`.

    Raises InputError if `path` cannot be written or holds something else.
    """
    require_free(path, kind, overwrite=overwrite)
    with new_file(path, kind.flag) as file:
        file.write(text.encode())
