"""Disk: every operation that must survive a power cut, in one place, so that a test can record and replay them.

What a power cut may take: data written since the file's last `sync`, in any part and order; names made, moved or
removed since the folder's last `sync_folder`. Nothing else is relied on. All raise OSError.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


class Disk:
    """The real disk."""

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent exists; the parent is synced."""
        path.mkdir()
        self.sync_folder(path.parent)

    def create(self, path: Path) -> BinaryIO:
        """An empty file, open for appending; its name lasts once the folder is synced."""
        return path.open("xb", buffering=0)

    def append_to(self, path: Path, size: int) -> BinaryIO:
        """An existing file cut to `size` bytes, open for appending there."""
        file = path.open("r+b", buffering=0)
        file.truncate(size)
        file.seek(size)
        return file

    def append(self, file: BinaryIO, data: bytes) -> None:
        """Write all of `data` at the end."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def sync(self, file: BinaryIO) -> None:
        """What was appended lasts."""
        os.fsync(file.fileno())

    def sync_file(self, path: Path) -> None:
        """What others wrote into a closed file lasts."""
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        """Names made, moved or removed in a folder last."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Move a file over another; both folders are to be synced."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()
