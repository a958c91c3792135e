"""Place: where artifacts go: what may be replaced there, and how.

An artifact is made in a hidden folder beside its place, .NAME-export-XXXXXXXX (edgeslim/work.py). What a killed export
left goes with the next one of the same name, which puts back an artifact that was moved aside there and had not been
replaced yet.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_NAME, read_manifest
from edgeslim.whole import require_makeable
from edgeslim.work import work_folder, work_names

_KIND = "export"
"""Of work folders."""
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
    names_of_work = work_names(Path(os.path.realpath(out)).name, _KIND)
    for path in sorted(out.iterdir()):
        if path.name not in names and not (path / MANIFEST_NAME).is_file() and not names_of_work.fullmatch(path.name):
            raise InputError(f"-o {out}: holds {path.name}, which is no artifact; choose another folder")


def export_folder(parent: Path, name: str) -> AbstractContextManager[Path]:
    """A folder in `parent` to make the artifacts in that -o calls `name`; removed at the end.

    What killed exports of that name left there is removed first. Entering it raises OSError.
    """
    return work_folder(parent, name, _KIND, _put_back)


def swap(made: Path, place: Path, work: Path) -> None:
    """Put the artifact `made` into its place beside the folder `work`, which keeps the old one until its end."""
    if place.exists():
        (work / _ASIDE).mkdir(exist_ok=True)
        os.replace(place, work / _ASIDE / place.name)
    os.replace(made, place)


def _put_back(work: Path) -> None:
    """Let an artifact stand again that was moved aside and that none replaced."""
    for aside in sorted((work / _ASIDE).iterdir()) if (work / _ASIDE).is_dir() else ():
        if not (place := work.parent / aside.name).exists():
            os.replace(aside, place)
