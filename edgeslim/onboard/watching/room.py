"""Room: whether there is room for one more scene's results."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

from edgeslim.units import mib

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that has no room left, for anybody or for this user."""
_MEASURE_S = 30.0
_HOLD_S = 60.0


class Room:
    """The outbox's own limit, and that of the disk it lies on."""

    def __init__(self, outbox: Path, max_outbox: int | None, min_free: int) -> None:
        """`max_outbox`, `min_free`: bytes."""
        self._outbox, self._max_outbox, self._min_free = outbox, max_outbox, min_free
        self._measured: tuple[float, int] | None = None
        self._hold = (float("-inf"), "")

    @property
    def outbox_mib(self) -> float | None:
        """What the outbox took on disk when it was last measured, MiB; None: never."""
        return None if self._measured is None else round(mib(self._measured[1]), 1)

    def is_short(self) -> bool:
        """Whether the disk has less free than is to stay free. Raises OSError."""
        return shutil.disk_usage(self._outbox).free < self._min_free

    def was_full(self, said: str) -> None:
        """A process says that the disk was full. What it had written went with it: not again at once, then."""
        if any(os.strerror(number) in said for number in FULL):
            self._hold = (time.monotonic() + _HOLD_S, f"the disk was full ({said}); make room")

    def forget(self) -> None:
        """The outbox changed: it is measured anew when it is next asked for."""
        self._measured = None

    def lacking(self, at_once: bool = False) -> str:
        """Why no scene may begin; empty where one may. `at_once`: measure now. Raises OSError."""
        if time.monotonic() < self._hold[0]:
            return self._hold[1]
        if self.is_short():
            free = shutil.disk_usage(self._outbox).free
            return f"{mib(free):,.0f} MiB free on the outbox's disk, expected {mib(self._min_free):,.0f}; make room"
        if self._max_outbox is None:
            return ""
        if at_once or self._measured is None or time.monotonic() - self._measured[0] > _MEASURE_S:
            self._measured = (time.monotonic(), disk_bytes(self._outbox))
        if (held := self._measured[1]) < self._max_outbox:
            return ""
        return f"the outbox holds {mib(held):,.0f} MiB of {mib(self._max_outbox):,.0f}; fetch results and remove them"


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder and all in it take on disk. What goes while it is counted counts as gone."""
    total, stack = 0, [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    except OSError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
        except OSError:
            continue
    return total
