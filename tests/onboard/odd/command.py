"""The command line as a user meets it: its own process, with its peak memory, under limits of time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
MEMORY_MIB = 1024
"""No raster of this size may cost more; the address space is limited to four times that."""
SECONDS = 240


@dataclass(frozen=True)
class Finished:
    """What a run of the command line left behind."""

    code: int
    stdout: str
    stderr: str
    peak_mib: float


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_MIB << 20,) * 2)


def edgeslim(*arguments: str | Path) -> Finished:
    """Run `edgeslim ARGUMENTS`. Killed, with code -9, if it does not end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "TERM": "dumb"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeslim", *map(str, arguments)],
            stdout=out,
            stderr=err,
            env=environment,
            preexec_fn=_limit,
        )
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Finished(
            process.returncode,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            usage.ru_maxrss / 1024,
        )
