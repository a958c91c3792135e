"""Rasters of every make that rasterio can write, read in pieces and held against a plain whole read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.reading.acquired import rfc3339
from edgeslim.onboard.reading.header import _Reader
from edgeslim.onboard.reading.nodata import mark_of, strike
from edgeslim.onboard.reading.raster import Raster
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from edgeslim.onboard.reading.vrt import vrt_sources
from edgeslim.profile import Band, Radiometry
from tests.onboard.artifacts import SENTINEL2, UTM, bands_named, make_scene, smooth
from tests.onboard.odd.reference import read_whole

RGB = bands_named("B04", "B03", "B02")


@contextmanager
def quietly() -> Iterator[None]:
    """Rasters without a place are what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


class Wanted:
    """An encoder as far as a scene cares."""

    def __init__(self, bands: tuple[Band, ...], gsd_m: float | None = None) -> None:
        self.bands = bands
        self.gsd_m = gsd_m
        count = len(bands)
        self.radiometry = Radiometry(("L1C",), 1e-4, 0.0, (0.0, 2750.0), (0.0,) * count, (1.0,) * count, 10.0)


def check(path: Path, reads: list[int] | str = "all", bands: tuple[Band, ...] | None = None, **options: Any) -> Scene:
    """Read a file in several cuts and compare with one plain read. Returns the closed scene, for its facts."""
    if reads == "all":
        with quietly(), rasterio.open(path) as dataset:
            reads = [i for i, c in enumerate(dataset.colorinterp, 1) if c != ColorInterp.alpha][:13]
    count = 3 if isinstance(reads, str) else len(reads)
    if bands is None:
        options.setdefault("bands", None if isinstance(reads, str) else ",".join(map(str, reads)))
    wanted = Wanted(bands or (RGB if isinstance(reads, str) else SENTINEL2[:count]))
    expected, known, _ = read_whole(path, reads, options.get("image"))
    options.setdefault("scale", 1e-9)
    with gdal_environment(), Scene(path, wanted, SceneOptions(**options)) as scene:
        assert (scene.height, scene.width) == known.shape
        assert len(scene.bands) == count
        assert scene.always_valid <= bool(known.all())
        high, wide = scene.block_px
        assert 1 <= high <= scene.height
        assert 1 <= wide <= scene.width
        for rows, columns in ((scene.height, scene.width), (high, wide), (max(1, high // 3), max(1, wide // 2 + 1))):
            while -(-scene.height // rows) * -(-scene.width // columns) > 400:
                rows, columns = min(scene.height, rows * 2), min(scene.width, columns * 2)
            assert scene.read_bytes(rows, columns) > 0
            for row in range(0, scene.height, rows):
                for column in range(0, scene.width, columns):
                    there = slice(row, row + rows), slice(column, column + columns)
                    seen = known[there]
                    values, valid = scene.read(row, column, *seen.shape)
                    assert values.dtype == scene.dtype
                    np.testing.assert_array_equal(valid, seen)
                    np.testing.assert_array_equal(values[:, seen], expected[:, there[0], there[1]][:, seen])
    return scene


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    return make_scene(path, values, descriptions=(), **options)


def refused(path: Path, said: str, wanted: tuple[Band, ...] = RGB, **options: Any) -> None:
    with (
        gdal_environment(),
        pytest.raises(InputError, match=said) as caught,
        Scene(path, Wanted(wanted), SceneOptions(**{"scale": 1e-9, **options})) as scene,
    ):
        scene.read(0, 0, scene.height, scene.width)
    assert "\n" not in str(caught.value)


DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "layout",
    [
        {"interleave": "pixel", "blockysize": 5},
        {"interleave": "band", "blockysize": 61},
        {"interleave": "pixel", "tiled": True, "blockxsize": 16, "blockysize": 48, "compress": "deflate"},
        {
            "interleave": "band",
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 16,
            "compress": "lzw",
            "ENDIANNESS": "BIG",
        },
    ],
)
def test_types_and_layouts(tmp_path: Path, dtype: str, layout: dict[str, Any]) -> None:
    values = (smooth(61, 70, bands=4) % 120).astype(dtype)
    values[2, 30:35, 20:] = 7
    plain = {"photometric": "minisblack", **layout}
    scene = check(write(tmp_path / "s.tif", values, **plain), reads=[4, 1, 3])
    assert scene.dtype == dtype
    check(write(tmp_path / "n.tif", values, nodata=7, **plain))


def test_an_alpha_band_that_is_asked_for_is_data(tmp_path: Path) -> None:
    values = (smooth(20, 30, bands=4) % 250).astype(np.uint8)  # infrared that its writer took for alpha
    values[3, :5] = 0
    path = write(tmp_path / "s.tif", values, photometric="rgb", alpha="yes")
    with gdal_environment(), Scene(path, Wanted(SENTINEL2[:4]), SceneOptions(bands="1,2,3,4", scale=1e-3)) as scene:
        found, valid = scene.read(0, 0, 20, 30)
        np.testing.assert_array_equal(found, values)
        assert valid.all()


@pytest.mark.parametrize(
    "codec",
    [
        {"compress": "lzw", "predictor": 2},
        {"compress": "deflate", "predictor": 2, "interleave": "pixel"},
        {"compress": "zstd", "predictor": 2},
        {"compress": "lzma"},
        {"compress": "packbits"},
        {"compress": "lerc"},
        {"compress": "lerc_zstd"},
        {"compress": "deflate", "BIGTIFF": "YES"},
        {"compress": "deflate", "NBITS": 12},
        {"compress": "deflate", "NBITS": 9, "interleave": "pixel"},
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_codecs(tmp_path: Path, codec: dict[str, Any], tiled: bool) -> None:
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 16} if tiled else {"blockysize": 9}
    check(write(tmp_path / "s.tif", smooth(50, 75) % 500, **layout, **codec))


@pytest.mark.parametrize(
    "codec",
    [
        {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"},
        {"compress": "jpeg", "photometric": "rgb", "interleave": "pixel"},
        {"compress": "jpeg", "interleave": "band"},
        {"compress": "webp", "interleave": "pixel"},
        {"compress": "deflate", "photometric": "cielab"},
        {"compress": "deflate", "photometric": "miniswhite"},
        {"NBITS": 1},
        {"NBITS": 4, "compress": "lzw"},
    ],
)
def test_eight_bits(tmp_path: Path, codec: dict[str, Any]) -> None:
    values = (smooth(50, 75) % (2 if codec.get("NBITS") == 1 else 16)).astype(np.uint8) * (
        1 if "NBITS" in codec else 10
    )
    check(write(tmp_path / "s.tif", values, blockysize=16, **codec))


@pytest.mark.parametrize("codec", ["ccittfax4", "ccittfax3", "ccittrle"])
def test_fax(tmp_path: Path, codec: str) -> None:
    values = (smooth(50, 75, bands=1) % 2).astype(np.uint8)
    check(write(tmp_path / "s.tif", values, compress=codec, NBITS=1))


@pytest.mark.parametrize("options", [{"predictor": 3}, {"NBITS": 16}, {"compress": "lerc"}])
def test_floats_with_holes(tmp_path: Path, options: dict[str, Any]) -> None:
    values = smooth(50, 75).astype(np.float32)
    values[0, 3:8] = np.nan
    values[1, :, 40] = np.inf
    values[2, 20, 20] = -9999
    path = write(tmp_path / "s.tif", values, nodata=-9999, **{"compress": "deflate", **options})
    check(path, scale=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [-3.4028234663852886e38, 3.4028234663852886e38, float("nan"), 0.1, -32768.0, 1e-30])
def test_real_nodata(tmp_path: Path, dtype: str, nodata: float) -> None:
    values = smooth(20, 30).astype(dtype)
    values[1, 4:9, 5:12] = nodata
    values[0, 0, 0] = np.float32(nodata)  # as a tool that thinks in float32 would write it
    check(write(tmp_path / "s.tif", values, nodata=nodata), scale=1e-9)


@pytest.mark.parametrize("nodata", [300.0, -1.0, 255.0, 0.0])
def test_nodata_out_of_the_type(tmp_path: Path, nodata: float) -> None:
    values = (smooth(20, 30) % 256).astype(np.uint8)
    path = write(tmp_path / "s.tif", values)
    vrt = tmp_path / "s.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">s.tif</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i in (1, 2, 3)
    )
    vrt.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>', encoding="utf-8")
    scene = check(vrt)
    assert set(scene.files) == {vrt.resolve(), path.resolve()}


@pytest.mark.parametrize("before", ['<?xml version="1.0" encoding="UTF-8"?>\n', "<!-- by hand -->\n", "\ufeff", " \n"])
def test_what_may_stand_before_a_virtual_raster(tmp_path: Path, before: str) -> None:
    path, vrt = write(tmp_path / "s.tif", smooth(20, 30)), tmp_path / "s.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">s.tif'
        f"</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    vrt.write_text(f'{before}<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>', encoding="utf-8")
    assert set(check(vrt).files) == {vrt.resolve(), path.resolve()}


def test_a_virtual_raster_in_a_comment_is_none(tmp_path: Path) -> None:
    (tmp_path / "s.vrt").write_text("<!-- <VRTDataset> --><GDAL_WMS><Service/></GDAL_WMS>", encoding="utf-8")
    with pytest.raises(InputError, match="found GDAL_WMS, expected a VRTDataset"):
        vrt_sources(tmp_path / "s.vrt", allow_network=False)


def test_half_a_unit_equals_no_whole_number() -> None:
    assert mark_of(1.5, np.dtype(np.uint8), np.dtype(np.uint8)) is None  # GDAL's own mask would cut it to 1


@settings(max_examples=300)
@given(
    dtype=st.sampled_from(DTYPES),
    nodata=st.one_of(st.floats(allow_nan=True), st.integers(-(2**40), 2**40), st.just(None)),
    data=st.data(),
)
def test_marks_strike_what_equals_them(dtype: str, nodata: float | None, data: st.DataObject) -> None:
    kind = np.dtype(dtype)
    mark = mark_of(nodata, kind, kind)
    if mark is None:
        return
    near = np.array([mark.low, mark.high], kind)
    assert not strike(near[None, None], [mark], np.empty((0, 1, 2)), [])[0].any()  # type: ignore[index]
    if kind.kind != "f":
        other = data.draw(st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max)).filter(lambda v: v != nodata))
        found = strike(np.array([[[other]]], kind), [mark], np.empty((0, 1, 1)), [])
        assert found is None or found.all()
        mixed = np.array([[[other, nodata, other]]], kind)
        found = strike(mixed, [mark], np.empty((0, 1, 3)), [])
        assert found is not None
        assert found.tolist() == [[True, False, True]]


@pytest.mark.parametrize("internal", [True, False])
def test_mask_bands(tmp_path: Path, internal: bool) -> None:
    values = smooth(70, 80)
    mask = np.full((70, 80), 255, np.uint8)
    mask[20:40, 15:60] = 0
    path = tmp_path / "s.tif"
    if internal:
        write(path, values, mask=mask, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    else:
        write(path, values, tiled=True, blockxsize=16, blockysize=16)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
        assert (tmp_path / "s.tif.msk").exists()
    scene = check(path)
    assert len(scene.files) == (1 if internal else 2)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_and_nodata_both_count(tmp_path: Path, dtype: str, interleave: str) -> None:
    values = (smooth(30, 40, bands=4) % 200 + 1).astype(dtype)
    values[3] = 9
    values[3, 5:10] = 0
    values[1, :, 30:33] = 0
    path = write(tmp_path / "s.tif", values, nodata=0, photometric="rgb", alpha="yes", interleave=interleave)
    scene = check(path, bands=RGB, reads=[1, 2, 3])
    assert scene.band_names == ("red", "green", "blue")


def test_nodata_of_all_bands_together(tmp_path: Path) -> None:
    values = (smooth(30, 40) % 200 + 1).astype(np.uint8)
    values[:, 4:9, 7:] = 0
    values[0, 20:] = 0  # one band alone at 0 is a value
    path = write(tmp_path / "s.tif", values)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="0 0 0")
    check(path)


@pytest.mark.parametrize("alpha", [255, 0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_palettes(tmp_path: Path, dtype: str, alpha: int) -> None:
    values = (smooth(40, 50, bands=1) % 6).astype(dtype)
    path = write(tmp_path / "s.tif", values, photometric="palette", nodata=2)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i * 40, 255 - i * 30, i, 255 if i != 4 else alpha) for i in range(6)})
    scene = check(path, reads="palette", bands=RGB)
    assert scene.dtype == "uint8"
    assert scene.band_names == ("red", "green", "blue")
    assert any("palette" in w for w in scene.warnings)
    check(path, reads=[1])
    refused(path, "palette", bands_named("B08", "B04"))
    with gdal_environment(), Scene(path, Wanted(RGB), SceneOptions(bands="blue,red,green", scale=1e-3)) as turned:
        assert turned.bands == (3, 1, 2)


@pytest.mark.parametrize("factors", [[2], [2, 4]])
def test_overviews_change_nothing(tmp_path: Path, factors: list[int]) -> None:
    path = write(tmp_path / "s.tif", smooth(130, 140), tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(factors)
    check(path)


def test_rubbish_overviews_refuse_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", smooth(130, 140), tiled=True, blockxsize=16, blockysize=16)
    write(tmp_path / "rubbish.tif", np.full((3, 65, 70), 65535, np.uint16))
    (tmp_path / "rubbish.tif").rename(tmp_path / "s.tif.ovr")
    with rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2]
    assert len(check(path, scale=1e-4).files) == 2


def test_sparse_files(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    options = {
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "SPARSE_OK": True,
        "crs": "EPSG:32630",
        "transform": UTM,
    }
    with rasterio.open(
        path, "w", driver="GTiff", width=300, height=310, count=3, dtype="uint16", nodata=0, **options
    ) as dataset:
        dataset.write(smooth(64, 64), window=rasterio.windows.Window(128, 64, 64, 64))
    check(path)
    empty = tmp_path / "e.tif"
    with rasterio.open(empty, "w", driver="GTiff", width=300, height=310, count=3, dtype="uint16", **options):
        pass
    check(empty)


@pytest.mark.parametrize("count", [1, 2, 5, 13, 300])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_any_number_of_bands(tmp_path: Path, count: int, interleave: str) -> None:
    check(write(tmp_path / "s.tif", smooth(20, 24, bands=count), interleave=interleave))


def test_places(tmp_path: Path) -> None:
    values = smooth(40, 50)
    south_up = write(tmp_path / "a.tif", values, transform=Affine(10, 0, 600000, 0, 10, 4700000))
    assert check(south_up).georeference.gsd_m == pytest.approx(10)
    turned = Affine.translation(600000, 4800000) @ Affine.rotation(33) @ Affine.scale(10, -10)
    assert check(write(tmp_path / "b.tif", values, transform=turned)).georeference.gsd_m == pytest.approx(10)
    points = [
        GroundControlPoint(r, c, 600000 + 10 * c, 4800000 - 10 * r) for r, c in ((0, 0), (0, 50), (40, 0), (40, 50))
    ]
    path = write(tmp_path / "c.tif", values, crs=None, transform=None)
    with quietly(), rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(32630))
    assert check(path).georeference.gsd_m == pytest.approx(10)


def test_rational_polynomials_alone(tmp_path: Path) -> None:
    from rasterio.rpc import RPC

    path = write(tmp_path / "s.tif", smooth(40, 50), crs=None, transform=None)
    one = [1.0, *[0.0] * 19]
    with quietly(), rasterio.open(path, "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=0, height_scale=1, lat_off=45, lat_scale=1, line_den_coeff=one, line_num_coeff=one, line_off=20,
            line_scale=20, long_off=7, long_scale=1, samp_den_coeff=one, samp_num_coeff=one, samp_off=25, samp_scale=25,
        )  # fmt: skip
    assert check(path).georeference.gsd_m is None
    with gdal_environment(), pytest.raises(InputError, match="--accept-gsd"):
        Scene(path, Wanted(SENTINEL2[:3], 10.0), SceneOptions(bands="1,2,3", scale=1e-9))


def test_several_images(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", smooth(20, 30))
    write(path, smooth(18, 24, seed=3), APPEND_SUBDATASET="YES")
    assert any("2 images" in w for w in check(path).warnings)
    assert not any("images" in w for w in check(path, image=1).warnings)
    assert check(path, image=2).width == 24
    with gdal_environment(), pytest.raises(UsageError, match="2 images"):
        Scene(path, Wanted(RGB), SceneOptions(image=3))


def test_rubbish_beside_the_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", smooth(20, 30))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{"": "", "</Item>": "<&]]>", "ACQUISITIONDATETIME": "yesterday"})
    whole = bytearray(path.read_bytes())
    if (at := whole.find(b"<GDALMetadata>")) > 0:
        whole[at : at + 14] = b"<GDALMetadata<"
    path.write_bytes(whole)
    assert check(path).acquired is None
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset><nothing", encoding="utf-8")
    check(path)
    (tmp_path / "s.tfw").write_text("not numbers", encoding="utf-8")
    check(path)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_pixels_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=20, count=1, dtype=dtype, crs="EPSG:32630", transform=UTM
    ):
        pass
    refused(path, "complex", RGB[:1], bands="1")


def test_virtual_rasters(tmp_path: Path) -> None:
    left, right = smooth(40, 50), smooth(40, 30, seed=4)
    write(tmp_path / "a.tif", left, tiled=True, blockxsize=16, blockysize=16)
    write(tmp_path / "b.tif", right, compress="deflate", blockysize=7)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><NoDataValue>0</NoDataValue>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{i}</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="50" ySize="40"/><DstRect xOff="0" yOff="0" xSize="50" ySize="40"/>'
        f'</SimpleSource><SimpleSource><SourceFilename relativeToVRT="1">b.tif</SourceFilename>'
        f'<SourceBand>{4 - i}</SourceBand><SrcRect xOff="0" yOff="0" xSize="30" ySize="40"/>'
        '<DstRect xOff="55" yOff="3" xSize="30" ySize="40"/></SimpleSource></VRTRasterBand>'
        for i in (1, 2, 3)
    )
    inner = tmp_path / "inner.vrt"
    inner.write_text(f'<VRTDataset rasterXSize="85" rasterYSize="43">{bands}</VRTDataset>', encoding="utf-8")
    scene = check(inner)
    assert not scene.always_valid
    outer = tmp_path / "outer.vrt"
    outer.write_text(
        '<VRTDataset rasterXSize="85" rasterYSize="43"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">inner.vrt</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>',
        encoding="utf-8",
    )
    assert {f.name for f in check(outer).files} == {"outer.vrt", "inner.vrt", "a.tif", "b.tif"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone.tif", "no source"),
        ("/vsizip/x.zip/a.tif", "network source"),
        ("https://example.org/a.tif", "network source"),
        ("NETCDF:x.nc:band", "expected a local file"),
        ("wms.xml", "description of a service"),
        ("loop.vrt", "nested deeper|cannot be|not a"),
    ],
)
def test_virtual_rasters_of_what_is_not_here(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "wms.xml").write_text("<GDAL_WMS><Service/></GDAL_WMS>", encoding="utf-8")
    vrt = tmp_path / "loop.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="5"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{int("/" not in source and ":" not in source)}">{source}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    refused(vrt, said, RGB[:1], bands="1")


def test_a_broken_jpeg_is_no_picture(tmp_path: Path) -> None:
    values = (smooth(64, 64) % 256).astype(np.uint8)
    path = write(tmp_path / "s.tif", values, compress="jpeg", tiled=True, blockxsize=64, blockysize=64)
    whole = bytearray(path.read_bytes())
    start = whole.rfind(b"\xff\xda")
    whole[start + 300 :] = bytes(len(whole) - start - 300)
    path.write_bytes(whole)
    refused(path, "cannot be read.*JPEG", bands="1,2,3")


def tiff(tags: dict[int, tuple[int, int, int]], order: str = "<", payload: bytes = b"") -> bytes:
    """A TIFF of one directory: {tag: (type, count, value or offset)}."""
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    rows = b"".join(struct.pack(order + "HHII", t, *tags[t]) for t in sorted(tags))
    return head + struct.pack(order + "H", len(tags)) + rows + bytes(4) + payload


def claims(width: int, height: int, **others: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1),
        273: (4, 1, 8), 278: (4, 1, height), 279: (4, 1, width * height & 0xFFFFFFFF),
    }  # fmt: skip
    return {**tags, **{int(k[1:]): v for k, v in others.items()}}


@pytest.mark.parametrize(
    "tags",
    [
        claims(0, 0),
        claims(5, 0),
        claims(1 << 31, 1 << 31),
        claims(60000, 60000),
        claims(60000, 60000, _259=(3, 1, 5)),
        claims(60000, 60000, _259=(3, 1, 8), _258=(3, 1, 64)),
        claims(1, 1 << 24, _278=(4, 1, 1), _273=(4, 1 << 24, 8), _279=(4, 1 << 24, 8)),
        claims(40000, 40000, _322=(4, 1, 16), _323=(4, 1, 16), _324=(4, 2500 * 2500, 0), _325=(4, 2500 * 2500, 0)),
        claims(40000, 40000, _322=(4, 1, 40000), _323=(4, 1, 40000), _324=(4, 1, 0), _325=(4, 1, 0)),
        claims(100, 100, _277=(3, 1, 65535)),
        claims(3000, 3000, _277=(3, 1, 60000), _284=(3, 1, 2)),
        claims(100, 100, _273=(4, 1, 4000000000)),
        claims(100, 100, _259=(3, 1, 7)),
        claims(100, 100, _258=(3, 1, 77)),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_absurd_headers_cost_nothing(tmp_path: Path, tags: dict[int, tuple[int, int, int]], order: str) -> None:
    path = tmp_path / "s.tif"
    if order == ">":  # a short value stands first in its field
        tags = {t: (k, c, v << 16 if k == 3 and c == 1 else v) for t, (k, c, v) in tags.items()}
    path.write_bytes(tiff(tags, order))
    refused(path, "copy it again|not a GeoTIFF|no band|cannot be", RGB[:1], bands="1")


def test_blocks_without_a_size_are_not_taken_for_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", smooth(40, 50), blockysize=4, interleave="band", compress="deflate")
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        counts = reader.directory(1)[279]  # type: ignore[index]
    whole = bytearray(path.read_bytes())
    whole[counts.place : counts.place + counts.bytes // 2] = bytes(counts.bytes // 2)
    path.write_bytes(whole)
    refused(path, "not both", bands="1,2,3")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_no_scene(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tif")
    refused(tmp_path / "s.tif", "no regular file")


def test_directories_in_a_circle(tmp_path: Path) -> None:
    data = bytearray(tiff(claims(4, 4), payload=bytes(16)))
    data[-20:-16] = struct.pack("<I", 8)
    path = tmp_path / "s.tif"
    path.write_bytes(data)
    with gdal_environment(), pytest.raises(InputError):
        Scene(path, Wanted(RGB[:1]), SceneOptions(bands="1", scale=1e-9, image=2))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2015:05:02 10:11:12", "2015-05-02T10:11:12Z"),
        ("2018-10-23T10:51:07.455Z", "2018-10-23T10:51:07Z"),
        ("2018-10-23T10:51:07+02:00", "2018-10-23T08:51:07Z"),
        ("20181023T105107", "2018-10-23T10:51:07Z"),
        ("2018-10-23", "2018-10-23T00:00:00Z"),
        ("2018:13:45 99:99:99", None),
        ("0000:00:00 00:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times(text: str, time: str | None) -> None:
    assert rfc3339(text) == time


def test_a_place_beyond_any_file_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff complains of it on standard error by itself, past GDAL's errors."""
    path = make_scene(tmp_path / "scene.tif", np.ones((3, 8, 8), np.uint16), BIGTIFF="YES")
    data = bytearray(path.read_bytes())
    data[8:16] = (0x3900_0000_0000_0000).to_bytes(8, "little")
    path.write_bytes(data)
    with gdal_environment(), pytest.raises(InputError, match="not a GeoTIFF that can be opened"):
        Raster(path)
    assert capfd.readouterr() == ("", "")


def test_no_driver_is_there_that_fetches() -> None:
    # In a process of its own: GDAL takes them away once, when it is first used.
    code = (
        "from edgeslim.onboard.reading.gdal import gdal_environment\n"
        "import rasterio\n"
        "with gdal_environment(), rasterio.Env() as env: print(*env.drivers())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(run.stdout.split())
    assert {"GTiff", "VRT"} <= found
    assert not {"HTTP", "WMS", "WMTS", "WCS", "STACTA", "STACIT", "EEDAI", "PLMOSAIC", "DAAS"} & found


def test_a_users_environment_turns_no_damage_into_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.tif", smooth(64, 64), tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xff" * 200
    path.write_bytes(data)
    monkeypatch.setenv("GTIFF_IGNORE_READ_ERRORS", "YES")
    monkeypatch.setenv("GDAL_NUM_THREADS", "4")
    refused(path, "copy it again", bands="1,2,3")
