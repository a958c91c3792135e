from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds

from edgeslim.errors import InputError, MissingExtra, UsageError
from edgeslim.manifest import sha256_of
from edgeslim.onboard.reading.georeference import Georeference
from edgeslim.onboard.reading.scene import gdal_environment
from edgeslim.onboard.writing.maps import NODATA, CellRow, MapPlan, MapRows, OutputOptions
from edgeslim.onboard.writing.results import (
    AUTO_CELLS,
    CLASSES_NAME,
    RUN_NAME,
    STAC_NAME,
    SUMMARY_NAME,
    Results,
    every_result_name,
    result_names,
    results_bytes,
)
from edgeslim.onboard.writing.summary import ClassArea, Summary
from edgeslim.onboard.writing.thumbnail import Thumbnail
from tests.onboard.artifacts import RGB
from tests.onboard.places import PLACES, plan


def summary_of(maps: MapPlan, **changes: Any) -> Summary:
    areas = tuple(
        ClassArea(i, c.name, c.title, c.color, 5, 1 / len(maps.classes), 0.0005) for i, c in enumerate(maps.classes)
    )
    scene = {
        "path": "/data/a scene.tif",
        "files": {"a scene.tif": "ab" * 32},
        "width": maps.scene_width,
        "height": maps.scene_height,
        "crs": maps.georeference.name,
        "gsd_m": maps.georeference.gsd_m,
        "acquired": "2018-10-23T10:51:07Z",
    }
    summary = Summary(
        edgeslim="0.1.0",
        versions={"numpy": "2.2.6"},
        inputs_sha256="cd" * 32,
        scene=scene,
        artifact={
            "name": maps.artifact,
            "encoder": "tiny",
            "width_multiplier": 1.0,
            "sha256": {"model.onnx": "ef" * 32},
        },
        radiometry={"levels": ["L1C"]},
        prior="land",
        tile_px=8,
        stride_px=8,
        cells=False,
        tiles={"classified": 3, "skipped": 1},
        classes=areas,
        nodata_pixels=1,
        mean_confidence=0.5,
        warnings=("a warning of the scene",),
    )
    return replace(summary, **changes)


def write(
    folder: Path, maps: MapPlan, options: OutputOptions | None = None, rows_at_once: int = 37, **changes: Any
) -> Summary:
    """A whole run of random maps; the same maps for the same plan."""
    options = options or OutputOptions()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    classes = rng.choice(np.array([0, 1, 2, NODATA], np.uint8), (maps.height, maps.width))
    confidence = np.where(classes == NODATA, NODATA, rng.integers(30, 101, classes.shape)).astype(np.uint8)
    chances = rng.integers(0, 255, (len(maps.classes), *classes.shape), dtype=np.uint8)
    page = Thumbnail((maps.scene_height, maps.scene_width), (maps.height, maps.width), RGB)
    with gdal_environment():
        results = Results(folder, maps, options)
        try:
            for row in range(0, maps.height, rows_at_once):
                here = slice(row, row + rows_at_once)
                some = chances[:, here] if options.probabilities else None
                results.append(MapRows(row, classes[here], confidence[here], some))
                page.add_map(classes[here])
            for row in range(maps.cells_down):
                known = rng.random(maps.cells_across).astype(np.float32)
                label = rng.integers(0, len(maps.classes), maps.cells_across).astype(np.uint8)
                results.append_cells(CellRow(row, label, known, known))
            return results.finish(summary_of(maps, **changes), page, {"seconds": 1.5})
        except BaseException:
            results.abandon()
            raise


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("options", [OutputOptions(), OutputOptions(probabilities=True, vector="none")])
def test_a_folder_holds_what_the_summary_lists_and_nothing_else(
    tmp_path: Path, place: str, options: OutputOptions
) -> None:
    summary = write(tmp_path, plan(60, 80, PLACES[place]), options)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == set(summary.files)
    assert names <= set(result_names(options)) <= set(every_result_name())
    written = json.loads((tmp_path / SUMMARY_NAME).read_text(encoding="utf-8"))
    assert written["files"] == list(summary.files)
    assert json.loads((tmp_path / RUN_NAME).read_text()) == {"seconds": 1.5}
    placed = place not in ("nowhere", "no CRS", "no transform")
    assert ("cells.geojson" in names) == (placed and options.vector is None)
    assert any("no place on Earth" in w for w in summary.warnings) == (not placed and options.vector is None)
    for name in names:
        if name.endswith(".tif"):
            assert f"{Path(name).stem}.qml" in names


def test_two_runs_give_the_same_bytes_however_rows_come(tmp_path: Path) -> None:
    maps = plan(300, 290)
    options = OutputOptions(probabilities=True)
    write(tmp_path / "a", maps, options, rows_at_once=1)
    write(tmp_path / "b", maps, options, rows_at_once=300)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_cells_instead_of_pixels_keep_their_place(tmp_path: Path) -> None:
    write(tmp_path, plan(5, 7, step=8))
    with rasterio.open(tmp_path / CLASSES_NAME) as dataset:
        assert dataset.transform.a == 80
        assert dataset.shape == (5, 7)
    cells = json.loads((tmp_path / "cells.geojson").read_text())["features"]
    assert max(f["properties"]["row"] for f in cells) == 4


def test_geojson_is_left_out_where_nobody_could_open_it(tmp_path: Path) -> None:
    side = int(AUTO_CELLS**0.5) + 1
    maps = plan(side, side, cell_px=1)
    with gdal_environment():
        results = Results(tmp_path, maps, OutputOptions())
        assert not results.wants_cells
        results.abandon()
        results = Results(tmp_path, maps, OutputOptions(vector="geojson"))
        assert results.wants_cells
        results.abandon()


def test_impossible_options_cannot_be_built() -> None:
    with pytest.raises(UsageError, match="--vector"):
        OutputOptions(vector="shapefile")
    with pytest.raises(InputError, match="256 classes"):
        plan(5, 5, classes=plan(5, 5).classes[:1] * 256)


def test_a_missing_extra_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"edgeslim\[vector\]"):
        Results(tmp_path, plan(5, 5), OutputOptions(vector="geoparquet"))
    assert not list(tmp_path.iterdir())


def test_a_golden_item(tmp_path: Path) -> None:
    maps = plan(60, 80)
    write(tmp_path, maps)
    item = json.loads((tmp_path / STAC_NAME).read_text(encoding="utf-8"))
    assert item["id"] == "a-scene_tiny-w1-0"
    bounds = transform_bounds("EPSG:32630", "EPSG:4326", 600000, 4799400, 600800, 4800000)
    assert item["bbox"] == pytest.approx(bounds, abs=2e-7)
    assert item["properties"] == {
        "datetime": "2018-10-23T10:51:07Z",
        "proj:code": "EPSG:32630",
        "proj:shape": [60, 80],
        "proj:transform": [10, 0, 600000, 0, -10, 4800000],
        "proj:bbox": [600000, 4799400, 600800, 4800000],
        "processing:software": {"edgeslim": "0.1.0", "numpy": "2.2.6"},
        "edgeslim:scene": {"name": "a scene.tif", "sha256": {"a scene.tif": "ab" * 32}},
        "edgeslim:artifact": {
            "name": "tiny w1.0",
            "encoder": "tiny",
            "width_multiplier": 1.0,
            "sha256": {"model.onnx": "ef" * 32},
        },
        "edgeslim:prior": "land",
    }
    assert item["assets"]["classes"]["classification:classes"][1:] == [
        {"value": 1, "name": "SeaLake", "title": "Sea or lake", "color_hint": "2166AC"},
        {"value": 2, "name": "Residential", "title": "Residential", "color_hint": "D6604D"},
        {"value": 255, "name": "nodata", "title": "No data", "nodata": True},
    ]


def check_item(folder: Path, item: dict[str, Any]) -> None:
    """What the specification says, in our words; `test_the_schema_agrees` asks its authors' schema."""
    assert item["type"] == "Feature"
    assert item["stac_version"] == "1.1.0"
    assert isinstance(item["links"], list)
    assert ("bbox" in item) == (item["geometry"] is not None)
    if item["geometry"] is not None:
        west, south, east, north = item["bbox"]
        assert -180 <= west <= 180
        assert -180 <= east <= 180
        assert -90 <= south < north <= 90
    times = item["properties"]
    assert times["datetime"] is not None or {"start_datetime", "end_datetime"} <= set(times)
    used = {key.split(":")[0] for key in (*times, *(k for a in item["assets"].values() for k in a)) if ":" in key}
    short = {"projection": "proj"}
    declared = {short.get(name, name) for name in (url.split("/")[3] for url in item["stac_extensions"])}
    assert used - {"edgeslim"} == declared
    for asset in item["assets"].values():
        path = folder / asset["href"]
        assert asset["href"].startswith("./")
        assert asset["file:checksum"] == "1220" + sha256_of(path)
        assert asset["file:size"] == path.stat().st_size
    listed = {Path(a["href"]).name for a in item["assets"].values()}
    assert listed == {p.name for p in folder.iterdir()} - {RUN_NAME, STAC_NAME}


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("acquired", [None, "2018-10-23T10:51:07Z"])
def test_the_item_is_valid(tmp_path: Path, place: str, acquired: str | None) -> None:
    maps = plan(30, 40, PLACES[place])
    scene = {**summary_of(maps).scene, "acquired": acquired}
    write(tmp_path, maps, OutputOptions(probabilities=True), scene=scene)
    item = json.loads((tmp_path / STAC_NAME).read_text(encoding="utf-8"))
    check_item(tmp_path, item)
    assert (item["geometry"] is None) == (place in ("nowhere", "no CRS", "no transform"))


@pytest.mark.parametrize("place", sorted(PLACES))
def test_the_schema_agrees(tmp_path: Path, place: str) -> None:
    validation = pytest.importorskip(
        "pystac.validation.stac_validator", reason="pystac[validation], which brings the STAC schema, is not installed"
    )
    pytest.importorskip("jsonschema", reason="jsonschema is not installed: the STAC schema was not asked")
    from pystac import STACObjectType

    write(tmp_path, plan(30, 40, PLACES[place]))
    item = json.loads((tmp_path / STAC_NAME).read_text(encoding="utf-8"))
    validation.JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, item["stac_version"])


@pytest.mark.parametrize("limit", [0, 5_000, 60_000, 200_000, 330_000, 400_000])
@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path, limit: int) -> None:
    """A limit on the size of a file fails as a full disk does, wherever the writer happens to be."""
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from edgeslim.errors import InputError
from tests.onboard.places import plan
from tests.onboard.writing.test_results import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write(Path({str(tmp_path / "out")!r}), plan(700, 700))
except InputError as error:
    print(error)
else:
    print("written")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    if limit < 400_000:
        assert str(tmp_path / "out") in line
        assert "cannot be written (File too large)" in line


def test_a_really_full_disk_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no small tmpfs can be mounted here (that takes root)")
    try:
        with pytest.raises(InputError, match=r"^[^\n]*small/[^\n]*No space left on device[^\n]*$"):
            write(place, plan(900, 900))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_foretold_memory_follows_the_width_not_the_height() -> None:
    place: Georeference = PLACES["utm"]
    tall, taller = (results_bytes(plan(h, 10980, place, cell_px=64), OutputOptions()) for h in (10_000, 40_000))
    assert taller < tall * 1.05
    assert results_bytes(plan(10980, 10980, place, cell_px=64), OutputOptions()) < 16e6
