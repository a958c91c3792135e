"""Sensors: how warm the processor is, how fast it is clocked and who else works on it, where Linux tells."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_ZONES = re.compile(r"cpu|x86_pkg|soc|coretemp|k10temp|zenpower", re.IGNORECASE)
"""Names of sensors that sit at the processor."""
_CROWDED = 0.1
"""Share of the cores asked for that others may take before what was timed is theirs, too."""


class Sensors:
    """Reads what was found when it was made."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._temperatures = [path for path in _temperatures(root) if _number(path) is not None]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        clocks = [root / f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
        self._clocks = [path for path in clocks if _number(path) is not None]

    def temperature_c(self) -> float | None:
        """Of the warmest sensor at the processor, °C; None: not known."""
        found = [celsius for path in self._temperatures if (celsius := _number(path)) is not None]
        # What is not connected shows as far below freezing, or as far above boiling.
        return max((milli / 1e3 for milli in found if -60e3 < milli < 150e3), default=None)

    def frequency_mhz(self) -> float | None:
        """Mean of the cores that this process may use, MHz; None: not known."""
        found = [khz for path in self._clocks if (khz := _number(path)) is not None]
        return sum(found) / len(found) / 1e3 if found else None


class OtherWork:
    """The cores that everything but this process kept busy since this was made."""

    def __init__(
        self,
        path: Path = Path("/proc/stat"),
        own_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._own_s, self._clock = path, own_s, clock
        self._before = self._now()

    def cores(self) -> float | None:
        """How many, on average; None: not known."""
        (wall, own, busy), (wall_before, own_before, busy_before) = self._now(), self._before
        if busy is None or busy_before is None or wall <= wall_before:
            return None
        return max(0.0, (busy - busy_before - (own - own_before)) / (wall - wall_before))

    def _now(self) -> tuple[float, float, float | None]:
        first = _text(self._path).partition("\n")[0].split()
        if len(first) < 9 or first[0] != "cpu":
            return self._clock(), self._own_s(), None
        user, nice, system, _, _, irq, softirq, steal = map(int, first[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return self._clock(), self._own_s(), busy


def crowded(others_cores: float | None, asked: int, cores: int) -> bool:
    """Whether others worked on the cores that `asked` threads would have needed, too."""
    return others_cores is not None and others_cores > max(0, cores - asked) + _CROWDED * min(asked, cores)


def _temperatures(root: Path) -> Iterator[Path]:
    for zone in sorted(root.glob("class/thermal/thermal_zone*")):
        if _ZONES.search(_text(zone / "type")):
            yield zone / "temp"
    for monitor in sorted(root.glob("class/hwmon/hwmon*")):
        if _ZONES.search(_text(monitor / "name")):
            yield from sorted(monitor.glob("temp*_input"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # some boards answer "try again" for a sensor that sleeps
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None
