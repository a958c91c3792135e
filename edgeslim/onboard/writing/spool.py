"""Spool: a nameless file for what waits to be put in its place; it is gone with the process, whatever ends that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO


def open_spool(folder: Path) -> IO[bytes]:
    """A file in `folder` for writing and reading. Raises OSError if none can be made."""
    return tempfile.TemporaryFile(dir=folder)


def close_quietly(file: IO[bytes] | IO[str]) -> None:
    """Close a file that is of no use any more; on a full disk what it still wanted to write fails."""
    try:
        file.close()
    except OSError:
        return
