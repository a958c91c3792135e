"""Processes that are measured: wall, CPU of the whole tree, peak resident memory; inside a memory cgroup if asked.

Standard library only: a child's ru_maxrss starts at what its parent held when it was made, so the parent stays small.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CGROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20


@dataclass(slots=True)
class Run:
    """One process, from its start to its end."""

    wall_s: float
    """Seconds from start to end."""
    cpu_s: float
    """User and system seconds of it and all that it waited for."""
    peak_mib: float
    """VmHWM of the largest of them, MiB."""
    code: int
    """Exit status; minus the signal that killed it."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """JSON objects among the lines that it printed, on stdout and stderr, each with `at_s` since its start."""
    text: str = ""
    """The last of the other lines."""

    def event(self, kind: str) -> dict[str, Any]:
        """The first NDJSON event of a kind; empty where there was none."""
        return next((line for line in self.lines if line.get("event") == kind), {})


def measure(
    command: Sequence[object], environment: dict[str, str] | None = None, cgroup: MemoryCgroup | None = None
) -> Run:
    """Run a command to its end; stdout and stderr are read line by line as they come."""
    words = [str(word) for word in command]
    if cgroup is not None:
        # The shell enters the group before it becomes the command, so that every page is charged to it.
        words = ["/bin/sh", "-c", f'echo $$ > "{cgroup.folder / "cgroup.procs"}" && exec "$@"', "sh", *words]
    lines, text = [], ""
    start = time.monotonic()
    process = subprocess.Popen(
        words,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            at = time.monotonic() - start
            try:
                record = json.loads(line) if line.startswith("{") else None
            except ValueError:
                record = None
            if isinstance(record, dict):
                lines.append({"at_s": round(at, 4), **record})
            elif line.strip():
                text = line.strip()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(
        round(wall, 4),
        round(usage.ru_utime + usage.ru_stime, 4),
        round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB, 2),
        process.returncode,
        lines,
        text[:300],
    )


def keep_to_cores(count: int) -> list[int]:
    """Keep this process and all its children to `count` cores; says which."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


def as_installed() -> None:
    """Compile what is measured, as pip leaves it: each process would otherwise compile every module that it imports."""
    for folder in (ROOT / "edgeslim", ROOT / "benchmarks"):
        compileall.compile_dir(folder, quiet=1)


def drop_page_cache(files: Sequence[Path] = ()) -> str:
    """Make the next read of the disk cold; says how: the whole cache as root, otherwise the named files."""
    if hasattr(os, "sync"):
        os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        for path in files:
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
        return "POSIX_FADV_DONTNEED on the files read"
    return "/proc/sys/vm/drop_caches"


def warm(path: Path) -> None:
    """Read a file once, so that it stands in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass


class MemoryCgroup:
    """A memory cgroup with a hard limit and no swap, v1 or v2. Raises OSError where none can be made."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        v1, v2 = CGROUPS / "memory", CGROUPS
        self.version = 2 if (v2 / "cgroup.controllers").is_file() else 1
        if self.version == 2:
            parent = v2
            if "memory" not in (parent / "cgroup.controllers").read_text().split():
                raise OSError("cgroup v2 without a memory controller")
            (parent / "cgroup.subtree_control").write_text("+memory")
        else:
            parent = v1
        self.folder = parent / f"edgeslim-benchmark-{os.getpid()}"
        self.folder.mkdir()
        try:
            if self.version == 2:
                (self.folder / "memory.max").write_text(str(limit_bytes))
                self._try("memory.swap.max", "0")
            else:
                (self.folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
                self._try("memory.memsw.limit_in_bytes", str(limit_bytes))
        except OSError:
            self.close()
            raise

    def _try(self, name: str, value: str) -> None:
        """Swap accounting is not in every kernel; without swap there is nothing to limit."""
        try:
            (self.folder / name).write_text(value)
        except OSError:
            return

    def peak_mib(self) -> float | None:
        """Highest charge: anonymous memory, page cache and the kernel's own. None where the kernel does not say."""
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        try:
            return round(int((self.folder / name).read_text()) / MIB, 2)
        except OSError:
            return None

    def close(self) -> None:
        """Remove it; the processes in it are gone by then."""
        for _ in range(50):
            try:
                self.folder.rmdir()
            except OSError:
                time.sleep(0.1)
            else:
                return

    def __enter__(self) -> MemoryCgroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": os.uname().release.split("-")[0],
        "python": sys.version.split()[0],
        "load_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what computes, without importing it."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("edgeslim", "numpy", "onnxruntime", "rasterio")}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
