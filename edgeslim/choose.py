"""Choose: runtime, precision and width that a device's budget allows. The join of the three shelves; no torch."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from edgeslim.budget import KINDS, NOTHING_ASKED, Ask, Budget, Miss, budget_of, miss_text, short_text
from edgeslim.call_time import ESTIMATED
from edgeslim.device import Device
from edgeslim.device_card import PowerMode
from edgeslim.durations import startup_lacks
from edgeslim.errors import CardLacks, NothingFits, UsageError
from edgeslim.estimate import Estimate, estimate
from edgeslim.plan import METHODS, Plan, Step, Tried
from edgeslim.profile import Profile
from edgeslim.shelf import shown
from edgeslim.target import Target
from edgeslim.ways import Way, ways_on

_Pair = tuple[Estimate, tuple[Miss, ...]]
"""A width, and what it misses."""


@dataclass(frozen=True, slots=True)
class _Held:
    """Every width step in one way, held against the budget."""

    way: Way
    budget: Budget
    steps: tuple[_Pair, ...]
    """Widest first."""

    @property
    def fitting(self) -> list[Estimate]:
        return [found for found, misses in self.steps if not misses]

    @property
    def outcome(self) -> str:
        if (widest := next(iter(_usable(self.fitting)), None)) is not None:
            return f"fits {widest.width_multiplier:.4g} at most"
        return f"nothing fits, {', '.join(map(short_text, _nearest(self.steps)[1]))} at the nearest"


class NoWidthFits(NothingFits):
    """No width meets the budget. `plan` is that of the width that misses it by the least, to show why."""

    def __init__(self, message: str, nearest: str, over: float, plan: Plan) -> None:
        super().__init__(message, nearest, over)
        self.plan = plan


def make_plan(
    profile: Profile,
    device: Device,
    targets: Target | Sequence[Target],
    ask: Ask = NOTHING_ASKED,
    *,
    narrower: bool = True,
) -> Plan:
    """The widest aligned width step that meets every budget; an unaligned one only if no aligned one does.

    Of the ways to run it (edgeslim.ways; the first target's first precision is the usual one) it is the first in which
    that width fits and in which no wider one that fits is estimated to be as fast. With the objective "score" the width
    is that of the best measured score. FLOP and memory that are not asked for come from the device's card. Without
    `narrower` the same is chosen, but widths that can no longer matter are left out of the steps, and the other ways.

    Raises NoWidthFits naming the nearest miss (NothingFits where no score of what fits was measured), UsageError for a
    power mode that the device does not have, a stride longer than a tile or a score that was never measured, InputError
    if a card has no figures for a runtime of a target, or for what is to be limited.
    """
    planned, mode = device.in_mode(ask.power_mode)
    ways = ways_on(planned, [targets] if isinstance(targets, Target) else targets, ask)
    _require_scores(profile, ask)
    _require_power(device, mode, ask)
    unknown = {way: why for way in ways if (why := _unknown(planned, way, ask)) is not None}
    if len(unknown) == len(ways):
        raise unknown[ways[0]][1]
    tried = _try(profile, planned, mode, [way for way in ways if way not in unknown], ask, narrower)
    fitting = [found for held in tried for found in held.fitting]
    best = _best(fitting, ask.objective) if fitting else _nearest(pair for held in tried for pair in held.steps)[0]
    if best is None:
        measured = ", ".join(f"{found.width_multiplier:.3g}" for found, _ in tried[0].steps if found.score is not None)
        raise NothingFits(
            f"--objective score: no width of {profile.id} that fits {device.id} ({mode.id}) has a measured score, "
            f"expected one of {measured or 'them in fp32'}; loosen the budgets, or leave the flag out"
        )
    taken, chosen = _way_of(best.width_multiplier, tried) if fitting else (_holding(best, tried), best)
    others = {held.way: held.outcome for held in tried if narrower and held is not taken}
    others |= {way: what for way, (what, _) in unknown.items() if narrower}
    plan = Plan(
        encoder=profile.id,
        architecture=profile.architecture,
        classes=profile.num_classes,
        method=METHODS[0],
        chosen=chosen,
        slim_architecture=profile.architecture.at(chosen.width_multiplier),
        device=device.id,
        device_name=device.name,
        power_mode=mode.id,
        power_mode_basis="asked" if ask.power_mode is not None else device.power_mode_reason,
        target=taken.way.target.id,
        runtime=taken.way.runtime.id,
        runtime_basis=taken.way.runtime.basis,
        precision=taken.way.precision,
        batch=chosen.batch,
        multiples=(int(device.multiples.head_dim.value), int(device.multiples.ffn_hidden.value)),
        unverified=_unverified(planned, taken.way),
        budget=taken.budget,
        steps=tuple(Step(_verdict(found, misses, chosen), misses, found) for found, misses in taken.steps),
        startup_lacks=startup_lacks(planned, taken.way.runtime),
        uplink_kb_day=ask.uplink_kb_day,
        scene=ask.scene,
        objective=ask.objective,
        tried=tuple(Tried(way.target.id, way.runtime.id, way.precision, others[way]) for way in ways if way in others),
        error_band=taken.way.runtime.error_band,
    )
    if not fitting:
        misses = plan.budget.missed_by(chosen)
        text = ", ".join(map(short_text, misses))
        raise NoWidthFits(_nearest_miss(profile, device, mode, tried), text, _furthest(misses), plan)
    return plan


def _try(profile: Profile, device: Device, mode: PowerMode, ways: list[Way], ask: Ask, narrower: bool) -> list[_Held]:
    """Hold every width in every way against the budget; nothing is better than all of the encoder in an earlier way.

    Without `narrower` only the widths that matter, and of a way none that is narrower than the widest aligned one that
    fits in an earlier way.
    """
    conditions = replace(ask.conditions, power_w=None if mode.power_w is None else mode.power_w.value)
    widths = sorted(profile.architecture.width_steps(), reverse=True)
    timed = any(row.encoder == profile.id for row in device.measurement)
    widest_asked = ask.objective == "widest"
    tried, enough = [], 0.0
    for way in ways:
        budget = budget_of(ask, device, way.runtime, way.precision)

        @cache
        def held(width: float, way: Way = way, budget: Budget = budget) -> _Pair:
            found = estimate(profile, width, device, way.runtime, way.precision, way.target, conditions)
            return found, budget.missed_by(found)

        every = narrower or timed  # of rows that were timed, a narrower one may have been slower
        steps = [held(width) for width in widths] if every else _that_matter(widths, held, enough, widest_asked)
        tried.append(_Held(way, budget, tuple(steps)))
        whole = [f.width_multiplier for f, misses in steps if widest_asked and f.aligned and not misses]
        enough = max([enough, *whole])
        # Where rows were timed another way may be faster.
        if widths[0] in whole and not timed:
            break
    return tried


def _that_matter(
    widths: Sequence[float], held: Callable[[float], _Pair], enough: float, widest_asked: bool
) -> list[_Pair]:
    """Of `widths`, widest first, those among which the chosen one and the nearest miss are.

    A narrower width is never estimated to need more (tests/test_boards.py): it is only the score that it may lack.
    """

    def too_wide(width: float) -> bool:
        return any(miss.budget != "min_score" for miss in held(width)[1])

    narrowest = held(widths[-1])
    if too_wide(widths[-1]) and all(miss.budget != "min_score" for miss in narrowest[1]):
        # Of those that miss by as much, such as by the watts of the board, the widest is the nearest.
        least = _furthest(narrowest[1])
        if len(widths) < 2 or _furthest(held(widths[-2])[1]) > least:
            return [narrowest]
        return [held(widths[bisect_left(widths, True, key=lambda width: _furthest(held(width)[1]) <= least)])]
    steps = []
    for width in widths[bisect_left(widths, True, key=lambda width: not too_wide(width)) :]:
        if width < enough:
            break
        steps.append(held(width))
        if widest_asked and steps[-1][0].aligned and not steps[-1][1]:
            break
    if all(misses for _, misses in steps):
        return [held(width) for width in widths if width >= enough]
    return steps


def _unknown(device: Device, way: Way, ask: Ask) -> tuple[str, CardLacks] | None:
    """What is to be limited but cannot be known in a way, and that as a refusal; None where all is known."""
    flag = "--startup-s" if ask.startup_s is not None else "--scene" if ask.scene is not None else None
    if flag is not None and (lacks := startup_lacks(device, way.runtime)):
        return "start-up not known", CardLacks(
            f"{flag}: the start-up of {device.id} is not known, its card has no {', no '.join(lacks)}; add that "
            f"to a card of your own (--cards), or leave {flag} out",
            lacks,
        )
    limited = [name for name in ("artifact_mb", "uplink_kb_day") if getattr(ask, name) is not None]
    if limited and way.precision not in (way.target.graph_kb or {}):
        key = f"graph_kb.{way.precision}"
        return "size of its artifact not known", CardLacks(
            f"--{limited[0].replace('_', '-')}: the size of an artifact is not known, export card {way.target.id} has "
            f"no {key}; add it to a card of your own (--cards), or leave the flag out",
            (f"{key} (of export card {way.target.id})",),
        )
    return None


def _require_scores(profile: Profile, ask: Ask) -> None:
    """Raise UsageError where a score is asked for that no width was measured to have."""
    if ask.score_on is not None and ask.score_on not in profile.score_datasets:
        known = ", ".join(map(repr, profile.score_datasets)) or "none, as its card has no [[score]]"
        raise UsageError(f"--score-on: found {shown(ask.score_on)}, expected a data set of {profile.id}: {known}")
    if ask.min_score is None and ask.objective != "score":
        return
    asked = "--objective: found 'score'" if ask.min_score is None else f"--min-score: found {ask.min_score:g}"
    measured = [s for w in profile.architecture.width_steps() if (s := profile.score_at(w, ask.score_on)) is not None]
    if not measured:
        raise UsageError(
            f"{asked}, expected an encoder with measured scores: card {profile.id} has no [[score]] of a width; add "
            "one to a card of your own (--cards), or leave the flag out"
        )
    best = max(measured, key=lambda score: score.value)
    if ask.min_score is not None and ask.min_score > best.value:
        raise UsageError(
            f"{asked}, expected at most {best.value:g}, the best measured score of {profile.id} (at "
            f"{best.width_multiplier:.3g}); nothing reaches more"
        )


def _require_power(device: Device, mode: PowerMode, ask: Ask) -> None:
    """Raise CardLacks where watts or joules are to be limited on a board whose power nobody measured."""
    flag = "--max-w" if ask.max_w is not None else "--energy-j" if ask.energy_j is not None else None
    if flag is not None and mode.power_w is None:
        raise CardLacks(
            f"{flag}: device card {device.id}: power_mode {mode.id}: power_w: found nothing, expected watts that were "
            f"measured; add them to a card of your own (--cards), or leave {flag} out",
            (f"power_w of power_mode {mode.id}",),
        )


def _unverified(device: Device, way: Way) -> str | None:
    """Why nothing should be planned on the way's unit unasked; None: there is no reason."""
    unit = device.unit_of(way.runtime)
    return (
        None if unit.refused is None or unit not in device.refused else f"{unit.refused.reason} ({unit.refused.source})"
    )


def _usable(fitting: Iterable[Estimate]) -> list[Estimate]:
    """Of those that fit: the aligned ones, or all where there are none; widest first."""
    ordered = sorted(fitting, key=lambda found: -found.width_multiplier)
    return [found for found in ordered if found.aligned] or ordered


def _best(fitting: list[Estimate], objective: str) -> Estimate | None:
    """Of those that fit, the widest or that of the best score (of equals the widest); None: none has a score."""
    if objective == "widest":
        return _usable(fitting)[0]
    scored = _usable(found for found in fitting if found.score is not None)
    return max(scored, key=lambda found: found.score or 0.0, default=None)


def _way_of(width_multiplier: float, tried: list[_Held]) -> tuple[_Held, Estimate]:
    """The first way in which a width fits and in which it is faster than every wider one that fits in any way.

    There is one: a way in which a wider one fits and is fastest runs this one faster still. Of the ways in the same
    precision that were timed on the board, it is the fastest: an estimate would not tell them apart.
    """
    wider = [f.latency_high_ms for held in tried for f in held.fitting if f.width_multiplier > width_multiplier]
    fits = [(held, f) for held in tried for f in held.fitting if f.width_multiplier == width_multiplier]
    faster = [pair for pair in fits if all(pair[1].latency_high_ms < latency for latency in wider)]
    first = faster[0] if faster else min(fits, key=lambda pair: pair[1].latency_high_ms)
    timed = [
        (held, f) for held, f in faster if f.latency_basis != ESTIMATED and held.way.precision == first[0].way.precision
    ]
    return min(timed, key=lambda pair: pair[1].latency_ms, default=first)


def _verdict(estimate: Estimate, misses: tuple[Miss, ...], chosen: Estimate) -> str:
    if misses:
        return "over budget"
    if estimate is chosen:
        return "chosen"
    if estimate.width_multiplier < chosen.width_multiplier:
        return "narrower"
    if chosen.aligned and not estimate.aligned:
        return "unaligned"
    return "lower score" if estimate.score is not None else "score not measured"


def _nearest(steps: Iterable[_Pair]) -> _Pair:
    """The step whose largest miss is the smallest."""
    return min(steps, key=lambda pair: _furthest(pair[1]))


def _furthest(misses: Iterable[Miss]) -> float:
    return max((math.inf if miss.over is None else miss.over for miss in misses), default=0.0)


def _holding(estimate: Estimate, tried: list[_Held]) -> _Held:
    """The way that an estimate is of."""
    return next(held for held in tried if any(found is estimate for found, _ in held.steps))


def _nearest_miss(profile: Profile, device: Device, mode: PowerMode, tried: list[_Held]) -> str:
    nearest, misses = _nearest(pair for held in tried for pair in held.steps)
    way = _holding(nearest, tried).way
    where = f", {way.runtime.id} in {way.precision}" if len(tried) > 1 else ""
    raised = " and ".join(KINDS[miss.budget].flag for miss in misses if not KINDS[miss.budget].least)
    lowered = " and ".join(KINDS[miss.budget].flag for miss in misses if KINDS[miss.budget].least)
    mended = " and ".join(text for text in (raised and f"raise {raised}", lowered and f"lower {lowered}") if text)
    return (
        f"no width multiplier of {profile.id} fits {device.id} ({mode.id}): the nearest, "
        f"{nearest.width_multiplier:.3g} (head_dim {nearest.head_dim}{where}), misses "
        f"{'; '.join(miss_text(miss) for miss in misses)}; {mended}, or take a smaller encoder or a stronger device"
    )
