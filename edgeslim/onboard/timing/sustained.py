"""Sustained: the rate of a network over minutes, in which a board gets as warm as it will be in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeslim.onboard.timing.calls import Clock, Golden, Tally, call_together, six_digits
from edgeslim.onboard.timing.case import Case
from edgeslim.onboard.timing.sensors import Sensors, crowded

MINUTE_S = 60.0
THROTTLED_FALL = 0.05
"""Fall of the rate, as a share, from which it is called throttled."""


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of time."""

    end_s: float
    """Since the first call."""
    tiles_per_s: float
    """Of all workers together."""
    temperature_c: float | None
    """Of the processor at its end, °C; None: not known."""
    frequency_mhz: float | None
    """Of the processor at its end, mean of the cores; None: not known."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """The rate over minutes."""

    batch: int
    """Tiles a call."""
    workers: int
    """Calls at the same time."""
    threads: int
    """Of the runtime, for each call."""
    seconds: float
    """For how long it was watched: less than was asked for where it was stopped."""
    tiles_per_s: float
    """Over all of it."""
    span_s: float
    """Of the two rates that follow: a minute, or half of what was watched."""
    first_tiles_per_s: float
    """In the beginning."""
    last_tiles_per_s: float
    """At the end."""
    lowest_tiles_per_s: float
    """Of the slowest window."""
    lowest_end_s: float
    """When that one ended."""
    fall: float
    """1 - last / first; below 0 where it got faster."""
    throttled: bool | None
    """Whether it fell by more than THROTTLED_FALL; None: too short to tell, or others worked on these cores, too."""
    peak_mib: float
    """Most resident memory of a process that does nothing else."""
    others_cores: float | None
    """Cores that other processes kept busy meanwhile; None: not known."""
    window_s: float
    """Length of a window."""
    windows: tuple[Window, ...]
    """Whole ones, in order."""


class Meter:
    """Tiles by window: those of a call are spread over all windows that it lies in, so that long calls do not jump."""

    def __init__(self, case: Case, window_s: float) -> None:
        self._batch, self._window_s = case.batch, window_s
        self._tiles: list[list[float]] = [[] for _ in range(case.workers)]

    def add(self, worker: int, start_s: float, end_s: float) -> None:
        """A call, in seconds since the first one began. Each worker adds its own."""
        tiles = self._tiles[worker]
        first, last = int(start_s / self._window_s), int(end_s / self._window_s)
        tiles.extend([0.0] * (last + 1 - len(tiles)))
        if first == last:
            tiles[first] += self._batch
            return
        for index in range(first, last + 1):
            inside = min(end_s, (index + 1) * self._window_s) - max(start_s, index * self._window_s)
            tiles[index] += self._batch * inside / (end_s - start_s)

    def rate(self, index: int) -> float:
        """Tiles a second of a window, all workers together."""
        return sum(tiles[index] for tiles in self._tiles if index < len(tiles)) / self._window_s


def sustain(
    golden: Golden,
    case: Case,
    sensors: Sensors,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[float, float, list[Window]]:
    """Seconds that were watched, tiles a second over all of them, and the whole windows.

    `tick` is told the tiles a second of the last whole window, or so far. `case.window_s` must be given.
    """
    window_s = case.window_s or case.seconds
    tally, meter = Tally(case, stop), Meter(case, window_s)
    states: list[tuple[float | None, float | None]] = []
    began = clock()

    def note(worker: int, start: float, end: float) -> bool:
        meter.add(worker, max(0.0, start - began), end - began)
        if worker == 0:
            while len(states) < int((end - began) / window_s):
                states.append((_rounded(sensors.temperature_c()), _rounded(sensors.frequency_mhz())))
        return tally.add(worker, start, end)

    def show() -> None:
        if tick is not None:
            # The last window lacks the calls that are still under way in it; the one before it is known.
            tick(meter.rate(len(states) - 2) if len(states) > 1 else tally.tiles_per_s())

    call_together(golden, case.workers, note, show, clock)
    whole = min(int(min(tally.seconds, case.seconds) / window_s + 1e-6), len(states))
    windows = [Window(six_digits((i + 1) * window_s), six_digits(meter.rate(i)), *states[i]) for i in range(whole)]
    return tally.seconds, tally.tiles_per_s(), windows


def sustained_of(
    case: Case,
    seconds: float,
    tiles_per_s: float,
    windows: list[Window],
    *,
    peak_mib: float,
    others_cores: float | None,
    cores: int,
) -> Sustained:
    """The record of what was watched on a machine of so many cores."""
    window_s = case.window_s or case.seconds
    rates = [window.tiles_per_s for window in windows] or [six_digits(tiles_per_s)]
    ends = [window.end_s for window in windows] or [six_digits(seconds)]
    count = max(1, min(round(MINUTE_S / window_s), len(rates) // 2))
    first, last = sum(rates[:count]) / count, sum(rates[-count:]) / count
    lowest = min(range(len(rates)), key=rates.__getitem__)
    fall = 1 - last / first
    throttled: bool | None = fall > THROTTLED_FALL
    if len(rates) < 2 or (throttled and crowded(others_cores, case.workers * case.threads, cores)):
        throttled = None
    return Sustained(
        batch=case.batch,
        workers=case.workers,
        threads=case.threads,
        seconds=six_digits(seconds),
        tiles_per_s=six_digits(tiles_per_s),
        span_s=six_digits(min(count * window_s, seconds)),
        first_tiles_per_s=six_digits(first),
        last_tiles_per_s=six_digits(last),
        lowest_tiles_per_s=rates[lowest],
        lowest_end_s=ends[lowest],
        fall=six_digits(fall),
        throttled=throttled,
        peak_mib=six_digits(peak_mib),
        others_cores=_rounded(others_cores),
        window_s=window_s,
        windows=tuple(windows),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else six_digits(value)
