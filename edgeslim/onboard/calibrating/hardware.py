"""Hardware: what processor and memory of this machine give, measured in a few seconds.

python -m edgeslim.onboard.calibrating.hardware CORES     prints a line of JSON
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeslim.errors import InputError, one_line
from edgeslim.onboard.doctor.groups import groups_of
from edgeslim.onboard.doctor.system import memory_of
from edgeslim.onboard.doctor.tree import Tree
from edgeslim.onboard.watching.scene_process import child_environment
from edgeslim.shelf import read_record
from edgeslim.units import GIGA, MEGA, MIB

_SIDES = (512, 1024, 1536)
"""Of the matrices multiplied: the best of these is what the processor gives."""
_SPELL_S = 0.3
"""Each is repeated for so long."""
_COPIED_BYTES = 64 * MIB
"""By each core: more than the caches of a board hold."""
_SHARE_OF_MEMORY = 16
"""At most this part of the available memory is copied, as source and as copy."""
_READ_BYTES = 128 << 10
"""At a time, as the system reads ahead."""
_LEAST_READ_BYTES = 4 * MIB
_CACHED_MB_S = 10_000
"""No storage that boots a board is faster: what is, came from the page cache."""
_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Hardware:
    """What this machine gives."""

    gemm_gflop_s: float
    """Most that float32 matrix products of NumPy reached on all cores."""
    copy_gb_s: float
    """Bytes read and written by copies on all cores, GB/s."""
    storage_mb_s: float | None = None
    """Read from storage, not from the page cache, MB/s; None: the system gave nothing but its cache."""
    total_mib: float | None = None
    """Memory that the system or the cgroup grants; None: it does not say."""
    available_mib: float | None = None
    """Of it, what could be had when this was asked; None: it does not say."""


def measure_hardware(cores: int, library: str) -> Hardware:
    """Measure, the processor in a process of its own that uses `cores`. `library` is a module to read from storage.

    Raises InputError where the process fails.
    """
    command = [sys.executable, "-m", "edgeslim.onboard.calibrating.hardware", str(cores)]
    threads = {f"{name}_NUM_THREADS": str(cores) for name in ("OPENBLAS", "OMP", "MKL", "BLIS")}
    try:
        done = subprocess.run(
            command, env={**child_environment(), **threads}, capture_output=True, timeout=_LIMIT_S, check=False
        )
        found = read_record(Hardware, json.loads(done.stdout), "hardware")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InputError(f"calibrate: the processor could not be measured ({one_line(error)})") from None
    memory = memory_mib()
    return Hardware(found.gemm_gflop_s, found.copy_gb_s, storage_mb_s(library), *memory)


def gemm_gflop_s() -> float:
    """GFLOP/s of the fastest float32 matrix product, on as many threads as NumPy's library was started with."""
    rng = np.random.default_rng(0)
    return max(2 * n**3 / _least_s(_product(rng, n)) / GIGA for n in _SIDES)


def _product(rng: np.random.Generator, n: int) -> Callable[[], object]:
    a, b = (rng.standard_normal((n, n), np.float32) for _ in range(2))
    out = np.empty((n, n), np.float32)
    return lambda: np.matmul(a, b, out=out)


def copy_gb_s(cores: int) -> float:
    """GB/s read and written by `cores` copies at the same time."""
    available = memory_mib()[1]
    each = _COPIED_BYTES if available is None else min(_COPIED_BYTES, int(available * MIB / _SHARE_OF_MEMORY / cores))
    pairs = [(np.ones(each, np.uint8), np.empty(each, np.uint8)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:

        def all_at_once() -> None:
            for future in [pool.submit(np.copyto, to, source) for source, to in pairs]:
                future.result()

        return 2 * each * cores / _least_s(all_at_once) / GIGA


def _least_s(call: Callable[[], object]) -> float:
    call()
    least, end = float("inf"), time.perf_counter() + _SPELL_S
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least


def memory_mib(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """Memory that this machine, or the control group of this process, grants, and what of it could be had now, MiB."""
    tree = Tree(root)
    memory = memory_of(tree, groups_of(tree))
    known = [value for value in (memory.available_mib, memory.limit_mib) if value is not None]
    return memory.usable_mib, None if memory.available_mib is None else min(known)


def storage_mb_s(library: str) -> float | None:
    """Rate at which the largest file of a module is read from storage, MB/s; None where only the page cache gave it."""
    found = importlib.util.find_spec(library)
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for folder in folders for path in Path(folder).rglob("*.so*") if path.is_file()]
    if not files or not hasattr(os, "posix_fadvise"):
        return None
    path = max(files, key=lambda file: file.stat().st_size)
    try:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start, count = time.perf_counter(), 0
            while part := file.read(_READ_BYTES):
                count += len(part)
            rate = count / (time.perf_counter() - start) / MEGA
    except OSError:
        return None
    return rate if count >= _LEAST_READ_BYTES and rate < _CACHED_MB_S else None


def main() -> None:
    """Print what the processor gives."""
    print(json.dumps(asdict(Hardware(gemm_gflop_s(), copy_gb_s(int(sys.argv[1]))))))


if __name__ == "__main__":
    main()
