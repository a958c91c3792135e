"""Nearest: the device card that a machine is planned for, and where the two differ."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgeslim.device_card import DeviceCard, PowerMode
from edgeslim.figure import Figure
from edgeslim.onboard.doctor.power import Power
from edgeslim.onboard.doctor.processor import Processor
from edgeslim.onboard.doctor.system import Memory, System

_KEPT = 0.8
"""Share of the fitted memory from which Linux is taken to see all of it: firmware and GPU keep the rest."""
_MENDS = {
    "": "what is timed now is slower than it can be",
    "under-voltage": "under-voltage: the supply or its cable is too weak for the board",
}
"""What slows a machine down -> what to do; "": whatever it is."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """A device card, and how it was found."""

    card: str
    """Its id; empty: none is near."""
    same: bool
    """Whether the board is the card's; otherwise only the processor is like the card's."""
    why: str
    """What they have in common."""


def nearest_card(cards: Iterable[DeviceCard], system: System, processor: Processor, memory: Memory) -> Nearest:
    """The card whose `models` name the board or its processor, of several the one of its memory; else one like it."""
    known = list(cards)
    total = memory.total_mib
    kinds = ", ".join(map(str, processor.clusters)) if any(c.name for c in processor.clusters) else processor.name
    named = [(length, card) for card in known if (length := _named(card, system.board, processor.name))]
    if named:
        longest = max(length for length, _ in named)  # "... Developer Kit Super" is not any "... Developer Kit"
        same = [card for length, card in named if length == longest]
        card = min(same, key=lambda card: _apart(total, _value(card.memory.total_mib)))
        amount = "" if total is None else f", {total / 1024:.1f} GiB"
        model = system.board or processor.name
        return Nearest(card.id, True, f"model '{model}', {kinds or 'processor not told'}{amount}")
    like = [(shared, card) for card in known if (shared := _shared(card, system, processor))]
    if not like:
        return Nearest("", False, "no card has a processor like it")
    most = max(len(shared) for shared, _ in like)
    shared, card = min(
        ((shared, card) for shared, card in like if len(shared) == most),
        key=lambda pair: (
            _apart(processor.usable_cores, _cores(pair[1])),
            _apart(total, _value(pair[1].memory.total_mib)),
        ),
    )
    cores = f", {_cores(card):g} cores" if _cores(card) else ""
    return Nearest(card.id, False, f"closest by processor is {card.id} ({shared}{cores})")


def advice_for(
    card: DeviceCard | None, same: bool, system: System, processor: Processor, memory: Memory, power: Power
) -> list[str]:
    """Where the machine differs from the card that it is planned for, and what to do about it."""
    found = []
    if power.throttled:
        found.append(f"throttled now ({', '.join(power.throttled)}): {_MENDS['']}")
        found += [text for reason, text in _MENDS.items() if reason in power.throttled]
    slow = [c for c in power.clocks if c.governor == "powersave" and "pstate" not in c.driver]
    capped = [c for c in power.clocks if c.max_mhz and c.hardware_mhz and c.max_mhz < c.hardware_mhz * 0.99]
    if slow:
        found.append("the governor powersave keeps the clock low; cards assume that it rises: take `schedutil`")
    elif capped and not power.mode:  # a power mode is such a cap
        first = capped[0]
        found.append(f"the clock is capped to {first.max_mhz:.0f} of {first.hardware_mhz:.0f} MHz")
    if card is None:
        return found
    mode = next((mode for mode in card.power_mode if mode.id == power.mode), None)
    if same and power.mode and power.mode != card.default_power_mode:
        modes = ", ".join(mode.id for mode in card.power_mode)
        flag = f"plan with --power-mode {mode.id}" if mode is not None else f"the card has {modes}"
        found.append(f"power mode {power.mode}, where the card's default is {card.default_power_mode}: {flag}")
    found += _of_memory(card, same, memory)
    cores, planned = processor.usable_cores, _cores(card, mode if same else None)
    if same and cores is not None and cores < planned:
        found.append(f"this process may use {cores:g} cores, the card plans for {planned:g}: expect longer latencies")
    return found


def _of_memory(card: DeviceCard, same: bool, memory: Memory) -> list[str]:
    usable, fitted, reserve = memory.usable_mib, _value(card.memory.total_mib), _value(card.memory.reserve_mib) or 0.0
    if fitted is None or usable is None:
        return []
    if memory.limit_mib is not None and memory.limit_mib < fitted - reserve:
        return [
            f"the control group allows {memory.limit_mib:,.0f} MiB, the card plans for {fitted - reserve:,.0f}: "
            f"plan with --memory-mib {memory.limit_mib:.0f}"
        ]
    if same and usable < fitted * _KEPT:
        left = max(usable - reserve, usable / 2)
        return [
            f"{usable:,.0f} MiB of memory, the card has {fitted:,.0f}: plan with --memory-mib {left:.0f}, or add "
            "a card of your own"
        ]
    return []


def _named(card: DeviceCard, *names: str) -> int:
    """Length of the longest of a card's models that begins a name, by whole words; 0: none does."""
    begins = (
        len(model)
        for model in card.models
        for name in names
        if re.match(rf"{re.escape(model)}(?!\w)", name, re.IGNORECASE)
    )
    return max(begins, default=0)


def _apart(found: float | None, fitted: float | None) -> float:
    """How far two sizes are apart, as a ratio either way; 0 where one is not known."""
    return abs(math.log(found / fitted)) if found and fitted else 0.0


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def _cores(card: DeviceCard, mode: PowerMode | None = None) -> float:
    """Of the card's processor, in a power mode if one is given; 0: not known."""
    unit = next((unit for unit in card.unit if unit.id == "cpu"), None)
    changed = None if mode is None else (mode.cores or {}).get("cpu")
    return _value(changed) or (0.0 if unit is None else _value(unit.cores)) or 0.0


def _shared(card: DeviceCard, system: System, processor: Processor) -> str:
    """What a card's processor has in common with this one; empty: nothing."""
    units = " ".join(unit.name for unit in card.unit if unit.id == "cpu")
    names = [c.name for c in processor.clusters if c.name and re.search(rf"{re.escape(c.name)}(?!\w)", units)]
    if names:
        return ", ".join(dict.fromkeys(names))
    x86 = system.architecture in ("x86_64", "AMD64") and "avx2" in processor.features
    return "AVX2" if x86 and re.search(r"x86|AVX2", f"{card.name} {units}") else ""
