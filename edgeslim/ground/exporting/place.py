"""Place: where artifacts go: what may be replaced there, and how.

An artifact is made in a hidden folder beside its place, .NAME-export-XXXXXXXX, which its process holds by a lock. One
that nobody holds is what a killed export left: the next one of the same name removes it, and puts back an artifact that
was moved aside there and had not been replaced yet.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_NAME, read_manifest
from edgeslim.whole import require_makeable

_ASIDE = "replaced"
"""Folder, of a work folder, of the artifacts that were moved aside."""


def check_place(out: Path) -> None:
    """An artifact may be replaced and an empty folder filled; a user's own files are never touched."""
    if not out.exists():
        require_makeable(out, "-o")
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifact")
    ours = {MANIFEST_NAME, *read_manifest(out).files} if (out / MANIFEST_NAME).is_file() else set()
    if strangers := sorted(p.name for p in out.iterdir() if p.name not in ours):
        raise InputError(f"-o {out}: holds {strangers[0]}, which is no part of an artifact; choose another folder")
    if out.samefile(Path.cwd()):
        raise InputError(f"-o {out}: is the folder that you are in, which no other can replace; name one inside it")
    if os.path.ismount(os.path.realpath(out)):
        raise InputError(f"-o {out}: is where a disk is mounted, which no folder can replace; name one inside it")


def check_parent(out: Path, names: set[str]) -> None:
    """A folder of several artifacts holds nothing but artifacts."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifacts")
    name = Path(os.path.realpath(out)).name
    for path in sorted(out.iterdir()):
        if path.name not in names and not (path / MANIFEST_NAME).is_file() and not _work_of(name).fullmatch(path.name):
            raise InputError(f"-o {out}: holds {path.name}, which is no artifact; choose another folder")


@contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder in `parent` to make the artifacts in that -o calls `name`; removed at the end.

    What killed exports of that name left there is removed first. Raises OSError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for path in sorted(parent.iterdir()):
        if _work_of(name).fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # another person's
                _recover(path)
    work, lock = _held_folder(parent, name)
    try:
        yield work
    finally:
        _put_back(work)
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def swap(made: Path, place: Path, work: Path) -> None:
    """Put the artifact `made` into its place beside the folder `work`, which keeps the old one until its end."""
    if place.exists():
        (work / _ASIDE).mkdir(exist_ok=True)
        os.replace(place, work / _ASIDE / place.name)
    os.replace(made, place)


def _work_of(name: str) -> re.Pattern[str]:
    """What work folders of that name are called."""
    return re.compile(re.escape(f".{name}-export-") + "[a-z0-9_]{8}")


def _held_folder(parent: Path, name: str) -> tuple[Path, int]:
    """A new work folder, and the file descriptor that holds it."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{name}-export-", dir=parent))
        lock = os.open(work, os.O_RDONLY)
        _hold(lock, wait=True)
        if work.exists():  # nobody took it for a leftover before it was held
            return work, lock
        os.close(lock)


def _hold(folder: int, *, wait: bool = False) -> bool:
    """Whether this process now holds a folder alone; False, too, where a file system has no locks."""
    try:
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _recover(left: Path) -> None:
    """Remove a work folder whose process is gone."""
    lock = os.open(left, os.O_RDONLY)
    try:
        if _hold(lock):
            _put_back(left)
            shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def _put_back(work: Path) -> None:
    """Let an artifact stand again that was moved aside and that none replaced."""
    for aside in sorted((work / _ASIDE).iterdir()) if (work / _ASIDE).is_dir() else ():
        if not (place := work.parent / aside.name).exists():
            os.replace(aside, place)
