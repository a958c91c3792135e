from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from edgeslim.errors import InputError
from edgeslim.onboard.reading.georeference import Georeference
from edgeslim.onboard.reading.scene import gdal_environment
from edgeslim.onboard.writing import cog
from edgeslim.onboard.writing.cog import CogWriter, Encoding
from edgeslim.onboard.writing.layer import Layer, class_layer, confidence_layer, probability_layer
from edgeslim.onboard.writing.maps import NODATA
from edgeslim.onboard.writing.overview import mean_known, most_frequent
from edgeslim.scene_buffers import RESULT_BLOCK, level_sizes
from tests.onboard.places import PLACES, plan

MAKERS = {"class": class_layer, "confidence": confidence_layer, "probability": probability_layer}


def write(path: Path, kind: str, values: np.ndarray, cuts: list[int], place: Georeference | None = None) -> Path:
    """Write values (bands, height, width) in pieces that end at `cuts`."""
    with gdal_environment():
        layer: Layer = MAKERS[kind](path, plan(*values.shape[1:], place))
        start = 0
        for stop in [*sorted(set(cuts)), values.shape[1]]:
            if start < stop <= values.shape[1]:
                layer.append(values[:, start:stop])
                start = stop
        layer.finish()
    return path


def check_cog(path: Path) -> None:
    if importlib.util.find_spec("rio_cogeo") is None:
        return
    from rio_cogeo.cogeo import cog_validate

    with gdal_environment():
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


def test_the_oracle_is_here() -> None:
    """The other tests of this file look at structure themselves; this one says when rio-cogeo did not."""
    pytest.importorskip("rio_cogeo", reason="rio-cogeo is not installed: COGs are checked by our own rules only")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(MAKERS)),
    st.integers(1, 700),
    st.integers(1, 700),
    st.lists(st.integers(1, 700), max_size=6),
    st.integers(0, 9),
)
def test_any_split_of_rows_gives_the_same_pixels_and_bytes(
    tmp_path_factory: pytest.TempPathFactory, kind: str, height: int, width: int, cuts: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("cog")
    bands = 3 if kind == "probability" else 1
    random = np.random.default_rng(seed)
    values = random.choice(np.array([0, 1, 2, NODATA], np.uint8), (bands, height, width))
    for top, left in product(range(0, height, RESULT_BLOCK), range(0, width, RESULT_BLOCK)):
        block = values[:, top : top + RESULT_BLOCK, left : left + RESULT_BLOCK]
        for band in block if random.random() < 0.3 else [block] if random.random() < 0.5 else []:
            band[...] = random.choice([0, 1, NODATA])  # blocks of one value are written without being looked at again
    path = write(folder / "a.tif", kind, values, cuts)
    assert path.read_bytes() == write(folder / "b.tif", kind, values, []).read_bytes()
    halve = most_frequent if kind == "class" else mean_known
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.nodata == NODATA
        assert len(dataset.overviews(1)) == len(level_sizes(height, width)) - 1
    for level in range(len(level_sizes(height, width)) - 1):
        values = halve(values)
        with rasterio.open(path, overview_level=level) as dataset:
            np.testing.assert_array_equal(dataset.read(), values)
    assert {p.name for p in folder.iterdir()} == {"a.tif", "b.tif"}
    if width > 1 or height <= 512:  # the oracle refuses GDAL's own tall rasters of one pixel's width
        check_cog(path)


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("kind", ["class", "probability"])
def test_every_georeference_is_kept_as_gdal_keeps_it(tmp_path: Path, place: str, kind: str) -> None:
    values = np.zeros((3 if kind == "probability" else 1, 300, 300), np.uint8)
    ground = PLACES[place]
    path = write(tmp_path / "map.tif", kind, values, [], ground)
    check_cog(path)
    with gdal_environment(), rasterio.open(path) as dataset:
        assert dataset.crs == ground.crs
        found, crs = dataset.gcps
        assert [(g.row, g.col, g.x, g.y) for g in found] == [(g.row, g.col, g.x, g.y) for g in ground.gcps]
        assert crs == ground.gcps_crs
        assert dataset.transform.almost_equals(ground.transform)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_window_of_blocks_is_read_back_from_the_middle(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 101, (1, 1000, 1300), dtype=np.uint8)
    path = write(tmp_path / "map.tif", "confidence", values, [])
    with rasterio.open(path) as dataset:
        window = Window(500, 300, 400, 300)
        np.testing.assert_array_equal(dataset.read(1, window=window), values[0, 300:600, 500:900])


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_file_of_four_gibibytes_would_be_a_big_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    values = np.random.default_rng(1).integers(0, 101, (3 if kind == "probability" else 1, 600, 700), dtype=np.uint8)
    monkeypatch.setattr(cog, "CLASSIC_LIMIT", 1000)
    path = write(tmp_path / "map.tif", kind, values, [])
    assert path.read_bytes()[:4] == b"II\x2b\0"
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    check_cog(path)


def test_names_colours_and_units_are_in_the_files(tmp_path: Path) -> None:
    values = np.zeros((1, 20, 20), np.uint8)
    with rasterio.open(write(tmp_path / "classes.tif", "class", values, [])) as dataset:
        assert dataset.tags()["class_1"] == "SeaLake"
        assert dataset.tags(1)["class_1_title"] == "Sea or lake"
        assert dataset.tags()["artifact"] == "tiny w1.0"
        assert dataset.colormap(1)[1] == (0x21, 0x66, 0xAC, 255)
        assert dataset.colormap(1)[NODATA] == (0, 0, 0, 0)
        assert dataset.descriptions == ("class",)
    with rasterio.open(write(tmp_path / "probabilities.tif", "probability", values.repeat(3, 0), [])) as dataset:
        assert dataset.descriptions == ("Forest", "SeaLake", "Residential")
        assert dataset.scales == (1 / 254,) * 3
        assert dataset.tags(2)["title"] == "Sea or lake"


def test_overviews_of_the_class_map_are_in_its_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", "class", np.zeros((1, 600, 600), np.uint8), [])
    with rasterio.open(path, overview_level=0) as dataset:
        assert dataset.colormap(1)[2] == (0xD6, 0x60, 0x4D, 255)


def test_missing_rows_are_a_fault_of_the_caller(tmp_path: Path) -> None:
    writer = CogWriter(tmp_path / "map.tif", 1, 10, 10, Encoding(most_frequent, differences=False))
    writer.append(np.zeros((1, 9, 10), np.uint8))
    with pytest.raises(ValueError, match="9 of 10 rows"):
        writer.finish({}, {})
    writer.abandon()


def test_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        CogWriter(tmp_path / "gone" / "map.tif", 1, 10, 10, Encoding(most_frequent, differences=False))


def test_blocks_are_what_readers_of_cogs_like() -> None:
    assert RESULT_BLOCK % 16 == 0
    assert level_sizes(10980, 10980)[-1] == (172, 172)
    assert level_sizes(1, 3000) == [(1, 3000), (1, 1500), (1, 750), (1, 375), (1, 188)]
