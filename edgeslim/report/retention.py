"""Retention: a table for the terminal, and a plot of score against compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeslim.report.lines import Chart, Series, line_chart, stand_alone
from edgeslim.report.tables import number
from edgeslim.retention import Kept, Mean, Retention
from edgeslim.whole import Kind

_MARK = "edgeslim measure"


def _says(path: Path, text: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return text in file.read(1 << 16)
    except OSError:
        return False


CARD_FILE = Kind("card that `measure` wrote", "-o", lambda path: _says(path, b'weights_tried = "edgeslim measure '))
PLOT_FILE = Kind("plot that `measure` drew", "-o", lambda path: _says(path, _MARK.encode()))


def print_retention(record: Retention, console: Console) -> None:
    """A row a width, by both probes; the chosen widths; and the depths that are worth their FLOP."""
    console.print(
        f"{record.metric} of {record.tiles} tiles of {record.dataset}, mean of {len(record.seeds)} splits; "
        f"method {record.method}"
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("", "GFLOP", "k-NN", "kept", "share", "linear", "kept", "share"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    near, linear = ([one for one in record.pixels if one.probe == probe] for probe in ("k-NN", "linear"))
    table.add_row("pixels", "", *_cells(near[0]), *_cells(linear[0]))
    for one, other in zip(record.at_full_depth("k-NN"), record.at_full_depth("linear"), strict=True):
        table.add_row(f"width {one.width_multiplier:.4g}", number(one.gflop), *_cells(one), *_cells(other))
    console.print(table)
    console.print("kept: of the full score; share: of what the full encoder is above the pixels")
    for choice in record.choices:
        widths = ", ".join(f"{width:.4g}" for width in choice.widths)
        console.print(f"{choice.probe}: chosen by cross-validation: {widths}; they score {_interval(choice.score)}")
    deepest = record.kept[-1].blocks
    for probe in ("k-NN", "linear"):
        cut = [one for one in record.front(probe) if one.blocks < deepest]
        if cut:
            best = max(cut, key=lambda one: one.score.value)
            console.print(
                f"{probe}: cut in depth, block {best.blocks} at width {best.width_multiplier:.4g} is best: "
                f"{_interval(best.score)} at {number(best.gflop)} GFLOP"
            )


def _cells(one: Kept) -> tuple[str, str, str]:
    ratio = "" if one.ratio is None else f"{one.ratio.value:.0%}"
    above = "" if one.above_pixels is None else f"{one.above_pixels.value:.0%}"
    return _interval(one.score), ratio, above


def _interval(mean: Mean) -> str:
    return f"{mean.value:.1%} ± {100 * (mean.high - mean.low) / 2:.1f}"


def retention_svg(record: Retention) -> str:
    """Score against GFLOP: the widths by each probe, and the front of widths and depths together."""
    series = []
    for probe, kind in (("k-NN", "plain"), ("linear", "chosen")):
        series.append(Series(probe, _points(record.at_full_depth(probe)), kind))
        front = record.front(probe)
        if any(one.blocks < record.kept[-1].blocks for one in front) and len(front) > 1:
            series.append(Series(f"{probe}, depth", _points(front), kind))
    level = next(one for one in record.pixels if one.probe == "linear")
    chart = Chart(
        title=f"{record.encoder} on {record.dataset}: score against compute",
        x_title="GFLOP a tile",
        y_title=f"{record.metric}, mean of {len(record.seeds)} splits",
        series=tuple(series),
        level=("pixels, linear", level.score.value),
    )
    return stand_alone(line_chart(chart), _MARK)


def _points(rows: Sequence[Kept]) -> tuple[tuple[float, float], ...]:
    return tuple((one.gflop, one.score.value) for one in rows)
