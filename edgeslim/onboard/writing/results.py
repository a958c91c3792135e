"""Results: every file of one scene's result folder, written from rows that come once and in order.

Of a scene nothing is kept but what `results_bytes` says. Nothing is synced or renamed here, and nothing resumed: the
caller gives an empty folder and, after a power cut, all rows again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeslim import scene_buffers
from edgeslim.errors import InputError
from edgeslim.onboard.run_facts import RunFacts
from edgeslim.onboard.writing.cells import CellWriter, GeoJsonWriter
from edgeslim.onboard.writing.layer import Layer, class_layer, confidence_layer, probability_layer
from edgeslim.onboard.writing.maps import PROBABILITY_ONE, CellRow, MapPlan, MapRows, OutputOptions
from edgeslim.onboard.writing.quicklook import draw, write_png
from edgeslim.onboard.writing.stac import stac_item
from edgeslim.onboard.writing.style import cell_style, class_style, ramp_style
from edgeslim.onboard.writing.summary import Summary, json_text
from edgeslim.onboard.writing.thumbnail import Thumbnail
from edgeslim.onboard.writing.vector import VectorWriter, require_vector
from edgeslim.onboard.writing.wgs84 import placing_crs

CLASSES_NAME = "classes.tif"
CONFIDENCE_NAME = "confidence.tif"
PROBABILITIES_NAME = "probabilities.tif"
CELLS_NAMES = {"geojson": "cells.geojson", "geoparquet": "cells.parquet", "flatgeobuf": "cells.fgb"}
QUICKLOOK_NAME = "quicklook.png"
SUMMARY_NAME = "summary.json"
STAC_NAME = "stac-item.json"
RUN_NAME = "run.json"
AUTO_CELLS = 200_000
"""GeoJSON is written unasked up to this many cells, about 40 MB."""


def result_names(options: OutputOptions) -> tuple[str, ...]:
    """Every file that a run with these options may write."""
    vector = options.vector or "geojson"
    rasters = [CLASSES_NAME, CONFIDENCE_NAME, *([PROBABILITIES_NAME] if options.probabilities else [])]
    styled = [*rasters, *([CELLS_NAMES[vector]] if vector != "none" else [])]
    return (*_with_styles(styled), QUICKLOOK_NAME, SUMMARY_NAME, STAC_NAME, RUN_NAME)


def every_result_name() -> tuple[str, ...]:
    """Every file that a run with any options may write."""
    styled = [CLASSES_NAME, CONFIDENCE_NAME, PROBABILITIES_NAME, *CELLS_NAMES.values()]
    return (*_with_styles(styled), QUICKLOOK_NAME, SUMMARY_NAME, STAC_NAME, RUN_NAME)


def _with_styles(names: list[str]) -> list[str]:
    return list(dict.fromkeys(other for name in names for other in (name, _style_name(name))))


def _style_name(name: str) -> str:
    return f"{Path(name).stem}.qml"


class Results:
    """The files of one scene. Call `finish`, or `abandon` where that cannot be."""

    def __init__(self, folder: Path, plan: MapPlan, options: OutputOptions) -> None:
        """Start in an existing, empty folder.

        Raises InputError if it cannot be written, MissingExtra without the library that `options.vector` needs.
        """
        self._folder, self._plan, self._options = folder, plan, options
        self._warnings: list[str] = []
        self._cells: CellWriter | None = None
        self._layers: dict[str, Layer] = {}
        vector = self._vector()
        try:
            self._layers[CLASSES_NAME] = class_layer(folder / CLASSES_NAME, plan)
            self._layers[CONFIDENCE_NAME] = confidence_layer(folder / CONFIDENCE_NAME, plan)
            if options.probabilities:
                self._layers[PROBABILITIES_NAME] = probability_layer(folder / PROBABILITIES_NAME, plan)
            if vector is not None:
                self._cells_name = CELLS_NAMES[vector]
                path = folder / self._cells_name
                self._cells = GeoJsonWriter(path, plan) if vector == "geojson" else VectorWriter(path, plan, vector)
        except BaseException:
            self.abandon()
            raise

    def _vector(self) -> str | None:
        """The format of the cells; None: none, and why."""
        asked = self._options.vector
        if asked == "none":
            return None
        if asked in ("geoparquet", "flatgeobuf"):
            require_vector(asked)
        if not placing_crs(self._plan.georeference):
            self._warnings.append("the scene has no place on Earth: no vector file of cells was written")
            return None
        cells = self._plan.cells_across * self._plan.cells_down
        if asked is None and cells > AUTO_CELLS:
            self._warnings.append(
                f"found {cells} cells, more than {AUTO_CELLS}: no vector file was written; ask for one with --vector"
            )
            return None
        return asked or "geojson"

    @property
    def wants_cells(self) -> bool:
        """Whether cells are written."""
        return self._cells is not None

    def append(self, rows: MapRows) -> None:
        """Add the next rows of the maps. Raises InputError if the disk does not take them."""
        self._layers[CLASSES_NAME].append(rows.classes[None])
        self._layers[CONFIDENCE_NAME].append(rows.confidence[None])
        if self._options.probabilities:
            if rows.probabilities is None:
                raise ValueError("rows without probabilities, which the options ask for")
            self._layers[PROBABILITIES_NAME].append(rows.probabilities)

    def append_cells(self, cells: CellRow) -> None:
        """Add the next row of cells. Raises InputError if the disk does not take it."""
        if self._cells is not None:
            self._cells.append(cells)

    def finish(self, summary: Summary, thumbnail: Thumbnail, run: RunFacts) -> Summary:
        """Write every file, and return the summary as written: with the names of the files and further warnings.

        `run` is what may differ from run to run: timings, machine. Raises InputError if the disk does not take it.
        """
        titles = {CLASSES_NAME: "Class map", CONFIDENCE_NAME: "Confidence of the class map, percent"}
        styles = {CLASSES_NAME: class_style(self._plan.classes), CONFIDENCE_NAME: ramp_style(100)}
        if self._options.probabilities:
            titles[PROBABILITIES_NAME] = f"Probability of each class, 0 ... {PROBABILITY_ONE}"
            styles[PROBABILITIES_NAME] = ramp_style(1)  # QGIS applies the scale of the band
        for layer in self._layers.values():
            layer.finish()
        if self._cells is not None:
            if lost := self._cells.finish():
                self._warnings.append(f"{lost} cells have no place on Earth: left out of {self._cells_name}")
            titles[self._cells_name] = "Cells with class and score"
            styles[self._cells_name] = cell_style(self._plan.classes)
        for name, text in styles.items():
            self._write(_style_name(name), text)
            titles[_style_name(name)] = f"QGIS style of {name}"
        write_png(self._folder / QUICKLOOK_NAME, draw(thumbnail, summary, self._plan.classes))
        summary = replace(
            summary,
            files=(*titles, QUICKLOOK_NAME, SUMMARY_NAME, STAC_NAME, RUN_NAME),
            warnings=(*summary.warnings, *self._warnings),
        )
        self._write(SUMMARY_NAME, json_text(summary.to_dict()))
        titles |= {QUICKLOOK_NAME: "Quicklook", SUMMARY_NAME: "Summary"}
        self._write(STAC_NAME, json_text(stac_item(self._folder, self._plan, summary, titles)))
        self._write(RUN_NAME, json_text(run))
        return summary

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        try:
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); free some space, or choose another -o"
            ) from None

    def abandon(self) -> None:
        """Close what is open; what lies in the folder is of no use."""
        for layer in self._layers.values():
            layer.abandon()
        if self._cells is not None:
            self._cells.abandon()


def results_bytes(plan: MapPlan, options: OutputOptions) -> int:
    """Peak memory of `Results`, bytes, beyond the rows that it is given; it does not grow with their number.

    The page is drawn when the rows are gone, so the larger of the two counts. In fresh processes, at widths of 300 to
    40000, 0 to 13 % less was found.
    """
    return max(appending_bytes(plan, options), finishing_bytes(plan, options))


def appending_bytes(plan: MapPlan, options: OutputOptions) -> int:
    """The same while rows come."""
    size_px = plan.height, plan.width
    return scene_buffers.appending_bytes(
        size_px, plan.cells_across, len(plan.classes), options.probabilities, options.vector
    )


def finishing_bytes(plan: MapPlan, options: OutputOptions) -> int:
    """The same while the page is drawn, when the buffers of the rows are gone."""
    return scene_buffers.finishing_bytes((plan.scene_height, plan.scene_width), options.vector)


__all__ = [
    "CellRow",
    "MapPlan",
    "MapRows",
    "OutputOptions",
    "Results",
    "appending_bytes",
    "every_result_name",
    "finishing_bytes",
    "result_names",
    "results_bytes",
]
