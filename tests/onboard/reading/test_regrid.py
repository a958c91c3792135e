"""Files of other grids on the scene's: against georeferenced pixel centres, pixel by pixel, in plain Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from edgeslim.errors import InputError
from edgeslim.manifest import read_manifest
from edgeslim.onboard.reading.regrid import AxisMap, axis_map
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from tests.onboard.artifacts import TILE_PX, bands_named, make_artifact, make_scene, reference_cells, smooth
from tests.onboard.odd.command import edgeslim


def slow(
    values: np.ndarray, valid: np.ndarray, source: Affine, target: Affine, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Values (bands, h, w) on another grid and their validity, from map coordinates, one pixel at a time.

    Each axis on its own: bilinear between the centres around the new centre where the new pixel is not larger, else the
    mean over the new pixel's footprint. Invalid pixels weigh nothing; at least half of the weight must be valid.
    """
    bands, height, width = values.shape
    result, known = np.zeros((bands, *shape)), np.zeros(shape, bool)

    def weights(size: int, start: float, stop: float) -> dict[int, float]:
        middle = (start + stop) / 2
        if stop - start <= 1 + 1e-9:
            if not -1e-9 <= middle <= size + 1e-9:
                return {}
            low = math.floor(middle - 0.5)
            share = middle - 0.5 - low
            found: dict[int, float] = {}
            for i, w in ((low, 1 - share), (low + 1, share)):
                i = min(max(i, 0), size - 1)
                found[i] = found.get(i, 0.0) + w
            return found
        return {
            i: (min(i + 1, stop) - max(i, start)) / (stop - start)
            for i in range(max(0, math.floor(start)), min(size, math.ceil(stop)))
        }

    back = ~source
    for row in range(shape[0]):
        for column in range(shape[1]):
            left, top = back @ (target @ (column, row))
            right, bottom = back @ (target @ (column + 1, row + 1))
            down, across = weights(height, top, bottom), weights(width, left, right)
            total, sums = 0.0, np.zeros(bands)
            for r, a in down.items():
                for c, b in across.items():
                    if valid[r, c]:
                        total += a * b
                        sums += a * b * values[:, r, c]
            if total >= 0.5 - 1e-4:
                known[row, column] = True
                result[:, row, column] = sums / total
    return result, known


def open_scene(path: Path, artifact: Path, **options: object) -> Scene:
    return Scene(path, read_manifest(artifact), SceneOptions(**options))  # type: ignore[arg-type]


@settings(max_examples=200)
@given(
    size=st.integers(1, 50),
    count=st.integers(1, 60),
    scale=st.floats(0.05, 20),
    offset=st.floats(-30, 30),
    data=st.data(),
)
def test_taps_do_not_depend_on_the_span(
    size: int, count: int, scale: float, offset: float, data: st.DataObject
) -> None:
    axis = AxisMap(size, scale, offset, count)
    whole = axis.taps(0, count)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    part = axis.taps(start, stop)
    np.testing.assert_array_equal(part.weights, whole.weights[:, start:stop])
    used = part.weights > 0
    np.testing.assert_array_equal((part.index + part.first)[used], (whole.index + whole.first)[:, start:stop][used])
    assert 0 <= part.first <= part.stop <= size
    assert part.stop - part.first <= axis.span(stop - start)
    assert (part.index >= 0).all()
    assert (part.weights >= 0).all()
    assert (part.weights.sum(axis=0) <= 1 + 1e-5).all()


@given(size=st.integers(2, 300), factor=st.integers(1, 6), shift=st.integers(-12, 12))
def test_whole_and_half_pixels_survive_rounding(size: int, factor: int, shift: int) -> None:
    exact = axis_map(size, 1 / factor, shift / (2 * factor), size)
    noisy = axis_map(size, 1 / factor * (1 + 1e-9), shift / (2 * factor) + 1e-8, size)
    assert exact == noisy


@pytest.mark.parametrize(
    ("size", "pixel", "origin"),
    [
        ((13, 11), 20.0, (600000, 4800000)),  # 10 + 20 m on one corner
        ((14, 12), 20.0, (599990, 4800010)),  # Theia: half a 20 m pixel aside
        ((5, 6), 60.0, (600000, 4800000)),  # 60 m
        ((40, 50), 5.0, (600000, 4800000)),  # finer than the scene: averaged
        ((24, 22), 10.0, (600030, 4799980)),  # shifted by whole pixels, and short of the scene
        ((20, 22), 10.0, (600000, 4800000)),  # the scene's own pixels, and short of it
        ((30, 30), 7.3, (600001.7, 4800002.9)),
        ((15, 14), 16.4, (599977.7, 4800012.9)),
    ],
)
@pytest.mark.parametrize("holes", [False, True])
def test_a_stack_lies_by_pixel_centres(
    tmp_path: Path, size: tuple[int, int], pixel: float, origin: tuple[float, float], holes: bool
) -> None:
    artifact = make_artifact(tmp_path / "artifact", bands=bands_named("B04", "B11", "B03", "B12"))
    grid = Affine(10, 0, 600000, 0, -10, 4800000)
    other = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    fine, coarse = smooth(24, 26, bands=2), smooth(*size, seed=4, bands=2)
    if holes:
        coarse[0, 2:5, 3:6] = 0
        coarse[1, -1, :4] = 0
        fine[1, 10, 10] = 0
    first = make_scene(tmp_path / "10m.tif", fine, descriptions=("B03", "B04"), transform=grid, nodata=0)
    second = make_scene(
        tmp_path / "20m.tif", coarse, descriptions=("B11", "B12"), transform=other, nodata=0, blockysize=3
    )
    expected, seen = slow(coarse, (coarse > 0).all(axis=0), other, grid, (24, 26))
    with gdal_environment(), open_scene(first, artifact, stack=(second,)) as scene:
        assert scene.bands == (2, 3, 1, 4)
        assert set(scene.files) == {first.resolve(), second.resolve()}
        values, valid = scene.read(0, 0, 24, 26)
        np.testing.assert_array_equal(valid, seen & (fine > 0).all(axis=0))
        np.testing.assert_array_equal(values[[0, 2]][:, valid], fine[[1, 0]][:, valid])
        np.testing.assert_allclose(values[[1, 3]][:, valid], expected[:, valid], rtol=3e-6)
        for row, column, rows, columns in ((0, 0, 1, 1), (3, 5, 7, 9), (23, 0, 1, 26), (9, 25, 15, 1), (11, 13, 2, 2)):
            part, known = scene.read(row, column, rows, columns)
            there = slice(row, row + rows), slice(column, column + columns)
            np.testing.assert_array_equal(known, valid[there])
            np.testing.assert_array_equal(part[:, known], values[:, there[0], there[1]][:, known])


@pytest.mark.parametrize("pixel", [20.0, 5.0, 3.3, 14.0, 2.5])
@pytest.mark.parametrize("turn", [0.0, 30.0])
def test_resampling_keeps_the_extent(tmp_path: Path, pixel: float, turn: float) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    values = smooth(44, 36)
    values[:, 20:26, 11:15] = 0
    grid = Affine.translation(600000, 4800000) @ Affine.rotation(turn) @ Affine.scale(pixel, -pixel)
    path = make_scene(tmp_path / "scene.tif", values, transform=grid, nodata=0)
    with gdal_environment(), open_scene(path, artifact, resample=True) as scene:
        assert (scene.width, scene.height) == (round(36 * pixel / 10), round(44 * pixel / 10))
        new = scene.georeference.transform
        np.testing.assert_allclose(new @ (scene.width, scene.height), grid @ (36, 44))
        assert scene.georeference.gsd_m == pytest.approx(10, rel=0.06)
        found, valid = scene.read(0, 0, scene.height, scene.width)
        expected, known = slow(values, (values > 0).all(axis=0), grid, new, (scene.height, scene.width))
        np.testing.assert_array_equal(valid, known)
        np.testing.assert_allclose(found[:, valid], expected[:, valid], rtol=3e-6)
        for row in range(0, scene.height, 3):
            rows = min(3, scene.height - row)
            part, seen = scene.read(row, 1, rows, scene.width - 1)
            np.testing.assert_array_equal(seen, valid[row : row + rows, 1:])
            np.testing.assert_array_equal(part, found[:, row : row + rows, 1:])


def test_resampling_degrees_makes_square_metres(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    degrees = 20 / 111320
    grid = Affine(degrees, 0, 7, 0, -degrees, 60)  # at 60 degrees north 20 m from north to south, 10 m across
    path = make_scene(tmp_path / "scene.tif", smooth(40, 60), crs="EPSG:4326", transform=grid)
    with gdal_environment(), open_scene(path, artifact, resample=True) as scene:
        assert (scene.width, scene.height) == (60, 80)
        assert scene.georeference.gsd_xy_m == pytest.approx((10, 10), rel=0.01)


def test_a_scene_of_the_right_size_is_not_resampled(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    values = smooth(40, 60)
    path = make_scene(tmp_path / "scene.tif", values)
    with gdal_environment(), open_scene(path, artifact, resample=True) as scene:
        assert scene.dtype == "uint16"
        np.testing.assert_array_equal(scene.read(0, 0, 40, 60)[0], values)


def test_an_unknown_size_cannot_be_resampled(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    path = make_scene(tmp_path / "scene.tif", smooth(40, 60), crs=None, transform=None)
    with gdal_environment(), pytest.raises(InputError, match="no CRS"):
        open_scene(path, artifact, resample=True)


@pytest.mark.parametrize(
    ("crs", "transform", "said"),
    [
        ("EPSG:32631", Affine(20, 0, 600000, 0, -20, 4800000), "EPSG:32631"),
        (None, None, "CRS none"),
        ("EPSG:32630", Affine(20, 0, 700000, 0, -20, 4800000), "no pixel"),
        ("EPSG:32630", Affine(20, 5, 600000, 5, -20, 4800000), "turned"),
        ("EPSG:32630", Affine(20, 0, 600000, 0, 20, 4799000), "turned"),
    ],
)
def test_what_cannot_be_stacked(tmp_path: Path, crs: str | None, transform: Affine | None, said: str) -> None:
    artifact = make_artifact(tmp_path / "artifact", bands=bands_named("B04", "B11"))
    first = make_scene(tmp_path / "a.tif", smooth(40, 60, bands=1), descriptions=("B04",))
    second = make_scene(
        tmp_path / "b.tif", smooth(20, 30, bands=1), descriptions=("B11",), crs=crs, transform=transform
    )
    with gdal_environment(), pytest.raises(InputError, match=said) as caught:
        open_scene(first, artifact, stack=(second,))
    assert "\n" not in str(caught.value)


def test_a_real_pair_of_10_and_20_m(shared_data: Path, tmp_path: Path) -> None:
    ten = shared_data / "scenes" / "s2_t30typ_20181023_10m_b2b3b4b8.tif"
    twenty = shared_data / "scenes" / "s2_t30typ_20181023_20m_b5b6b7b8ab11b12.tif"
    artifact = make_artifact(tmp_path / "artifact", bands=bands_named("B04", "B8A", "B11", "B02"))
    window = rasterio.windows.Window(1150, 1120, 48, 50)  # the last row and column lie beyond the 20 m file
    with rasterio.open(ten) as fine, rasterio.open(twenty) as coarse:
        target = fine.transform @ Affine.translation(window.col_off, window.row_off)
        whole = coarse.read([4, 5])
        expected, seen = slow(whole, np.ones(whole.shape[1:], bool), coarse.transform, target, (50, 48))
        plain = fine.read([3, 1], window=window)
    assert not seen[:, -1].any()
    assert not seen[-1].any()
    assert seen[:-1, :-1].all()
    with gdal_environment(), open_scene(ten, artifact, stack=(twenty,)) as scene:
        values, valid = scene.read(1120, 1150, 50, 48)
        np.testing.assert_array_equal(valid, seen)
        np.testing.assert_array_equal(values[[0, 3]], plain)
        np.testing.assert_allclose(values[[1, 2]][:, valid], expected[:, valid], rtol=3e-6)
        whole_values, whole_valid = scene.read(0, 0, scene.height, scene.width)
        np.testing.assert_array_equal(whole_values[:, 1120:, 1150:], values)
        np.testing.assert_array_equal(whole_valid[1120:, 1150:], valid)


def map_of(out: Path) -> np.ndarray:
    with rasterio.open(out / "classes.tif") as dataset:
        return dataset.read(1)


def assert_map(found: np.ndarray, values: np.ndarray, valid: np.ndarray) -> None:
    for rows, columns, chances in reference_cells(values, valid, TILE_PX):
        if chances is None:
            assert (found[rows, columns] == 255).all()
        else:
            assert np.ptp(np.sort(chances)[-2:]) > 1e-4
            expected = np.where(valid[rows, columns], chances.argmax(), 255)
            np.testing.assert_array_equal(found[rows, columns], expected)


def test_the_map_of_a_stack(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", bands=bands_named("B04", "B11", "B03"))
    grid, other = Affine(10, 0, 600000, 0, -10, 4800000), Affine(20, 0, 599990, 0, -20, 4800010)
    fine, coarse = smooth(45, 52, bands=2), smooth(22, 27, seed=4, bands=1)
    coarse[0, 5:9, 8:11] = 0
    first = make_scene(tmp_path / "a.tif", fine, descriptions=("B03", "B04"), transform=grid)
    second = make_scene(tmp_path / "b.tif", coarse, descriptions=("B11",), transform=other, nodata=0)
    run = edgeslim(
        "classify", first, "-o", tmp_path / "out", "--artifact", artifact, "--stride", str(TILE_PX), "--stack", second
    )
    assert run.code == 0, run.stderr
    expected, seen = slow(coarse, coarse[0] > 0, other, grid, (45, 52))
    assert_map(map_of(tmp_path / "out"), np.stack([fine[1], expected[0], fine[0]]), seen)


@pytest.mark.parametrize("pixel", [20.0, 4.0])
def test_the_map_of_a_resampled_scene(tmp_path: Path, pixel: float) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    grid = Affine(pixel, 0, 600000, 0, -pixel, 4800000)
    values = smooth(60, 75)
    values[:, 20:31, 11:27] = 0
    path = make_scene(tmp_path / "scene.tif", values, transform=grid, nodata=0)
    run = edgeslim(
        "classify", path, "-o", tmp_path / "out", "--artifact", artifact, "--stride", str(TILE_PX), "--resample"
    )
    assert run.code == 0, run.stderr
    assert "resampled from" in run.stderr
    with rasterio.open(tmp_path / "out" / "classes.tif") as dataset:
        shape, transform = dataset.shape, dataset.transform
    assert transform.almost_equals(Affine(10, 0, 600000, 0, -10, 4800000))
    expected, seen = slow(values, (values > 0).all(axis=0), grid, transform, shape)
    assert_map(map_of(tmp_path / "out"), expected, seen)
