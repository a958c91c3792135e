"""Case: one way to call a network that is to be timed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """So many tiles a call, so many calls at the same time, for so long."""

    batch: int
    """Tiles a call."""
    workers: int
    """Calls at the same time."""
    threads: int
    """Of the runtime, for each call."""
    seconds: float
    """For how long; calls that have begun are finished."""
    least_calls: int = 0
    """Go on until there were so many."""
    window_s: float | None = None
    """Tell the rate of every stretch of so many seconds; None: tell how long each call takes."""
