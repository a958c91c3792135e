"""Cells: the grid of strides as polygons in WGS 84, one row at a time, and as GeoJSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.onboard.writing.antimeridian import Ring, polygons
from edgeslim.onboard.writing.maps import CellRow, MapPlan
from edgeslim.onboard.writing.spool import close_quietly
from edgeslim.onboard.writing.wgs84 import DIGITS, Wgs84

F64 = NDArray[np.float64]
SCORE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class PlacedCells:
    """The known cells of one row that have a place on Earth."""

    row: int
    """Number of the row of cells."""
    columns: NDArray[np.intp]
    """Numbers of the cells in their row (n,)."""
    corners: F64
    """Longitude and latitude of the counterclockwise corners (n, 4, 2), degrees to `DIGITS` decimals."""
    torn: dict[int, list[Ring]]
    """Position in `columns` -> closed rings, of cells that meet the antimeridian or a pole; `corners` are of no use."""
    classes: NDArray[np.uint8]
    """(n,)."""
    score: F64
    """(n,), to `SCORE_DIGITS` decimals."""
    known: F64
    """(n,), to `SCORE_DIGITS` decimals."""
    lines: tuple[F64, F64]
    """Longitude and latitude of the grid's corners above and below the row (cells + 1, 2)."""
    turned: NDArray[np.bool_]
    """(n,): `corners` begin at the upper right and run up the left side, not down."""


_POINTS = 4096
"""Corners of the grid that are brought to WGS 84 at once: each call costs as much as some hundred points."""


class CellGrid:
    """Where the cells lie; corners shared by two rows are computed once."""

    def __init__(self, plan: MapPlan) -> None:
        self._plan, self._wgs84 = plan, Wgs84(plan.georeference)
        edges = np.arange(plan.cells_across + 1, dtype=np.float64) * plan.cell_px
        self._edges = np.minimum(edges, plan.scene_width)
        self._line = self._computed = 0
        self._lines: list[F64] = []
        """Computed and not used yet, the next one last."""
        self._upper = self._next_line()
        self.lost = 0
        """Known cells so far that have no place on Earth."""

    def _next_line(self) -> F64:
        """Corners (cells + 1, 2) of the next line of the grid."""
        if not self._lines:
            first = self._computed
            count = max(1, min(_POINTS // self._edges.size, self._plan.cells_down + 1 - first))
            self._computed += count
            rows = np.minimum((first + np.arange(count)) * self._plan.cell_px, self._plan.scene_height)
            at = self._wgs84.at(np.tile(self._edges, count), rows.repeat(self._edges.size).astype(np.float64))
            points: F64 = np.stack(at, axis=1).round(DIGITS) + 0.0  # no minus zero
            self._lines = list(points.reshape(count, -1, 2)[::-1])
        return self._lines.pop()

    def place(self, cells: CellRow) -> PlacedCells:
        """The cells of the next row."""
        if cells.row != self._line:
            raise ValueError(f"row {cells.row} of cells was given, expected row {self._line}")
        upper, lower = self._upper, self._next_line()
        self._upper, self._line = lower, self._line + 1
        corners = np.stack([upper[:-1], lower[:-1], lower[1:], upper[1:]], axis=1)
        known = cells.known > 0
        placed = known & np.isfinite(corners).all(axis=(1, 2))
        self.lost += int(known.sum()) - int(placed.sum())
        columns = np.flatnonzero(placed)
        corners = corners[columns]
        wide = np.ptp(corners[:, :, 0], axis=1) > 180
        torn = {int(i): polygons([(x, y) for x, y in corners[i].tolist()]) for i in np.flatnonzero(wide)}
        diagonal, other = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        clockwise = diagonal[:, 0] * other[:, 1] - diagonal[:, 1] * other[:, 0] < 0
        corners[clockwise] = corners[clockwise][:, ::-1]
        return PlacedCells(
            cells.row,
            columns,
            corners,
            torn,
            cells.classes[columns],
            cells.score[columns].astype(np.float64).round(SCORE_DIGITS),
            cells.known[columns].astype(np.float64).round(SCORE_DIGITS),
            (upper, lower),
            clockwise,
        )


class CellWriter(Protocol):
    """What writes cells to a file."""

    def append(self, cells: CellRow) -> None:
        """Add the next row. Raises InputError if the disk does not take it."""

    def finish(self) -> int:
        """Complete the file; returns how many known cells have no place on Earth. Raises InputError."""

    def abandon(self) -> None:
        """Close without completing."""


class GeoJsonWriter:
    """Cells as an RFC 7946 FeatureCollection, one feature a line."""

    def __init__(self, path: Path, plan: MapPlan) -> None:
        """Raises InputError if the file cannot be written."""
        self._path, self._grid = path, CellGrid(plan)
        self._properties = [
            f'"class":{index},"name":{json.dumps(label.name, ensure_ascii=False)}'
            for index, label in enumerate(plan.classes)
        ]
        self._separator = "\n"
        self._above: list[str] = []
        """The corners of the line above the next row, as text: four cells share each."""
        try:
            self._file = path.open("x", encoding="utf-8", newline="\n")
            self._file.write('{"type":"FeatureCollection","features":[')
        except OSError as error:
            raise self._failed(error) from None

    def append(self, cells: CellRow) -> None:
        """Add the next row. Raises InputError if the disk does not take it."""
        placed = self._grid.place(cells)
        above = self._above or _texts(placed.lines[0])
        self._above = below = _texts(placed.lines[1])
        values = zip(
            placed.columns.tolist(),
            placed.turned.tolist(),
            placed.classes.tolist(),
            placed.score.tolist(),
            placed.known.tolist(),
            strict=True,
        )
        lines = []
        for index, (column, turned, label, score, known) in enumerate(values):
            if index in placed.torn:
                geometry = json.dumps(geometry_of(placed.torn[index]), separators=(",", ":"))
            else:
                near, far = (column + 1, column) if turned else (column, column + 1)
                ring = f"{above[near]},{below[near]},{below[far]},{above[far]},{above[near]}"
                geometry = f'{{"type":"Polygon","coordinates":[[{ring}]]}}'
            lines.append(
                f'{{"type":"Feature","properties":{{{self._properties[label]},"score":{score},"known":{known},'
                f'"row":{placed.row},"column":{column}}},"geometry":{geometry}}}'
            )
        if not lines:
            return
        try:
            self._file.write(self._separator + ",\n".join(lines))
        except OSError as error:
            raise self._failed(error) from None
        self._separator = ",\n"

    def finish(self) -> int:
        """Complete the file; returns how many known cells have no place on Earth. Raises InputError."""
        try:
            self._file.write("\n]}\n")
            self._file.close()
        except OSError as error:
            raise self._failed(error) from None
        return self._grid.lost

    def abandon(self) -> None:
        """Close without completing."""
        close_quietly(self._file)

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"{self._path}: cannot be written ({error.strerror}); free some space, or choose another -o")


def _texts(points: F64) -> list[str]:
    """Each of points (n, 2) as GeoJSON."""
    return [f"[{x},{y}]" for x, y in points.tolist()]


def geometry_of(rings: list[Ring]) -> dict[str, Any]:
    """GeoJSON of closed rings: a Polygon, or a MultiPolygon of more than one."""
    rounded = [[[round(x, DIGITS) + 0.0, round(y, DIGITS) + 0.0] for x, y in ring] for ring in rings]
    if len(rounded) == 1:
        return {"type": "Polygon", "coordinates": rounded}
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rounded]}
