"""Head: what a fitted head is and how it did, for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from edgeslim.head_card import LINEAR, HeadCard
from edgeslim.report.tables import grid


def print_head(card: HeadCard, console: Console) -> None:
    """The facts of a head, below what it does class by class."""
    low, high = card.interval
    table = grid()
    table.add_row("score", Text(f"{card.metric} {card.score:.1%}, 95 % interval {low:.1%} to {high:.1%}"))
    table.add_row("", Text(f"{card.interval_basis}; {card.scored_tiles} held-out tiles"))
    table.add_row("split", Text(card.split))
    table.add_row("head", Text(_head(card)))
    table.add_row("confidence", Text(_confidence(card)))
    if card.unknown_share is not None and card.rejected_share is not None:
        table.add_row(
            "unknown",
            Text(
                f"{card.rejected_share:.1%} of the held-out tiles are unlike those that it was fitted on "
                f"(limits set for {card.unknown_share:.0%})"
            ),
        )
    console.print(table)


def _head(card: HeadCard) -> str:
    many = f"{len(card.classes)} classes, {card.fitted_tiles} tiles"
    if card.kind not in LINEAR:
        return f"{card.strength:.0f} nearest neighbours by cosine, chosen by cross-validation; {many}; it does not fly"
    several = ", several a tile" if card.multi_label else ""
    return f"{card.kind}, regularised by {card.strength:g}, chosen by cross-validation; {many}{several}"


def _confidence(card: HeadCard) -> str:
    error = f"expected calibration error {card.calibration_error:.1%} on the held-out tiles"
    return error if card.kind not in LINEAR else f"temperature {card.temperature:.3g} in the weights; {error}"
