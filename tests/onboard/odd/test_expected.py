"""Every file of the table expected.toml, through the command line, against a numpy reference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from edgeslim.shelf import read_toml
from tests.onboard.artifacts import bands_named, make_artifact, reference_cells
from tests.onboard.odd.command import MEMORY_MIB, Finished, edgeslim
from tests.onboard.odd.reference import read_whole

TILE_PX = 16
TABLE: list[dict[str, Any]] = read_toml(Path(__file__).with_name("expected.toml"))["file"]
NODATA = 255


def _id(row: dict[str, Any]) -> str:
    return " ".join([Path(row["name"]).stem, *row["flags"]])


def _classify(row: dict[str, Any], data: Path, tmp_path: Path) -> Finished:
    tile = row.get("tile_px", TILE_PX)
    artifact = make_artifact(
        tmp_path / "artifact", bands=bands_named(*row["bands"]), gsd_m=row.get("gsd_m"), tile_px=tile
    )
    scene, out = data / row["name"], tmp_path / "out"
    run = edgeslim("classify", scene, "-o", out, "--artifact", artifact, "--stride", str(tile), *row["flags"])
    assert "Traceback" not in run.stderr
    assert run.peak_mib < MEMORY_MIB
    return run


def test_the_table_holds_every_file(shared_data: Path) -> None:
    files = {f"{folder}/{p.name}" for folder in ("odd", "scenes") for p in (shared_data / folder).glob("*.tif")}
    assert files == {row["name"] for row in TABLE}


@pytest.mark.parametrize("row", [r for r in TABLE if r["outcome"] == "refused"], ids=_id)
def test_a_refusal_is_one_line(shared_data: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    run = _classify(row, shared_data, tmp_path)
    assert run.code in (1, 2)
    assert len(run.stderr.strip().splitlines()) == 1
    assert row["words"] in run.stderr
    assert Path(row["name"]).name in run.stderr
    assert not run.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("row", [r for r in TABLE if r["outcome"] == "map"], ids=_id)
def test_a_map_is_that_of_the_reference(shared_data: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    run = _classify(row, shared_data, tmp_path)
    assert run.code == 0, run.stderr
    assert all(line.startswith("warning: ") for line in run.stderr.splitlines()), run.stderr
    assert row.get("words", "") in run.stderr
    values, valid, (crs, transform) = read_whole(shared_data / row["name"], row["reads"], row.get("image"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "out" / "classes.tif") as dataset:
            found = dataset.read(1)
            if crs is not None:
                assert dataset.crs == crs
                assert dataset.transform.almost_equals(transform, 1e-9)
        with rasterio.open(tmp_path / "out" / "confidence.tif") as dataset:
            percent = dataset.read(1)
    assert found.shape == valid.shape
    compared = classified = 0
    gain, bias = row["scale"] / 1e-4, row.get("offset", 0.0) / 1e-4
    for rows, columns, chances in reference_cells(values, valid, row.get("tile_px", TILE_PX), gain, bias):
        here, known = found[rows, columns], valid[rows, columns]
        if chances is None:
            assert (here == NODATA).all()
            continue
        assert ((here != NODATA) == known).all()
        classified += 1
        second, first = np.sort(chances)[-2:]
        assert (np.abs(percent[rows, columns][known] - first * 100.0) < 0.51).all()
        if first - second > 1e-4:  # below, the two are a rounding apart
            assert (here[known] == chances.argmax()).all()
            compared += 1
    assert compared >= 0.9 * classified
