"""GeoParquet and FlatGeobuf hold the cells that GeoJSON holds."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from edgeslim.errors import InputError
from edgeslim.onboard.writing import vector
from edgeslim.onboard.writing.cells import GeoJsonWriter
from edgeslim.onboard.writing.maps import NODATA, CellRow, MapPlan
from edgeslim.onboard.writing.vector import VectorWriter
from tests.onboard.places import ground, plan

pyarrow = pytest.importorskip("pyarrow", reason="the extra `vector` is not installed: GeoParquet was not tried")

DATELINE = plan(40, 70, ground("EPSG:4326", Affine(0.1, 0, 178.1, 0, -0.1, 10)))


def rows(maps: MapPlan) -> list[CellRow]:
    rng = np.random.default_rng(3)
    found = []
    for row in range(maps.cells_down):
        known = np.where(rng.random(maps.cells_across) < 0.8, rng.random(maps.cells_across), 0).astype(np.float32)
        classes = np.where(known > 0, rng.integers(0, 3, known.size), NODATA).astype(np.uint8)
        found.append(CellRow(row, classes, rng.random(known.size).astype(np.float32), known))
    return found


def features(path: Path, maps: MapPlan) -> list[dict[str, Any]]:
    writer = GeoJsonWriter(path, maps)
    for row in rows(maps):
        writer.append(row)
    writer.finish()
    found: list[dict[str, Any]] = json.loads(path.read_text())["features"]
    return found


def polygons_of(shape: bytes) -> list[list[list[list[float]]]]:
    """Coordinates of a MultiPolygon in WKB, as the specification has it."""
    order, kind, count = struct.unpack_from("<BII", shape)
    assert (order, kind) == (1, 6)
    at, found = 9, []
    for _ in range(count):
        order, kind, rings, points = struct.unpack_from("<BIII", shape, at)
        assert (order, kind, rings) == (1, 3, 1)
        at += 13
        found.append([np.frombuffer(shape, "<f8", 2 * points, at).reshape(-1, 2).tolist()])
        at += 16 * points
    assert at == len(shape)
    return found


def multi(geometry: dict[str, Any]) -> Any:
    return geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]


@pytest.mark.parametrize("batch", [1, 8192])
@pytest.mark.parametrize("maps", [plan(60, 100), DATELINE], ids=["utm", "dateline"])
def test_geoparquet_holds_the_same_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maps: MapPlan, batch: int
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(vector, "BATCH_CELLS", batch)
    writer = VectorWriter(tmp_path / "cells.parquet", maps, "geoparquet")
    for row in rows(maps):
        writer.append(row)
    assert writer.finish() == 0
    table = parquet.read_table(tmp_path / "cells.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"][geo["primary_column"]]["encoding"] == "WKB"
    expected = features(tmp_path / "cells.geojson", maps)
    assert len(expected) == table.num_rows
    for row, feature in zip(table.to_pylist(), expected, strict=True):
        assert polygons_of(row.pop("geometry")) == multi(feature["geometry"])
        assert row == pytest.approx(feature["properties"], abs=1e-6)


def test_flatgeobuf_holds_the_same_cells(tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio", reason="the extra `vector` is not installed: FlatGeobuf was not tried")
    path = tmp_path / "cells.fgb"
    writer = VectorWriter(path, DATELINE, "flatgeobuf")
    for row in rows(DATELINE):
        writer.append(row)
    assert writer.finish() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["cells.fgb"]
    info, table = pyogrio.read_arrow(path)
    assert info["geometry_type"] == "MultiPolygon"
    assert "CRS84" in info["crs"] or "4326" in info["crs"]
    expected = {
        (f["properties"]["row"], f["properties"]["column"]): f for f in features(tmp_path / "cells.geojson", DATELINE)
    }
    found = table.to_pylist()
    assert len(found) == len(expected)
    geometry = info["geometry_name"] or "wkb_geometry"
    for row in found:  # sorted by place, for its index
        feature = expected[row["row"], row["column"]]
        assert polygons_of(row.pop(geometry)) == multi(feature["geometry"])
        assert {k: v for k, v in row.items() if k in feature["properties"]} == pytest.approx(
            feature["properties"], abs=1e-6
        )


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    maps = plan(60, 100)
    for kind, ending in (("geoparquet", "parquet"), ("flatgeobuf", "fgb")):
        if kind == "flatgeobuf":
            pytest.importorskip("pyogrio", reason="the extra `vector` is not installed: FlatGeobuf was not tried")
        for name in "ab":
            writer = VectorWriter(tmp_path / f"{name}.{ending}", maps, kind)
            for row in rows(maps):
                writer.append(row)
            writer.finish()
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@pytest.mark.parametrize("kind", ["geoparquet", "flatgeobuf"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, kind: str) -> None:
    if kind == "flatgeobuf":
        pytest.importorskip("pyogrio", reason="the extra `vector` is not installed: FlatGeobuf was not tried")
    path = tmp_path / "cells.any"
    path.mkdir()
    writer = VectorWriter(path, plan(8, 8), kind)
    writer.append(CellRow(0, np.zeros(1, np.uint8), np.ones(1, "f4"), np.ones(1, "f4")))
    with pytest.raises(InputError, match=r"^[^\n]*cells\.any: cannot be written[^\n]*$"):
        writer.finish()
