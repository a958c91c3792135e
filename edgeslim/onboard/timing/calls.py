"""Calls: a network asked for the golden tiles from several threads at once, every answer looked at.

A worker calls, is timed, and then holds the answer against the first one to the same tiles: what gets faster by
answering wrongly, or breaks when it gets hot, is not timed but reported.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import UntrustedResult
from edgeslim.onboard.timing.case import Case

F32 = NDArray[np.float32]
Clock = Callable[[], float]
"""Seconds since any moment."""
WARM_UP_S = 0.5
"""How long calls are made before they count: a processor that slept is slow at first."""
WARM_UP_CALLS = 2
"""Of each worker, at least: the first of a batch size only plans."""
CALLS_OF_P99 = 100
"""Below so many calls the slowest one decides what their 99th percentile is."""
_TICK_S = 0.25


def six_digits(value: float) -> float:
    """A measured figure as records hold it."""
    return float(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a network took. A tile's time is that of its call, divided by the tiles of the call."""

    batch: int
    """Tiles a call."""
    workers: int
    """Calls at the same time."""
    threads: int
    """Of the runtime, for each call."""
    calls: int
    """How many were timed."""
    seconds: float
    """From the first of them to the last."""
    p50_ms: float
    """Of a tile: half of the calls were at most so slow."""
    p95_ms: float
    """Of a tile: 95 of 100 were."""
    p99_ms: float | None
    """Of a tile: 99 of 100 were; None with fewer than CALLS_OF_P99 calls."""
    tiles_per_s: float
    """Of all workers together."""
    open_ms: float
    """Hashes verified, runtime's library imported, network loaded; its files were read before, as a rule."""
    first_ms: float
    """First call."""
    peak_mib: float
    """Most resident memory of a process that does nothing else."""
    others_cores: float | None
    """Cores that other processes kept busy meanwhile; None: not known."""


class Golden:
    """The golden tiles of an artifact, given to its network in batches that go round."""

    def __init__(self, name: str, run: Callable[[F32], F32], tiles: F32, batch: int, tolerance: float) -> None:
        """`run` gives the logits (n, classes) of tiles (n, bands, tile, tile); `name` is what errors call it."""
        self._name, self._run, self._tolerance = name, run, tolerance
        self._batch, self._count = batch, len(tiles)
        self._ring = np.resize(tiles, (len(tiles) + batch, *tiles.shape[1:]))
        self._first: dict[int, F32] = {}

    def call(self, number: int) -> F32:
        """Logits of batch `number`. Raises InputError if the network fails."""
        start = number * self._batch % self._count
        return self._run(self._ring[start : start + self._batch])

    def require(self, number: int, logits: F32) -> None:
        """Raise UntrustedResult where an answer is not finite, or not the first one to the same tiles."""
        first = self._first.setdefault(number * self._batch % self._count, logits)
        with np.errstate(invalid="ignore"):
            same = first.shape == logits.shape and float(np.abs(logits - first).max()) <= self._tolerance
        if not same:  # a NaN is not less than anything
            raise UntrustedResult(
                f"{self._name}: found another answer to the same {self._batch} golden tiles than before, expected the "
                f"same within {self._tolerance:g}; run `edgeslim check`"
            )


def call_together(
    golden: Golden,
    workers: int,
    note: Callable[[int, float, float], bool],
    tick: Callable[[], None] | None = None,
    clock: Clock = time.perf_counter,
) -> None:
    """Call from `workers` threads at once, each until `note(worker, start, end)` of its last call is false.

    `tick` is called now and then meanwhile, in the caller's thread. Raises what a call raises.
    """
    failed = threading.Event()
    together = threading.Barrier(workers)

    def work(worker: int) -> None:
        together.wait()
        number = worker
        try:
            while not failed.is_set():
                start = clock()
                logits = golden.call(number)
                end = clock()
                golden.require(number, logits)
                if not note(worker, start, end):
                    return
                number += workers
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(workers, "worker") as pool:
        futures = [pool.submit(work, worker) for worker in range(workers)]
        while wait(futures, _TICK_S).not_done:
            if tick is not None:
                tick()
        for future in futures:
            future.result()


class Tally:
    """How many calls each worker made, and from when to when."""

    def __init__(self, case: Case, stop: Callable[[], bool]) -> None:
        """Calls end when the case says so, or `stop`."""
        self._case, self._stop = case, stop
        self.calls = [0] * case.workers
        self._first = [0.0] * case.workers
        self._last = [0.0] * case.workers

    def add(self, worker: int, start: float, end: float) -> bool:
        """Count a call; whether that worker goes on."""
        if not self.calls[worker]:
            self._first[worker] = start
        self.calls[worker] += 1
        self._last[worker] = end
        wanted = end - self._first[worker] < self._case.seconds or sum(self.calls) < self._case.least_calls
        return wanted and not self._stop()

    @property
    def began(self) -> float:
        """When the first call of all began."""
        return min(first for first, calls in zip(self._first, self.calls, strict=True) if calls)

    @property
    def seconds(self) -> float:
        """For how long all workers were at work."""
        return min(self._last) - self.began

    def tiles_per_s(self) -> float:
        """Of all workers together: each for as long as it was at work, as they do not end at the same time."""
        spans = zip(self.calls, self._first, self._last, strict=True)
        return sum(self._case.batch * calls / max(last - first, 1e-9) for calls, first, last in spans if calls)


def time_calls(
    golden: Golden,
    case: Case,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[Tally, list[float]]:
    """How many calls were made, and how long each took, s. `tick` is told the tiles a second so far."""
    tally = Tally(case, stop)
    times = [array("d") for _ in range(case.workers)]

    def note(worker: int, start: float, end: float) -> bool:
        times[worker].append(end - start)
        return tally.add(worker, start, end)

    call_together(golden, case.workers, note, tick and (lambda: tick(tally.tiles_per_s())), clock)
    return tally, [seconds for worker in times for seconds in worker]


def timing_of(
    case: Case,
    tally: Tally,
    times_s: list[float],
    *,
    open_ms: float,
    first_ms: float,
    peak_mib: float,
    others_cores: float | None,
) -> Timing:
    """The record of what was timed."""
    p50, p95, p99 = np.percentile(times_s, (50, 95, 99)) * 1e3 / case.batch
    return Timing(
        batch=case.batch,
        workers=case.workers,
        threads=case.threads,
        calls=len(times_s),
        seconds=six_digits(tally.seconds),
        p50_ms=six_digits(p50),
        p95_ms=six_digits(p95),
        p99_ms=six_digits(p99) if len(times_s) >= CALLS_OF_P99 else None,
        tiles_per_s=six_digits(tally.tiles_per_s()),
        open_ms=six_digits(open_ms),
        first_ms=six_digits(first_ms),
        peak_mib=six_digits(peak_mib),
        others_cores=None if others_cores is None else six_digits(others_cores),
    )
