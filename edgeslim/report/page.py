"""Page: a plan as one HTML page that needs nothing else: no network, no script, one style sheet and SVG inside.

Everything that comes from a card or from the command line is escaped, and the page's own policy forbids a browser to
run or load anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path

from edgeslim import __version__
from edgeslim.device import Device
from edgeslim.planning.budget import KINDS, miss_text, short_text
from edgeslim.planning.call_time import MEASURED
from edgeslim.planning.estimate import Estimate
from edgeslim.planning.plan import Plan, Step
from edgeslim.report.document import document, is_page_of
from edgeslim.report.pareto import MARKS, costs_of, mark_of, panel, score_text, shape
from edgeslim.report.plan import budget_rows, chosen_facts, head_facts, kept_text, nothing_refused, whole_of, why_not
from edgeslim.report.sources import sources_of
from edgeslim.report.tables import number
from edgeslim.whole import Kind, write_whole

_LINK = re.compile(r"https?://[^\s<>&\"']+[^\s<>&\"'.,;:)]")


PAGE_FILE = Kind("page of a plan", "--html", partial(is_page_of, "plan"), ".html")
"""What `write_page` writes."""


def write_page(plan: Plan, path: Path, device: Device | None = None, *, overwrite: bool = False) -> None:
    """Write the page of a plan, whole or not at all. A file that is no such page is replaced only with `overwrite`.

    With `device`, the plan's own, every figure of its card that the plan rests on is listed with its source.
    Raises InputError if `path` cannot be written or holds something else.
    """
    write_whole(path, page(plan, device), PAGE_FILE, overwrite=overwrite)


def page(plan: Plan, device: Device | None = None) -> str:
    """The page as HTML."""
    title, lead = verdict(plan)
    body = f"""<header>
<p class="over">edgeslim plan · {escape(plan.encoder)} on {escape(plan.device)}</p>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{_figures(plan)}
</header>
<main>
<h2>What for</h2>
{_facts(head_facts(plan))}
<h2>Score, latency and memory of every {"cut" if plan.cuts_depth else "width step"}</h2>
{_chart(plan)}
<h2>Budget</h2>
{_budget(plan)}
<h2>{"The chosen width" if _fits(plan) else "The nearest width"}: {kept_text(plan)}</h2>
{_facts(chosen_facts(plan).items())}
<h2>{_all_steps(plan)}</h2>
{_steps(plan)}
<h2>Sources</h2>
{_sources(plan, device)}
</main>
<footer>edgeslim {__version__}. FLOP and parameters are exact; the rest are estimates from the cards, but for
what is marked as measured. Check on the device by <code>edgeslim bench</code>.</footer>"""
    return document("plan", title, body, "" if _fits(plan) else "no")


def _all_steps(plan: Plan) -> str:
    return "All width steps, and cuts in depth that were scored" if plan.cuts_depth else "All width steps"


def _fits(plan: Plan) -> bool:
    return not plan.budget.missed_by(plan.chosen)


def verdict(plan: Plan) -> tuple[str, str]:
    """The plan in a headline, and in a sentence or two: the width that fits, and what refused the next wider one."""
    title, lead = _verdict(plan)
    return title, lead if plan.unverified is None else f"{lead} Unverified: measure before you rely on it."


def _verdict(plan: Plan) -> tuple[str, str]:
    chosen, deep = plan.chosen, plan.cuts_depth
    kept = kept_text(plan)
    if misses := plan.budget.missed_by(chosen):
        return (
            f"No width{' and depth' if deep else ''} of {plan.encoder} fits {plan.device_name}",
            f"The nearest, width multiplier {kept} ({plan.slim_architecture.inner_text.partition(',')[0]}), misses "
            f"{'; '.join(map(miss_text, misses))}.",
        )
    whole = chosen.cut == (1.0, None)
    title = f"{'All' if whole else f'Width {kept}'} of {plan.encoder} fits {plan.device_name}"
    if whole:
        return title, "The full encoder meets every budget; nothing was refused."
    wider = plan.larger
    alike = [s for s in wider if s.estimate.aligned or not chosen.aligned]
    of_score = plan.objective == "score"
    most = "keeps the most FLOP of those that meet" if deep else "is the widest that meets"
    best = "has the best measured score of those that meet" if of_score else most
    lead = (
        f"Width multiplier {kept} {best} every budget, "
        f"with {chosen.gflop / whole_of(plan)[0]:.0%} of the full encoder's FLOP."
    )
    if not wider:
        return title, f"{lead} {nothing_refused(plan)}"
    if not alike:
        return title, f"{lead} Nothing wider is aligned."
    step = alike[-1]
    why = f"is refused: {', '.join(map(short_text, step.misses))}" if step.misses else why_not(step, chosen)
    larger = "larger" if deep else "wider"
    lead += f" The next {larger}{' aligned' if chosen.aligned else ''} one, {step.estimate.cut}, {why}"
    passed = sum(not s.misses and s.verdict == "unaligned" for s in wider)
    between = f"; {passed} unaligned {'one fits' if passed == 1 else 'ones fit'}, but may run slower" if passed else ""
    return title, f"{lead}{between}."


def _figures(plan: Plan) -> str:
    """What a reader looks for first."""
    e = plan.chosen
    timed = ", measured" if e.latency_basis == MEASURED else ""
    rows = [
        (
            f"{number(e.latency_ms)} <small>ms</small>",
            f"a tile{timed}; {number(e.latency_low_ms)} to {number(e.latency_high_ms)}",
        ),
        (f"{number(e.memory.total_mib)} <small>MiB</small>", "memory of the process"),
        ("<small>not measured</small>" if e.score is None else f"{e.score:.3f}", _metric(e)),
        (f"{number(e.gflop)} <small>GFLOP</small>", "a tile, exact"),
    ]
    if e.scene is not None:
        rows.append((f"{number(e.scene.total_s)} <small>s</small>", f"a scene; up to {number(e.scene.high_s)}"))
    if e.artifact_mb is not None:
        rows.append((f"{number(e.artifact_mb)} <small>MB</small>", "artifact"))
    cells = "".join(f"<div><dt>{escape(what)}</dt><dd>{figure}</dd></div>" for figure, what in rows)
    return f'<dl class="figures">{cells}</dl>'


def _metric(estimate: Estimate) -> str:
    """What a score is, in few words: all of it stands among the sources."""
    metric = (estimate.score_basis or "").partition(",")[0]
    within = estimate.score_interval
    interval = "" if within is None else f"; {within[0]:.3f} to {within[1]:.3f}"
    return f"score ({metric}){interval}" if metric else "score"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{_linked(text)}</dd>" for name, text in facts)
    return f'<dl class="facts">{rows}</dl>'


def _chart(plan: Plan) -> str:
    present = {mark_of(plan, step): step.verdict for step in plan.steps}
    items = [
        _sample(f'<g class="{kind}">{shape(kind, 11, 7)}</g>', _legend(plan, kind, text))
        for kind, text in MARKS.items()
        if kind in present
    ]
    panels = "".join(panel(plan, cost) for cost in costs_of(plan))
    if 'class="limit"' in panels:
        items.append(_sample('<path class="limit" d="M0 7H22"/>', "a budget; beyond it, shaded"))
    band = "error band; of a score, its 95 % interval" if "band interval" in panels else "error band"
    items.append(_sample('<g class="chosen"><path class="band" d="M1 7H21M1 3v8M21 3v8"/></g>', band))
    if 'class="front"' in panels:
        items.append(_sample('<path class="front" d="M0 11L9 5L22 3"/>', "no step scores more at less cost"))
    notes = ["A budget is held against the upper end of a band."]
    if any(not step.estimate.aligned for step in plan.steps):
        sizes = f"{plan.multiples[0]} (head_dim) and {plan.multiples[1]} (FFN)"
        notes.append(f"Small marks are unaligned steps: no multiples of {sizes}.")
    if any(step.estimate.latency_basis == MEASURED for step in plan.steps):
        notes.append("Filled marks, and bold crosses, are latencies that were measured on this board.")
    if any(step.estimate.score is None for step in plan.steps):
        notes.append("Steps whose score nobody measured stand apart, by their width; nothing is interpolated.")
    if plan.cuts_depth:
        notes.append("Marks on a stem are cut in depth: the shorter the stem, the fewer blocks.")
    return (
        f'<figure><div class="panels">{panels}</div>'
        f'<ul class="legend">{"".join(items)}</ul><figcaption>{" ".join(notes)}</figcaption></figure>'
    )


def _legend(plan: Plan, kind: str, text: str) -> str:
    return text.replace("narrower", "smaller") if plan.cuts_depth and kind == "narrower" else text


def _sample(drawing: str, text: str) -> str:
    return f'<li><svg viewBox="0 0 22 14" aria-hidden="true">{drawing}</svg>{escape(text)}</li>'


def _budget(plan: Plan) -> str:
    used = {}
    for name, limit in plan.budget.limits():
        found, kind = plan.chosen.found(name), KINDS[name]
        if found is not None:
            used[kind.title] = limit.value / found if kind.least else found / limit.value
    rows = []
    for title, limit_text, found_text, basis in budget_rows(plan):
        key = next((kind.title for kind in KINDS.values() if title.startswith(kind.title.split(" a ")[0])), title)
        bar = _bar(used[key]) if key in used else ""
        cells = (
            f'<td class="n">{escape(limit_text)}</td><td class="n">{escape(found_text)}</td><td class="used">{bar}</td>'
        )
        rows.append(f'<tr><th scope="row">{escape(title)}</th>{cells}<td>{_linked(basis)}</td></tr>')
    limit_title = "limit" if plan.budget.min_score else "at most"
    titles = ("budget", limit_title, "chosen" if _fits(plan) else "nearest", "used", "where the limit comes from")
    return _table("Budgets", titles, (1, 2), rows)


def _bar(share: float) -> str:
    over = share > 1
    text = "under 1%" if share < 0.01 else f"{share:.0%}" if share < 10 else f"{share:,.0f} times"
    width = min(share, 1) * 100
    return (
        f'<span class="bar{" bad" if over else ""}" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>{text}'
    )


def _steps(plan: Plan) -> str:
    scored = any(step.estimate.score is not None for step in plan.steps)
    titles = [
        "width",
        *(["blocks"] if plan.cuts_depth else []),
        "head_dim",
        "FFN",
        "GFLOP",
        "M parameters",
        "memory, MiB",
        "latency, ms",
        *(["score"] if scored else []),
    ]
    rows = [_step(plan, step, scored) for step in plan.steps]
    marks = []
    if any(not step.estimate.aligned for step in plan.steps):
        marks.append("* unaligned")
    if any(step.estimate.latency_basis == MEASURED for step in plan.steps):
        marks.append("† measured on this board")
    note = f'<p class="note">{"; ".join(marks)}</p>' if marks else ""
    return (
        _table(
            f"{_all_steps(plan)}, {'largest' if plan.cuts_depth else 'widest'} first",
            (*titles, "outcome"),
            range(len(titles)),
            rows,
        )
        + note
    )


def _step(plan: Plan, step: Step, scored: bool) -> str:
    e, mark = step.estimate, mark_of(plan, step)
    cells = [
        *([str(e.depth or plan.architecture.depth)] if plan.cuts_depth else []),
        f"{e.head_dim or '–'}{'' if e.aligned else '*'}",
        str(e.ffn_hidden),
        number(e.gflop),
        number(e.parameters / 1e6),
        number(e.memory.total_mib),
        f"{number(e.latency_ms)}{'†' if e.latency_basis == MEASURED else ''} "
        f"({number(e.latency_low_ms)} to {number(e.latency_high_ms)})",
        *([score_text(e)] if scored else []),
    ]
    if mark == "chosen":
        outcome = "chosen"
    elif step.misses:
        outcome = f"{'nearest: ' if mark == 'nearest' else ''}{', '.join(map(short_text, step.misses))}"
    else:
        smaller = "fits, smaller" if plan.cuts_depth else "fits, narrower"
        outcome = smaller if mark == "narrower" else why_not(step, plan.chosen)
    bad = ' class="bad"' if step.misses else ""
    return (
        f'<tr class="{mark}"><th scope="row" class="n">{e.width_multiplier:.4g}</th>'
        f"{''.join(f'<td class={chr(34)}n{chr(34)}>{escape(cell)}</td>' for cell in cells)}"
        f"<td{bad}>{escape(outcome)}</td></tr>"
    )


_METHODS = {
    "first": "first channels of each head and hidden layer: https://arxiv.org/abs/2601.22841",
    "calibrated": "weights of the same shape, fitted to unlabelled tiles by edgeslim slim; scores are those of first",
    "healed": "calibrated weights, taught by the full encoder on unlabelled tiles by edgeslim slim; scores are those "
    "of first",
    "learned": "first channels, which this encoder was trained to be slimmed to: https://arxiv.org/abs/2601.22841",
}
"""What a slimming method is, in words."""


def _sources(plan: Plan, device: Device | None) -> str:
    rows = [
        ("slimming", _METHODS[plan.method]),
        ("score", plan.chosen.score_basis or "not measured"),
        ("power mode", plan.power_mode_basis),
        (
            "runtime",
            f"the figures of {plan.runtime} on this board are {_BASES.get(plan.runtime_basis, plan.runtime_basis)}",
        ),
    ]
    parts = [_facts(rows)]
    if device is not None and device.id == plan.device:
        found = [
            f'<tr><th scope="row">{escape(name)}</th><td class="n">{escape(value)}</td><td>{_linked(source)}</td></tr>'
            for name, value, source in sources_of(plan, device)
        ]
        parts.append(_table(f"Figures of device card {plan.device}", ("figure", "value", "source"), (1,), found))
    return "\n".join(parts)


_BASES = {
    "measured": "measured: ViT rows of this runtime on this board",
    "related": "related: from other networks or chips",
    "assumed": "assumed",
}


def _table(caption: str, titles: Sequence[str], numbers: Collection[int], rows: list[str]) -> str:
    """A table that scrolls where the page is narrow; `numbers` are the columns that hold numbers."""
    head = "".join(
        f'<th scope="col"{" class=" + chr(34) + "n" + chr(34) if index in numbers else ""}>{escape(title)}</th>'
        for index, title in enumerate(titles)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )


def _linked(text: str) -> str:
    """Escaped text, its web addresses as links."""
    return _LINK.sub(lambda found: f'<a rel="noreferrer" href="{found[0]}">{found[0]}</a>', escape(text))
