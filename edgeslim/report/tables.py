"""Tables: how numbers and tables look in every report."""

from __future__ import annotations

from rich.table import Table


def number(value: float) -> str:
    """Three significant digits, thousands separated, no exponent."""
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
