"""Work: the hidden folder in which something is made that is to appear whole, beside the place where it will stand.

It is called .NAME-KIND-XXXXXXXX, and its process holds it by a lock. One that nobody holds is what a killed process
left: the next work of the same name and kind removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def work_folder(
    parent: Path, name: str, kind: str, put_back: Callable[[Path], None] = lambda _: None
) -> Iterator[Path]:
    """A folder in `parent` to make what is to be called `name` there; removed at the end.

    What killed processes left there of that name and kind is removed first. Before one goes, `put_back` takes out of it
    what must not go with it. Raises OSError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a folder that may be written, but not listed
        for path in sorted(parent.iterdir()):
            if work_names(name, kind).fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # another person's
                    _remove_left(path, put_back)
    work, lock = _held_folder(parent, f".{name}-{kind}-")
    try:
        yield work
    finally:
        try:
            put_back(work)
            shutil.rmtree(work, ignore_errors=True)
        finally:
            _let_go(lock)


def work_names(name: str, kind: str) -> re.Pattern[str]:
    """What work folders of that name and kind are called."""
    return re.compile(re.escape(f".{name}-{kind}-") + "[a-z0-9_]{8}")


def _held_folder(parent: Path, prefix: str) -> tuple[Path, int | None]:
    """A new work folder, and the file descriptor that holds it."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):
            lock = _hold(work, wait=True)
            if work.exists():  # nobody took it for a leftover before it was held
                return work, lock
            _let_go(lock)


def _hold(folder: Path, *, wait: bool = False) -> int | None:
    """A file descriptor that holds a folder alone; None where another holds it, or where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _let_go(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _remove_left(work: Path, put_back: Callable[[Path], None]) -> None:
    """Remove a work folder whose process is gone."""
    if (lock := _hold(work)) is None:
        return
    try:
        put_back(work)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        _let_go(lock)
