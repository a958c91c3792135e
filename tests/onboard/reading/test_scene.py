from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import EdgeslimError, InputError, UsageError
from edgeslim.manifest import read_manifest
from edgeslim.onboard.classify import ClassifyOptions, SceneOptions, classify_scene
from edgeslim.onboard.reading.bands import band_names, pick_bands
from edgeslim.onboard.reading.scene import Scene, gdal_environment
from tests.onboard.artifacts import RGB, make_artifact, make_scene, smooth


def refuse(scene: Path, artifact: Path, error: type[EdgeslimError] = InputError, **options: object) -> str:
    """The one line with which a scene is refused; nothing may be left beside it."""
    out = scene.parent / "out"
    before = sorted(p.name for p in scene.parent.iterdir())
    with pytest.raises(error) as caught:
        classify_scene(scene, artifact, out, ClassifyOptions(threads=1, scene=SceneOptions(**options)))  # type: ignore[arg-type]
    assert sorted(p.name for p in scene.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("B2", {"b2"}),
        ("b02", {"b2"}),
        ("Band 8A", {"b8a"}),
        ("band_04", {"b4"}),
        (" Red ", {"red"}),
        (None, set()),
    ],
)
def test_names_are_normalised(text: str | None, names: set[str]) -> None:
    assert band_names(text) == names


def test_a_numbered_name_is_found_in_a_longer_text_and_a_colour_is_not() -> None:
    assert "b4" in band_names("B4, central wavelength 665 nm")
    assert "red" not in band_names("Red edge 1")


def test_colours_serve_where_nothing_has_a_name() -> None:
    assert pick_bands("s", RGB, [None] * 4, ["blue", "green", "red", "alpha"], None) == (3, 2, 1)


def test_colours_do_not_overrule_names() -> None:
    with pytest.raises(InputError, match="no band called B04"):
        pick_bands("s", RGB, ["B8", "B11", "B3"], ["red", "green", "blue"], None)


def test_two_bands_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="2 bands called B04"):
        pick_bands("s", RGB, ["B4", "red", "B3", "B2"], ["gray"] * 4, None)


@pytest.mark.parametrize(("asked", "picked"), [("3,2,1", (3, 2, 1)), ("B4, green ,1", (3, 2, 1)), ("1,1,1", (1, 1, 1))])
def test_bands_by_flag(asked: str, picked: tuple[int, ...]) -> None:
    assert pick_bands("s", RGB, ["B02", "B03", "B04", "B08"], ["gray"] * 4, asked) == picked


@pytest.mark.parametrize("asked", ["1,2", "1,2,3,4", "0,1,2", "1,2,9", "B04,B03,B12", "", "1,,2"])
def test_bands_by_a_wrong_flag(asked: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        pick_bands("s", RGB, ["B02", "B03", "B04", "B08"], ["gray"] * 4, asked)


def test_missing_folder_text_and_network(artifact: Path, tmp_path: Path) -> None:
    assert "no such file" in refuse(tmp_path / "nowhere.tif", artifact)
    (tmp_path / "text.tif").write_text("I am no raster", encoding="utf-8")
    assert "not a GeoTIFF" in refuse(tmp_path / "text.tif", artifact)
    (tmp_path / "folder.tif").mkdir()
    assert "folder" in refuse(tmp_path / "folder.tif", artifact)
    for name in ("https://example.org/x.tif", "s3://bucket/x.tif", "/vsicurl/https://example.org/x.tif"):
        with pytest.raises(InputError, match="network or virtual"):
            classify_scene(Path(name), artifact, tmp_path / "out")


def test_a_vrt_fetches_nothing(artifact: Path, tmp_path: Path) -> None:
    source = "<SimpleSource><SourceFilename>/vsicurl/http://127.0.0.1:9/x.tif</SourceFilename></SimpleSource>"
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{b.name}</Description>{source}</VRTRasterBand>'
        for i, b in enumerate(RGB, 1)
    )
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="20" rasterYSize="20"><SRS>EPSG:32630</SRS>'
        f"<GeoTransform>600000,10,0,4800000,0,-10</GeoTransform>{bands}</VRTDataset>",
        encoding="utf-8",
    )
    assert "network source" in refuse(vrt, artifact)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("layout", [{"blockysize": 4}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_a_truncated_file_leaves_nothing(
    artifact: Path, tmp_path: Path, kept: float, layout: dict[str, object]
) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(200, 60), **layout)
    whole = scene.read_bytes()
    scene.write_bytes(whole[: int(len(whole) * kept)])
    assert str(scene) in refuse(scene, artifact)


def test_damage_half_way_through_is_one_line(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(2000, 40), blockysize=4, compress="deflate")
    whole = scene.read_bytes()
    at = len(whole) * 3 // 8  # between the sampled windows: found only when the rows stream by
    scene.write_bytes(whole[:at] + b"\xff" * 600 + whole[at + 600 :])
    with pytest.raises(InputError, match="cannot be read at rows") as caught:
        classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1))
    assert "rows 0 to" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("layout", [{"blockysize": 7}, {"tiled": True, "blockxsize": 16, "blockysize": 32}, {}])
def test_any_rectangle_may_be_read(artifact: Path, tmp_path: Path, layout: dict[str, object], interleave: str) -> None:
    values = smooth(90, 50)
    values[1, 40:44, 3:9] = 0
    path = make_scene(tmp_path / "scene.tif", values, nodata=0, interleave=interleave, **layout)
    with gdal_environment(), Scene(path, read_manifest(artifact), SceneOptions()) as scene:
        for row, column, rows, columns in (
            (0, 0, 8, 50),
            (4, 7, 8, 20),
            (82, 0, 8, 1),
            (33, 2, 20, 10),
            (0, 0, 90, 50),
        ):
            found, valid = scene.read(row, column, rows, columns)
            there = slice(row, row + rows), slice(column, column + columns)
            assert found.dtype == np.uint16
            np.testing.assert_array_equal(found, values[:, there[0], there[1]])
            np.testing.assert_array_equal(valid, (values != 0).all(axis=0)[there])


def test_one_band_and_unnamed_bands(artifact: Path, tmp_path: Path) -> None:
    values = smooth(20, 20)
    one = make_scene(tmp_path / "one.tif", values[:1], descriptions=())
    assert "found 1 band" in (message := refuse(one, artifact))
    assert "expected 3 bands B04" in message
    unnamed = make_scene(tmp_path / "unnamed.tif", values, descriptions=(), photometric="minisblack")
    assert "--bands" in refuse(unnamed, artifact)


def test_complex_pixels(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(20, 20).astype(np.complex64))
    assert "complex64" in refuse(scene, artifact)


@pytest.mark.parametrize(
    ("crs", "size", "found"),
    [
        (None, 10, "no CRS"),
        ("EPSG:32630", 20, "20 m"),
        ("EPSG:32630", 7, "7 m"),
        ("EPSG:4326", 10, "e+05"),
        ("EPSG:2263", 10, "3.05 m"),  # feet
    ],
)
def test_another_ground_sample_distance(
    artifact: Path, tmp_path: Path, crs: str | None, size: float, found: str
) -> None:
    from rasterio.transform import Affine

    transform = None if crs is None else Affine(size, 0, 300, 0, -size, 45)
    scene = make_scene(tmp_path / "scene.tif", smooth(20, 20), crs=crs, transform=transform)
    message = refuse(scene, artifact)
    assert found in message
    assert "expected 10 m" in message
    assert "--accept-gsd" in message


def test_web_mercator_is_measured_on_the_ground(artifact: Path, tmp_path: Path) -> None:
    from rasterio.transform import Affine

    north = Affine(20, 0, 0, 0, -20, 8399737)  # 60 degrees north: 20 map metres are 10 on the ground
    scene = make_scene(tmp_path / "scene.tif", smooth(20, 20), crs="EPSG:3857", transform=north)
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1))
    assert summary.scene["gsd_m"] == pytest.approx(10, rel=0.01)
    assert sum(c.area_km2 or 0 for c in summary.classes) == pytest.approx(400e-4, rel=0.02)


@pytest.mark.parametrize(
    ("factor", "dtype", "said"),
    [
        (255 / 2750, "uint8", "cannot exceed"),
        (1e-4, "float32", "reach reflectance"),
        (20, "uint16", "reach reflectance"),
        (1000, "float32", "reach reflectance"),
    ],
)
def test_another_scale(artifact: Path, tmp_path: Path, factor: float, dtype: str, said: str) -> None:
    scene = make_scene(tmp_path / "scene.tif", (smooth(20, 20) * factor).astype(dtype))
    message = refuse(scene, artifact)
    assert said in message
    assert "--scale" in message
    assert "by the manifest" in message
    options = ClassifyOptions(threads=1, scene=SceneOptions(scale=1e-4 / factor))
    assert classify_scene(scene, artifact, tmp_path / "out", options).radiometry["basis"] == "flag"


def test_a_dark_scene_passes_with_an_explicit_scale_and_a_warning(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", (smooth(20, 20) / 50).astype(np.uint16))
    assert "--scale" in refuse(scene, artifact)
    options = ClassifyOptions(threads=1, scene=SceneOptions(scale=1e-4))
    assert any("check --scale" in w for w in classify_scene(scene, artifact, tmp_path / "out", options).warnings)


@pytest.mark.parametrize(
    "options", [{"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"offset": float("inf")}]
)
def test_impossible_scales(artifact: Path, tmp_path: Path, options: dict[str, float]) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(20, 20))
    assert "--" in refuse(scene, artifact, UsageError, **options)


def test_undeclared_zeros_are_pointed_out(artifact: Path, tmp_path: Path) -> None:
    values = smooth(40, 40)
    values[:, :20] = 0
    scene = make_scene(tmp_path / "scene.tif", values)
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1))
    assert any("0 in every band" in w for w in summary.warnings)


@pytest.mark.parametrize(
    "name",
    [
        "gdal__byte_truncated",
        "gdal__lzw_corrupted",
        "gdal__huge4GB",
        "gdal__many_blocks_truncated",
        "gdal__excessive-memory-TIFFFillTile",
        "gdal__hugeblocksize",
        "corrupt_image_rio_pansharpen",
    ],
)
def test_real_corrupt_files(shared_data: Path, tmp_path: Path, name: str) -> None:
    artifact = make_artifact(tmp_path / "artifact", gsd_m=None, bands=RGB[:1])
    options = ClassifyOptions(threads=1, scene=SceneOptions(bands="1", scale=1e-3))
    with pytest.raises(InputError, match=r"cannot be read|not a GeoTIFF|copy it again"):
        classify_scene(shared_data / "odd" / f"{name}.tif", artifact, tmp_path / "out", options)
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_real_ground_control_points(shared_data: Path, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", gsd_m=200.0, bands=RGB[:1])
    options = ClassifyOptions(threads=1, stride_px=8, scene=SceneOptions(bands="1", scale=1e-3))
    summary = classify_scene(shared_data / "odd" / "riotiler__cog_gcps.tif", artifact, tmp_path / "out", options)
    assert summary.scene["crs"] == "EPSG:4326"
    assert summary.scene["gsd_m"] == pytest.approx(202, rel=0.02)
