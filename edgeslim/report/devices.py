"""Device cards, for people: all of them in a table, or one with the source of every figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeslim.device_card import DeviceCard, Unit
from edgeslim.figure import Figure
from edgeslim.report.tables import grid, number
from edgeslim.runtime_figures import RuntimeFigures

UNKNOWN = "–"
"""Stands where nobody published a figure."""


VERDICTS = ("plannable", "lacks", "refused")


@dataclass(frozen=True, slots=True)
class Plannable:
    """What can be planned on a board."""

    verdict: str
    """One of VERDICTS."""
    of: tuple[str, ...]
    """Units that can be planned on, keys that the card lacks, or reasons why its units are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDevice(DeviceCard):
    """A card, and what can be planned on its board."""

    plannable: Plannable
    """Without --allow-unverified."""


@dataclass(frozen=True, slots=True)
class KnownDevices:
    """What `edgeslim devices list` says."""

    devices: tuple[KnownDevice, ...]
    """By family and id."""


@dataclass(frozen=True, slots=True)
class ValidatedCard:
    """A card of one's own."""

    file: str
    """As it was given."""
    ok: bool
    """Whether it can be used."""
    problems: tuple[str, ...]
    """What must be mended, a line each."""
    warnings: tuple[str, ...]
    """What it leaves out, or has in vain."""


@dataclass(frozen=True, slots=True)
class ValidatedCards:
    """What `edgeslim devices validate` found."""

    cards: tuple[ValidatedCard, ...]
    """As they were given."""


def plannable(card: DeviceCard) -> Plannable:
    """What can be planned on a board."""
    if card.refused and len(card.refused) == len(card.unit):
        return Plannable("refused", tuple(unit.refused.reason for unit in card.refused if unit.refused is not None))
    if lacks := card.lacks():
        return Plannable("lacks", lacks)
    refused = {unit.id for unit in card.refused}
    return Plannable("plannable", tuple(dict.fromkeys(r.unit for r in card.runtime if r.unit not in refused)))


def to_dict(card: DeviceCard) -> dict[str, Any]:
    """Plain types: those of KnownDevice."""
    return {**asdict(card), "plannable": asdict(plannable(card))}


def print_cards(cards: Sequence[DeviceCard], console: Console) -> None:
    """Print one table of all boards, by family."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("board", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("GB/s", justify="right", no_wrap=True)
    table.add_column("peak, GFLOP/s", overflow="fold")
    table.add_column("power mode", overflow="fold")
    table.add_column("plans on", ratio=1, overflow="fold")
    family = None
    for card in cards:
        if card.family != family:
            table.add_row(*([""] if family is not None else []), end_section=False)
            family = card.family
            table.add_row(Text(family or "Others", style="bold"))
        table.add_row(
            card.id,
            _memory(card.memory.total_mib),
            UNKNOWN if card.memory.bandwidth_gb_s is None else number(card.memory.bandwidth_gb_s.value),
            "\n".join(_peaks(card.unit)) or UNKNOWN,
            Text(_modes(card)),
            Text(_short(card)),
        )
    console.print(table)
    console.print()
    counts = [plannable(card).verdict for card in cards]
    console.print(
        f"{len(cards)} boards: {counts.count('plannable')} to plan on, {counts.count('lacks')} lack figures that "
        f"nobody published, {counts.count('refused')} are refused; `edgeslim devices show BOARD` says why, and where "
        "each figure comes from",
        markup=False,
    )


def _memory(figure: Figure | None) -> str:
    if figure is None:
        return UNKNOWN
    return f"{figure.value / 1024:g} GiB" if figure.value >= 1024 else f"{figure.value:g} MiB"


def _peaks(units: Sequence[Unit]) -> Iterator[str]:
    """A line a unit, in the precision of its highest peak."""
    for unit in units:
        precision, figure = max(unit.peaks.items(), key=lambda pair: pair[1].value, default=("", None))
        yield f"{unit.id} {UNKNOWN if figure is None else number(figure.value)} {precision}".rstrip()


def _modes(card: DeviceCard) -> str:
    others = len(card.power_mode) - 1
    return f"{card.default_power_mode} +{others}" if others else ""


def _short(card: DeviceCard) -> str:
    found = plannable(card)
    word, what = found.verdict, found.of
    if word == "refused":
        return f"refused: {'; '.join(map(_first_words, what))}"
    if word == "lacks":
        return f"lacks {', '.join(_key_words(what))}"
    refused = [f"{unit.id} refused" for unit in card.refused]
    return "; ".join([", ".join(what), *refused])


def _key_words(keys: Sequence[str]) -> Iterator[str]:
    """Keys without their units, those of the memory's table together: "memory (total, reserve)", "runtime"."""
    words = {key: key.removesuffix(next((end for end in _UNITS if key.endswith(end)), "")) for key in keys}
    memory = [word.removeprefix("memory.") for word in words.values() if word.startswith("memory.")]
    if memory:
        yield f"memory ({', '.join(memory)})"
    yield from (word for word in words.values() if not word.startswith("memory."))


def _first_words(reason: str) -> str:
    return reason.split(";")[0]


def print_card(card: DeviceCard, console: Console) -> None:
    """Print all of a card: each figure with its source."""
    found = plannable(card)
    word, what = found.verdict, found.of
    facts = grid()
    facts.add_row("board", Text(card.name, style="bold"))
    facts.add_row("called", Text(", ".join([card.id, *card.aliases])))
    if card.family:
        facts.add_row("family", Text(card.family))
    facts.add_row("power mode", Text(f"{card.default_power_mode} unless asked ({card.power_mode_reason})"))
    facts.add_row("plan", Text(f"on {', '.join(what)}" if word == "plannable" else f"{word}: {'; '.join(what)}"))
    for fact in card.fact:
        facts.add_row(fact.name, Text(f"{fact.text} ({fact.source})"))
    console.print(facts)
    memory = [(key, getattr(card.memory, key)) for key in type(card.memory).__slots__]
    _print_figures("Board", [("tile_period_ms", card.tile_period_ms), ("storage_mb_s", card.storage_mb_s)], console)
    _print_figures("Memory", memory, console)
    if card.multiples is not None:
        multiples = [(key, getattr(card.multiples, key)) for key in ("head_dim", "ffn_hidden")]
        _print_figures("Inner sizes in multiples of", multiples, console)
    for unit in card.unit:
        peaks: list[tuple[str, Figure | None]] = [
            (f"{precision} peak_gflop_s", peak) for precision, peak in unit.peaks.items()
        ]
        _print_figures(
            f"Unit {unit.id}: {unit.name}", [*(peaks or [("peak_gflop_s", None)]), ("cores", unit.cores)], console
        )
        if unit.refused is not None:
            console.print(Text(f"refused: {unit.refused.reason} ({unit.refused.source})"))
    for mode in card.power_mode:
        figures: list[tuple[str, Figure | None]] = [("power_w", mode.power_w)]
        if mode.bandwidth_gb_s is not None:
            figures.append(("bandwidth_gb_s", mode.bandwidth_gb_s))
        for unit_id, caps in (mode.peak_gflop_s or {}).items():
            figures += [(f"{unit_id} {precision} peak_gflop_s", peak) for precision, peak in caps.items()]
        figures += [(f"{unit_id} cores", cores) for unit_id, cores in (mode.cores or {}).items()]
        _print_figures(f"Power mode {mode.id} ({mode.source})", figures, console)
    for runtime in card.runtime:
        _print_runtime(runtime, console)


def _print_runtime(runtime: RuntimeFigures, console: Console) -> None:
    memory = ("memory_mib", "weight_copies", "further_weight_copies", "activation_copies", "block_mib", "call_mib")
    startup = ("startup_ms", "startup_read_mb", "weights_mb_s")
    keys = ("op_overhead_us", "fixed_overhead_ms", *memory, *startup, "band_pixel_ns", "window_us", "error_band")
    figures: list[tuple[str, Figure | None]] = [
        (f"{precision} {op_class}", share)
        for precision, shares in runtime.efficiency.items()
        for op_class, share in shares.items()
    ]
    figures += [(key, getattr(runtime, key)) for key in keys]
    title = f"Runtime {runtime.id} on {runtime.unit}, basis {runtime.basis}: shares of the peak, overheads, memory"
    _print_figures(title, figures, console)


_UNITS = {
    "_gflop_s": "GFLOP/s",
    "_gb_s": "GB/s",
    "_mb_s": "MB/s",
    "_mib": "MiB",
    "_mb": "MB",
    "_ms": "ms",
    "_us": "µs",
    "_ns": "ns",
    "_w": "W",
}
"""Ending of a key -> unit, longest first."""


def _print_figures(title: str, figures: Sequence[tuple[str, Figure | None]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for key, figure in figures:
        ending = next((end for end in _UNITS if key.endswith(end)), "")
        if figure is None:
            table.add_row(key.removesuffix(ending), UNKNOWN, "not known")
        else:
            value = f"{figure.value:,.6g}" if figure.value < 1e6 else f"{figure.value:,.0f}"
            table.add_row(key.removesuffix(ending), f"{value} {_UNITS.get(ending, '')}".rstrip(), Text(figure.source))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table)
