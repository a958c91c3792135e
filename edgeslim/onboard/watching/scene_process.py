"""Scene process: one scene classified in a process of its own, whose crash, hang or hunger ends that scene only.

GDAL and ONNX Runtime are native code fed with files that nobody has seen before. A process a scene costs the imports
and the artifact's check again, about a second for the embedded encoder, and gives: a segfault or the out-of-memory
killer takes one scene, a hang can be ended, no leak outlives its scene, the artifact's hashes are proved anew before
each, and the memory foretold for a scene is that of a fresh process.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from edgeslim.onboard.progress import ENDS, Event

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = b"900"
_LONGEST_LINE = 1 << 20
_OF_THE_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scene's process ended."""

    ended: Literal["done", "stopped", "refused", "crashed"]
    """Results are there; stopped and resumable; an error with an exit code; dead by a signal or without a word."""
    exit_code: int
    """Of the process; negative: the signal that killed it."""
    reason: str
    """One line; empty when done."""


class SceneProcess:
    """A running `edgeslim classify` of one scene. Use it in a `with`: what still runs at its end is killed."""

    def __init__(self, arguments: Sequence[str], keep_open: Sequence[int] = ()) -> None:
        """Start `edgeslim classify` with `arguments`. Raises OSError where no process can be started.

        `keep_open` are file descriptors that it shall hold as long as it lives: locks.
        """
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgeslim", "classify", *arguments),
                *("--progress", "json", "--json", "--parent", str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=child_environment(),
            pass_fds=tuple(keep_open),
            start_new_session=True,  # Ctrl-C reaches it through `ask_to_stop` only, and so once
        )
        stream = self._process.stderr
        if stream is None:  # for the type checker: it was asked for above
            raise OSError("no pipe")
        self._stream = stream
        os.set_blocking(stream.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)
        self._rest = b""
        self._open = True
        self._other: deque[str] = deque(maxlen=20)
        self._end: Event | None = None
        self._asked = False
        self.pid = self._process.pid

    def events(self, timeout_s: float) -> list[Event]:
        """What it said, after waiting at most `timeout_s`. What is no event is kept for the reason of a crash."""
        if not self._open:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            return []
        if not self._selector.select(timeout_s):
            # Ended, and nothing to read: whatever else holds the pipe has nothing to say for it.
            if self._process.poll() is not None and not self._selector.select(0):
                self._hang_up()
            return []
        found: list[Event] = []
        try:
            data = os.read(self._stream.fileno(), 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            self._hang_up()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (not data or len(self._rest) > _LONGEST_LINE):
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            event = Event.parse(text)
            if event is not None:
                found.append(event)
                self._end = event if event.kind in ENDS else self._end
            elif text:
                self._other.append(text[:500])
        return found

    def _hang_up(self) -> None:
        self._open = False
        self._selector.unregister(self._stream)

    def ask_to_stop(self) -> None:
        """Let it finish its row band and end, resumable."""
        self._asked = True
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now; what its journal has synced stays."""
        self._process.kill()

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs or has something to say."""
        if self._open:
            return None
        code = self._process.poll()
        if code is None:
            return None
        kind = "" if self._end is None else self._end.kind
        if code == 0 and kind == "done":
            return Outcome("done", code, "")
        if kind == "stopped" and code >= 0 and self._end is not None:
            return Outcome("stopped", code, str(self._end.data.get("reason")))
        if kind == "error" and code > 0 and self._end is not None:
            # 130: a second signal, or one before the first row band; no verdict on the scene.
            ended: Literal["stopped", "refused"] = "stopped" if code == 130 else "refused"
            return Outcome(ended, code, " ".join(str(self._end.data.get("text")).split()))
        if self._asked and code == -signal.SIGTERM:  # before it could listen
            return Outcome("stopped", code, signal.SIGTERM.name)
        return Outcome("crashed", code, self._crash(code))

    def _crash(self, code: int) -> str:
        last = self._other[-1] if self._other else ""
        if code >= 0:
            return f"its process ended with exit code {code} without saying why" + (f" ({last})" if last else "")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return "its process was killed (SIGKILL), most likely for want of memory; give --max-ram"
        return f"its process crashed ({name})" + (f": {last}" if last else "")

    def __enter__(self) -> SceneProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._selector.close()
        self._stream.close()


def child_environment() -> dict[str, str]:
    """Of a process that works for this one: the service manager is none of its business, nor are others' statistics.

    ONNX Runtime 1.29 and later keeps a data base of usage events in the home folder and uploads it unless it is told
    not to before it starts: that is a network, a writable home and a thread that nobody on board asked for.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _OF_THE_SERVICE}
    return {"ORT_DISABLE_TELEMETRY": "1", **kept}


def end_with(parent: int) -> None:
    """In a scene's process: die when `parent` does, and be the first that the out-of-memory killer takes.

    Without it a killed watcher would leave a process that still works on a scene which the next watcher takes up. Where
    there is no such system call (not Linux) the lock that the process inherited keeps the next one waiting.
    """
    if sys.platform.startswith("linux"):
        with suppress(ImportError, OSError, AttributeError):  # a C library of another kind: as elsewhere, then
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_SCORE)
    if os.getppid() != parent:  # it died before the call above
        os._exit(130)
