from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine, GCPTransformer
from rasterio.warp import transform as warp_points

from edgeslim.onboard.reading.georeference import Georeference
from edgeslim.onboard.writing.antimeridian import longitudes, polygons
from edgeslim.onboard.writing.cells import GeoJsonWriter
from edgeslim.onboard.writing.maps import NODATA, CellRow, MapPlan
from edgeslim.onboard.writing.wgs84 import Wgs84
from edgeslim.profile import ClassLabel
from tests.onboard.places import PLACES, ground, plan

PLACED = sorted(set(PLACES) - {"nowhere", "no CRS", "no transform"})


def write(path: Path, maps: MapPlan, seed: int = 0, known_share: float = 0.7) -> tuple[dict[str, Any], list[CellRow]]:
    rng = np.random.default_rng(seed)
    rows = []
    writer = GeoJsonWriter(path, maps)
    for row in range(maps.cells_down):
        known = np.where(rng.random(maps.cells_across) < known_share, rng.random(maps.cells_across), 0)
        classes = np.where(known > 0, rng.integers(0, len(maps.classes), known.size), NODATA).astype(np.uint8)
        rows.append(CellRow(row, classes, rng.random(known.size).astype(np.float32), known.astype(np.float32)))
        writer.append(rows[-1])
    writer.finish()
    return json.loads(path.read_text(encoding="utf-8")), rows


def slow_corner(place: Georeference, column: float, row: float) -> tuple[float, float]:
    """One point, as rasterio alone has it."""
    if place.gcps:
        with GCPTransformer(list(place.gcps)) as transformer:
            x, y = transformer.xy(row, column, offset="ul")
        crs = place.gcps_crs
    else:
        x, y = place.transform * (column, row)
        crs = place.crs
    (longitude,), (latitude,) = warp_points(crs, "EPSG:4326", [float(x)], [float(y)])
    return longitude, latitude


def area(ring: list[list[float]]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("size", [(24, 40), (25, 41), (3, 5)])
def test_cells_lie_where_rasterio_says(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    maps = plan(*size, PLACES[name])
    found, rows = write(tmp_path / "cells.geojson", maps)
    expected = [(r.row, c) for r in rows for c in range(maps.cells_across) if r.known[c] > 0]
    assert [(f["properties"]["row"], f["properties"]["column"]) for f in found["features"]] == expected
    for feature in found["features"]:
        properties = feature["properties"]
        cells, column = rows[properties["row"]], properties["column"]
        assert properties["class"] == cells.classes[column]
        assert properties["name"] == maps.classes[properties["class"]].name
        assert properties["score"] == pytest.approx(float(cells.score[column]), abs=5.1e-5)
        assert properties["known"] == pytest.approx(float(cells.known[column]), abs=5.1e-5)
        (ring,) = feature["geometry"]["coordinates"]
        assert len(ring) == 5
        assert ring[0] == ring[-1]
        assert area(ring) > 0, "counterclockwise (RFC 7946, 3.1.6)"
        corners = {
            (min(c * 8, size[1]), min(r * 8, size[0]))
            for c in (column, column + 1)
            for r in (properties["row"], properties["row"] + 1)
        }
        slow = sorted(tuple(round(v, 7) for v in slow_corner(maps.georeference, *corner)) for corner in corners)
        for got, want in zip(sorted(ring[:-1]), slow, strict=True):
            assert got == pytest.approx(want, abs=1.1e-7)


@pytest.mark.parametrize("points", [1, 30])
def test_lines_of_the_grid_computed_one_or_several_at_once_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    """A scene wider than what is computed at once takes its lines one by one."""
    maps = plan(25, 41, PLACES[PLACED[0]])
    write(tmp_path / "all.geojson", maps)
    monkeypatch.setattr("edgeslim.onboard.writing.cells._POINTS", points)
    write(tmp_path / "few.geojson", maps)
    assert (tmp_path / "few.geojson").read_bytes() == (tmp_path / "all.geojson").read_bytes()


def test_the_file_is_as_rfc_7946_wants_it(tmp_path: Path) -> None:
    label = ClassLabel('Wald "dicht"', "ü", "00FF00")
    found, _ = write(tmp_path / "cells.geojson", plan(30, 30, classes=(label,)))
    assert set(found) == {"type", "features"}, "no crs member"
    assert {f["properties"]["name"] for f in found["features"]} == {label.name}
    text = (tmp_path / "cells.geojson").read_text(encoding="utf-8")
    numbers = json.dumps([f["geometry"]["coordinates"] for f in found["features"]]).replace("[", "").replace("]", "")
    assert max(len(n.split(".")[1]) for n in numbers.split(", ")) == 7
    assert "\r" not in text


def test_a_golden_file(tmp_path: Path) -> None:
    maps = plan(8, 16, ground("EPSG:4326", Affine(0.125, 0, -0.5, 0, -0.125, 0)))
    writer = GeoJsonWriter(tmp_path / "cells.geojson", maps)
    writer.append(CellRow(0, np.array([1, NODATA], np.uint8), np.array([0.87654, 0], "f4"), np.array([1, 0], "f4")))
    assert writer.finish() == 0
    assert (tmp_path / "cells.geojson").read_text() == (
        '{"type":"FeatureCollection","features":[\n'
        '{"type":"Feature","properties":{"class":1,"name":"SeaLake","score":0.8765,"known":1.0,"row":0,"column":0},'
        '"geometry":{"type":"Polygon","coordinates":[[[-0.5,0.0],[-0.5,-1.0],[0.5,-1.0],[0.5,0.0],[-0.5,0.0]]]}}\n]}\n'
    )


def test_a_scene_without_known_cells_is_an_empty_collection(tmp_path: Path) -> None:
    found, _ = write(tmp_path / "cells.geojson", plan(30, 30), known_share=0)
    assert found == {"type": "FeatureCollection", "features": []}


def test_cells_on_the_antimeridian_are_cut(tmp_path: Path) -> None:
    maps = plan(8, 24, ground("EPSG:4326", Affine(0.1, 0, 178.8, 0, -0.1, 10)))  # the second cell: 179.6 ... 180.4
    found, _ = write(tmp_path / "cells.geojson", maps, known_share=1.1)
    first, torn, last = (f["geometry"] for f in found["features"])
    assert first["type"] == last["type"] == "Polygon"
    assert last["coordinates"][0][0][0] == pytest.approx(-179.6)
    assert torn["type"] == "MultiPolygon"
    (west,), (east,) = torn["coordinates"]
    assert sorted({p[0] for p in west}) == pytest.approx([179.6, 180])
    assert sorted({p[0] for p in east}) == pytest.approx([-180, -179.6])
    assert area(west) > 0
    assert area(east) > 0


def test_a_cell_on_a_pole_holds_it(tmp_path: Path) -> None:
    # 3 x 3 cells of 80 km; the pole is the middle of the middle one
    maps = plan(24, 24, ground("EPSG:3413", Affine(10000, 0, -120000, 0, -10000, 120000)))
    found, _ = write(tmp_path / "cells.geojson", maps, known_share=1.1)
    rings = [
        ring
        for f in found["features"]
        for ring in (
            f["geometry"]["coordinates"]
            if f["geometry"]["type"] == "Polygon"
            else [p[0] for p in f["geometry"]["coordinates"]]
        )
    ]
    assert max(p[1] for ring in rings for p in ring) == 90
    total = math.radians(1) ** 2 * sum(area(ring) for ring in rings)
    south = min(p[1] for ring in rings for p in ring)
    assert 0 < total < 2 * math.pi * math.radians(90 - south), "within the cap, in longitude and latitude"
    (middle,) = (f for f in found["features"] if (f["properties"]["row"], f["properties"]["column"]) == (1, 1))
    assert sorted({p[0] for ring in [middle["geometry"]["coordinates"][0]] for p in ring})[0] == -180
    assert area(middle["geometry"]["coordinates"][0]) == pytest.approx(360 * 0.45, rel=0.2)


def test_cells_beyond_the_projection_are_counted_not_invented(tmp_path: Path) -> None:
    maps = plan(8, 80, ground("ESRI:54009", Affine(500_000, 0, -20_000_000, 0, -500_000, 2_000_000)))  # Mollweide
    writer = GeoJsonWriter(tmp_path / "cells.geojson", maps)
    writer.append(CellRow(0, np.zeros(10, np.uint8), np.ones(10, "f4"), np.ones(10, "f4")))
    lost = writer.finish()
    found = json.loads((tmp_path / "cells.geojson").read_text())
    assert lost > 0
    assert len(found["features"]) == 10 - lost > 0


@given(st.floats(-180, 180), st.floats(-60, 60), st.floats(0.1, 40), st.floats(0.1, 20), st.booleans())
def test_cut_rings_keep_their_area(west: float, south: float, width: float, height: float, clockwise: bool) -> None:
    ring = [(west, south), (west + width, south), (west + width, south + height), (west, south + height)]
    wrapped = [((x + 180) % 360 - 180, y) for x, y in (ring[::-1] if clockwise else ring)]
    rings = polygons(wrapped)
    assert sum(area([list(p) for p in r]) for r in rings) == pytest.approx(width * height, rel=1e-6)
    for r in rings:
        assert r[0] == r[-1]
        assert area([list(p) for p in r]) > 0
        assert all(-180 <= x <= 180 for x, _ in r)
    box = longitudes(rings)
    assert (box[1] - box[0]) % 360 == pytest.approx(width, abs=1e-6)


def test_a_footprint_in_a_projection_has_curved_sides() -> None:
    (ring,) = Wgs84(ground()).footprint(10980, 10980)
    assert len(ring) == 33
    assert area([list(p) for p in ring]) > 0
    assert Wgs84(ground(None)).footprint(10, 10) == []
