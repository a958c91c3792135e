"""Lines: values against an axis as SVG, one line a series, named where it ends; it needs the pages' style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from edgeslim.report.axis import Axis, Labels, axis_for

WIDTH, HEIGHT = 400, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 84, 30, 38
_LABEL = 7.5
"""Of a point's label, px, as in the style."""
_LINE = 13.0
"""Between two names, px."""
_DASHES = ("", "6 3", "2 3", "9 3 2 3", "1 2", "12 4")
"""Series are told apart by more than their colour."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    """At its end."""
    points: tuple[tuple[float, float], ...]
    """(x, y), ascending in x."""
    kind: str = "plain"
    """Class in the style sheet: "plain", "chosen", "limit"."""
    labels: tuple[str, ...] = ()
    """Of the points, written beside those where there is room; empty: none."""
    dash: int | None = None
    """Which dashes it is drawn with, 0: none; None: those of its place among the series."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn."""

    title: str
    """Of the picture, for those who cannot see it."""
    x_title: str
    """Below."""
    y_title: str
    """Above."""
    series: tuple[Series, ...]
    """At least one."""
    level: tuple[str, float] | None = None
    """Name and height of a dashed line across."""
    of_x: Callable[[float], float] = float
    """Where a value stands on the axis: the logarithm, say."""
    x_ticks: tuple[float, ...] = ()
    """Values; empty: round ones."""
    marks: bool = True
    """Whether points are drawn."""
    names_aside: bool = False
    """Whether names stand right of the axis, each behind a sample of its line, even of a line that ends before."""


def line_chart(chart: Chart) -> str:
    """The chart as SVG."""
    xs = [chart.of_x(x) for one in chart.series for x, _ in one.points]
    ys = [y for one in chart.series for _, y in one.points] + ([chart.level[1]] if chart.level else [])
    x = Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, _LEFT + 8, WIDTH - _RIGHT)
    y = axis_for(ys, HEIGHT - _BOTTOM, _TOP)
    parts = [*_axes(chart, x, y), *_level(chart, y)]
    for number, one in enumerate(chart.series):
        places = [(x.at(chart.of_x(px)), y.at(py)) for px, py in one.points]
        path = " L".join(f"{px:.1f} {py:.1f}" for px, py in places)
        dash = _DASHES[(number if one.dash is None else one.dash) % len(_DASHES)]
        parts.append(
            f'<g class="series {one.kind}"><path class="line" d="M{path}"'
            + (f' stroke-dasharray="{dash}"' if dash else "")
            + "/>"
            + ("".join(map(_dot, places, one.labels or ("",) * len(places))) if chart.marks else "")
            + "</g>"
        )
    parts += _names(chart, x, y)
    parts += _labels(chart, x, y)
    told = "; ".join(f"{one.name}: {one.points[0][1]:.4g} to {one.points[-1][1]:.4g}" for one in chart.series)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(chart.title)}</title>'
        f"<desc>{escape(f'{chart.y_title} against {chart.x_title}. {told}')}</desc>{''.join(parts)}</svg>"
    )


def _dot(place: tuple[float, float], label: str) -> str:
    """A point, which tells its label where a pointer rests on it."""
    drawn = f'<circle class="dot" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="2.6"'
    return f"{drawn}/>" if not label else f"{drawn}><title>{escape(label)}</title></circle>"


def _axes(chart: Chart, x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [_text(0, 11, chart.y_title, "axis")]
    for tick in y.ticks():
        parts.append(f'<path class="grid" d="M{_LEFT} {y.at(tick):.1f}H{right}"/>')
        parts.append(_text(_LEFT - 6, y.at(tick) + 3.8, f"{tick:.10g}", "tick", "end"))
    parts.append(f'<path class="base" d="M{_LEFT} {bottom}H{right}"/>')
    ticks: Sequence[tuple[float, float]] = [(tick, chart.of_x(tick)) for tick in chart.x_ticks] or [
        (tick, tick) for tick in x.ticks()
    ]
    for value, at in ticks:
        parts.append(f'<path class="base" d="M{x.at(at):.1f} {bottom}v4"/>')
        parts.append(_text(x.at(at), bottom + 16, f"{value:,.10g}", "tick", "middle"))
    parts.append(_text(right, HEIGHT - 5, chart.x_title, "axis", "end"))
    return parts


def _level(chart: Chart, y: Axis) -> list[str]:
    if chart.level is None:
        return []
    name, value = chart.level
    at = y.at(value)
    return [
        f'<path class="limit" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>',
        _text(WIDTH - _RIGHT, at - 5, name, "limit-text", "end")
        if chart.names_aside
        else _text(_LEFT + 6, at - 5, name, "limit-text"),
    ]


def _labels(chart: Chart, x: Axis, y: Axis) -> list[str]:
    """Of points, the last first, beside them where nothing stands yet, no line either."""
    room, parts = Labels(_LEFT, 14, WIDTH - _RIGHT + 6, HEIGHT - _BOTTOM), []
    lines = [[(x.at(chart.of_x(px)), y.at(py)) for px, py in one.points] for one in chart.series]
    for line in lines:
        for px, py in line:
            room.block(px, py, 3)
        for (ax, ay), (bx, by) in pairwise(line):
            count = max(1, round(math.hypot(bx - ax, by - ay) / 4))
            for step in range(1, count):
                room.block(ax + (bx - ax) * step / count, ay + (by - ay) * step / count, 1)
    if chart.level is not None:
        name, value = chart.level
        at = y.at(value)
        left = WIDTH - _RIGHT - 6 * len(name) if chart.names_aside else _LEFT + 6
        room.taken += [(_LEFT, at - 1, WIDTH - _RIGHT, at + 1), (left, at - 14, left + 6 * len(name), at)]
    for one, line in zip(chart.series, lines, strict=True):
        for (px, py), label in reversed(list(zip(line, one.labels, strict=False))):
            place = room.place(px, py, label, px=_LABEL, away=6)
            if place is not None:
                parts.append(_text(place[0], place[1], label, f"name label {one.kind}", place[2]))
    return parts


def _names(chart: Chart, x: Axis, y: Axis) -> list[str]:
    """Each series' name beside its end, moved down where another one stands there."""
    ends = sorted((y.at(one.points[-1][1]), number) for number, one in enumerate(chart.series) if one.name)
    parts: list[str] = []
    free = -math.inf
    # Lines that end together share a column of names around where they end.
    top = min((at for at, _ in ends), default=0.0)
    above = max(0.0, (len(ends) * _LINE - (ends[-1][0] - top) - _LINE) / 2) if ends else 0.0
    for at, number in ends:
        one = chart.series[number]
        place = max(at - above, free + _LINE, 8.0)
        free = place
        end = x.end if chart.names_aside else x.at(chart.of_x(one.points[-1][0]))
        if chart.names_aside:
            dash = _DASHES[(number if one.dash is None else one.dash) % len(_DASHES)]
            sample = f'<path class="line" stroke-dasharray="{dash}" d="M{end + 8:.1f} {place:.1f}h14"/>'
            parts.append(f'<g class="series {one.kind}">{sample}</g>')
            end += 18
        parts.append(_text(end + 8, place + 4, one.name, f"name {one.kind}"))
    return parts


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def matrix_chart(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A square of likenesses, 0 to 1, as SVG: shaded and numbered, rows and columns in the order of `names`."""
    count = len(names)
    left, top = 12 + max(len(name) for name in names) * 6.2, 8.0
    cell = min(44.0, (WIDTH - left - 24) / count)  # names below lean out to the right
    height = top + count * cell + 8 + max(len(name) for name in names) * 4.6 + 12
    small = ' style="font-size:9px"' if cell < 26 else ""
    parts = []
    for row, name in enumerate(names):
        y = top + row * cell
        parts.append(_text(left - 6, y + cell / 2 + 4, name, "tick", "end"))
        x = left + row * cell + cell / 2
        below = top + count * cell + 12
        turned = f'transform="rotate(45 {x:.1f} {below:.1f})" x="{x:.1f}" y="{below:.1f}"'
        parts.append(f'<text class="tick" {turned}>{escape(name)}</text>')
        for column in range(count):
            value = values[row][column]
            shade = max(0.0, min(1.0, value))
            at = left + column * cell
            kind = "cell light" if shade > 0.6 else "cell"
            text = f"{value:.2f}".replace("0.", ".").replace("1.00", "1")
            parts.append(
                f'<rect class="shade" x="{at:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
                f'fill-opacity="{shade:.3f}"><title>{escape(f"{name}, {names[column]}: {value:.3f}")}</title></rect>'
                f'<text class="{kind}" x="{at + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" '
                f'text-anchor="middle"{small}>{text}</text>'
            )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(title)}; every value is in the file of numbers.</desc>{''.join(parts)}</svg>"
    )


_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#59636e}.axis,.name{fill:#1b1f24}.name.chosen{fill:#0b5cad}"
    ".grid{stroke:#d9dee3;fill:none}.base{stroke:#59636e;fill:none}.line{stroke:currentColor;stroke-width:1.6;fill:none}"
    ".dot{fill:currentColor}.series{color:#59636e}.series.chosen{color:#0b5cad}"
    ".label{font-size:7.5px}.limit{stroke:#855600;stroke-dasharray:5 3;fill:none}.limit-text{fill:#855600}"
)


def stand_alone(svg: str, mark: str) -> str:
    """A chart of `line_chart` as a file of its own: with a style, on white, and a comment that says who made it."""
    size = f'xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{2 * HEIGHT}" '
    head, body = svg.split(">", 1)
    inside = f'<!-- {mark} --><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    return f"{head.replace('<svg ', f'<svg {size}', 1)}>{inside}{body}\n"
