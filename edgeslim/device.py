"""Device: a board whose card lacks nothing that a plan needs, at one power mode."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgeslim.device_card import DeviceCard, MemoryCard, Multiples, PowerMode, Unit, all_cards, load_card, take_card
from edgeslim.errors import CardLacks, InputError, UsageError
from edgeslim.figure import Figure
from edgeslim.runtime_figures import RuntimeFigures


@dataclass(frozen=True, slots=True)
class Memory(MemoryCard):
    """What the board's memory gives: all of it known."""

    total_mib: Figure
    reserve_mib: Figure
    bandwidth_gb_s: Figure
    sustained_fraction: Figure

    @property
    def usable_mib(self) -> float:
        """Total less the reserve."""
        return self.total_mib.value - self.reserve_mib.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(DeviceCard):
    """A card with every figure that a plan needs; its runtimes are those that may be planned on."""

    tile_period_ms: Figure
    memory: Memory
    multiples: Multiples

    def in_mode(self, name: str | None = None) -> tuple[Device, PowerMode]:
        """The device with the figures of a power mode (the default one if None), and that mode.

        What one core does alone (startup_ms, weights_mb_s, band_pixel_ns, window_us) changes as the peak of a core
        does; measurements of other modes are left out.

        Raises UsageError listing the modes.
        """
        wanted = self.default_power_mode if name is None else name
        mode = next((m for m in self.power_mode if m.id == wanted), None)
        if mode is None:
            modes = ", ".join(m.id for m in self.power_mode)
            raise UsageError(f"unknown power mode {wanted!r} of {self.id}: expected one of {modes}")
        timed = tuple(row for row in self.measurement if row.power_mode == mode.id)
        memory, peaks, cores = self.memory, mode.peak_gflop_s or {}, mode.cores or {}
        if not peaks and not cores and mode.bandwidth_gb_s is None:
            return (self if timed == self.measurement else replace(self, measurement=timed)), mode
        if mode.bandwidth_gb_s is not None:
            memory = replace(memory, bandwidth_gb_s=mode.bandwidth_gb_s)
        units = tuple(
            replace(u, peak_gflop_s={**u.peaks, **peaks.get(u.id, {})}, cores=cores.get(u.id, u.cores))
            for u in self.unit
        )
        speed = {
            new.id: new.core_gflop_s / old.core_gflop_s
            for new, old in zip(units, self.unit, strict=True)
            if new.core_gflop_s is not None and old.core_gflop_s is not None
        }
        runtimes = tuple(
            replace(
                r,
                startup_ms=_scaled(r.startup_ms, 1 / speed[r.unit], mode.id),
                weights_mb_s=_scaled(r.weights_mb_s, speed[r.unit], mode.id),
                band_pixel_ns=_scaled(r.band_pixel_ns, 1 / speed[r.unit], mode.id),
                window_us=_scaled(r.window_us, 1 / speed[r.unit], mode.id),
            )
            for r in self.runtime
        )
        return replace(self, memory=memory, unit=units, runtime=runtimes, measurement=timed), mode

    def unit_of(self, runtime: RuntimeFigures) -> Unit:
        """The unit that a runtime of this card runs on."""
        return next(u for u in self.unit if u.id == runtime.unit)

    def peak_gflop_s(self, runtime: RuntimeFigures, precision: str) -> Figure:
        """Peak of the unit that a runtime of this card runs on."""
        return self.unit_of(runtime).peaks[precision]


def complete(card: DeviceCard, allow_unverified: bool = False) -> Device:
    """The device of a card, with the runtimes that may be planned on: those of refused units only if it is allowed.

    Raises InputError with the reason where every unit is refused, CardLacks naming every key that is missing.
    """
    refused = {} if allow_unverified else {u.id: u.refused for u in card.refused if u.refused is not None}
    if refused and len(refused) == len(card.unit):
        raise InputError(f"{card.id}: {refusal_text(card)}; --allow-unverified estimates it where the card has figures")
    if lacks := card.lacks(allow_unverified):
        reasons = [f"its {name} is refused: {why.reason}" for name, why in refused.items()]
        because = f" ({', '.join(reasons)})" if refused else ""
        raise CardLacks(
            f"{card.id}: its card lacks {', '.join(lacks)}{because}: nobody published them, and none is guessed; add "
            f"them to a card of your own, DIR/devices/{card.id}.toml with --cards DIR, or measure on the board itself "
            "by `edgeslim calibrate`, from the nearest card that lacks nothing",
            lacks,
        )
    figures = {field.name: getattr(card, field.name) for field in fields(DeviceCard)}
    figures["memory"] = Memory(*(getattr(card.memory, field.name) for field in fields(MemoryCard)))
    figures["runtime"] = tuple(runtime for runtime in card.runtime if runtime.unit not in refused)
    return Device(**figures)


def refusal_text(card: DeviceCard) -> str:
    """Why units of a card are refused, with where that is written."""
    return "; ".join(f"{u.name} is refused: {u.refused.reason} ({u.refused.source})" for u in card.refused if u.refused)


def load_device(path: Path, allow_unverified: bool = False) -> Device:
    """Read the card of a board to plan for. Raises InputError as `load_card` and `complete` do."""
    return complete(load_card(path), allow_unverified)


def take_device(name: str, cards: Path | None = None, allow_unverified: bool = False) -> Device:
    """The device called `name` (id or alias). Raises UnknownName with the nearest, InputError as `complete` does."""
    return complete(take_card(name, cards), allow_unverified)


def device_names(cards: Path | None = None) -> list[str]:
    """Ids of the boards that a plan can be made for: their cards lack nothing."""
    return [card.id for card in all_cards(cards) if not card.lacks()]


def _scaled(figure: Figure | None, factor: float, mode: str) -> Figure | None:
    if figure is None or factor == 1:
        return figure
    return Figure(figure.value * factor, f"{figure.source}; x {factor:.3g}, as a core's peak in power mode {mode}")
