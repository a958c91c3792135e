"""Maps: what the writer of results is told, row by row: pixels of the rasters and cells of the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.reading.georeference import Georeference
from edgeslim.profile import ClassLabel

NODATA = 255
"""Of every raster; a class raster holds at most 255 classes."""
PROBABILITY_ONE = 254
"""The value of probability 1 in the raster of class probabilities."""
VECTORS = ("geojson", "geoparquet", "flatgeobuf", "none")

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What to write beside the two maps. Invalid values cannot be built."""

    probabilities: bool = False
    """Write the probability of every class, one band a class."""
    vector: str | None = None
    """One of `VECTORS`; None: GeoJSON up to `AUTO_CELLS` cells, nothing above."""

    def __post_init__(self) -> None:
        if self.vector is not None and self.vector not in VECTORS:
            raise UsageError(f"--vector: found {self.vector!r}, expected one of {', '.join(VECTORS)}")


@dataclass(frozen=True, slots=True)
class MapPlan:
    """The rasters and the grid of cells of one scene. Raises InputError for more classes than a byte holds."""

    width: int
    """Of the maps, px."""
    height: int
    """Of the maps, px."""
    step: int
    """Scene pixels along a side of one map pixel."""
    georeference: Georeference
    """Of the scene."""
    classes: tuple[ClassLabel, ...]
    """In the order of the logits."""
    artifact: str
    """Its name."""
    cell_px: int
    """Side of a cell, scene pixels: the stride."""
    scene_height: int
    """Pixels."""
    scene_width: int
    """Pixels."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= NODATA:
            raise InputError(f"{self.artifact}: found {len(self.classes)} classes, expected 1 to {NODATA}")

    @property
    def cells_across(self) -> int:
        """Cells of one row; the last may be partial."""
        return -(-self.scene_width // self.cell_px)

    @property
    def cells_down(self) -> int:
        """Rows of cells; the last may be partial."""
        return -(-self.scene_height // self.cell_px)


@dataclass(slots=True)
class MapRows:
    """The next finished rows of the maps."""

    row: int
    """First row; every row comes once, in order."""
    classes: U8
    """Class (n, width); 255: nodata."""
    confidence: U8
    """Probability of that class, percent (n, width); 255: nodata."""
    probabilities: U8 | None = None
    """(classes, n, width), 0 ... 254 for probability 0 ... 1; 255: nodata."""


@dataclass(slots=True)
class CellRow:
    """One finished row of cells."""

    row: int
    """Number of the row of cells; every row comes once, in order."""
    classes: U8
    """Class (cells,); 255: nodata."""
    score: F32
    """Mean probability of that class over the cell's known pixels (cells,), 0 ... 1."""
    known: F32
    """Share of the cell's pixels that are known (cells,), 0 ... 1; 0: the cell is left out."""
