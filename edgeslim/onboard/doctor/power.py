"""Power: the power mode, the clocks, how warm it is, and whether that slows the processor down now."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from edgeslim.onboard.doctor.tree import Tree

Ask = Callable[[tuple[str, ...]], str]
"""Runs a command and gives what it prints; empty where there is none, or where it fails or takes too long."""
_LIMIT_S = 5.0
_PI_BITS = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Of get_throttled; 16 bits further up: the same since the start (raspberrypi/documentation, os/using-vcgencmd)."""
_PI_FILE = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_SLOWING = re.compile(r"cpufreq|processor|devfreq|-cpu|cpu-", re.IGNORECASE)
"""Types of cooling devices that take clock away; fans do not."""
_CPU = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Clock:
    """Cores whose clock is set together."""

    cores: int
    """How many."""
    governor: str
    """What sets it: "performance", "ondemand"; empty: not told."""
    driver: str
    """Of the kernel; empty: not told."""
    min_mhz: float | None
    """Lowest that is allowed, MHz; None: not told."""
    max_mhz: float | None
    """Highest that is allowed."""
    current_mhz: float | None
    """Now, on a machine that does little."""
    hardware_mhz: float | None
    """Highest that the hardware has."""


@dataclass(frozen=True, slots=True)
class Power:
    """Power mode, clocks and heat."""

    mode: str
    """As nvpmodel calls it; empty: the board has no modes, or does not tell."""
    clocks: tuple[Clock, ...]
    """Empty: not told, as in most virtual machines."""
    warmest_c: float | None
    """Of all thermal zones, °C; None: not told."""
    warmest_zone: str
    """Its name."""
    throttled: tuple[str, ...]
    """What slows the machine down now; empty: nothing, or not told."""
    before: tuple[str, ...]
    """What did so since the start."""
    told: bool
    """Whether anything tells of throttling at all."""


def ask_command(command: tuple[str, ...]) -> str:
    """What a command prints within 5 s; empty where it is not there, fails or takes longer."""
    path = shutil.which(command[0])
    if path is None:
        return ""
    try:
        done = subprocess.run(
            (path, *command[1:]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def power_of(tree: Tree, ask: Ask) -> Power:
    """What a tree of files, and the vendors' commands, tell."""
    warmest, zone, hot, zones = _heat(tree)
    now, before, pi = _pi_throttled(tree, ask)
    counted = _counters(tree)
    slowed = _slowed(tree)
    return Power(
        mode=_mode(tree, ask),
        clocks=_clocks(tree),
        warmest_c=warmest,
        warmest_zone=zone,
        throttled=(*now, *hot, *slowed[0]),
        before=(*before, *counted[0]),
        told=pi or zones or counted[1] or slowed[1],
    )


def _mode(tree: Tree, ask: Ask) -> str:
    asked = re.search(r"NV Power Mode:\s*(\S+)", ask(("nvpmodel", "-q")))
    if asked:
        return asked[1][:40]
    number = re.search(r"pmode:0*([0-9]+)", tree.text("/var/lib/nvpmodel/status"))
    if number is None:
        return ""
    named = re.search(
        rf"<\s*POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+?)\s*>", tree.text("/etc/nvpmodel.conf"), re.IGNORECASE
    )
    return named[1][:40] if named else f"mode {number[1]}"


def _clocks(tree: Tree) -> tuple[Clock, ...]:
    def mhz(folder: str, name: str) -> float | None:
        khz = tree.number(f"{folder}/{name}")
        return None if khz is None else khz / 1e3

    return tuple(
        Clock(
            cores=max(1, len(tree.line(f"{folder}/affected_cpus").split())),
            governor=tree.line(f"{folder}/scaling_governor"),
            driver=tree.line(f"{folder}/scaling_driver"),
            min_mhz=mhz(folder, "scaling_min_freq"),
            max_mhz=mhz(folder, "scaling_max_freq"),
            current_mhz=mhz(folder, "scaling_cur_freq"),
            hardware_mhz=mhz(folder, "cpuinfo_max_freq"),
        )
        for folder in tree.names(f"{_CPU}/cpufreq/policy*")
    )


def _heat(tree: Tree) -> tuple[float | None, str, tuple[str, ...], bool]:
    """Warmest zone, its name, the zones beyond the point from which Linux takes clock away, whether any has one."""
    found, hot, told = [], [], False
    for zone in tree.names("/sys/class/thermal/thermal_zone*"):
        milli = tree.number(f"{zone}/temp")
        # What is not connected shows as far below freezing, or as far above boiling.
        if milli is None or not -60e3 < milli < 150e3:
            continue
        name = tree.line(f"{zone}/type") or "unnamed"
        found.append((milli / 1e3, name))
        for kind in tree.names(f"{zone}/trip_point_*_type"):
            trip = tree.number(kind.removesuffix("type") + "temp")
            if trip is None or trip <= 0 or tree.line(kind) != "passive":
                continue
            told = True
            if milli >= trip:
                hot.append(f"{name} at {milli / 1e3:.0f} °C, slowed from {trip / 1e3:.0f} °C on")
                break
    warmest = max(found, default=(None, ""))
    return warmest[0], warmest[1], tuple(hot), told


def _pi_throttled(tree: Tree, ask: Ask) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Now, since the start, and whether it is told."""
    text = tree.line(_PI_FILE) or ask(("vcgencmd", "get_throttled")).strip().removeprefix("throttled=")
    found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,8})", text)
    if found is None:
        return (), (), False
    bits = int(found[1], 16)
    now = tuple(name for bit, name in _PI_BITS.items() if bits >> bit & 1)
    before = tuple(name for bit, name in _PI_BITS.items() if bits >> (bit + 16) & 1 and name not in now)
    return now, before, True


def _counters(tree: Tree) -> tuple[tuple[str, ...], bool]:
    """Of x86: how often it was too warm since the start; it does not say whether it is now."""
    counts = [
        (count, name.rpartition("/")[2].partition("_")[0])
        for name in tree.names(f"{_CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count")
        if (count := tree.number(name)) is not None
    ]
    worst = max(counts, default=(0.0, ""))
    return ((f"{worst[1]} too warm {worst[0]:.0f} times",) if worst[0] else ()), bool(counts)


def _slowed(tree: Tree) -> tuple[tuple[str, ...], bool]:
    """Cooling devices that take clock away now, and whether there are any."""
    states = [
        (kind, state)
        for device in tree.names("/sys/class/thermal/cooling_device*")
        if _SLOWING.search(kind := tree.line(f"{device}/type"))
        and (state := tree.number(f"{device}/cur_state")) is not None
    ]
    busy = dict.fromkeys(f"{kind} slowed by the kernel" for kind, state in states if state > 0)
    return tuple(busy), bool(states)
