"""Stopping: a first SIGTERM or Ctrl-C asks for an orderly end, a second one ends at once."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

DEADLINE = "deadline"
"""Reason of a run that was stopped by its own time limit."""
EXIT_DEADLINE = 124
"""Exit code of a run that its deadline stopped: neither done (0) nor failed (1), and what timeout(1) returns."""


class Stopping:
    """The wish to stop, asked for by calling it. Use it in a `with`, in the main thread."""

    def __init__(self, deadline_s: float | None = None) -> None:
        self._end = None if deadline_s is None else time.monotonic() + deadline_s
        self._signal: str | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> str | None:
        """Why to stop: SIGTERM, SIGINT or deadline; None to go on."""
        if self._signal is None and self._end is not None and time.monotonic() >= self._end:
            return DEADLINE
        return self._signal

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            # Whatever hangs now, a third signal ends it.
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    def __enter__(self) -> Stopping:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
