"""Finished: what stands in a result folder, told without numpy or a raster library."""

from __future__ import annotations

from pathlib import Path

from edgeslim.onboard.unfinished import UNFINISHED_NAME

SUMMARY_NAME = "summary.json"
"""The last of the results that is moved into place."""


def is_unfinished(out: Path) -> bool:
    """Whether `out` holds a run that can be resumed."""
    return (out / UNFINISHED_NAME).is_dir()


def is_finished(out: Path) -> bool:
    """Whether `out` holds the whole of a scene's results."""
    return (out / SUMMARY_NAME).is_file() and not is_unfinished(out)
