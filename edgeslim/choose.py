"""Choose: the widest width of an encoder that a device's budget allows. The join of the three shelves; no torch."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeslim.budget import KINDS, NOTHING_ASKED, Ask, Miss, budget_of, miss_text
from edgeslim.device import Device, PowerMode, RuntimeFigures
from edgeslim.durations import startup_lacks
from edgeslim.errors import InputError, NothingFits, UsageError
from edgeslim.estimate import BATCH, Estimate, estimate
from edgeslim.plan import METHOD, Plan, Step
from edgeslim.profile import Profile
from edgeslim.target import Target


def make_plan(profile: Profile, device: Device, target: Target, ask: Ask = NOTHING_ASKED) -> Plan:
    """The widest aligned width step that meets every budget; an unaligned one only if no aligned one does.

    With the objective "score" it is the one of the best measured score instead.

    FLOP and memory that are not asked for come from the device's card. Raises NothingFits naming the nearest miss,
    UsageError for a power mode that the device does not have a stride longer than a tile or a score that was never
    measured, InputError if a card has no figures for a runtime of the target, or for what is to be limited.
    """
    planned, mode = device.in_mode(ask.power_mode)
    precision = target.precisions[0]
    runtime = _runtime(planned, target, precision)
    lacks = startup_lacks(planned, runtime)
    flag = "--startup-s" if ask.startup_s is not None else "--scene" if ask.scene is not None else None
    if flag is not None and lacks:
        raise InputError(
            f"{flag}: the start-up of {device.id} is not known, its card has no {', no '.join(lacks)}; add that "
            f"to a card of your own (--cards), or leave {flag} out"
        )
    _require_size(target, precision, ask)
    _require_scores(profile, ask)
    _require_power(device, mode, ask)
    conditions = replace(ask.conditions, power_w=None if mode.power_w is None else mode.power_w.value)
    budget = budget_of(ask, planned, runtime, precision)
    multiples = (int(device.multiples.head_dim.value), int(device.multiples.ffn_hidden.value))
    widths = sorted(profile.architecture.width_steps(), reverse=True)
    estimates = [estimate(profile, w, planned, runtime, precision, target, conditions) for w in widths]
    held = [(e, budget.missed_by(e)) for e in estimates]
    fitting = [e for e, misses in held if not misses]
    if not fitting:
        raise NothingFits(_nearest_miss(profile, device, mode.id, held))
    chosen = _best(fitting, ask.objective)
    if chosen is None:
        widths_text = ", ".join(f"{e.width_multiplier:.3g}" for e in estimates if e.score is not None)
        raise NothingFits(
            f"--objective score: no width of {profile.id} that fits {device.id} ({mode.id}) has a measured score, "
            f"expected one of {widths_text}; loosen the budgets, or leave the flag out"
        )
    return Plan(
        encoder=profile.id,
        architecture=profile.architecture,
        classes=profile.num_classes,
        method=METHOD,
        chosen=chosen,
        slim_architecture=profile.architecture.at(chosen.width_multiplier),
        device=device.id,
        device_name=device.name,
        power_mode=mode.id,
        power_mode_basis="asked" if ask.power_mode is not None else device.power_mode_reason,
        target=target.id,
        runtime=runtime.id,
        runtime_basis=runtime.basis,
        precision=precision,
        batch=BATCH,
        multiples=multiples,
        budget=budget,
        steps=tuple(Step(_verdict(e, m, chosen), m, e) for e, m in held),
        startup_lacks=lacks,
        uplink_kb_day=ask.uplink_kb_day,
        scene=ask.scene,
        objective=ask.objective,
    )


def _runtime(device: Device, target: Target, precision: str) -> RuntimeFigures:
    for name in target.runtimes:
        for runtime in device.runtime:
            if runtime.id == name and precision in runtime.precisions:
                return runtime
    found = ", ".join(f"{r.id} ({'/'.join(r.precisions)})" for r in device.runtime) or "none"
    raise InputError(
        f"{device.id}: runtime: found {found}, expected one that {target.id} runs on in {precision}: "
        f"{', '.join(target.runtimes)}; add its figures to a card of your own (--cards)"
    )


def _require_size(target: Target, precision: str, ask: Ask) -> None:
    """Raise InputError where an artifact's size is to be limited, and the export card does not let it be known."""
    limited = [name for name in ("artifact_mb", "uplink_kb_day") if getattr(ask, name) is not None]
    if limited and precision not in (target.graph_kb or {}):
        raise InputError(
            f"--{limited[0].replace('_', '-')}: the size of an artifact is not known, export card {target.id} has no "
            f"graph_kb.{precision}; add it to a card of your own (--cards), or leave the flag out"
        )


def _require_scores(profile: Profile, ask: Ask) -> None:
    """Raise UsageError where a score is asked for that no width was measured to have."""
    if ask.min_score is None and ask.objective != "score":
        return
    asked = "--objective: found 'score'" if ask.min_score is None else f"--min-score: found {ask.min_score:g}"
    measured = [s for w in profile.architecture.width_steps() if (s := profile.score_at(w)) is not None]
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
    """Raise InputError where watts or joules are to be limited on a board whose power nobody measured."""
    flag = "--max-w" if ask.max_w is not None else "--energy-j" if ask.energy_j is not None else None
    if flag is not None and mode.power_w is None:
        raise InputError(
            f"{flag}: device card {device.id}: power_mode {mode.id}: power_w: found nothing, expected watts that were "
            f"measured; add them to a card of your own (--cards), or leave {flag} out"
        )


def _best(fitting: list[Estimate], objective: str) -> Estimate | None:
    """Of those that fit, widest first: an unaligned one only where no aligned one is; None: none has a score."""
    if objective == "score":
        fitting = sorted((e for e in fitting if e.score is not None), key=lambda e: -(e.score or 0))
    return next((e for e in fitting if e.aligned), next(iter(fitting), None))


def _verdict(estimate: Estimate, misses: tuple[Miss, ...], chosen: Estimate) -> str:
    if estimate is chosen:
        return "chosen"
    if misses:
        return "over budget"
    if estimate.width_multiplier < chosen.width_multiplier:
        return "narrower"
    if chosen.aligned and not estimate.aligned:
        return "unaligned"
    return "lower score" if estimate.score is not None else "score not measured"


def _nearest_miss(profile: Profile, device: Device, mode: str, missed: list[tuple[Estimate, tuple[Miss, ...]]]) -> str:
    nearest, misses = min(missed, key=lambda pair: max(math.inf if m.over is None else m.over for m in pair[1]))
    raised = " and ".join(KINDS[miss.budget].flag for miss in misses if not KINDS[miss.budget].least)
    lowered = " and ".join(KINDS[miss.budget].flag for miss in misses if KINDS[miss.budget].least)
    mended = " and ".join(text for text in (raised and f"raise {raised}", lowered and f"lower {lowered}") if text)
    return (
        f"no width multiplier of {profile.id} fits {device.id} ({mode}): the nearest, {nearest.width_multiplier:.3g} "
        f"(head_dim {nearest.head_dim}), misses {'; '.join(miss_text(miss) for miss in misses)}; "
        f"{mended}, or take a smaller encoder or a stronger device"
    )
