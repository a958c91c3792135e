"""Evaluation: how an artifact did on a person's own tiles, for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from edgeslim.onboard.evaluate import Evaluation
from edgeslim.report.tables import grid


def print_evaluation(found: Evaluation, console: Console) -> None:
    """The facts below the table of classes."""
    low, high = found.accuracy_interval
    table = grid()
    table.add_row("accuracy", Text(f"{found.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%} (Wilson)"))
    table.add_row("tiles", Text(_tiles(found)))
    if found.unknown is not None:
        table.add_row("unknown", Text(_unknown(found)))
    table.add_row(
        "confidence",
        Text(
            f"{found.mean_confidence:.1%} on average; expected calibration error {found.calibration_error:.1%}; "
            f"classes as frequent as {_PRIORS[found.prior]}"
        ),
    )
    table.add_row("as it flies", Text(f"{found.name}, {found.runtime}"))
    console.print(table)


_PRIORS = {"land": "on land", "training set": "in the training set"}


def _unknown(found: Evaluation) -> str:
    named = "" if found.named_accuracy is None else f"; of the others {found.named_accuracy:.1%} right"
    text = f"{found.unknown} of {found.tiles} tiles called so{named}"
    return text + (f"; of other classes {found.other_unknown} of {found.other_tiles}" if found.other_tiles else "")


def _tiles(found: Evaluation) -> str:
    lost = sum(found.left_out.values())
    return f"{found.right} of {found.tiles} right; {found.dataset}" + (f"; {lost} left out" if lost else "")
