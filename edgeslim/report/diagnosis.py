"""Diagnosis: a table for the terminal, and one page that needs nothing else, with the numbers as JSON beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgeslim import __version__
from edgeslim.diagnosis import Cut, Diagnosis
from edgeslim.report.document import document, is_page_of
from edgeslim.report.lines import Chart, Series, line_chart, matrix_chart
from edgeslim.report.tables import number
from edgeslim.whole import Kind, write_whole

_RANKS = (1, 2, 4, 8, 16, 32, 64)


def _is_record(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"cka_widths", "cka_depths"} <= found.keys()


PAGE_FILE = Kind("page of a diagnosis", "-o", partial(is_page_of, "diagnose"), ".html")
RECORD_FILE = Kind("record of a diagnosis", "-o", _is_record)


def write_diagnosis(record: Diagnosis, path: Path, *, overwrite: bool = False) -> None:
    """Write the page to `path` and the numbers beside it, as .json, each whole or not at all.

    Raises InputError if one cannot be written or something else stands there.
    """
    text = json.dumps(record.to_dict(), indent=1) + "\n"
    write_whole(path.with_suffix(".json"), text, RECORD_FILE, overwrite=overwrite)
    write_whole(path, diagnosis_page(record), PAGE_FILE, overwrite=overwrite)


def print_diagnosis(record: Diagnosis, console: Console) -> None:
    """A row a width and a row a block."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in _titles(record):
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for cut in _all_cuts(record):
        table.add_row(*_cells(record, cut))
    console.print(table)
    console.print("\n".join(_sentences(record)))


def _all_cuts(record: Diagnosis) -> list[Cut]:
    return [*([record.pixels] if record.pixels else []), *record.widths, *record.depths[:-1]]


def _titles(record: Diagnosis) -> list[str]:
    probes = ["k-NN", "linear"] if record.metric else []
    return ["", "GFLOP", *probes, "dimension", "slope", "corr.", "CKA to full"]


def _cells(record: Diagnosis, cut: Cut) -> list[str]:
    scores = [f"{value:.1%}" if value is not None else "" for value in (cut.knn, cut.linear)] if record.metric else []
    return [
        cut.name,
        number(cut.gflop) if cut.gflop else "",
        *scores,
        f"{cut.effective_dimension:.1f}",
        "" if cut.slope is None else f"{cut.slope:.2f}",
        f"{cut.feature_correlation:.3f}",
        _to_full(record, cut),
    ]


def _to_full(record: Diagnosis, cut: Cut) -> str:
    for cuts, matrix in ((record.widths, record.cka_widths), (record.depths, record.cka_depths)):
        if cut in cuts:
            return f"{matrix[cuts.index(cut)][-1]:.3f}"
    return ""


def _sentences(record: Diagnosis) -> list[str]:
    """What stands out, in words."""
    full = record.widths[-1]
    ranks = next((i for i in range(1, len(full.explained) + 1) if sum(full.explained[:i]) >= 0.95), None)
    within = (
        f"{ranks} directions hold 95 %" if ranks else f"its first {len(full.explained)} directions hold less than 95 %"
    )
    found = [
        f"Of {record.features} features at full width {within} of the variance over {record.tiles} tiles; "
        f"effective dimension {full.effective_dimension:.1f}."
    ]
    if len(record.widths) > 1:
        first = record.widths[0]
        found.append(
            f"At {first.name} ({first.gflop / full.gflop:.0%} of the FLOP, method {record.method}) the features are "
            f"like the full ones to {record.cka_widths[0][-1]:.2f} (CKA)."
        )
    scored = [cut for cut in record.depths if cut.linear is not None]
    if scored and record.pixels is not None and full.linear is not None and record.pixels.linear is not None:
        best = max(scored, key=lambda cut: (cut.linear or 0.0, -cut.blocks))
        where = "the last block" if best.blocks == full.blocks else f"{best.name} of {full.blocks}"
        found.append(
            f"A linear probe does best behind {where}: {best.linear:.1%}, against {full.linear:.1%} at the end and "
            f"{record.pixels.linear:.1%} for statistics of the pixels ({record.scored_tiles} held-out tiles)."
        )
        if full.linear <= record.pixels.linear:
            found.append("The encoder has nothing of its own to keep on these tiles.")
    return found


def diagnosis_page(record: Diagnosis) -> str:
    """The page as HTML."""
    title = f"What {Path(record.encoder).name} knows, and how often"
    narrow = [f"{cut.width_multiplier:.3g}" for cut in record.widths]
    scores = "scores of probes that are fitted anew, " if record.metric else ""
    notes = "".join(f'<p class="note">Warning: {escape(text)}.</p>' for text in record.warnings)
    body = f"""<header>
<p class="over">edgeslim diagnose · {escape(Path(record.encoder).name)} on {escape(record.dataset)}</p>
<h1>{escape(title)}</h1>
<p class="lead">{escape(" ".join(_sentences(record)))}</p>
{notes}
</header>
<main>
<h2>Width</h2>
<figure><div class="panels">
{line_chart(_variance(record))}
{_of_width(record)}
{matrix_chart("Likeness of the features of two widths", narrow, record.cka_widths)}
</div><figcaption>Share of the variance in the first directions; {scores}likeness to the full encoder against compute;
likeness of the features of two widths (debiased linear CKA: 1 is the same up to rotation and scale). Slimmed by method
{escape(record.method)}.</figcaption></figure>
<h2>Depth</h2>
<figure><div class="panels">
{line_chart(_by_depth(record))}
{line_chart(_dimension_by_depth(record))}
{matrix_chart("Likeness of the features behind two blocks", [cut.name for cut in record.depths], record.cka_depths)}
</div><figcaption>After each block at full width, through the last LayerNorm: {scores}likeness to the last, the
effective dimension, and how alike blocks are. Blocks that are alike do little.</figcaption></figure>
<h2>Numbers</h2>
{_table(record)}
<p class="note">{escape(_basis(record))}</p>
</main>
<footer>edgeslim {__version__}. Every number, and the first 64 shares of variance of each row, are in the .json beside
this page.</footer>"""
    return document("diagnose", title, body)


def _basis(record: Diagnosis) -> str:
    probed = (
        "k-NN: five nearest neighbours by cosine; linear: a ridge classifier; both fitted anew on each row's features; "
        f"{record.metric} of {record.scored_tiles} held-out tiles, split {record.split}. "
        if record.metric
        else "Nothing was probed. "
    )
    return (
        f"{probed}Dimension: (sum of eigenvalues)² / sum of their squares. Slope: of log share against log rank, up to "
        "95 % of the variance. Correlation: mean of |corr| over pairs of features. Pixel statistics: mean, deviation "
        "and five quantiles of each band, without a network; an encoder near them has little of its own to keep."
    )


def _variance(record: Diagnosis) -> Chart:
    series = []
    for cut in record.widths:
        total, points = 0.0, []
        for rank, share in enumerate(cut.explained, 1):
            total += share
            if rank in _RANKS or rank == len(cut.explained):
                points.append((float(rank), total))
        kind = "chosen" if cut is record.widths[-1] else "plain"
        series.append(Series(f"{cut.width_multiplier:.3g}", tuple(points), kind))
    most = max(point[0] for one in series for point in one.points)
    return Chart(
        title="Variance explained by the first directions, by width",
        x_title="directions",
        y_title="share of variance, by width multiplier",
        series=tuple(series),
        of_x=lambda rank: math.log2(rank),
        x_ticks=tuple(float(rank) for rank in _RANKS if rank <= most),
        marks=False,
    )


def _of_width(record: Diagnosis) -> str:
    full = record.widths[-1].gflop
    shares = [100 * cut.gflop / full for cut in record.widths]
    like = [row[-1] for row in record.cka_widths]
    series = [Series("CKA to full", tuple(zip(shares, like, strict=True)))]
    series += _probes(record.widths, shares)
    if len(shares) < 2:
        return ""
    return line_chart(
        Chart(
            title="Score and likeness against compute",
            x_title="% of the full encoder's FLOP",
            y_title=f"{record.metric} and likeness" if record.metric else "likeness",
            series=tuple(series),
            level=_pixel_level(record),
        )
    )


def _by_depth(record: Diagnosis) -> Chart:
    at = [float(cut.blocks) for cut in record.depths]
    like = [row[-1] for row in record.cka_depths]
    series = [Series("CKA to last", tuple(zip(at, like, strict=True))), *_probes(record.depths, at)]
    return Chart(
        title="Score and likeness after each block",
        x_title="blocks",
        y_title=f"{record.metric} and likeness" if record.metric else "likeness",
        series=tuple(series),
        level=_pixel_level(record),
    )


def _dimension_by_depth(record: Diagnosis) -> Chart:
    points = tuple((float(cut.blocks), cut.effective_dimension) for cut in record.depths)
    return Chart("Effective dimension after each block", "blocks", "effective dimension", (Series("", points),))


def _probes(cuts: Sequence[Cut], at: Sequence[float]) -> list[Series]:
    found = []
    for name, kind, values in (
        ("k-NN", "plain", [cut.knn for cut in cuts]),
        ("linear", "chosen", [cut.linear for cut in cuts]),
    ):
        points = tuple((x, value) for x, value in zip(at, values, strict=True) if value is not None)
        if points:
            found.append(Series(name, points, kind))
    return found


def _pixel_level(record: Diagnosis) -> tuple[str, float] | None:
    if record.pixels is None or record.pixels.linear is None:
        return None
    return "pixels, linear", record.pixels.linear


def _table(record: Diagnosis) -> str:
    head = "".join(
        f'<th scope="col"{"" if not title else " class=" + chr(34) + "n" + chr(34)}>{escape(title)}</th>'
        for title in _titles(record)
    )
    rows = []
    for cut in _all_cuts(record):
        name, *cells = _cells(record, cut)
        chosen = ' class="chosen"' if cut is record.widths[-1] else ""
        rows.append(
            f'<tr{chosen}><th scope="row">{escape(name)}</th>'
            + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
            + "</tr>"
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every width and block">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>"
    )
