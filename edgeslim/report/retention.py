"""Retention: a table for the terminal, and a plot of score against compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeslim.cuts import Cut
from edgeslim.report.lines import Chart, Series, line_chart, stand_alone
from edgeslim.report.tables import number
from edgeslim.retention import Choice, Kept, Mean, Retention
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
    """A row a width, by both probes; the front of widths and depths; and what cross-validation chose."""
    console.print(
        f"{record.metric} of {record.tiles} tiles of {record.dataset}, mean of {len(record.seeds)} splits; "
        f"method {record.method}"
    )
    table = _table("", "GFLOP", "k-NN", "kept", "share", "linear", "kept", "share")
    near, linear = ([one for one in record.pixels if one.probe == probe] for probe in ("k-NN", "linear"))
    table.add_row("pixels", "", *_cells(near[0]), *_cells(linear[0]))
    for one, other in zip(record.at_full_depth("k-NN"), record.at_full_depth("linear"), strict=True):
        table.add_row(f"width {one.width_multiplier:.4g}", number(one.gflop), *_cells(one), *_cells(other))
    console.print(table)
    console.print("kept: of the full score; share: of what the full encoder is above the pixels")
    full = max(one.gflop for one in record.kept)
    for probe in ("k-NN", "linear"):
        console.print(f"\n{probe}: best score for the FLOP, of all widths and depths (Pareto front)", style="bold")
        table = _table("width", "blocks", "GFLOP", "of full", "score", "kept", "share")
        for one in record.front(probe):
            cut = (f"{one.width_multiplier:.4g}", str(one.blocks))
            table.add_row(*cut, number(one.gflop), f"{one.gflop / full:.0%}", *_cells(one))
        console.print(table)
    console.print("\nchosen by five-fold cross-validation in each split, and what that scores on its other tiles:")
    for choice in record.choices:
        console.print(f"{choice.probe}, of widths: {_chosen(choice, record.deepest)}: {_interval(choice.score)}")
    for choice in record.cut_choices:
        cuts = _chosen(choice, record.deepest)
        console.print(f"{choice.probe}, of widths and depths: {cuts}: {_interval(choice.score)}")


def _chosen(choice: Choice, deepest: int) -> str:
    """What was chosen, most often first."""
    blocks = choice.blocks or (deepest,) * len(choice.widths)
    cuts = [Cut(width, None if depth == deepest else depth) for width, depth in zip(choice.widths, blocks, strict=True)]
    times = Counter(map(str, cuts)).most_common()
    return "; ".join(f"{cut} ({count} of {len(cuts)})" for cut, count in times)


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    return table


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
        series.append(Series(probe, _points(record.at_full_depth(probe)), kind, dash=2))
        front = record.front(probe)
        if len(front) > 1 and any(one.blocks < record.deepest for one in front):
            labels = tuple(f"{one.width_multiplier:.4g} × {one.blocks}" for one in front)
            series.append(Series(f"{probe}, cut", _points(front), kind, labels, dash=0))
    level = next(one for one in record.pixels if one.probe == "linear")
    chart = Chart(
        title=f"{record.encoder} on {record.dataset}: score against compute",
        x_title="GFLOP a tile",
        y_title=f"{record.metric}, {len(record.seeds)} splits; cut: best of widths × blocks for the FLOP",
        series=tuple(series),
        level=("pixels, linear", level.score.value),
        names_aside=True,
    )
    return stand_alone(line_chart(chart), _MARK)


def _points(rows: Sequence[Kept]) -> tuple[tuple[float, float], ...]:
    return tuple((one.gflop, one.score.value) for one in rows)
