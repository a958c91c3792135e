"""A plan, for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.planning.budget import KINDS, Kind, short_text
from edgeslim.planning.call_time import ESTIMATED, MEASURED, RESCALED
from edgeslim.planning.durations import Scene, SceneTime
from edgeslim.planning.estimate import Estimate
from edgeslim.planning.plan import Plan, Step
from edgeslim.report.tables import grid, number, titled_table
from edgeslim.run_memory import USUAL_SCENE_PX
from edgeslim.units import gflop

_BASES = {
    MEASURED: "measured on this board",
    RESCALED: "computed, and set right by what was measured on this board",
    ESTIMATED: "an estimate, not a measurement",
}
MAX_ROWS = 12
"""Rows of refused steps before the unaligned ones are only counted."""


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan: what for, within which budget, what was chosen, what was refused and why."""
    _print_head(plan, console)
    _print_budget(plan, console)
    _print_chosen(plan, console)
    _print_refused(plan, console)


def _print_head(plan: Plan, console: Console) -> None:
    facts = grid()
    for name, text in head_facts(plan):
        facts.add_row(name, Text(text, style="bold" if name == "unverified" else ""))
    console.print(facts)


def head_facts(plan: Plan) -> list[tuple[str, str]]:
    """What a plan is for: names and what they are."""
    full = plan.architecture
    classes = f", {plan.classes} classes" if plan.classes else ", no head"
    facts = [
        (
            "encoder",
            f"{plan.encoder}: {kind_text(full)}, {full.shape_text}; {full.bands} bands, {full.tile_px} px tiles"
            f"{classes}",
        ),
        ("device", f"{plan.device}: {plan.device_name}"),
        ("power mode", f"{plan.power_mode} ({plan.power_mode_basis})"),
        (
            "runtime",
            f"{plan.runtime}, {plan.precision}, batch {plan.batch}, exported as {plan.target}; "
            f"basis of its figures: {plan.runtime_basis}",
        ),
    ]
    if plan.error_band is not None and plan.chosen.latency_basis == ESTIMATED:
        band = f"x {1 + plan.error_band.value:.3g} either way: {plan.error_band.source}"
        facts.append(("error band", band))
    for index, other in enumerate(plan.tried):
        way = f"{other.runtime}, {other.precision}, exported as {other.target}"
        facts.append(("" if index else "also tried", f"{way}: {other.outcome}"))
    if plan.unverified is not None:
        facts.append(("unverified", f"measure before you rely on it: {plan.unverified}"))
    return facts


def _print_budget(plan: Plan, console: Console) -> None:
    table = titled_table("Budget")
    table.add_column("budget", no_wrap=True)
    table.add_column("limit" if plan.budget.min_score else "at most", justify="right", no_wrap=True)
    table.add_column("chosen", justify="right", no_wrap=True)
    table.add_column("where the limit comes from")
    for row in budget_rows(plan):
        table.add_row(*map(escape, row))
    console.print()
    console.print(table)


def budget_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """Budgets: name, limit, what the chosen width needs of it, and where the limit comes from."""
    limits, rows = dict(plan.budget.limits()), []
    for name, kind in KINDS.items():
        limit = limits.get(name)
        if limit is None and not kind.always:
            continue
        in_batches = name == "latency_ms" and plan.batch > 1
        rows.append(
            (
                f"latency of {plan.batch} tiles" if in_batches else kind.title,
                _limit(kind, limit.value) if limit else "not limited",
                _held(kind, plan.chosen.found(name)),
                limit.basis if limit else f"give {kind.flag} to limit it",
            )
        )
    return rows


def _limit(kind: Kind, value: float) -> str:
    return f"{'at least ' if kind.least else ''}{number(value)} {kind.unit}".rstrip()


def _held(kind: Kind, found: float | None) -> str:
    """What is held against a budget."""
    if found is None:
        return "not known"
    return f"{'up to ' if kind.upper else ''}{number(found)} {kind.unit}".rstrip()


def _print_chosen(plan: Plan, console: Console) -> None:
    facts = grid()
    for name, text in chosen_facts(plan).items():
        facts.add_row(name, Text(text))
    console.print()
    why = ", the best score that fits" if plan.objective == "score" else ""
    console.print(f"[bold]Chosen: width multiplier {kept_text(plan)}{why}[/]", highlight=False)
    console.print(facts)


def kept_text(plan: Plan) -> str:
    """The chosen width, and the depth where it is cut: "0.5 with 6 of 12 blocks"."""
    depth = "" if plan.depth is None else f" with {plan.depth} of {plan.architecture.depth} blocks"
    return f"{plan.width_multiplier:.4g}{depth}"


def _cut_text(plan: Plan) -> str:
    """Kept inner sizes, of those of the whole encoder."""
    full, slim = plan.architecture, plan.slim_architecture
    if isinstance(full, Architecture) and isinstance(slim, Architecture):
        (heads, hidden), (kept_heads, kept_hidden) = full.inner_texts, slim.inner_texts
        return f"head_dim {kept_heads} of {heads}, FFN {kept_hidden} of {hidden}"
    return f"{slim.inner_text} of {full.inner_texts[-1]}"


def kind_text(arch: AnyArchitecture) -> str:
    """What an encoder is, for people."""
    return "ViT" if isinstance(arch, Architecture) else "ConvNeXt V2"


def whole_of(plan: Plan) -> tuple[float, int]:
    """GFLOP and parameters of the whole encoder with its head."""
    full = plan.architecture
    return gflop(cost.flop(full, plan.classes)), cost.parameters(full, plan.classes)


def chosen_facts(plan: Plan) -> dict[str, str]:
    """What the chosen width costs: names and what they are."""
    chosen, memory = plan.chosen, plan.chosen.memory
    on = "" if plan.scene is not None else f" on {USUAL_SCENE_PX[0]} x {USUAL_SCENE_PX[1]} px"
    full = plan.architecture
    full_gflop, full_parameters = whole_of(plan)
    facts: dict[str, str] = {}
    facts["inner sizes"] = f"{_cut_text(plan)}{_alignment(plan)}"
    if plan.depth is not None:
        facts["blocks"] = f"the first {plan.depth} of {full.depth}, and the last LayerNorm behind them"
    facts["FLOP"] = (
        f"{number(chosen.gflop)} GFLOP a tile ({chosen.gflop / full_gflop:.0%} of full; 1 MAC = 2 FLOP; exact)"
    )
    facts["parameters"] = (
        f"{number(chosen.parameters / 1e6)} M ({chosen.parameters / full_parameters:.0%} of full; exact)"
    )
    facts["memory"] = (
        f"{number(memory.total_mib)} MiB at the peak of `classify`{on}: weights {number(memory.weights_mib)}, "
        f"activations {number(memory.activations_mib)}{_at_once(memory.calls)}, buffers {number(memory.buffers_mib)}, "
        f"runtime {number(memory.runtime_mib)}"
    )
    held = "; the upper end is held against the budget" if plan.budget.latency_ms else ""
    measured = chosen.latency_basis == MEASURED
    if plan.batch > 1:
        batches, held = (
            f" in calls of {plan.batch}",
            held and f"; that of a call, x {plan.batch}, is held to the budget",
        )
    else:
        batches = ""
    facts["latency"] = (
        f"{number(chosen.latency_ms)} ms a tile{batches}, bound by {chosen.bound}; "
        f"{number(chosen.latency_low_ms)} to {number(chosen.latency_high_ms)} ms "
        f"{'from the half of the calls to 95 of 100' if measured else 'within its error band'}{held}; "
        f"{_BASES[chosen.latency_basis]}"
    )
    facts["start-up"] = _startup(plan)
    if plan.scene is not None and chosen.scene is not None:
        facts["scene"] = _scene(plan, plan.scene, chosen.scene)
    if chosen.energy_j is not None and chosen.power_w is not None:
        facts["energy"] = (
            f"up to {number(chosen.energy_j)} J a scene: {number(chosen.power_w)} W of the whole board at full load, "
            "measured, for the upper end of the scene's time"
        )
    if chosen.artifact_mb is not None:
        facts["artifact"] = _artifact(plan, chosen.artifact_mb)
    score = "not measured" if chosen.score is None else f"{chosen.score:.3f} ({chosen.score_basis})"
    facts["score"] = score
    if plan.cuts_depth and (better := _better(plan)) is not None:
        facts["better"] = (
            f"{better.cut} fits, too, and scores {better.score:.3f} for {better.gflop / full_gflop:.0%} of the full "
            "FLOP: --objective score goes by that"
        )
    return facts


def _better(plan: Plan) -> Estimate | None:
    """Of smaller cuts that fit the one that scores the most, if that is more than the chosen one scores."""
    fitting = [s.estimate for s in plan.steps if not s.misses and s.estimate.size < plan.chosen.size]
    scored = [found for found in fitting if found.aligned and (found.score or 0.0) > (plan.chosen.score or 0.0)]
    return max(scored, key=lambda found: found.score or 0.0, default=None)


def _startup(plan: Plan) -> str:
    startup = plan.chosen.startup
    if startup is None:
        lacks = f": the device's card has no {', no '.join(plan.startup_lacks)}" if plan.startup_lacks else ""
        return f"not known{lacks}"
    parts = {
        "libraries": startup.libraries_ms,
        "storage": startup.storage_ms,
        "weights": startup.weights_ms,
        "golden tiles": startup.golden_ms,
        "first batch": startup.batch_ms,
    }
    held = "; the upper end is held against the budget" if plan.budget.startup_s else ""
    return (
        f"{number(startup.total_ms / 1e3)} s from a cold start to the first finished tile: "
        f"{', '.join(f'{part} {ms / 1e3:.2f}' for part, ms in parts.items())}; "
        f"{number(startup.low_ms / 1e3)} to {number(startup.high_ms / 1e3)} s within its error band{held}"
    )


def _scene(plan: Plan, scene: Scene, time: SceneTime) -> str:
    stride = scene.stride_px or max(1, plan.architecture.tile_px // 2)
    held = "; the upper end is held against the budget" if plan.budget.deadline_s else ""
    return (
        f"{number(time.total_s)} s for {scene.height_px} x {scene.width_px} px at a stride of {stride}: "
        f"start-up {number(time.startup_s)}, {time.tiles:,} tiles {number(time.network_s)}, in batches of "
        f"{time.batch} {_where(time.cores)}; beside the network {number(time.beside_s)}; {number(time.low_s)} to "
        f"{number(time.high_s)} s within its error band{held}"
    )


def _where(cores: int) -> str:
    return f"on each of {cores} cores" if cores > 1 else "one after the other"


def _artifact(plan: Plan, artifact_mb: float) -> str:
    text = f"{number(artifact_mb)} MB as {plan.target} in {plan.precision}, all files"
    if plan.chosen.uplink_days is None or plan.uplink_kb_day is None:
        return text
    return f"{text}; {number(plan.chosen.uplink_days)} days to uplink it at {number(plan.uplink_kb_day)} kB a day"


def _at_once(calls: int) -> str:
    return f" of {calls} calls at once" if calls > 1 else ""


def _alignment(plan: Plan) -> str:
    multiples = plan.multiples
    sizes = str(multiples[0]) if len(set(multiples)) == 1 else " and ".join(map(str, multiples))
    if plan.chosen.aligned:
        return f" (multiples of {sizes})"
    smaller = any(step.estimate.aligned and not step.misses for step in plan.steps)
    why = "a smaller aligned step takes as long" if smaller else "no aligned step fits; may be slower than estimated"
    return f" * not multiples of {sizes}: {why}"


def _print_refused(plan: Plan, console: Console) -> None:
    wider, deep = plan.larger, plan.cuts_depth
    console.print()
    if not wider:
        console.print(nothing_refused(plan))
        return
    shown = wider if len(wider) <= MAX_ROWS else _compact(wider)
    table = titled_table(f"{'Larger cuts' if deep else 'Wider steps'}, all refused ({len(wider)})")
    scored = any(step.estimate.score is not None for step in wider)
    for title in (
        "w",
        *(["blocks"] if deep else []),
        "head_dim",
        "FFN",
        "GFLOP",
        "M params",
        "MiB",
        "up to ms",
        *(["score"] if scored else []),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why not")
    for step in shown:
        e = step.estimate
        table.add_row(
            f"{e.width_multiplier:.4g}",
            *([str(e.depth or plan.architecture.depth)] if deep else []),
            f"{e.head_dim or '–'}{'' if e.aligned else '*'}",
            str(e.ffn_hidden),
            number(e.gflop),
            number(e.parameters / 1e6),
            number(e.memory.total_mib),
            f"{number(e.latency_high_ms)}{'†' if e.latency_basis == MEASURED else ''}",
            *([] if not scored else ["?" if e.score is None else f"{e.score:.3f}"]),
            why_not(step, plan.chosen),
        )
    console.print(table)
    if hidden := len(wider) - len(shown):
        console.print(f"and {hidden} more between them, all in the plan's file", style="dim")
    if any(step.estimate.latency_basis == MEASURED for step in shown):
        console.print("† measured on this board; the others are computed, and set right by what was", style="dim")
    if scored and any(step.estimate.score is None for step in shown):
        console.print("score ?: not measured", style="dim")
    if any(not step.estimate.aligned for step in wider):
        console.print(
            f"* unaligned: no multiple of {plan.multiples[0]} (head_dim) or of {plan.multiples[1]} (FFN); "
            "taken only if no aligned step fits",
            style="dim",
        )


def nothing_refused(plan: Plan) -> str:
    """What is said where nothing is larger than the chosen cut."""
    if plan.depth is None:
        return "Nothing wider was refused: this is the full encoder."
    return f"Nothing wider was refused: this is full width behind {plan.depth} blocks, the depth that was asked."


def _compact(wider: list[Step]) -> list[Step]:
    """The aligned steps and the smallest step of each verdict: what it would take to come one step wider.

    Of cuts in depth, instead of the aligned ones, the smallest of each depth, and those that score more than every
    smaller one.
    """
    keep = {id(step) for step in wider if step.estimate.aligned and step.estimate.depth is None}
    keep |= {id(step) for step in {step.verdict: step for step in wider}.values()}
    keep.add(id(wider[0]))
    keep |= {id(step) for step in {step.estimate.depth: step for step in wider if step.estimate.depth}.values()}
    best = 0.0
    for step in reversed(wider if any(step.estimate.depth for step in wider) else []):
        if step.estimate.score is not None and step.estimate.score > best:
            best = step.estimate.score
            keep.add(id(step))
    return [step for step in wider if id(step) in keep]


def why_not(step: Step, chosen: Estimate) -> str:
    """Why a step was not chosen."""
    if step.misses:
        return ", ".join(map(short_text, step.misses))
    if step.verdict == "lower score" and step.estimate.score is not None and chosen.score is not None:
        return f"fits, score {max(chosen.score - step.estimate.score, 1e-4):.2g} lower"
    return f"fits, but {step.verdict}"
