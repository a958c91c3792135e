"""Measuring: one case timed in this process, which does nothing else, so that its peak of memory is the case's own.

python -m edgeslim.onboard.timing.measuring ORDER    prints a line of JSON for whatever happened
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeslim.errors import EdgeslimError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, read_manifest, sha256_of
from edgeslim.onboard.check import doubts, prove, read_golden, require_golden
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.resident import (
    LOADING_BLOCK_BYTES,
    RUNNING_BLOCK_BYTES,
    give_back,
    highest_bytes,
    map_blocks_from,
)
from edgeslim.onboard.timing.calls import WARM_UP_CALLS, WARM_UP_S, Golden, time_calls, timing_of
from edgeslim.onboard.timing.case import Case
from edgeslim.onboard.timing.sensors import OtherWork, Sensors
from edgeslim.onboard.timing.sustained import sustain, sustained_of
from edgeslim.onboard.watching.scene_process import end_with
from edgeslim.shelf import read_record
from edgeslim.units import mib

_SAID_EVERY_S = 1.0

Emit = Callable[[str, dict[str, Any]], None]
"""Is told what happened, and the fields that go with it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure, and for whom."""

    folder: str
    """Where the files of the artifact lie."""
    manifest_sha256: str
    """Of the manifest's file that is expected there."""
    case: Case
    """How to call it."""
    parent: int
    """Process that is told; this one dies with it."""


def measure(order: Order, emit: Emit, stop: Callable[[], bool]) -> None:
    """Open the artifact, prove it, and time it.

    Tells of "opened", "progress" about once a second, and, unless it was stopped too early to say anything, "timing" or
    "sustained". Raises as `edgeslim check` does.
    """
    folder, case = Path(order.folder), order.case
    map_blocks_from(LOADING_BLOCK_BYTES)
    manifest = read_manifest(folder)
    if sha256_of(folder / MANIFEST_NAME) != order.manifest_sha256:
        raise UntrustedResult(f"{folder}: became another artifact while it was timed; run the same command again")
    require_golden(folder, manifest)
    began = time.perf_counter()
    runtime = open_runtime(folder, manifest, case.threads, case.workers)
    open_ms = (time.perf_counter() - began) * 1e3
    tiles, _ = read_golden(folder, manifest)
    golden = Golden(str(folder), runtime.run, tiles, case.batch, manifest.golden.tolerance)
    began = time.perf_counter()
    golden.call(0)
    first_ms = (time.perf_counter() - began) * 1e3
    prove(folder, manifest, runtime, (case.batch,))
    chip = ""
    if manifest.providers:
        from edgeslim.onboard.engine import chip_of

        chip = chip_of(manifest)
    emit("opened", {"runtime": runtime.version, "on": chip, "warnings": doubts(folder, manifest)})
    warm_up = replace(case, seconds=WARM_UP_S, least_calls=WARM_UP_CALLS * case.workers, window_s=None)
    time_calls(golden, warm_up, stop)
    if stop():
        return
    map_blocks_from(RUNNING_BLOCK_BYTES)
    give_back()
    tick, others = _progress(emit), OtherWork()
    if case.window_s is None:
        tally, times_s = time_calls(golden, case, stop, tick)
        if len(times_s) >= case.least_calls:
            timing = timing_of(
                case,
                tally,
                times_s,
                open_ms=open_ms,
                first_ms=first_ms,
                peak_mib=mib(highest_bytes()),
                others_cores=others.cores(),
            )
            emit("timing", asdict(timing))
        return
    seen = sustain(golden, case, Sensors(), stop, tick)
    found = sustained_of(
        case, *seen, peak_mib=mib(highest_bytes()), others_cores=others.cores(), cores=os.cpu_count() or 1
    )
    emit("sustained", asdict(found))


def _progress(emit: Emit) -> Callable[[float], None]:
    began = said = time.monotonic()

    def tick(tiles_per_s: float) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= _SAID_EVERY_S:
            said = now
            emit("progress", {"seconds": now - began, "tiles_per_s": tiles_per_s})

    return tick


def _say(kind: str, data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"said": kind, **data}) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Measure what the first argument orders. Returns the exit code."""
    wish = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: wish.set())
    try:
        order = read_record(Order, json.loads(sys.argv[1]), "order")
        end_with(order.parent)
        measure(order, _say, wish.is_set)
    except EdgeslimError as error:
        _say("error", {"text": str(error), "exit_code": error.exit_code})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
