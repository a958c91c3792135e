"""Who is told of the events of a run, of one scene or of many."""

from __future__ import annotations

from rich.console import Console

from edgeslim.cli import flags as f
from edgeslim.cli.stopping import Stopping
from edgeslim.onboard.progress import Bar, Lines, Silence


def observer_of(progress: f.ProgressMode, stderr: Console, stop: Stopping | None = None) -> Bar | Lines | Silence:
    """Who is told of events: a bar where a person looks on, lines of JSON where asked, otherwise nobody."""
    if progress is f.ProgressMode.json:
        return Lines(stderr.file)
    if progress is f.ProgressMode.bar or (progress is f.ProgressMode.auto and stderr.is_terminal):
        return Bar(stderr, stop)
    return Silence()
