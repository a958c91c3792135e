"""What every width of a trained encoder scores, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from edgeslim.report.tables import number, titled_table

if TYPE_CHECKING:
    from edgeslim.ground.training.card import WidthScore


def print_width_scores(rows: Sequence[WidthScore], console: Console) -> None:
    """Print cost and test accuracy of every width, widest last."""
    table = titled_table("Accuracy on the test part")
    for title in ("width", "GFLOP", "of full", "M params", "as imaged", "as surface"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.width_multiplier:.4g}",
            number(row.gflop),
            f"{row.gflop / rows[-1].gflop:.1%}",
            number(row.parameters / 1e6),
            f"{row.as_imaged:.2%}",
            f"{row.as_surface:.2%}",
        )
    console.print(table)
