"""A disk whose power fails: at a given operation, and with what was not synced lost or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from edgeslim.onboard.disk import Disk


class PowerCut(BaseException):
    """Nothing runs after it; no `except` for errors may catch it."""


class CutDisk(Disk):
    """Counts operations and fails before number `cut`. Moves that no folder sync has made last are remembered.

    Nothing is really synced: the page cache of the machine that runs the test keeps all it was given.
    """

    def __init__(self, cut: int | None = None) -> None:
        self.cut, self.count = cut, 0
        self.unsynced: list[tuple[Path, Path, bytes | None]] = []

    def tick(self) -> None:
        if self.cut is not None and self.count >= self.cut:
            raise PowerCut
        self.count += 1

    def make_folder(self, path: Path) -> None:
        self.tick()
        path.mkdir()

    def create(self, path: Path) -> BinaryIO:
        self.tick()
        return super().create(path)

    def append(self, file: BinaryIO, data: bytes) -> None:
        self.tick()
        super().append(file, data)

    def sync(self, file: BinaryIO) -> None:
        self.tick()

    def sync_folder(self, path: Path) -> None:
        self.tick()
        # A move lasts once the folder it went to is synced; the folder it came from then follows at worst.
        self.unsynced = [move for move in self.unsynced if move[1].parent != path]

    def replace(self, source: Path, target: Path) -> None:
        self.tick()
        old = target.read_bytes() if target.is_file() else None
        super().replace(source, target)
        self.unsynced.append((source, target, old))

    def remove(self, path: Path) -> None:
        self.tick()
        super().remove(path)

    def lose(self, which: Sequence[bool]) -> None:
        """Take back the moves that were not synced and that `which` names, the latest first."""
        for lost, (source, target, old) in reversed(list(zip(which, self.unsynced, strict=True))):
            if lost and os.path.lexists(target) and source.parent.is_dir():
                os.replace(target, source)
                if old is not None:
                    target.write_bytes(old)
