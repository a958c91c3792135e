"""The rule that turns published rows into an efficiency and an error band, for benchmarks/latency.py and the cards.

Efficiency: the share of the peak at which the estimates of the rows lie nearest to what was published, by the squares
of log(estimate / published), each device weighing the same. Whole networks do not tell op classes apart: of a
transformer one figure serves its products and attention's; CNNs, by one term, give that of convolution.

Rows of which: of the nearest evidence on other devices that there is,

    class    same runtime, precision and core
    runtime  same runtime and precision, any core
    unit     same precision on the same kind of unit
    any      of the same kind of network
    gap      a transformer of whose runtime, or precision in it, none is published on another device: the geometric
             middle between the ends of what convolution of its runtime reaches (on the same core, or on each core
             there is) and transformers of other runtimes (nearest of: same core, same kind of unit, any)

Band, a factor 1 + b either way: that which 90 % of the rows needed, judged on them in the same way, each by the
figures without its device and without the one that is being left out (the ceil(0.9 (n + 1))-th of n: conformal
prediction, Vovk et al. 2005). Across a gap: the half of the gap, times that of `class`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from latency_rows import Row

SHARE = 0.9
_GRID = [0.01 * 1.01**step for step in range(620)]
"""Efficiencies that are tried, 0.01 to 4.8: by Winograd's algorithm a convolution reaches more than the peak."""
_FEWEST = 4
"""Errors of one kind of evidence, from which on they are judged apart from those of the others."""
GAP = "gap"

Key = Callable[[Row], str]


def by_chip(row: Row) -> str:
    return row.chip


def by_silicon(row: Row) -> str:
    return row.silicon


@dataclass(frozen=True)
class Fit:
    """Figures for a kind of row, and what they rest on."""

    level: str
    efficiency: float
    rows: tuple[Row, ...]
    ends: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Across a gap: efficiencies of convolution ("CNN"), and of transformers elsewhere ("ViT")."""

    @property
    def half_gap(self) -> float:
        """How many times either end is away from the middle."""
        ends = [share for shares in self.ends.values() for share in shares]
        return math.sqrt(max(ends) / min(ends)) if ends else 1.0


@dataclass(frozen=True)
class Held:
    """A row held against the estimate without its device."""

    row: Row
    fit: Fit
    estimate_ms: float
    bound: str
    band: float

    @property
    def error(self) -> float:
        return self.estimate_ms / self.row.measured_ms - 1

    @property
    def factor(self) -> float:
        """How many times too long or too short, whichever it is."""
        return math.exp(abs(math.log(self.estimate_ms / self.row.measured_ms)))

    @property
    def inside(self) -> bool:
        return self.factor <= 1 + self.band


@cache
def efficiency_of(rows: tuple[Row, ...], most: float = _GRID[-1]) -> float:
    """That fits some rows best, each chip weighing the same."""
    chips: dict[str, list[Row]] = {}
    for row in rows:
        chips.setdefault(row.chip, []).append(row)
    cost = [
        sum(sum(_misses(row)[index] ** 2 for row in own) / len(own) for own in chips.values())
        for index, share in enumerate(_GRID)
        if share <= most
    ]
    return _GRID[min(range(len(cost)), key=cost.__getitem__)]


@cache
def _misses(row: Row) -> list[float]:
    """log(estimate / published) at each efficiency of the grid."""
    return [math.log(sum(row.seconds(share).values()) * 1e3 / row.measured_ms) for share in _GRID]


def fit(like: Row, known: Iterable[Row], *, gap: bool = False) -> Fit:
    """Figures for a row like `like`, of rows that are known; across a gap where its runtime is not, or with `gap`."""
    known = tuple(known)
    same = tuple(row for row in known if row.kind == like.kind)
    steps = _steps(like, same)
    if like.kind == "CNN":
        level, rows = next((level, rows) for level, rows in steps if rows)
        return Fit(level, efficiency_of(rows), rows)
    if not gap:
        for level, rows in steps[:2]:
            if rows:
                return Fit(level, efficiency_of(rows, most=1.0), rows)
    convolutions = next(rows for _, rows in _steps(like, tuple(row for row in known if row.kind == "CNN")) if rows)
    others = tuple(row for row in same if row.runtime != like.runtime)
    near = (
        tuple(row for row in others if row.core == like.core),
        tuple(row for row in others if row.unit == like.unit),
        others,
    )
    elsewhere = next(rows for rows in near if rows)
    ends = {
        "CNN": tuple(efficiency_of(rows, most=1.0) for rows in _by_core(convolutions)),
        "ViT": (efficiency_of(elsewhere, most=1.0),),
    }
    shares = [share for end in ends.values() for share in end]
    return Fit(GAP, math.sqrt(min(shares) * max(shares)), (*convolutions, *elsewhere), ends)


def _by_core(rows: tuple[Row, ...]) -> list[tuple[Row, ...]]:
    cores = dict.fromkeys(row.core for row in rows)
    return [tuple(row for row in rows if row.core == core) for core in cores]


def _steps(like: Row, rows: tuple[Row, ...]) -> list[tuple[str, tuple[Row, ...]]]:
    precise = tuple(row for row in rows if row.precision == like.precision)
    same = tuple(row for row in precise if row.runtime == like.runtime)
    return [
        ("class", tuple(row for row in same if row.core == like.core)),
        ("runtime", same),
        ("unit", tuple(row for row in precise if row.unit == like.unit)),
        ("any", rows),
    ]


def band_of(found: Fit, kind: str, known: Iterable[Row], key: Key = by_chip) -> float:
    """b, as judged on rows that are known."""
    spread = math.exp(conformal(judged("class" if found.level == GAP else found.level, kind, tuple(known), key)))
    return found.half_gap * spread - 1


@cache
def judged(level: str, kind: str, known: tuple[Row, ...], key: Key = by_chip) -> tuple[float, ...]:
    """|log(estimate / published)| of rows by figures without their device; of one kind of evidence if enough."""
    errors: dict[str, list[float]] = {}
    for row in known:
        if row.kind == kind:
            own = fit(row, (other for other in known if key(other) != key(row)))
            errors.setdefault(own.level, []).append(_error(row, own.efficiency))
    alike = errors.get(level, [])
    if len(alike) >= _FEWEST:
        return tuple(alike)
    return tuple(error for name, own in errors.items() if name != GAP for error in own)


def _error(row: Row, efficiency: float) -> float:
    return abs(math.log(sum(row.seconds(efficiency).values()) * 1e3 / row.measured_ms))


def conformal(errors: Sequence[float]) -> float:
    """The error that SHARE of the next ones will not exceed, if they are like these; the largest where they are few."""
    ordered = sorted(errors)
    return ordered[min(len(ordered), math.ceil(SHARE * (len(ordered) + 1))) - 1]


def hold(row: Row, rows: Sequence[Row], key: Key = by_chip, *, gap: bool = False) -> Held:
    """A row against what all rows of other devices tell of it."""
    known = tuple(other for other in rows if key(other) != key(row))
    found = fit(row, known, gap=gap)
    seconds = row.seconds(found.efficiency)
    return Held(
        row,
        found,
        sum(seconds.values()) * 1e3,
        max(seconds, key=lambda part: seconds[part]),
        band_of(found, row.kind, known, key),
    )
