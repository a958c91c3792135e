"""Diagnosis: all that `edgeslim doctor` finds out, as one record without a host's or user's name, path or number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeslim import __version__
from edgeslim.device_card import SHELF, DeviceCard, load_card
from edgeslim.errors import EdgeslimError, shown
from edgeslim.onboard.doctor.groups import groups_of
from edgeslim.onboard.doctor.libraries import RUNTIMES, Library, libraries
from edgeslim.onboard.doctor.nearest import Nearest, advice_for, nearest_card
from edgeslim.onboard.doctor.power import Ask, Power, ask_command, power_of
from edgeslim.onboard.doctor.processor import Processor, processor_of
from edgeslim.onboard.doctor.system import Memory, System, disk_free_mb, memory_of, system_of
from edgeslim.onboard.doctor.tree import Tree
from edgeslim.shelf import card_paths

SCHEMA = 1
_LITTLE_MB = 500.0
"""Free storage below which results of a scene may not fit."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a machine is, and which device card is nearest."""

    edgeslim_version: str
    """That looked."""
    system: System
    """Board and operating system."""
    processor: Processor
    """What computes."""
    memory: Memory
    """What there is of it, and what this process may have."""
    power: Power
    """Power mode, clocks and heat."""
    disk_free_mb: float | None
    """Free in the storage of the working folder, MB; None: not told."""
    libraries: tuple[Library, ...]
    """Runtimes, and what reads scenes."""
    nearest: Nearest
    """Device card."""
    advice: tuple[str, ...]
    """What to do about it, most pressing first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types; schemas/doctor.schema.json describes them."""
        return {"schema": SCHEMA, **asdict(self)}


def diagnose(
    root: Path = Path("/"),
    *,
    cards: Path | None = None,
    machine: str | None = None,
    ask: Ask = ask_command,
    look: Callable[[], tuple[Library, ...]] = libraries,
    folder: Path = Path(),
) -> Diagnosis:
    """What the machine is whose files lie under `root`: this one, unless a test says otherwise.

    `cards` holds the user's own; `machine` is the instruction set, `ask` runs a vendor's command, `look` imports the
    libraries, `folder` is where results would go. Raises InputError if `cards` is not a folder, and nothing else: what
    cannot be read is told as unknown.
    """
    tree = Tree(root)
    groups = groups_of(tree)
    system, processor, memory = system_of(tree, machine), processor_of(tree, groups), memory_of(tree, groups)
    power, found, free = power_of(tree, ask), look(), disk_free_mb(folder)
    known, damaged = _cards(cards)
    nearest = nearest_card(known, system, processor, memory)
    card = next((card for card in known if card.id == nearest.card), None)
    advice = [
        *advice_for(card, nearest.same, system, processor, memory, power),
        *_missing(found),
        *([f"{free:,.0f} MB free in the working folder: little for the results of a scene"] if _little(free) else []),
        *damaged,
    ]
    return Diagnosis(
        edgeslim_version=__version__,
        system=system,
        processor=processor,
        memory=memory,
        power=power,
        disk_free_mb=free,
        libraries=found,
        nearest=nearest,
        advice=tuple(advice),
    )


def _cards(cards: Path | None) -> tuple[list[DeviceCard], list[str]]:
    """Cards that load, the user's own first, and what is wrong with those that do not."""
    found: dict[str, DeviceCard] = {}
    damaged = []
    for path in card_paths(SHELF, cards):
        try:
            found.setdefault(path.stem, load_card(path))
        except EdgeslimError as error:
            # Without the folder: what is printed is to be pasted.
            damaged.append(f"a card is left out: {shown(str(error).replace(str(path), path.name))}")
    return list(found.values()), damaged


def _missing(found: tuple[Library, ...]) -> list[str]:
    advice = [f"{one.name}: {one.trouble}" for one in found if one.trouble not in ("", "not installed")]
    if not any(one.works for one in found if one.name in RUNTIMES):
        advice.append("no runtime works here: pip install 'edgeslim[onnx]', or `openvino`, or `tflite`")
    if any(one.name == "rasterio" and not one.works for one in found):
        advice.append("rasterio does not work here: no scene can be read; pip install rasterio")
    return advice


def _little(free_mb: float | None) -> bool:
    return free_mb is not None and free_mb < _LITTLE_MB
