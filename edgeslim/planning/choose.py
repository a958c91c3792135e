"""Choose: runtime, precision, width and depth that a device's budget allows. Joins the three shelves; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from edgeslim.cuts import cut_text
from edgeslim.device import Device
from edgeslim.device_card import PowerMode
from edgeslim.errors import CardLacks, NothingFits, UsageError
from edgeslim.planning.budget import KINDS, NOTHING_ASKED, Ask, Miss, miss_text, short_text
from edgeslim.planning.call_time import ESTIMATED
from edgeslim.planning.durations import startup_lacks
from edgeslim.planning.estimate import Estimate
from edgeslim.planning.plan import METHODS, Plan, Step, Tried
from edgeslim.planning.search import Held, cuts_of, furthest, nearest, try_ways
from edgeslim.planning.ways import Way, ways_on
from edgeslim.profile import Profile
from edgeslim.shelf import shown
from edgeslim.target import Target


class NoWidthFits(NothingFits):
    """No cut meets the budget. `plan` is that of the one that misses it by the least, to show why."""

    def __init__(self, message: str, misses: str, over: float, plan: Plan) -> None:
        super().__init__(message, misses, over)
        self.plan = plan


def make_plan(
    profile: Profile,
    device: Device,
    targets: Target | Sequence[Target],
    ask: Ask = NOTHING_ASKED,
    *,
    narrower: bool = True,
) -> Plan:
    """The largest aligned cut that meets every budget; an unaligned one only if no aligned one does, or is as fast.

    Cuts are the width steps and, in depth, what the encoder's card has scores of (search.cuts_of); the largest is that
    of the most FLOP, then the widest. Of the ways to run it (planning.ways; the first target's first precision is the
    usual one) it is the first in which that cut fits and in which no larger one that fits is estimated to be as fast.
    With the objective "score" the cut is that of the best measured score. FLOP and memory that are not asked for come
    from the device's card. Without `narrower` the same is chosen, but cuts that can no longer matter are left out of
    the steps, and the other ways.

    Raises NoWidthFits naming the nearest miss (NothingFits where no score of what fits was measured), UsageError for a
    power mode that the device or a depth that the encoder does not have, a stride longer than a tile or a score that
    was never measured, InputError if a card has no figures for a runtime of a target, or for what is to be limited.
    """
    planned, mode = device.in_mode(ask.power_mode)
    ways = ways_on(planned, [targets] if isinstance(targets, Target) else targets, ask)
    _require_scores(profile, ask)
    _require_power(device, mode, ask)
    unknown = {way: why for way in ways if (why := _unknown(planned, way, ask)) is not None}
    if len(unknown) == len(ways):
        raise unknown[ways[0]][1]
    known = [way for way in ways if way not in unknown]
    tried = try_ways(profile, planned, mode, known, ask, narrower)
    fits = any(held.fitting for held in tried)
    best = _best(tried, ask.objective) if fits else nearest(pair for held in tried for pair in held.steps)[0]
    if best is None:
        # A quick search leaves out what is too large to fit, and that may be what was scored.
        every = tried if narrower else try_ways(profile, planned, mode, known[:1], ask, True)
        scored = [found for found, _ in every[0].steps if found.score is not None]
        measured = ", ".join(map(_shortly, scored))
        raise NothingFits(
            f"--objective score: no width of {profile.id} that fits {device.id} ({mode.id}) has a measured score, "
            f"expected one of {measured or 'them in fp32'}; loosen the budgets, or leave the flag out"
        )
    taken, chosen = _way_of(best, tried) if fits else (_holding(best, tried), best)
    others = {held.way: held.outcome for held in tried if narrower and held is not taken}
    others |= {way: what for way, (what, _) in unknown.items() if narrower}
    plan = Plan(
        encoder=profile.id,
        architecture=profile.architecture,
        classes=profile.num_classes,
        method=METHODS[0],
        chosen=chosen,
        slim_architecture=profile.architecture.at(*chosen.cut),
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
        steps=tuple(Step(_verdict(found, misses, chosen, taken), misses, found) for found, misses in taken.steps),
        startup_lacks=startup_lacks(planned, taken.way.runtime),
        uplink_kb_day=ask.uplink_kb_day,
        scene=ask.scene,
        objective=ask.objective,
        tried=tuple(Tried(way.target.id, way.runtime.id, way.precision, others[way]) for way in ways if way in others),
        error_band=taken.way.runtime.error_band,
    )
    if not fits:
        misses = plan.budget.missed_by(chosen)
        text = ", ".join(map(short_text, misses))
        raise NoWidthFits(_nearest_miss(profile, device, mode, tried), text, furthest(misses), plan)
    return plan


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
    """Raise UsageError where a score is asked for that no cut was measured to have."""
    if ask.score_on is not None and ask.score_on not in profile.score_datasets:
        known = ", ".join(map(repr, profile.score_datasets)) or "none, as its card has no [[score]]"
        raise UsageError(f"--score-on: found {shown(ask.score_on)}, expected a data set of {profile.id}: {known}")
    if ask.min_score is None and ask.objective != "score":
        return
    asked = "--objective: found 'score'" if ask.min_score is None else f"--min-score: found {ask.min_score:g}"
    cuts = cuts_of(profile, ask)
    at = (profile.score_at(cut.width_multiplier, ask.score_on, cut.depth) for cut in reversed(cuts))
    measured = [score for score in at if score is not None]
    if not measured:
        what = f"a width of depth {cuts[0].depth}" if cuts[0].depth else "a width"
        raise UsageError(
            f"{asked}, expected an encoder with measured scores: card {profile.id} has no [[score]] of {what}; add "
            "one to a card of your own (--cards), or leave the flag out"
        )
    best = max(measured, key=lambda score: score.value)
    if ask.min_score is not None and ask.min_score > best.value:
        raise UsageError(
            f"{asked}, expected at most {best.value:g}, the best measured score of {profile.id} (at "
            f"{cut_text(f'{best.width_multiplier:.3g}', best.depth)}); nothing reaches more"
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


def _best(tried: list[Held], objective: str) -> Estimate | None:
    """Of those that fit, that of the highest rank, or of the best score (of equals the largest); None: none has one."""
    ranked = [(held.rank(found), found) for held in tried for found in held.fitting]
    if objective == "widest":
        return max(ranked, key=lambda one: one[0])[1]
    scored = [one for one in ranked if one[1].score is not None]
    usable = [one for one in scored if one[0][0]] or scored
    return max((found for _, found in usable), key=lambda found: (found.score or 0.0, found.size), default=None)


def _way_of(best: Estimate, tried: list[Held]) -> tuple[Held, Estimate]:
    """The first way in which a cut fits and in which it is faster than every larger one that fits in any way.

    Of one depth there is one: a way in which a wider one fits and is fastest runs this one faster still. Of two depths
    there may be none; then it is the fastest in which the cut is preferred, which makes it faster than every larger one
    that fits there. Of the ways in the same precision that were timed on the board, it is the fastest: an estimate
    would not tell them apart.
    """
    larger = [f.latency_high_ms for held in tried for f in held.fitting if f.size > best.size]
    fits = [(held, f) for held in tried for f in held.fitting if f.cut == best.cut]
    fits = [(held, f) for held, f in fits if f.cut in held.preferred] or fits
    faster = [pair for pair in fits if all(pair[1].latency_high_ms < latency for latency in larger)]
    first = faster[0] if faster else min(fits, key=lambda pair: pair[1].latency_high_ms)
    timed = [
        (held, f) for held, f in faster if f.latency_basis != ESTIMATED and held.way.precision == first[0].way.precision
    ]
    return min(timed, key=lambda pair: pair[1].latency_ms, default=first)


def _verdict(estimate: Estimate, misses: tuple[Miss, ...], chosen: Estimate, taken: Held) -> str:
    if misses:
        return "over budget"
    if estimate is chosen:
        return "chosen"
    if estimate.size < chosen.size:
        return "narrower"
    if chosen.cut in taken.preferred and estimate.cut not in taken.preferred:
        return "unaligned"
    return "lower score" if estimate.score is not None else "score not measured"


def _holding(estimate: Estimate, tried: list[Held]) -> Held:
    """The way that an estimate is of."""
    return next(held for held in tried if any(found is estimate for found, _ in held.steps))


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _nearest_miss(profile: Profile, device: Device, mode: PowerMode, tried: list[Held]) -> str:
    found, misses = nearest(pair for held in tried for pair in held.steps)
    way = _holding(found, tried).way
    where = f", {way.runtime.id} in {way.precision}" if len(tried) > 1 else ""
    raised = _listed([KINDS[miss.budget].flag for miss in misses if not KINDS[miss.budget].least])
    lowered = _listed([KINDS[miss.budget].flag for miss in misses if KINDS[miss.budget].least])
    mended = " and ".join(text for text in (raised and f"raise {raised}", lowered and f"lower {lowered}") if text)
    deep = any(pair[0].depth is not None for held in tried for pair in held.steps)
    what = "no width and depth" if deep else "no width multiplier"
    return (
        f"{what} of {profile.id} fits {device.id} ({mode.id}): the nearest, "
        f"{_shortly(found)} ({_inner(profile, found)}{where}), misses "
        f"{'; '.join(miss_text(miss) for miss in misses)}; {mended}, or take a smaller encoder or a stronger device"
    )


def _inner(profile: Profile, found: Estimate) -> str:
    """The size that tells its width."""
    return profile.architecture.at(*found.cut).inner_text.partition(",")[0]


def _shortly(found: Estimate) -> str:
    return cut_text(f"{found.width_multiplier:.3g}", found.depth)
