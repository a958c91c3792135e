"""Confusion: what tiles were called, class by class, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table

from edgeslim.onboard.scores import ClassScore
from edgeslim.whole import Kind, write_whole

_MARK = b"<!-- edgeslim confusion matrix -->"
"""Its presence near the top marks a file as such a picture."""
_CELL, _RIGHT, _TOP, _FOOT = 46, 16, 66, 24
_LETTER = 6.6
"""Width of a letter of the labels, px."""
_LONGEST = 28
"""Letters of a class's name that are drawn."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b1f24}.title{font-size:15px;font-weight:600}.note{fill:#59636e}"
    ".count{text-anchor:middle}.light{fill:#fff}.zero{fill:#b8c0c8}.row{text-anchor:end}"
)


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _MARK in file.read(1024)
    except OSError:
        return False


PICTURE_FILE = Kind("confusion matrix", "--picture", _is_picture, ".svg")
"""What `write_picture` writes."""


def write_picture(
    path: Path,
    labels: Sequence[str],
    answers: Sequence[str],
    counts: NDArray[np.int64],
    title: str,
    note: str,
    *,
    overwrite: bool = False,
) -> None:
    """Write the picture as SVG, whole or not at all. A file that is no such picture goes only with `overwrite`.

    Raises InputError if `path` cannot be written or holds something else.
    """
    write_whole(path, confusion_svg(labels, answers, counts, title, note), PICTURE_FILE, overwrite=overwrite)


def confusion_svg(
    labels: Sequence[str], answers: Sequence[str], counts: NDArray[np.int64], title: str, note: str
) -> str:
    """The picture: a row a label, a column an answer, (labels, answers) counts; shaded by the share of its row."""
    rows, columns = [_short(name) for name in labels], [_short(name) for name in answers]
    left = 24 + round(max(map(len, rows)) * _LETTER)
    top = _TOP + 12 + round(max(map(len, columns)) * _LETTER * 0.72)
    width = max(left + len(columns) * _CELL + _RIGHT + 70, 24 + round(max(len(title) * 9.2, len(note) * 6.2)))
    height = top + len(rows) * _CELL + _FOOT
    parts = [
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        f'<text class="note" x="12" y="43">{escape(note)}</text>',
    ]
    for column, name in enumerate(columns):
        x, y = left + (column + 0.5) * _CELL, top - 8
        parts.append(f'<text transform="rotate(-45 {x:.1f} {y})" x="{x:.1f}" y="{y}">{escape(name)}</text>')
    for row, name in enumerate(rows):
        y = top + row * _CELL
        parts.append(f'<text class="row" x="{left - 8}" y="{y + _CELL / 2 + 4:.1f}">{escape(name)}</text>')
        total = max(1, int(counts[row].sum()))
        for column in range(len(columns)):
            parts += _cell(left + column * _CELL, y, int(counts[row, column]), total, row == column)
    parts.append(
        f'<text class="note" x="{left}" y="{height - 8}">rows: what the tile is; columns: what it was called</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n{_MARK.decode()}\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{chr(10).join(parts)}\n</svg>\n'
    )


def _cell(x: int, y: int, count: int, total: int, right: bool) -> list[str]:
    share = count / total
    color = "#1e6b33" if right else "#b3261e"
    kind = "count zero" if not count else "count light" if share > 0.55 else "count"
    return [
        f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="#fff" stroke="#d8dee4"/>'
        f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="{color}" fill-opacity="{share:.3f}"/>'
        f'<text class="{kind}" x="{x + _CELL / 2:.1f}" y="{y + _CELL / 2 + 4:.1f}">{count}</text>'
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def print_classes(
    classes: Sequence[ClassScore], answers: Sequence[str], counts: NDArray[np.int64] | None, console: Console
) -> None:
    """A row a class: tiles, recall with its interval, precision, and what it is most often mistaken for."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Class", no_wrap=True, min_width=max(len(one.name) for one in classes))
    for title in ("Tiles", "Recall", "95 %", "Precision"):
        table.add_column(title, justify="right", no_wrap=True)
    if counts is not None:
        table.add_column("Mostly taken for")
    for number, one in enumerate(classes):
        interval = "" if one.recall_interval is None else " to ".join(f"{v:.1%}" for v in one.recall_interval)
        table.add_row(
            plain(one.name),
            str(one.tiles),
            _percent(one.recall),
            interval,
            _percent(one.precision),
            *([] if counts is None else [plain(_mistaken(number, answers, counts))]),
        )
    console.print(table)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _mistaken(row: int, answers: Sequence[str], counts: NDArray[np.int64]) -> str:
    wrong = counts[row].copy()
    wrong[row] = 0
    if not wrong.any():
        return ""
    return f"{answers[int(wrong.argmax())]} ({int(wrong.max())})"
