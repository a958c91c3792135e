"""What `edgeslim doctor` found, as text to be pasted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from edgeslim.onboard.doctor.diagnosis import Diagnosis
from edgeslim.onboard.doctor.libraries import RUNTIMES
from edgeslim.onboard.doctor.power import Clock, Power
from edgeslim.onboard.doctor.processor import Processor
from edgeslim.onboard.doctor.system import Memory, System

_UNKNOWN = "not known"
_INDENT = 16


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """Print a machine, the nearest card and what to do, one fact a line."""
    libraries = {
        one.name: " ".join((one.version, f"({', '.join(one.offers)})" if one.offers else "")).strip() or one.trouble
        for one in found.libraries
    }
    blocks: list[Iterable[tuple[str, str]]] = [
        [
            ("edgeslim", found.edgeslim_version),
            ("board", found.system.board or _UNKNOWN),
            *_processor(found.processor),
            *_memory(found.memory),
            *_power(found.power),
            ("disk", _UNKNOWN if found.disk_free_mb is None else f"{found.disk_free_mb / 1e3:,.1f} GB free"),
        ],
        [*_system(found.system), *((n, libraries[n]) for n in libraries if n not in RUNTIMES)],
        [(name, libraries[name]) for name in RUNTIMES if name in libraries],
        [("nearest card", nearest_text(found)), *_advice(found.advice)],
    ]
    for index, block in enumerate(blocks):
        if index:
            console.print()
        for name, text in block:
            # By hand: a table of rich's fills every line with blanks, which show where it is pasted.
            lines = textwrap.wrap(text, max(20, console.width - _INDENT), break_on_hyphens=False) or [""]
            console.print(Text(f"{name:<{_INDENT}}{lines[0]}"), soft_wrap=True)
            for line in lines[1:]:
                console.print(Text(" " * _INDENT + line), soft_wrap=True)


def nearest_text(found: Diagnosis) -> str:
    """The nearest card and why."""
    near = found.nearest
    if near.same:
        return f"{near.card}: {near.why}"
    start = f" --device {near.card}" if near.card else ""
    return f"none: {near.why}; make one by `edgeslim calibrate{start}`"


def _advice(advice: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for index, line in enumerate(advice or ("nothing to mend",)):
        yield "" if index else "advice", line


def _system(system: System) -> Iterator[tuple[str, str]]:
    where = ", ".join(
        (*([f"in a container ({system.container})"] if system.container else []), *(["virtual"] * system.virtual))
    )
    yield "system", ", ".join(text for text in (system.name, system.kernel, where) if text)
    if system.jetpack:
        yield "JetPack", system.jetpack
    yield "Python", ", ".join(text for text in (system.python, system.architecture, system.libc) if text)


def _processor(processor: Processor) -> Iterator[tuple[str, str]]:
    clusters = [str(cluster) for cluster in processor.clusters if cluster.name]
    yield "processor", ", ".join(clusters) or processor.name or _UNKNOWN
    parts = [
        f"{count:g} {what}"
        for count, what in (
            (processor.online, f"of {processor.present} online" if processor.present else "online"),
            (processor.allowed, "allowed to this process"),
            (processor.quota_cores, "by the control group's quota"),
        )
        if count is not None
    ]
    yield "cores", ", ".join(parts) or _UNKNOWN
    lacks = f"; without {' '.join(processor.lacks)}" if processor.lacks else ""
    yield "instructions", f"{' '.join(processor.features)}{lacks}" if processor.features or lacks else _UNKNOWN


def _memory(memory: Memory) -> Iterator[tuple[str, str]]:
    parts = [
        f"{value:,.0f} MiB {what}"
        for value, what in (
            (memory.total_mib, "in all"),
            (memory.available_mib, "available"),
            (memory.limit_mib, "allowed by the control group"),
            (memory.swap_mib, "of swap"),
        )
        if value is not None
    ]
    yield "memory", ", ".join(parts) or _UNKNOWN


def _power(power: Power) -> Iterator[tuple[str, str]]:
    if power.mode:
        yield "power mode", power.mode
    alike: dict[Clock, int] = {}
    for clock in power.clocks:
        kind = replace(clock, cores=0)
        alike[kind] = alike.get(kind, 0) + clock.cores
    for index, (kind, cores) in enumerate(alike.items()):
        yield "" if index else "clock", _clock(replace(kind, cores=cores))
    if not power.clocks:
        yield "clock", _UNKNOWN
    yield (
        "temperature",
        _UNKNOWN if power.warmest_c is None else f"{power.warmest_c:.0f} °C at the warmest ({power.warmest_zone})",
    )
    now = ", ".join(power.throttled) or ("no" if power.told else _UNKNOWN)
    yield "throttled now", now + (f"; since the start: {', '.join(power.before)}" if power.before else "")


def _clock(clock: Clock) -> str:
    parts = [
        f"{value:,.0f} MHz {what}"
        for value, what in ((clock.current_mhz, "now"), (clock.min_mhz, "at least"), (clock.max_mhz, "at most"))
        if value is not None
    ]
    governor = " ".join(text for text in (clock.governor, f"({clock.driver})" if clock.driver else "") if text)
    return (
        f"{clock.cores} core{'s' if clock.cores > 1 else ''}: {', '.join((*parts, *([governor] if governor else [])))}"
    )
