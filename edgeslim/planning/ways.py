"""Ways: in which runtime and precision an encoder could run on a device, by what the cards have figures for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeslim.device import Device
from edgeslim.errors import CardLacks, UsageError
from edgeslim.planning.budget import Ask
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.shelf import shown
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC

_UNASKED = ("fp32", "fp16", "int8-dynamic")
"""Precisions that are tried unasked, in this order; static int8 needs tiles to find its ranges on."""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One of them."""

    target: Target
    """What it is exported as."""
    runtime: RuntimeFigures
    """What runs it, of the device's card."""
    precision: str
    """As exported: one of the target's."""


def ways_on(device: Device, targets: Sequence[Target], ask: Ask) -> list[Way]:
    """All ways that `ask` allows on a device: fp32 before fp16 before int8, within each in the order of `targets`.

    int8 is tried unasked only where it was timed in a runtime on this board: it is no promise.
    Raises UsageError for a precision that no target has, CardLacks if the device's card has no figures for any way.
    """
    known = list(dict.fromkeys(precision for target in targets for precision in target.precisions))
    if ask.precision is not None and ask.precision not in known:
        names = ", ".join(target.id for target in targets)
        raise UsageError(f"--precision: found {shown(ask.precision)}, expected one of {', '.join(known)}, of {names}")
    wanted = _UNASKED if ask.precision is None else (ask.precision,)
    ways = [
        Way(target, runtime, precision)
        for precision in wanted
        for target in targets
        if precision in target.precisions and (runtime := _runtime(device, target, precision)) is not None
        if ask.precision is not None or ARITHMETIC[precision] != "int8" or _timed(device, runtime, precision)
    ]
    if not ways:
        found = ", ".join(f"{r.id} ({'/'.join(r.precisions)})" for r in device.runtime) or "none"
        asked = ask.precision or " or ".join(dict.fromkeys(ARITHMETIC[p] for p in known if p in _UNASKED))
        wanted_runtimes = list(dict.fromkeys(r for t in targets for r in t.runtimes))
        raise CardLacks(
            f"{device.id}: runtime: found {found}, expected one that {' or '.join(t.id for t in targets)} runs on in "
            f"{asked}: {', '.join(wanted_runtimes)}; add its figures to a card of your own (--cards)",
            (f"runtime {' or '.join(wanted_runtimes)} in {asked}",),
        )
    return ways


def _runtime(device: Device, target: Target, precision: str) -> RuntimeFigures | None:
    """The first runtime of a target that the device's card has figures of, in a precision."""
    known = (runtime for name in target.runtimes for runtime in device.runtime if runtime.id == name)
    return next((runtime for runtime in known if ARITHMETIC[precision] in runtime.precisions), None)


def _timed(device: Device, runtime: RuntimeFigures, precision: str) -> bool:
    """Whether any encoder was timed in that precision."""
    return any((row.runtime, row.precision) == (runtime.id, precision) for row in device.measurement)
