"""Place: where artifacts go: what may be replaced there, and how."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_NAME, read_manifest


def check_place(out: Path) -> None:
    """An artifact may be replaced and an empty folder filled; a user's own files are never touched."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifact")
    ours = {MANIFEST_NAME, *read_manifest(out).files} if (out / MANIFEST_NAME).is_file() else set()
    if strangers := sorted(p.name for p in out.iterdir() if p.name not in ours):
        raise InputError(f"-o {out}: holds {strangers[0]}, which is no part of an artifact; choose another folder")


def check_parent(out: Path, names: set[str]) -> None:
    """A folder of several artifacts holds nothing but artifacts."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifacts")
    for path in sorted(out.iterdir()):
        if path.name not in names and not (path / MANIFEST_NAME).is_file():
            raise InputError(f"-o {out}: holds {path.name}, which is no artifact; choose another folder")


def swap(work: Path, out: Path) -> None:
    """Put `work` in the place of `out`; the old artifact stands until the new one is complete."""
    if not out.exists():
        os.replace(work, out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent)) / out.name
    os.replace(out, aside)
    try:
        os.replace(work, out)
    except OSError:
        os.replace(aside, out)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
