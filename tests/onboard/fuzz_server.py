"""Runs edgeslim's command line many times in one process, for tests that would start thousands of interpreters.

One JSON object a line on stdin, {"argv": [...], "folder": "...", "seconds": 10}, and one back on stdout for each. A
case that hangs is killed by its alarm and takes the process with it, as a crash in native code does: `Server` sees
that, reports it as the case's outcome and starts anew.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
ADDRESS_SPACE_MIB = 4096
"""What a case may map beyond what the libraries did: protects the machine. What it may touch is the test's to say."""


@dataclass(frozen=True)
class Outcome:
    """What became of one command."""

    code: int | None
    """Exit code; None: the process died or an exception came out."""
    stdout: str
    """What it printed."""
    stderr: str
    """What it complained, native libraries' words included."""
    trace: str
    """The traceback of an exception that nobody caught, or how the process died."""
    mib: float
    """Peak resident memory beyond what was resident before, MiB."""


class Server:
    """A child process that runs commands; started when first asked, and again after a death."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, argv: list[str], folder: Path, seconds: float) -> Outcome:
        """Run one command in `folder`; a case that takes longer than `seconds` is killed."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.onboard.fuzz_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb"},
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        request = {"argv": argv, "folder": str(folder), "seconds": seconds}
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        self._child.stdin.flush()
        if line := self._child.stdout.readline():
            return Outcome(**json.loads(line))
        code = self._end()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"process ended with {code}"
        if code == -signal.SIGALRM:
            how = f"hangs: still running after {seconds:g} s"
        return Outcome(None, "", "", how, 0.0)

    def _end(self) -> int:
        child, self._child = self._child, None
        assert child is not None
        if child.stdin is not None:
            child.stdin.close()  # upon which it ends
        with child:
            return child.wait()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._end()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # the peak of all cases so far is then an upper bound of this one's
        return


def _run(main: Any, request: dict[str, Any]) -> Outcome:
    os.chdir(request["folder"])
    code, trace = None, ""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        _reset_peak()
        before = _status_mib("VmRSS")
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            code = main(request["argv"])
        except BaseException:
            trace = traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        mib = _status_mib("VmHWM") - before
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return Outcome(code, texts[0], texts[1], trace, mib)


def main() -> None:
    import numpy as np  # noqa: F401  what every command would load is not counted as a case's memory
    import onnxruntime  # noqa: F401
    import rasterio  # noqa: F401

    import edgeslim.onboard.check
    import edgeslim.onboard.classify
    from edgeslim.cli import main as edgeslim

    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    limit = int((_status_mib("VmSize") + ADDRESS_SPACE_MIB) * MIB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        outcome = _run(edgeslim, json.loads(line))
        replies.write(json.dumps(vars(outcome)) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
