"""Vector: cells as GeoParquet or FlatGeobuf, through the extra `vector`, which is imported here only.

Both want whole columns and to know the end, so rows wait in a nameless file, 9 bytes a cell, and are read back in
batches when the last one is there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgeslim.errors import InputError, MissingExtra
from edgeslim.onboard.writing.antimeridian import Ring
from edgeslim.onboard.writing.cells import CellGrid, PlacedCells
from edgeslim.onboard.writing.maps import CellRow, MapPlan
from edgeslim.onboard.writing.spool import close_quietly, open_spool

BATCH_CELLS = 8192
"""Cells of one batch, about; a row of cells is never cut."""
_CELL = np.dtype([("classes", "u1"), ("score", "<f4"), ("known", "<f4")])
_QUAD = np.dtype(
    [
        ("order", "u1"),
        ("kind", "<u4"),
        ("polygons", "<u4"),
        ("inner_order", "u1"),
        ("inner_kind", "<u4"),
        ("rings", "<u4"),
        ("points", "<u4"),
        ("corners", "<f8", (5, 2)),
    ]
)
"""Well-known binary of a MultiPolygon of one ring of five points."""


def require_vector(kind: str) -> None:
    """Raise MissingExtra unless the libraries that write `kind` are here."""
    for name in ("pyarrow", *(["pyogrio"] if kind == "flatgeobuf" else [])):
        _load(name)


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(name.split(".")[0], "vector") from None


class VectorWriter:
    """Cells as a table: geometry (MultiPolygon, WGS 84), class, name, score, known, row, column."""

    def __init__(self, path: Path, plan: MapPlan, kind: str) -> None:
        """`kind` is "geoparquet" or "flatgeobuf". Raises InputError or MissingExtra."""
        require_vector(kind)
        self._path, self._plan, self._kind = path, plan, kind
        self._names = [label.name for label in plan.classes]
        self._rows = 0
        try:
            self._spool = open_spool(path.parent)
        except OSError as error:
            raise self._failed(error) from None

    def append(self, cells: CellRow) -> None:
        """Add the next row. Raises InputError if the disk does not take it."""
        if cells.row != self._rows:
            raise ValueError(f"row {cells.row} of cells was given, expected row {self._rows}")
        packed = np.empty(cells.classes.shape, _CELL)
        packed["classes"], packed["score"], packed["known"] = cells.classes, cells.score, cells.known
        try:
            self._spool.write(packed.tobytes())
        except OSError as error:
            raise self._failed(error) from None
        self._rows += 1

    def finish(self) -> int:
        """Write the file; returns how many known cells have no place on Earth. Raises InputError."""
        pyarrow = _load("pyarrow")
        grid = CellGrid(self._plan)
        try:
            self._spool.seek(0)
            batches = self._batches(grid)
            if self._kind == "geoparquet":
                self._write_parquet(batches)
            else:
                self._write_flatgeobuf(batches)
        except (OSError, RuntimeError, pyarrow.ArrowException) as error:  # pyogrio's own are RuntimeErrors
            reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise InputError(f"{self._path}: cannot be written ({reason}); choose another -o") from None
        finally:
            close_quietly(self._spool)
        return grid.lost

    def _schema(self) -> Any:
        pa = _load("pyarrow")
        numbers = [("class", pa.uint8()), ("name", pa.string()), ("score", pa.float32()), ("known", pa.float32())]
        geometry = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
        return pa.schema([geometry, *numbers, ("row", pa.int32()), ("column", pa.int32())])

    def _batches(self, grid: CellGrid) -> Iterator[Any]:
        """Record batches of about `BATCH_CELLS` cells."""
        across, waiting = self._plan.cells_across, []
        count = 0
        for row in range(self._rows):
            packed = np.frombuffer(self._spool.read(across * _CELL.itemsize), _CELL)
            placed = grid.place(CellRow(row, packed["classes"], packed["score"], packed["known"]))
            waiting.append(placed)
            count += placed.columns.size
            if count >= BATCH_CELLS:
                yield self._batch(waiting)
                waiting, count = [], 0
        if count:
            yield self._batch(waiting)

    def _batch(self, rows: list[PlacedCells]) -> Any:
        pa = _load("pyarrow")
        classes = np.concatenate([r.classes for r in rows])
        columns = {
            "geometry": [shape for r in rows for shape in well_known_binary(r)],
            "class": classes,
            "name": [self._names[i] for i in classes.tolist()],
            "score": np.concatenate([r.score for r in rows]).astype(np.float32),
            "known": np.concatenate([r.known for r in rows]).astype(np.float32),
            "row": np.repeat([r.row for r in rows], [r.columns.size for r in rows]).astype(np.int32),
            "column": np.concatenate([r.columns for r in rows]).astype(np.int32),
        }
        schema = self._schema()
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        return pa.record_batch(arrays, schema=schema)

    def _write_parquet(self, batches: Iterator[Any]) -> None:
        parquet = _load("pyarrow.parquet")
        # GeoParquet 1.1; without "crs" longitude and latitude of WGS 84 are meant.
        column = {"encoding": "WKB", "geometry_types": ["MultiPolygon"], "orientation": "counterclockwise"}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        schema = self._schema().with_metadata({"geo": json.dumps(geo)})
        with parquet.ParquetWriter(self._path, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))

    def _write_flatgeobuf(self, batches: Iterator[Any]) -> None:
        pyarrow, pyogrio = _load("pyarrow"), _load("pyogrio")
        reader = pyarrow.RecordBatchReader.from_batches(self._schema(), batches)
        pyogrio.write_arrow(
            reader,
            self._path,
            driver="FlatGeobuf",
            geometry_name="geometry",
            geometry_type="MultiPolygon",
            crs="OGC:CRS84",
            layer="cells",
        )

    def abandon(self) -> None:
        """Drop the rows that wait."""
        close_quietly(self._spool)

    def _failed(self, error: OSError) -> InputError:
        return InputError(f"{self._path}: cannot be written ({error.strerror}); free some space, or choose another -o")


def well_known_binary(cells: PlacedCells) -> list[bytes]:
    """One little-endian WKB MultiPolygon a cell."""
    quads = np.empty(cells.columns.size, _QUAD)
    for name, value in (("order", 1), ("kind", 6), ("polygons", 1), ("inner_order", 1), ("inner_kind", 3)):
        quads[name] = value
    quads["rings"], quads["points"] = 1, 5
    quads["corners"][:, :4], quads["corners"][:, 4] = cells.corners, cells.corners[:, 0]
    data = quads.tobytes()
    shapes = [data[i : i + _QUAD.itemsize] for i in range(0, len(data), _QUAD.itemsize)]
    for index, rings in cells.torn.items():
        shapes[index] = _multi_polygon(rings)
    return shapes


def _multi_polygon(rings: list[Ring]) -> bytes:
    parts = [struct.pack("<BII", 1, 6, len(rings))]
    for ring in rings:
        parts.append(struct.pack("<BIII", 1, 3, 1, len(ring)))
        parts.append(np.array(ring, "<f8").round(7).tobytes())
    return b"".join(parts)
