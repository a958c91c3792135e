"""Awkward scenes made by hand, each beside what it holds: values, and where they hold anything."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from tests.onboard.artifacts import make_scene, smooth

HEIGHT, WIDTH = 40, 50
HOLE = np.s_[5:12, 8:30]
NAMES = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Made:
    """A scene, and what a map of it is held against."""

    path: Path
    """Lies in the folder that it was made in."""
    values: np.ndarray
    """(bands, h, w) in the artifact's order."""
    valid: np.ndarray
    """(h, w)."""


Maker = Callable[[Path], Made]


def _whole(path: Path, values: np.ndarray) -> Made:
    return Made(path, values, np.ones(values.shape[1:], bool))


def plain(dtype: str = "uint16", size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> Maker:
    """Reflectance x 10000 without holes."""

    def make(folder: Path) -> Made:
        values = smooth(*size).astype(dtype)
        return _whole(make_scene(folder / "s.tif", values, **options), values)

    return make


def hole(value: float, dtype: str, nodata: float | None, declared: bool = True) -> Maker:
    """One band holds `value` in the hole, which is no data if it is `declared`."""

    def make(folder: Path) -> Made:
        values = smooth(HEIGHT, WIDTH).astype(dtype)
        values[1][HOLE] = value
        made = _whole(make_scene(folder / "s.tif", values, nodata=nodata), values)
        made.valid[HOLE] = not declared
        return made

    return make


def twelve_bits(folder: Path) -> Made:
    """Twelve bits a value, big-endian BigTIFF."""
    values = np.minimum(smooth(HEIGHT, WIDTH), 4095)
    return _whole(make_scene(folder / "s.tif", values, nbits=12, endianness="big", bigtiff="yes"), values)


def half_floats(folder: Path) -> Made:
    """Sixteen bits a float; reflectance itself."""
    values = (smooth(HEIGHT, WIDTH) / 10000).astype(np.float16).astype(np.float32)
    return _whole(make_scene(folder / "s.tif", values, nbits=16), values)


def complex_pixels(folder: Path) -> Made:
    """A radar's."""
    values = smooth(HEIGHT, WIDTH).astype(np.complex64)
    return _whole(make_scene(folder / "s.tif", values), values)


def alpha_first(folder: Path) -> Made:
    """Sixteen bits of alpha in the first band; a faint pixel is one."""
    values = smooth(HEIGHT, WIDTH, bands=4)
    values[0], values[0][HOLE], values[0, 20:, :9] = 65535, 0, 1
    path = make_scene(folder / "s.tif", values, descriptions=())
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    return Made(path, values[1:], values[0] != 0)


def mask_and_nodata(folder: Path) -> Made:
    """An external mask and a nodata value, each with holes of its own."""
    values, mask = smooth(HEIGHT, WIDTH), np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[HOLE], values[1, 20:, :9] = 0, 0
    path = make_scene(folder / "s.tif", values, nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (folder / "s.tif.msk").exists()
    return Made(path, values, (mask != 0) & (values[1] != 0))


def tagged(scales: Sequence[float], offsets: Sequence[float]) -> Maker:
    """Scale and offset by band, in its tags; `values` are reflectance x 10000 by them."""

    def make(folder: Path) -> Made:
        values = smooth(HEIGHT, WIDTH)
        path = make_scene(folder / "s.tif", values)
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = scales, offsets
        gain, bias = (np.array(v, np.float64)[:, None, None] for v in (scales, offsets))
        return _whole(path, (values * gain + bias) * 1e4)

    return make


def placed_by(crs: str, points: Sequence[tuple[float, float, float, float]]) -> Maker:
    """Ground control points (row, column, x, y)."""

    def make(folder: Path) -> Made:
        values = smooth(HEIGHT, WIDTH)
        path = make_scene(folder / "s.tif", values, crs=None, transform=None)
        with rasterio.open(path, "r+") as dataset:
            dataset.gcps = ([GroundControlPoint(*p) for p in points], rasterio.CRS.from_user_input(crs))
        return _whole(path, values)

    return make


def damaged_overview(folder: Path) -> Made:
    """Overviews of noise in a file whose pixels are whole."""
    values = smooth(600, 600)
    path = make_scene(folder / "s.tif", values, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    whole = path.stat().st_size
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    data = bytearray(path.read_bytes())
    data[whole + 2500 : -2500] = b"\xff" * (len(data) - whole - 5000)
    path.write_bytes(data)
    return _whole(path, values)


def cut(share: float, **options: Any) -> Maker:
    """The first part of a file."""

    def make(folder: Path) -> Made:
        made = plain(**options)(folder)
        data = made.path.read_bytes()
        made.path.write_bytes(data[: int(len(data) * share)])
        return made

    return make


def of_bytes(data: bytes) -> Maker:
    """A file of these bytes under the name of a TIFF."""

    def make(folder: Path) -> Made:
        (folder / "s.tif").write_bytes(data)
        return _whole(folder / "s.tif", smooth(1, 1))

    return make


def picture(driver: str) -> Maker:
    """Another format under the name of a TIFF."""

    def make(folder: Path) -> Made:
        make_picture(folder / "x", driver).rename(folder / "s.tif")
        return _whole(folder / "s.tif", smooth(1, 1))

    return make


def make_picture(path: Path, driver: str) -> Path:
    values = (smooth(HEIGHT, WIDTH) // 12).astype(np.uint8)
    with rasterio.open(path, "w", driver=driver, width=WIDTH, height=HEIGHT, count=3, dtype="uint8") as dataset:
        dataset.write(values)
    return path


def no_file(folder: Path) -> Made:
    """A pipe, which nobody writes to."""
    os.mkfifo(folder / "s.tif")
    return _whole(folder / "s.tif", smooth(1, 1))


GEO = "<SRS>EPSG:32630</SRS><GeoTransform>600000,10,0,4800000,0,-10</GeoTransform>"


def source(band: int, file: str = "a.tif", more: str = "", kind: str = "SimpleSource") -> str:
    """One source of a VRT's band, as large as it."""
    box = f'xOff="0" yOff="0" xSize="{WIDTH}" ySize="{HEIGHT}"'
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand>'
        f"<SrcRect {box}/><DstRect {box}/>{more}</{kind}>"
    )


def virtual(
    inner: Callable[[int], str],
    *,
    dtype: str = "UInt16",
    attributes: str = "",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    values: Callable[[np.ndarray], np.ndarray] = lambda v: v,
    prepare: Callable[[Path, np.ndarray], object] = lambda folder, v: make_scene(folder / "a.tif", v),
) -> Maker:
    """A VRT of three bands; `inner(band)` is what stands in each, `values` what comes of the source's."""

    def make(folder: Path) -> Made:
        plainly = smooth(HEIGHT, WIDTH)
        prepare(folder, plainly)
        bands = "".join(
            f'<VRTRasterBand dataType="{dtype}" band="{i}" {attributes}><Description>{NAMES[i - 1]}</Description>'
            f"{inner(i)}</VRTRasterBand>"
            for i in (1, 2, 3)
        )
        text = f'<VRTDataset rasterXSize="{size[1]}" rasterYSize="{size[0]}">{GEO}{bands}</VRTDataset>'
        (folder / "s.vrt").write_text(text, encoding="utf-8")
        return _whole(folder / "s.vrt", values(plainly))

    return make


def wide_nodata(dtype: str, nodata: int) -> Maker:
    """64-bit nodata that no float holds: rasterio tells it wrong."""

    def make(folder: Path) -> Made:
        values = smooth(HEIGHT, WIDTH).astype(dtype.lower())
        values[0][HOLE] = nodata
        made = virtual(
            lambda band: f"<NoDataValue>{nodata}</NoDataValue>" + source(band),
            dtype=dtype,
            prepare=lambda where, _: make_scene(where / "a.tif", values),
        )(folder)
        valid = np.ones((HEIGHT, WIDTH), bool)
        valid[HOLE] = False
        return Made(made.path, values, valid)

    return make


def short_raw(folder: Path) -> Made:
    """A VRT of raw numbers whose file ends early: GDAL reads zeros."""
    return virtual(
        lambda band: (
            f'<SourceFilename relativeToVRT="1">r.bin</SourceFilename><ImageOffset>{(band - 1) * 4000}</ImageOffset>'
            "<PixelOffset>2</PixelOffset><LineOffset>100</LineOffset><ByteOrder>LSB</ByteOrder>"
        ),
        attributes='subClass="VRTRawRasterBand"',
        prepare=lambda where, values: (where / "r.bin").write_bytes(values.tobytes()[:9000]),
    )(folder)


def torn_png(folder: Path) -> Made:
    """A VRT of a PNG that ends early: GDAL reads black."""

    def prepare(where: Path, _: np.ndarray) -> None:
        data = make_picture(where / "a.png", "PNG").read_bytes()
        (where / "a.png").write_bytes(data[: len(data) * 3 // 5])

    return virtual(lambda band: source(band, "a.png"), dtype="Byte", prepare=prepare)(folder)


NAN_TRANSFORM = Affine(math.nan, 0, 6e5, 0, -10, 48e5)
HUGE_TRANSFORM = Affine(1e300, 0, 6e5, 0, -1e300, 48e5)
FLAT_TRANSFORM = Affine(10, 10, 6e5, 10, 10, 48e5)
PYTHON = (
    "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    "<PixelFunctionCode>def f(*a, **k): open('ran', 'w')</PixelFunctionCode>"
)
SUM = "<PixelFunctionType>sum</PixelFunctionType>"
UTM_POINTS = [(0, 0, 6e5, 48e5), (0, 50, 600500, 48e5), (40, 0, 6e5, 4799600), (40, 50, 600500, 4799600)]
FIJI_POINTS = [(0, 0, 179.9975, 10), (0, 50, -179.9975, 10), (40, 0, 179.9975, 9.996), (40, 50, -179.9975, 9.996)]
POLE = Affine(10, 0, -250, 0, -10, 200)
