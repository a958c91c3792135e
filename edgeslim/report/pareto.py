"""Pareto: every step of a plan, in width and depth, its score against what it costs, as SVG: one panel a cost.

A step is drawn where its score and its cost are. One whose score was not measured stands in a lane of its own, by its
width multiplier: nothing is guessed. The shape says what became of it, the size whether it is aligned; the budget is a
line, and what lies beyond it is shaded. A cut in depth stands on a stem, as long as its blocks are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from edgeslim.cuts import Cut
from edgeslim.planning.budget import KINDS, Limit, short_text
from edgeslim.planning.call_time import MEASURED
from edgeslim.planning.estimate import Estimate
from edgeslim.planning.plan import Plan, Step
from edgeslim.report.axis import Axis, Labels, axis_for
from edgeslim.report.tables import number

WIDTH, HEIGHT = 400, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 36, 38
_GAP = 26
"""Between the scores and the lane."""
_NEAR = 0.6
"""A limit within so many spans of the drawn values is drawn, too; one further away is told at the edge."""

_STEM = 12
"""px of a stem that would stand for all blocks, beyond the mark itself."""
_DENSE = 24
"""Steps in a lane from which their bands are drawn lightly, lest they make one area."""
MARKS = {
    "chosen": "chosen",
    "nearest": "the nearest, over a budget",
    "refused": "over a budget",
    "unaligned": "fits, but unaligned",
    "passed": "fits, with no better measured score",
    "narrower": "fits, narrower than the chosen one",
}
"""What became of a step, its class in the style sheet -> what the legend calls it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One thing that a step costs."""

    budget: str
    """One of KINDS."""
    title: str
    """Above its panel."""
    limit: float | None
    """In the unit of the axis; None: not limited."""
    limit_text: str
    """Beside its line."""

    def of(self, estimate: Estimate) -> tuple[float, float, float] | None:
        """Lower end, estimate and upper end; None: not known."""
        if self.budget == "latency_ms":
            return estimate.latency_low_ms, estimate.latency_ms, estimate.latency_high_ms
        if self.budget == "startup_s":
            time = estimate.startup
            return None if time is None else (time.low_ms / 1e3, time.total_ms / 1e3, time.high_ms / 1e3)
        if self.budget == "deadline_s":
            scene = estimate.scene
            return None if scene is None else (scene.low_s, scene.total_s, scene.high_s)
        found = estimate.found(self.budget)
        return None if found is None else (found, found, found)


def costs_of(plan: Plan) -> list[Cost]:
    """Latency and memory, and every other cost that was limited by hand or that refused a step."""
    limits = dict(plan.budget.limits())
    refused = {miss.budget for step in plan.steps for miss in step.misses}
    found = []
    for name, kind in KINDS.items():
        limit = limits.get(name)
        asked = limit is not None and (limit.basis == "asked" or name in refused)
        if name in ("min_score", "max_w") or not (asked or name in ("latency_ms", "memory_mib")):
            continue  # a score is the other axis; watts are the same at every width
        title = f"{kind.title[0].upper()}{kind.title[1:]}, {kind.unit}"
        cost = Cost(name, title, *_limit_of(plan, name, limit))
        if any(cost.of(step.estimate) for step in plan.steps):
            found.append(cost)
    return sorted(found, key=lambda cost: ("latency_ms", "memory_mib", cost.budget).index(cost.budget))


def _limit_of(plan: Plan, name: str, limit: Limit | None) -> tuple[float | None, str]:
    if limit is None:
        return None, ""
    of_call = name == "latency_ms" and plan.batch > 1
    unit = KINDS[name].unit
    text = f"at most {number(limit.value)} {unit}" + (f" a call of {plan.batch}" if of_call else "")
    return limit.value / (plan.batch if of_call else 1), text


def mark_of(plan: Plan, step: Step) -> str:
    """What became of a step: a key of MARKS."""
    if step.estimate.cut == plan.chosen.cut:
        return "nearest" if step.misses else "chosen"
    if step.misses:
        return "refused"
    return step.verdict if step.verdict in MARKS else "passed"


def panel(plan: Plan, cost: Cost) -> str:
    """One panel as SVG, which needs the page's style sheet."""
    return _Panel(plan, cost).svg()


class _Panel:
    def __init__(self, plan: Plan, cost: Cost) -> None:
        self.plan, self.cost = plan, cost
        known = [(step, band) for step in plan.steps if (band := cost.of(step.estimate)) is not None]
        self.steps = known
        values = [value for _, band in known for value in band]
        low, high = min(values), max(values)
        near = cost.limit is not None and low - _NEAR * (high - low) <= cost.limit <= high + _NEAR * (high - low)
        self.limit_drawn = near
        self.x = axis_for([*values, *([cost.limit] if near and cost.limit is not None else [])], _LEFT, WIDTH - _RIGHT)
        scores = [e.score for step, _ in known if (e := step.estimate).score is not None]
        unknown = len(known) - len(scores)
        bottom = HEIGHT - _BOTTOM
        shared = _TOP + (0.42 if unknown > len(scores) else 0.58) * (bottom - _TOP)
        split = bottom if not unknown else round(shared) if scores else _TOP - _GAP
        least = plan.budget.min_score
        drawn = [*scores, *(plan.chosen.score_interval or ()), *([least.value] if least is not None else [])]
        self.y = axis_for(drawn, split, _TOP) if scores else None
        self.lane = Axis(0.0, 1.06, bottom, split + _GAP) if unknown else None
        self.dense = unknown > _DENSE
        self.labels = Labels(_LEFT, _TOP - 8, WIDTH, HEIGHT - _BOTTOM)

    def svg(self) -> str:
        name = f"panel-{self.cost.budget.replace('_', '-')}"
        parts = [*self._axes(), *self._budget(), *self._front(), *self._marks(), *self._names()]
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-title {name}-desc">'
            f'<title id="{name}-title">{escape(self.cost.title)}</title>'
            f'<desc id="{name}-desc">{escape(self._told())}</desc>{"".join(parts)}</svg>'
        )

    def _y(self, estimate: Estimate) -> float:
        if estimate.score is not None and self.y is not None:
            return self.y.at(estimate.score)
        assert self.lane is not None
        return self.lane.at(estimate.width_multiplier)

    def _axes(self) -> list[str]:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for axis, title in ((self.y, "score"), (self.lane, "score not measured; by width multiplier")):
            if axis is None:
                continue
            # Above the budget's line, which has a row of its own.
            top = 11 if axis.end <= _TOP else axis.end - 8
            parts.append(_text(0, top, title, "axis"))
            self.labels.taken.append((0, top - 11, len(title) * 6, top + 3))
            for tick in [t for t in axis.ticks(4 if self.y and self.lane else 5) if axis is self.y or t <= 1]:
                y = axis.at(tick)
                parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
                parts.append(_text(_LEFT - 6, y + 3.8, f"{tick:.10g}", "tick", "end"))
        parts.append(f'<path class="base" d="M{_LEFT} {bottom}H{right}"/>')
        for tick in self.x.ticks():
            x = self.x.at(tick)
            parts.append(f'<path class="base" d="M{x:.1f} {bottom}v4"/>')
            parts.append(_text(x, bottom + 16, f"{tick:,.10g}", "tick", "middle"))
        parts.append(_text(right, HEIGHT - 5, self.cost.title, "axis", "end"))
        return parts

    def _budget(self) -> list[str]:
        bottom, right, limit = HEIGHT - _BOTTOM, WIDTH - _RIGHT, self.cost.limit
        least, parts = self.plan.budget.min_score, []
        if limit is not None and self.limit_drawn:
            x = self.x.at(limit)
            parts.append(_rect(x, _TOP, right - x, bottom - _TOP))
            parts.append(f'<path class="limit" d="M{x:.1f} {_TOP - 4}V{bottom}"/>')
            anchor = "end" if x + len(self.cost.limit_text) * 6.3 > WIDTH else "start"
            parts.append(_text(x, _TOP - 8, self.cost.limit_text, "limit-text", anchor))
            self.labels.taken += [(_LEFT, _TOP - 18, right, _TOP - 5), (x - 2, _TOP, x + 2, bottom)]
        elif limit is not None:
            arrow = f"{self.cost.limit_text} →" if limit > self.x.high else f"← {self.cost.limit_text}"
            if limit <= self.x.low:
                parts.append(_rect(_LEFT, _TOP, right - _LEFT, bottom - _TOP))
            parts.append(_text(right, _TOP - 8, arrow, "limit-text", "end"))
            self.labels.taken.append((_LEFT, _TOP - 18, right, _TOP - 5))
        if least is not None and self.y is not None:
            y = self.y.at(least.value)
            floor = self.y.start if self.lane is not None else bottom
            parts.append(_rect(_LEFT, y, right - _LEFT, max(0.0, floor - y)))
            parts.append(f'<path class="limit" d="M{_LEFT} {y:.1f}H{right}"/>')
            text = f"at least {number(least.value)}"
            parts.append(_text(right - 4, y - 5, text, "limit-text", "end"))
            self.labels.taken.append((right - len(text) * 6.3 - 4, y - 16, right, y))
        return parts

    def _front(self) -> list[str]:
        """Steps that no other beats in score and cost, joined: what more score costs."""
        if self.y is None:
            return []
        scored = sorted((band[1], -e.score) for step, band in self.steps if (e := step.estimate).score is not None)
        best, points = 0.0, []
        for cost, negative in scored:
            if -negative > best:
                best = -negative
                points.append(f"{self.x.at(cost):.1f} {self.y.at(best):.1f}")
        return [f'<path class="front" d="M{" L".join(points)}"/>'] if len(points) > 1 else []

    def _marks(self) -> list[str]:
        parts = []
        # The chosen one last: it lies on top.
        for step, band in sorted(self.steps, key=lambda pair: mark_of(self.plan, pair[0]) in ("chosen", "nearest")):
            e, kind = step.estimate, mark_of(self.plan, step)
            x, y, size = self.x.at(band[1]), self._y(e), 1.0 if e.aligned else 0.6
            self.labels.block(x, y, 4)
            named = kind in ("chosen", "nearest")
            whisker = self._whisker(band, y, ends=named) + (self._interval(e, x) if named else "")
            timed = " measured" if self.cost.budget == "latency_ms" and e.latency_basis == MEASURED else ""
            parts.append(
                f'<g class="{kind}{timed}"><title>{escape(_tip(step, self.cost, band))}</title>{whisker}'
                f"{self._stem(e, x, y)}{shape(kind, x, y, size)}</g>"
            )
        return parts

    def _stem(self, estimate: Estimate, x: float, y: float) -> str:
        """Says how many of the blocks are kept, where they are not all."""
        if estimate.depth is None:
            return ""
        length = 4 + _STEM * estimate.depth / self.plan.architecture.depth
        return f'<path class="band stem" d="M{x:.1f} {y:.1f}v{length:.1f}"/>'

    def _whisker(self, band: tuple[float, float, float], y: float, *, ends: bool) -> str:
        """The error band; what of it is beyond the budget stands out."""
        left, right = self.x.at(band[0]), self.x.at(band[2])
        if left == right:
            return ""
        drawn = f'<path class="band" d="M{left:.1f} {y:.1f}H{right:.1f}"/>'
        if ends:
            self.labels.taken.append((left, y - 3, right, y + 3))
            drawn += f'<path class="band" d="M{left:.1f} {y - 4:.1f}v8M{right:.1f} {y - 4:.1f}v8"/>'
        limit = self.cost.limit
        if limit is not None and band[2] > limit:
            start = max(left, self.x.at(max(limit, self.x.low)))
            drawn += f'<path class="over{" dense" if self.dense else ""}" d="M{start:.1f} {y:.1f}H{right:.1f}"/>'
        return drawn

    def _interval(self, estimate: Estimate, x: float) -> str:
        """The interval of a score: of the chosen step only, as all of them together would hide everything."""
        if estimate.score_interval is None or self.y is None:
            return ""
        low, high = (self.y.at(score) for score in estimate.score_interval)
        self.labels.taken.append((x - 3, high, x + 3, low))
        ends = f"M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
        return f'<path class="band interval" d="M{x:.1f} {low:.1f}V{high:.1f}{ends}"/>'

    def _names(self) -> list[str]:
        """The chosen step, the full one, the next wider aligned one and the narrowest, named where there is room."""
        wider = [pair for pair in self.steps if pair[0].estimate.size > self.plan.chosen.size]
        next_wider = next((pair for pair in reversed(wider) if pair[0].estimate.aligned), None)
        chosen = [p for p in self.steps if p[0].estimate.cut == self.plan.chosen.cut]
        parts: list[str] = []
        named: set[Cut] = set()
        for step, band in (*chosen, self.steps[0], *([next_wider] if next_wider else []), self.steps[-1]):
            e = step.estimate
            if e.cut in named:
                continue
            named.add(e.cut)
            mark = mark_of(self.plan, step)
            text = str(e.cut) + (f" {mark}" if mark in ("chosen", "nearest") else "")
            place = self.labels.place(self.x.at(band[1]), self._y(e), text, always=mark in ("chosen", "nearest"))
            if place is not None:
                parts.append(_text(*place[:2], text, f"name {mark}", place[2]))
        return parts

    def _told(self) -> str:
        """The panel in words."""
        chosen = self.cost.of(self.plan.chosen)
        bands = [band for _, band in self.steps]
        unit = KINDS[self.cost.budget].unit
        text = (
            f"{len(bands)} {'cuts' if self.plan.cuts_depth else 'width steps'}: score against "
            f"{_small(self.cost.title)} from "
            f"{number(min(b[1] for b in bands))} to {number(max(b[1] for b in bands))} {unit}."
        )
        if chosen is not None:
            text += f" Width multiplier {self.plan.chosen.cut}: {number(chosen[1])} {unit}."
        if self.cost.limit is not None:
            over = sum(any(m.budget == self.cost.budget for m in step.misses) for step, _ in self.steps)
            text += f" The limit is {self.cost.limit_text}; steps that miss it: {over}."
        return text + " All figures are in the table of steps."


def shape(kind: str, x: float, y: float, size: float = 1.0) -> str:
    """The mark of a kind, of MARKS, around a point; `size` is 1 for an aligned step."""
    r = {"chosen": 6.0, "nearest": 5.5, "refused": 4.0, "unaligned": 5.0, "passed": 5.0, "narrower": 3.8}[kind] * (
        1.0 if kind in ("chosen", "nearest") else size
    )
    if kind in ("refused", "nearest"):
        side = f"{2 * r:.1f}"
        return f'<path class="mark" d="M{x - r:.1f} {y - r:.1f}l{side} {side}m0 -{side}l-{side} {side}"/>'
    if kind in ("unaligned", "passed"):
        return f'<path class="mark" d="M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}l{-r:.1f} {r:.1f}l{-r:.1f} {-r:.1f}z"/>'
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="beyond" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _tip(step: Step, cost: Cost, band: tuple[float, float, float]) -> str:
    e, unit = step.estimate, KINDS[cost.budget].unit
    within = f" ({number(band[0])} to {number(band[2])})" if band[0] < band[2] else ""
    score = "score not measured" if e.score is None else f"score {score_text(e)}"
    aligned = "" if e.aligned or step.verdict == "unaligned" else ", unaligned"
    outcome = f"over budget: {', '.join(map(short_text, step.misses))}" if step.misses else step.verdict
    timed = ", measured" if cost.budget == "latency_ms" and e.latency_basis == MEASURED else ""
    return f"width {e.cut}: {number(band[1])} {unit}{within}{timed}, {score}{aligned}; {outcome}"


def score_text(estimate: Estimate) -> str:
    """A score with its interval, where there is one."""
    if estimate.score is None:
        return "not measured"
    within = estimate.score_interval
    return f"{estimate.score:.3f}" + ("" if within is None else f" ({within[0]:.3f} to {within[1]:.3f})")


def _small(title: str) -> str:
    """A cost's title within a sentence, without its unit."""
    name = title.rpartition(",")[0]
    return name if name.startswith("FLOP") else f"{name[0].lower()}{name[1:]}"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
