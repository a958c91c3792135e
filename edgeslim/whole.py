"""Whole: a text file that appears whole or not at all, and never in the place of somebody else's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import InputError, UsageError


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
    require_makeable(path, kind.flag)


def write_whole(path: Path, text: str, kind: Kind, *, overwrite: bool = False) -> None:
    """Write a text as UTF-8, whole or not at all, making the folders above it.

    A file of another kind is replaced only with `overwrite`.

    Raises InputError if `path` cannot be written or holds something else.
    """
    require_free(path, kind, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, kind, error) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # mkstemp makes the file private; this one is as readable as any new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _unwritable(path, kind, error) from None


def _unwritable(path: Path, kind: Kind, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); give another name by {kind.flag}")
