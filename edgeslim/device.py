"""Device: the card of one board: memory, compute units, power modes and what a runtime reaches on them.

Every figure stands beside its source, `{ value = 68.3, source = "..." }`; a figure without one does not load. A value
that edgeslim chose itself says so in its source ("edgeslim's default: ...", "edgeslim's assumption: ...").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeslim.errors import InputError, UsageError
from edgeslim.figure import Figure, must_be_known, must_be_positive, must_be_share, must_be_whole
from edgeslim.measurement import Measurement
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.shelf import card_paths, read_record, read_toml, shown, take
from edgeslim.units import VALUE_BYTES

SHELF = "devices"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What the board's memory gives."""

    total_mib: Figure
    """Fitted."""
    reserve_mib: Figure
    """Left alone for the operating system and everything else that runs."""
    bandwidth_gb_s: Figure
    """Of the bus, at the default power mode."""
    sustained_fraction: Figure
    """Share of the bandwidth that a kernel reaches."""

    def __post_init__(self) -> None:
        must_be_positive(self.bandwidth_gb_s, "bandwidth_gb_s")
        must_be_share(self.sustained_fraction, "sustained_fraction")
        if self.reserve_mib.value >= self.total_mib.value:
            raise InputError(
                f"reserve_mib: found {self.reserve_mib.value:g}, expected less than total_mib {self.total_mib.value:g}"
            )

    @property
    def usable_mib(self) -> float:
        """Total less the reserve."""
        return self.total_mib.value - self.reserve_mib.value


@dataclass(frozen=True, slots=True)
class Unit:
    """A part that computes."""

    id: str
    """"cpu", "gpu"."""
    name: str
    """For people."""
    peak_gflop_s: dict[str, Figure]
    """Precision -> dense peak at the default power mode."""
    cores: Figure | None = None
    """Of a processor, at work together in that peak; None: not known."""

    def __post_init__(self) -> None:
        for precision, figure in self.peak_gflop_s.items():
            must_be_known(precision, VALUE_BYTES, "peak_gflop_s")
            must_be_positive(figure, f"peak_gflop_s.{precision}")
        if self.cores is not None:
            must_be_whole(self.cores, "cores")

    @property
    def core_gflop_s(self) -> float:
        """Peak of one core (of all, where their number is not known) in the precision that stands first."""
        return next(iter(self.peak_gflop_s.values())).value / (1.0 if self.cores is None else self.cores.value)


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
class Device:
    """A board's card, at one power mode."""

    schema: int
    """Of the card."""
    id: str
    """File stem and name on the command line."""
    aliases: tuple[str, ...]
    """Other names."""
    name: str
    """For people."""
    default_power_mode: str
    """The mode that is planned for unless another is asked; the card's own figures are those of this mode."""
    power_mode_reason: str
    """Why that one."""
    tile_period_ms: Figure
    """Time that a tile may take: gives the default FLOP budget."""
    memory: Memory
    """What the board's memory gives."""
    multiples: Multiples
    """Inner sizes that the hardware likes."""
    unit: tuple[Unit, ...]
    """Parts that compute."""
    power_mode: tuple[PowerMode, ...]
    """At least the default one."""
    runtime: tuple[RuntimeFigures, ...]
    """What each runtime reaches."""
    storage_mb_s: Figure | None = None
    """Read from the storage that the board boots from, MB/s; None: not known."""
    models: tuple[str, ...] = ()
    """Beginnings of what the board's firmware calls it (device tree, DMI): `edgeslim doctor` knows it by them."""
    measurement: tuple[Measurement, ...] = ()
    """What was timed on this board: it replaces what is computed of it."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        must_be_positive(self.tile_period_ms, "tile_period_ms")
        if self.storage_mb_s is not None:
            must_be_positive(self.storage_mb_s, "storage_mb_s")
        units = {unit.id: unit for unit in self.unit}
        must_be_known(self.default_power_mode, [mode.id for mode in self.power_mode], "default_power_mode")
        for mode in self.power_mode:
            for unit, peaks in (mode.peak_gflop_s or {}).items():
                must_be_known(unit, units, f"power_mode {mode.id}: peak_gflop_s")
                for precision, figure in peaks.items():
                    must_be_known(precision, units[unit].peak_gflop_s, f"power_mode {mode.id}: peak_gflop_s.{unit}")
                    must_be_positive(figure, f"power_mode {mode.id}: peak_gflop_s.{unit}.{precision}")
            for unit, cores in (mode.cores or {}).items():
                must_be_known(unit, units, f"power_mode {mode.id}: cores")
                must_be_whole(cores, f"power_mode {mode.id}: cores.{unit}")
            if mode.bandwidth_gb_s is not None:
                must_be_positive(mode.bandwidth_gb_s, f"power_mode {mode.id}: bandwidth_gb_s")
        for runtime in self.runtime:
            must_be_known(runtime.unit, units, f"runtime {runtime.id}: unit")
            for precision in runtime.precisions:
                must_be_known(precision, units[runtime.unit].peak_gflop_s, f"runtime {runtime.id}: efficiency")

        seen = set()
        for number, row in enumerate(self.measurement, 1):
            _known_row(row, self, f"measurement {number}")
            if row.what in seen:
                raise InputError(f"measurement {number}: found a second row of the same, expected one: remove one")
            seen.add(row.what)

    def in_mode(self, name: str | None = None) -> tuple[Device, PowerMode]:
        """The device with the figures of a power mode (the default one if None), and that mode.

        What one core does alone (startup_ms, weights_mb_s) changes as the peak of a core does; measurements of other
        modes are left out.

        Raises UsageError listing the modes.
        """
        wanted = self.default_power_mode if name is None else name
        mode = next((m for m in self.power_mode if m.id == wanted), None)
        if mode is None:
            modes = ", ".join(m.id for m in self.power_mode)
            raise UsageError(f"unknown power mode {wanted!r} of {self.id}: expected one of {modes}")
        memory, peaks, cores = self.memory, mode.peak_gflop_s or {}, mode.cores or {}
        if mode.bandwidth_gb_s is not None:
            memory = replace(memory, bandwidth_gb_s=mode.bandwidth_gb_s)
        units = tuple(
            replace(u, peak_gflop_s={**u.peak_gflop_s, **peaks.get(u.id, {})}, cores=cores.get(u.id, u.cores))
            for u in self.unit
        )
        speed = {new.id: new.core_gflop_s / old.core_gflop_s for new, old in zip(units, self.unit, strict=True)}
        runtimes = tuple(
            replace(
                r,
                startup_ms=_scaled(r.startup_ms, 1 / speed[r.unit], mode.id),
                weights_mb_s=_scaled(r.weights_mb_s, speed[r.unit], mode.id),
            )
            for r in self.runtime
        )
        timed = tuple(row for row in self.measurement if row.power_mode == mode.id)
        return replace(self, memory=memory, unit=units, runtime=runtimes, measurement=timed), mode

    def unit_of(self, runtime: RuntimeFigures) -> Unit:
        """The unit that a runtime of this card runs on."""
        return next(u for u in self.unit if u.id == runtime.unit)

    def peak_gflop_s(self, runtime: RuntimeFigures, precision: str) -> Figure:
        """Peak of the unit that a runtime of this card runs on."""
        return self.unit_of(runtime).peak_gflop_s[precision]


def load_device(path: Path) -> Device:
    """Read a device card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(Device, data, str(path))


def take_device(name: str, cards: Path | None = None) -> Device:
    """The device card called `name` (id or alias). Raises UnknownName with the nearest names."""
    return take(SHELF, "device", name, load_device, cards)


def device_names(cards: Path | None = None) -> list[str]:
    """Ids of all device cards, the user's own first, without loading them."""
    return list(dict.fromkeys(path.stem for path in card_paths(SHELF, cards)))


def _known_row(row: Measurement, device: Device, key: str) -> None:
    must_be_known(row.power_mode, [mode.id for mode in device.power_mode], f"{key}: power_mode")
    must_be_known(row.runtime, [runtime.id for runtime in device.runtime], f"{key}: runtime")


def _scaled(figure: Figure | None, factor: float, mode: str) -> Figure | None:
    if figure is None or factor == 1:
        return figure
    return Figure(figure.value * factor, f"{figure.source}; x {factor:.3g}, as a core's peak in power mode {mode}")
