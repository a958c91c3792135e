"""Results: every file of one scene's result folder, written from rows that come once and in order.

Of a scene nothing is kept but what `results_bytes` says. Nothing is synced or renamed here, and nothing resumed: the
caller gives an empty folder and, after a power cut, all rows again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeslim.errors import InputError
from edgeslim.onboard.layer import class_layer, confidence_layer, probability_layer
from edgeslim.onboard.maps import CellRow, MapPlan, MapRows, OutputOptions
from edgeslim.onboard.quicklook import draw, write_png
from edgeslim.onboard.summary import Summary, json_text
from edgeslim.onboard.thumbnail import Thumbnail

CLASSES_NAME = "classes.tif"
CONFIDENCE_NAME = "confidence.tif"
PROBABILITIES_NAME = "probabilities.tif"
SUMMARY_NAME = "summary.json"
RUN_NAME = "run.json"
QUICKLOOK_NAME = "quicklook.png"


def result_names(options: OutputOptions) -> tuple[str, ...]:
    """Every file that a run with these options may write."""
    rasters = [CLASSES_NAME, CONFIDENCE_NAME, *([PROBABILITIES_NAME] if options.probabilities else [])]
    return (*rasters, SUMMARY_NAME, RUN_NAME, QUICKLOOK_NAME)


class Results:
    """The files of one scene. Call `finish`, or `abandon` where that cannot be."""

    def __init__(self, folder: Path, plan: MapPlan, options: OutputOptions) -> None:
        """Start in an existing, empty folder. Raises InputError if it cannot be written."""
        self._folder, self._plan, self._options = folder, plan, options
        self._classes = class_layer(folder / CLASSES_NAME, plan)
        self._confidence = confidence_layer(folder / CONFIDENCE_NAME, plan)
        self._probabilities = probability_layer(folder / PROBABILITIES_NAME, plan) if options.probabilities else None

    @property
    def wants_cells(self) -> bool:
        """Whether cells are written."""
        return False

    def append(self, rows: MapRows) -> None:
        """Add the next rows of the maps. Raises InputError if the disk does not take them."""
        self._classes.append(rows.classes[None])
        self._confidence.append(rows.confidence[None])
        if self._probabilities is not None:
            if rows.probabilities is None:
                raise ValueError("rows without probabilities, which the options ask for")
            self._probabilities.append(rows.probabilities)

    def append_cells(self, cells: CellRow) -> None:
        """Add the next row of cells. Raises InputError if the disk does not take it."""

    def finish(self, summary: Summary, thumbnail: Thumbnail, run: dict[str, Any]) -> Summary:
        """Write every file, and return the summary as written: with the names of the files and further warnings.

        `run` is what may differ from run to run: timings, machine. Raises InputError if the disk does not take it.
        """
        self._classes.finish()
        self._confidence.finish()
        if self._probabilities is not None:
            self._probabilities.finish()
        write_png(self._folder / QUICKLOOK_NAME, draw(thumbnail, summary, self._plan.classes))
        summary = replace(summary, files=result_names(self._options))
        self._write(RUN_NAME, json_text(run))
        self._write(SUMMARY_NAME, json_text(summary.to_dict()))
        return summary

    def _write(self, name: str, text: str) -> None:
        try:
            (self._folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._folder / name}: cannot be written ({error.strerror})") from None

    def abandon(self) -> None:
        """Close what is open; what lies in the folder is of no use."""
        for layer in (self._classes, self._confidence, self._probabilities):
            if layer is not None:
                layer.abandon()


def results_bytes(plan: MapPlan, options: OutputOptions) -> int:
    """Peak memory of `Results`, bytes."""
    bands = 2 + (len(plan.classes) if options.probabilities else 0)
    return 2 * 256 * plan.width * bands + (4 << 20)


__all__ = [
    "CellRow",
    "MapPlan",
    "MapRows",
    "OutputOptions",
    "Results",
    "result_names",
    "results_bytes",
]
