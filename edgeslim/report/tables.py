"""Tables: how numbers and tables look in every report."""

from __future__ import annotations

from rich.table import Table

_READABLE, _VISIBLE = 1e15, 5e-5
"""From and below which a figure has an exponent: 16 digits, and 0.0000 with four of them."""


def number(value: float) -> str:
    """Three significant digits, thousands separated; an exponent only where it is unreadable, or 0, without.

    What a person typed may be any number: 1e300 took 400 characters, and a limit of 1e-9 stood there as 0.0000.
    """
    if not abs(value) < _READABLE or 0 < abs(value) < _VISIBLE:
        return f"{value:.3g}"
    if value >= 100:
        return f"{value:,.0f}"
    text = f"{value:#.3g}"
    return f"{value:.4f}" if "e" in text else text.rstrip(".")


def grid() -> Table:
    """A table of names and what they are, without a head."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


def titled_table(title: str) -> Table:
    """A table under a title, without lines."""
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
