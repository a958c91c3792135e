"""Hashes: what a scene is made of, so that a run can say what it saw and notice when that changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.manifest import sha256_of


def hashes_of(files: Sequence[Path]) -> dict[str, str]:
    """File name -> hex SHA-256, in the order of the files. Raises InputError if one cannot be read."""
    return {name: sha256_of(path) for name, path in zip(_names(files), files, strict=True)}


def _names(files: Sequence[Path]) -> list[str]:
    """Names without folders, where they differ: the same scene elsewhere is the same scene."""
    names = [path.name for path in files]
    return names if len(set(names)) == len(names) else [str(path) for path in files]


class Unchanged:
    """Notices that a file is not the one it was. Cheap: size, time of change and inode."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises InputError if one is missing."""
        self._before = {path: self._look(path) for path in files}

    def require(self) -> None:
        """Raise InputError if a file changed or vanished."""
        for path, before in self._before.items():
            if self._look(path) != before:
                raise InputError(f"{path}: changed while it was read; let it be written whole before it is classified")

    @staticmethod
    def _look(path: Path) -> tuple[int, int, int]:
        try:
            found = os.stat(path)
        except OSError as error:
            raise InputError(f"{path}: vanished while it was read ({error.strerror}); put it back") from None
        return found.st_size, found.st_mtime_ns, found.st_ino
