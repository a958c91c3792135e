"""DeviceCard: what is known of one board: memory, compute units, power modes and what a runtime reaches on them.

Every figure stands beside its source, `{ value = 68.3, source = "..." }`; a figure without one does not load. A value
that edgeslim chose itself says so in its source ("edgeslim's default: ...", "edgeslim's assumption: ..."). A figure
that nobody published is left out: such a board is listed, and edgeslim.device refuses to plan for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.figure import Figure, must_be_known, must_be_positive, must_be_share, must_be_whole
from edgeslim.measurement import Measurement
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.shelf import distinct_card_paths, read_record, read_toml, shown, take
from edgeslim.units import VALUE_BYTES

SHELF = "devices"
SCHEMA = 1
ALL_MODES = "all"
"""Stands for every power mode of a board where one is asked for; none may be called so."""
MOST_CORES = 4096
"""Of one unit: more than any board has."""


@dataclass(frozen=True, slots=True)
class MemoryCard:
    """What is known of the board's memory."""

    total_mib: Figure | None = None
    """Fitted."""
    reserve_mib: Figure | None = None
    """Left alone for the operating system and everything else that runs."""
    bandwidth_gb_s: Figure | None = None
    """Of the bus, at the default power mode."""
    sustained_fraction: Figure | None = None
    """Share of the bandwidth that a kernel reaches."""

    def __post_init__(self) -> None:
        for key in ("total_mib", "bandwidth_gb_s"):
            if (figure := getattr(self, key)) is not None:
                must_be_positive(figure, key)
        if self.sustained_fraction is not None:
            must_be_share(self.sustained_fraction, "sustained_fraction")
        if self.reserve_mib and self.total_mib and self.reserve_mib.value >= self.total_mib.value:
            raise InputError(
                f"reserve_mib: found {self.reserve_mib.value:g}, expected less than total_mib {self.total_mib.value:g}"
            )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is estimated on a unit unasked."""

    reason: str
    """For people, a line: what it cannot do, or what nobody measured."""
    source: str
    """Where that is written, or what shows it."""

    def __post_init__(self) -> None:
        for key in ("reason", "source"):
            if not getattr(self, key).strip():
                raise InputError(f"{key}: found nothing, expected why the unit is refused and where that is written")


@dataclass(frozen=True, slots=True)
class Unit:
    """A part that computes."""

    id: str
    """"cpu", "gpu", "npu", "fpga"."""
    name: str
    """For people."""
    peak_gflop_s: dict[str, Figure] | None = None
    """Precision -> dense peak at the default power mode; None: not known."""
    cores: Figure | None = None
    """Of a processor, at work together in that peak; None: not known."""
    refused: Refusal | None = None
    """Why it is not planned on unless that is asked; None: it may be."""

    def __post_init__(self) -> None:
        for precision, figure in self.peaks.items():
            must_be_known(precision, VALUE_BYTES, "peak_gflop_s")
            must_be_positive(figure, f"peak_gflop_s.{precision}")
        if self.cores is not None:
            must_be_whole(self.cores, "cores", MOST_CORES)

    @property
    def peaks(self) -> dict[str, Figure]:
        """Precision -> peak; empty where none is known."""
        return self.peak_gflop_s or {}

    @property
    def core_gflop_s(self) -> float | None:
        """Peak of one core (of all, where their number is not known) in the first precision; None: no peak is known."""
        peak = next(iter(self.peaks.values()), None)
        return None if peak is None else peak.value / (1.0 if self.cores is None else self.cores.value)


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A clock cap, and the figures that it changes; the rest stays as on the card."""

    id: str
    """As the board's own tool calls it; no watts drawn are promised by it."""
    source: str
    """Where the caps are written."""
    bandwidth_gb_s: Figure | None = None
    """Instead of the card's."""
    peak_gflop_s: dict[str, dict[str, Figure]] | None = None
    """Unit -> precision -> peak, instead of the card's."""
    cores: dict[str, Figure] | None = None
    """Unit -> cores, instead of the card's."""
    power_w: Figure | None = None
    """Drawn by the whole board with every core at work, measured; None: nobody measured it. The mode's name is a cap of
    clocks, no figure."""

    def __post_init__(self) -> None:
        if self.power_w is not None:
            must_be_positive(self.power_w, f"power_mode {self.id}: power_w")
            if "measured" not in self.power_w.source:
                raise InputError(
                    f"power_mode {self.id}: power_w: source: found {shown(self.power_w.source)}, expected what "
                    "measured it: 'measured ...'; a name or a data sheet tells no watts drawn"
                )

    def require_units(self, units: dict[str, Unit]) -> None:
        """Raise InputError where the mode changes what no unit of the card has."""
        for unit, peaks in (self.peak_gflop_s or {}).items():
            must_be_known(unit, units, f"power_mode {self.id}: peak_gflop_s")
            for precision, figure in peaks.items():
                must_be_known(precision, units[unit].peaks, f"power_mode {self.id}: peak_gflop_s.{unit}")
                must_be_positive(figure, f"power_mode {self.id}: peak_gflop_s.{unit}.{precision}")
        for unit, cores in (self.cores or {}).items():
            must_be_known(unit, units, f"power_mode {self.id}: cores")
            must_be_whole(cores, f"power_mode {self.id}: cores.{unit}", MOST_CORES)
        if self.bandwidth_gb_s is not None:
            must_be_positive(self.bandwidth_gb_s, f"power_mode {self.id}: bandwidth_gb_s")


@dataclass(frozen=True, slots=True)
class Multiples:
    """Inner sizes that the hardware likes."""

    head_dim: Figure
    """Dimensions of one head come in multiples of this."""
    ffn_hidden: Figure
    """Hidden units of the feed-forward network come in multiples of this."""

    def __post_init__(self) -> None:
        for name, figure in (("head_dim", self.head_dim), ("ffn_hidden", self.ffn_hidden)):
            must_be_whole(figure, name)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something known of the board that no estimate needs."""

    name: str
    """What it is about: "memory sizes", "flown on"."""
    text: str
    """What is known, for people."""
    source: str
    """Where that is written."""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise InputError("source: found nothing, expected where the fact comes from")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCard:
    """A board's card: what is known of it. edgeslim.device.Device is one that lacks nothing a plan needs."""

    schema: int
    """Of the card."""
    id: str
    """File stem and name on the command line."""
    aliases: tuple[str, ...]
    """Other names."""
    name: str
    """For people."""
    family: str = ""
    """Of boards that are listed together."""
    default_power_mode: str
    """The mode that is planned for unless another is asked; the card's own figures are those of this mode."""
    power_mode_reason: str
    """Why that one."""
    tile_period_ms: Figure | None = None
    """Time that a tile may take: gives the default FLOP budget."""
    memory: MemoryCard = MemoryCard()
    """What is known of the board's memory."""
    multiples: Multiples | None = None
    """Inner sizes that the hardware likes."""
    unit: tuple[Unit, ...] = ()
    """Parts that compute."""
    power_mode: tuple[PowerMode, ...]
    """At least the default one."""
    runtime: tuple[RuntimeFigures, ...] = ()
    """What each runtime reaches."""
    storage_mb_s: Figure | None = None
    """Read from the storage that the board boots from, MB/s; None: not known."""
    models: tuple[str, ...] = ()
    """Beginnings of what the board's firmware calls it (device tree, DMI): `edgeslim doctor` knows it by them."""
    measurement: tuple[Measurement, ...] = ()
    """What was timed on this board: it replaces what is computed of it."""
    fact: tuple[Fact, ...] = ()
    """What else is known."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        for key in ("tile_period_ms", "storage_mb_s"):
            if (figure := getattr(self, key)) is not None:
                must_be_positive(figure, key)
        for key, ids in (
            ("unit", [unit.id for unit in self.unit]),
            ("power_mode", [mode.id for mode in self.power_mode]),
            ("runtime", [runtime.id for runtime in self.runtime]),
        ):
            if twice := sorted({name for name in ids if ids.count(name) > 1}):
                raise InputError(f"{key}: found {', '.join(map(shown, twice))} more than once, expected each id once")
        if ALL_MODES in (mode.id for mode in self.power_mode):
            raise InputError(
                f"power_mode: found an id {ALL_MODES!r}, which asks for every mode, expected another; name it by its "
                "cap or its number"
            )
        units = {unit.id: unit for unit in self.unit}
        must_be_known(self.default_power_mode, [mode.id for mode in self.power_mode], "default_power_mode")
        for mode in self.power_mode:
            mode.require_units(units)
        for runtime in self.runtime:
            must_be_known(runtime.unit, units, f"runtime {runtime.id}: unit")
            for precision in runtime.precisions:
                must_be_known(precision, units[runtime.unit].peaks, f"runtime {runtime.id}: efficiency")
        seen = set()
        for number, row in enumerate(self.measurement, 1):
            must_be_known(row.power_mode, [mode.id for mode in self.power_mode], f"measurement {number}: power_mode")
            must_be_known(row.runtime, [runtime.id for runtime in self.runtime], f"measurement {number}: runtime")
            if row.what in seen:
                raise InputError(f"measurement {number}: found a second row of the same, expected one: remove one")
            seen.add(row.what)

    @property
    def refused(self) -> tuple[Unit, ...]:
        """Units that are not planned on unless that is asked: those with a refusal, and nothing timed on them."""
        rows = {row.runtime for row in self.measurement}
        timed = {runtime.unit for runtime in self.runtime if runtime.id in rows}
        return tuple(unit for unit in self.unit if unit.refused is not None and unit.id not in timed)

    def lacks(self, allow_unverified: bool = False) -> tuple[str, ...]:
        """Keys without which nothing can be planned for the board; empty where a plan can be made.

        A board whose only runtimes are on refused units lacks one, unless `allow_unverified`.
        """
        found = {key: getattr(self, key) for key in ("tile_period_ms", "multiples")}
        found |= {f"memory.{key}": getattr(self.memory, key) for key in MemoryCard.__slots__}
        keys = [key for key, value in found.items() if value is None]
        usable = [unit for unit in self.unit if allow_unverified or unit not in self.refused]
        if not any(runtime.unit in {unit.id for unit in usable} for runtime in self.runtime):
            keys += [] if usable else ["unit"]
            keys += [f"peak_gflop_s of unit {unit.id}" for unit in usable if not unit.peaks]
            keys.append("runtime")
        return tuple(keys)


def load_card(path: Path) -> DeviceCard:
    """Read a device card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(DeviceCard, data, str(path))


def take_card(name: str, cards: Path | None = None) -> DeviceCard:
    """The device card called `name` (id or alias). Raises UnknownName with the nearest names."""
    return take(SHELF, "device", name, load_card, cards)


def all_cards(cards: Path | None = None) -> list[DeviceCard]:
    """Every device card, by family and id; one of the user's own hides edgeslim's of the same id.

    Raises InputError for the first that does not load.
    """
    found = map(load_card, distinct_card_paths(SHELF, cards))
    return sorted(found, key=lambda card: (not card.family, card.family, card.id))
