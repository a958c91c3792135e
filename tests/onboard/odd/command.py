"""The command line as a user meets it: its own process, with its peak memory, under limits of time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
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
        deadline, peak = time.monotonic() + SECONDS, 0.0
        while process.poll() is None:
            peak = max(peak, _peak_mib(process.pid))
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)
        out.seek(0)
        err.seek(0)
        stdout, stderr = (f.read().decode(errors="replace") for f in (out, err))
        return Finished(process.returncode, stdout, stderr, peak)


def _peak_mib(pid: int) -> float:
    """VmHWM of a process; its ru_maxrss would count what it shared with this one before it began."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found and "python" in status.splitlines()[0] else 0.0
