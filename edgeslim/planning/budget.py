"""Budget: what is asked of a plan, the limits that follow, and what misses them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgeslim.device import Device
from edgeslim.errors import UsageError
from edgeslim.planning.durations import Scene
from edgeslim.planning.estimate import Conditions, Estimate
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.shelf import shown
from edgeslim.units import ARITHMETIC, MOST_BATCH


@dataclass(frozen=True, slots=True)
class Kind:
    """What one budget is called."""

    flag: str
    """On the command line."""
    title: str
    """In the table of budgets."""
    short: str
    """In a refusal."""
    unit: str
    """Printed behind its value."""
    upper: bool = False
    """Whether it is held against the upper end of an estimate."""
    least: bool = False
    """Whether it is the least that is accepted, not the most."""
    always: bool = True
    """Whether it stands in the table unasked."""


KINDS = {
    "gflop": Kind("--gflop", "FLOP a tile", "FLOP", "GFLOP"),
    "memory_mib": Kind("--memory-mib", "memory", "memory", "MiB"),
    "latency_ms": Kind("--latency-ms", "latency a tile", "latency", "ms", upper=True),
    "startup_s": Kind("--startup-s", "start-up", "start-up", "s", upper=True),
    "artifact_mb": Kind("--artifact-mb", "artifact", "artifact", "MB"),
    "uplink_days": Kind("--uplink-days", "uplink", "uplink", "days", always=False),
    "deadline_s": Kind("--deadline-s", "scene", "scene", "s", upper=True, always=False),
    "energy_j": Kind("--energy-j", "energy a scene", "energy", "J", upper=True, always=False),
    "max_w": Kind("--max-w", "power", "power", "W", always=False),
    "min_score": Kind("--min-score", "score", "score", "", least=True, always=False),
}
"""Field of Budget -> what it is called, in the order in which they are shown."""
_LEAST = 1e-99
"""Of a budget: by how much a smaller one is missed is no number any more."""
OBJECTIVES = ("widest", "score")
"""What the best of the cuts that fit is: the most FLOP, then the widest; or the best measured score."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a plan is asked for. Invalid values cannot be built; None: not asked."""

    gflop: float | None = None
    """Most GFLOP a tile."""
    memory_mib: float | None = None
    """Most memory of the process."""
    latency_ms: float | None = None
    """Most time of a call: a tile's answer comes with those of its batch."""
    startup_s: float | None = None
    """Most time from process start to the first finished tile."""
    artifact_mb: float | None = None
    """Largest artifact."""
    uplink_kb_day: float | None = None
    """What the link takes up a day."""
    uplink_days: float | None = None
    """Most days to uplink the artifact."""
    scene: Scene | None = None
    """To be classified."""
    deadline_s: float | None = None
    """Most time from process start to the last tile of the scene."""
    energy_j: float | None = None
    """Most energy that the board takes for the scene."""
    max_w: float | None = None
    """Most power that the board draws."""
    min_score: float | None = None
    """Least measured score."""
    score_on: str | None = None
    """Data set whose scores count; None: the first of the encoder's card."""
    objective: str = "widest"
    """Which of the cuts that fit: one of OBJECTIVES."""
    power_mode: str | None = None
    """Of the device."""
    precision: str | None = None
    """Of the artifact; None: any that the cards have figures for."""
    batch: int | None = None
    """Tiles a call; None: one, and in a scene what `classify` takes."""
    depth: int | None = None
    """Blocks to keep, the first ones; None: all, or fewer where the encoder's card has scores of them."""

    def __post_init__(self) -> None:
        for flag, value in (
            *((kind.flag, getattr(self, name)) for name, kind in KINDS.items()),
            ("--uplink-kb-day", self.uplink_kb_day),
        ):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{flag}: found {value:g}, expected a number of more than 0")
            if value is not None and value < _LEAST:
                raise UsageError(f"{flag}: found {value:g}, expected a number of at least {_LEAST:g}")
        if self.min_score is not None and self.min_score > 1:
            raise UsageError(f"--min-score: found {self.min_score:g}, expected a share of at most 1")
        if self.objective not in OBJECTIVES:
            raise UsageError(f"--objective: found {shown(self.objective)}, expected one of {', '.join(OBJECTIVES)}")
        if self.uplink_days is not None and self.uplink_kb_day is None:
            raise UsageError(
                f"--uplink-days: found {self.uplink_days:g} without --uplink-kb-day, expected both: "
                "days follow from what the link takes up a day"
            )
        if self.depth is not None and self.depth < 1:
            raise UsageError(f"--depth: found {self.depth}, expected at least 1 block, or all")
        if self.batch is not None and not 1 <= self.batch <= MOST_BATCH:
            raise UsageError(f"--batch: found {self.batch}, expected a whole number from 1 to {MOST_BATCH}")
        for flag, value, what in (
            ("--deadline-s", self.deadline_s, "a deadline"),
            ("--energy-j", self.energy_j, "an energy"),
        ):
            if value is not None and self.scene is None:
                raise UsageError(
                    f"{flag}: found {value:g} without --scene, expected both: {what} is of a scene, such as "
                    "--scene 10980x10980"
                )

    @property
    def conditions(self) -> Conditions:
        """What an estimate needs to know of it."""
        return Conditions(uplink_kb_day=self.uplink_kb_day, scene=self.scene, batch=self.batch, score_on=self.score_on)


NOTHING_ASKED = Ask()


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget."""

    value: float
    """In the unit of the field that holds it."""
    basis: str
    """"asked", or how it follows from the device's card."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a tile and a scene may cost on the device, and the artifact on its way there."""

    gflop: Limit
    """GFLOP a tile, 1 MAC = 2 FLOP."""
    memory_mib: Limit
    """Peak memory of the process."""
    latency_ms: Limit | None
    """Time of a call (of a tile, at a batch of one), held against the upper end of the estimate; None: not limited."""
    startup_s: Limit | None = None
    """From process start to the first finished tile, held against the upper end of the estimate; None: not limited."""
    artifact_mb: Limit | None = None
    """All files of the artifact; None: not limited."""
    uplink_days: Limit | None = None
    """Time to uplink the artifact; None: not limited."""
    deadline_s: Limit | None = None
    """From process start to the last finished tile of the scene, held against the upper end; None: not limited."""
    energy_j: Limit | None = None
    """Of the board for the scene, held against the upper end; None: not limited."""
    max_w: Limit | None = None
    """Drawn by the board at full load; None: not limited."""
    min_score: Limit | None = None
    """Least measured score of the cut; None: not limited."""

    def limits(self) -> Iterator[tuple[str, Limit]]:
        """The budgets that are set, with the name of their field."""
        for name in KINDS:
            if (limit := getattr(self, name)) is not None:
                yield name, limit

    def missed_by(self, estimate: Estimate) -> tuple[Miss, ...]:
        """What an estimate does not meet."""
        held = (_miss(name, limit.value, estimate.found(name)) for name, limit in self.limits())
        return tuple(miss for miss in held if miss is not None)


@dataclass(frozen=True, slots=True)
class Miss:
    """One budget that a step does not meet."""

    budget: str
    """One of KINDS."""
    limit: float
    """What was allowed."""
    found: float | None
    """What the step needs, or reaches; None: not known."""
    over: float | None
    """found / limit - 1: 0.25 is a quarter too much; of a least, how far found is below it; None: not known."""


def _miss(name: str, limit: float, found: float | None) -> Miss | None:
    if found is None:
        return Miss(name, limit, None, None)
    over = limit - found if KINDS[name].least else found / limit - 1
    return Miss(name, limit, found, over) if (found < limit if KINDS[name].least else found > limit) else None


def budget_of(ask: Ask, device: Device, runtime: RuntimeFigures, precision: str) -> Budget:
    """The limits on a device (at its power mode): what was asked; FLOP and memory follow from its card otherwise."""
    arithmetic = ARITHMETIC[precision]
    peak = device.peak_gflop_s(runtime, arithmetic).value
    share = runtime.efficiency[arithmetic]["gemm"].value
    period_ms, memory = device.tile_period_ms.value, device.memory
    defaults = {
        "gflop": Limit(peak * share * period_ms / 1e3, f"{peak:g} GFLOP/s x {share:g} efficiency x {period_ms:g} ms"),
        "memory_mib": Limit(
            memory.usable_mib, f"{memory.total_mib.value:g} MiB - {memory.reserve_mib.value:g} MiB left to the system"
        ),
    }
    return Budget(
        **{
            name: defaults.get(name) if (value := getattr(ask, name)) is None else Limit(value, "asked")
            for name in KINDS
        }  # type: ignore[arg-type]
    )


def miss_text(miss: Miss) -> str:
    """A missed budget for people: "latency up to 28 ms > 20 (+40 %)"."""
    kind = KINDS[miss.budget]
    if miss.found is None or kind.least:
        least = f", at least {miss.limit:g} asked" if miss.found is None else f": {miss.found:.3g} < {miss.limit:g}"
        return f"{short_text(miss)}{least}"
    found = f"{'up to ' if kind.upper else ''}{_figure(miss.found)} {kind.unit}"
    return f"{kind.short} {found} > {_figure(miss.limit)} ({over_text(miss.over or 0)})"


def _figure(value: float) -> str:
    """Three significant digits, from 100 on all that stand before the point: 2,834 MiB, not 2.83e+03."""
    return f"{value:,.0f}" if 100 <= value < 1e15 else f"{value:.3g}"


def short_text(miss: Miss) -> str:
    """The same for a table: "latency +40 %", "score 0.018 short", "score not measured"."""
    kind = KINDS[miss.budget]
    if miss.over is None:
        return f"{kind.short} not measured"
    return f"{kind.short} {max(miss.over, 1e-4):.2g} short" if kind.least else f"{kind.short} {over_text(miss.over)}"


def over_text(over: float) -> str:
    """By how much a budget is missed: a percentage, or a factor from twice on; never rounded down to nothing."""
    if over >= 1:
        return f"{1 + over:.1f} times" if over < 99 else f"{_figure(1 + over)} times"
    return f"+{max(math.ceil(over * 100 - 1e-9), 1)} %"
