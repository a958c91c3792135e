"""Awkward scenes that shared/data does not have, through the command line, against a numpy reference.

What must become of each stands in the table, written down before anything was run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.onboard.artifacts import bands_named, make_artifact, reference_cells
from tests.onboard.fuzz_server import Server
from tests.onboard.odd import beside, made

TILE_PX, NODATA = 16, 255
SECONDS, MIB = 60, 400
VALUES = ("--scale", "0.0001")


@dataclass(frozen=True)
class Row:
    """A scene, flags, and what must become of it."""

    name: str
    make: made.Maker
    flags: tuple[str, ...] = VALUES
    refused: str = ""
    """Words of the refusal; empty: there is a map."""
    warned: str = ""
    """Words that must stand on stderr beside the map."""
    scale: float = 1e-4
    """Reflectance of one unit, as the reference takes it."""
    gsd_m: float | None = None
    """That the artifact expects."""
    gsd_found_m: float | None = None
    """That the summary must tell."""
    bbox: tuple[float, float, float, float] | None = None
    """Of the STAC item: west, south, east, north."""
    crs: str | None = None
    """Of the map, where it is not plainly the scene's."""


ACCEPT, RESAMPLE = (*VALUES, "--accept-gsd"), (*VALUES, "--resample")
BY_NUMBER = (*VALUES, "--bands", "1,2,3")
ELSEWHERE = (
    '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">NETCDF:"http://localhost:1/x":y</MDI></Metadata>'
    "</PAMDataset>"
)
TABLE = (
    # numbers
    Row("int8", made.hole(-128, "float32", -128)),
    Row("int32 predictor", made.plain("int32", compress="zstd", predictor=2)),
    Row("12 bits, big-endian BigTIFF", made.twelve_bits),
    Row("half floats", made.half_floats, ("--scale", "1"), scale=1.0),
    Row("complex", made.complex_pixels, refused="complex64"),
    Row("all of 32 bits", beside.full_range, ("--scale", "2.3283064e-10"), scale=1 / (2**32 - 1)),
    Row("palette of signed numbers", beside.palette("int16", -1), ("--scale", "0.001"), scale=1e-3),
    Row("palette of floats", beside.palette("float32", math.nan), ("--scale", "0.001"), scale=1e-3),
    # layouts
    Row("one row", made.plain(size=(1, 50))),
    Row("one column, one pixel more", made.plain(size=(17, 1), interleave="band")),
    Row("strips of seven rows", made.plain(blockysize=7, interleave="band", compress="lzw", predictor=2)),
    Row("a block of 4096 px", made.plain(tiled=True, blockxsize=4096, blockysize=16, compress="deflate")),
    Row("the tenth image", beside.images(10, 11), (*VALUES, "--image", "10")),
    Row("a mask not tied", beside.images(2, 2, mask=True), (*VALUES, "--image", "2"), warned="not tied to image 2"),
    Row("a tag of 900 MiB", beside.large_tag, refused="found 900 MiB in tag 270"),
    # what is no data
    Row("nodata -inf", made.hole(-np.inf, "float32", -np.inf)),
    Row("nodata beyond uint64's floats", made.wide_nodata("UInt64", 2**64 - 1)),
    Row("nodata of int64", made.wide_nodata("Int64", -(2**63))),
    Row("undeclared -9999", made.hole(-9999, "float32", None, declared=False), warned="-a_nodata -9999"),
    Row("undeclared float", made.hole(-3.4e38, "float32", None, declared=False), refused="-a_nodata -3.4e+38"),
    Row("16-bit alpha first", made.alpha_first),
    Row("mask and nodata", made.mask_and_nodata),
    Row("premultiplied alpha", beside.premultiplied, warned="premultiplied"),
    Row("linked mask", beside.linked),
    Row("mask of another size", beside.masked(2), refused="found a mask of 100 × 80 px, expected 50 × 40"),
    Row("VRT's mask of another size", beside.masked_virtual, refused="s.vrt.msk: found a mask of 100 × 80 px"),
    # what numbers mean
    Row("tags by band", made.tagged((1e-4, 2e-4, 5e-5), (0, -0.01, 0.02)), flags=()),
    Row("zero scale", made.tagged((1e-4, 0, 1e-4), (0, 0, 0)), flags=(), refused="s.tif: found scale 0"),
    Row("a book of a name", made.plain(descriptions=("B04" * 30000, "B03", "B02")), refused="--bands 1,2,3"),
    Row("a name in Latin-1", beside.latin_1_name, BY_NUMBER, warned="no UTF-8"),
    # places
    Row("half of an RPC", beside.half_rpc),
    Row("half of an RPC beside", beside.with_file("s_RPC.TXT", "LINE_OFF: x\n"), warned="s_RPC.TXT"),
    Row("NaN transform", made.plain(transform=made.NAN_TRANSFORM), warned="places nothing"),
    Row("NaN transform resampled", made.plain(transform=made.NAN_TRANSFORM), RESAMPLE, "--accept-gsd", gsd_m=10.0),
    Row("huge transform", made.plain(transform=made.HUGE_TRANSFORM), warned="places nothing"),
    Row("flat transform", made.plain(transform=made.FLAT_TRANSFORM), ACCEPT, warned="places nothing", gsd_m=10.0),
    Row("CRS without transform", made.plain(transform=None), gsd_m=1.0, refused="nothing that places its pixels"),
    Row("local feet", made.plain(crs='LOCAL_CS["site",UNIT["foot",0.3048]]'), gsd_m=3.048, gsd_found_m=3.048),
    Row(
        "kilometres",
        made.plain(
            crs="+proj=laea +lat_0=47 +lon_0=3 +datum=WGS84 +units=km", transform=made.Affine(0.01, 0, 1, 0, -0.01, 1)
        ),
        gsd_m=10.0,
        gsd_found_m=10.0,
    ),
    Row(
        "a CRS beyond GeoTIFF's keys",
        made.plain(crs="+proj=eqearth +lon_0=10 +datum=WGS84"),
        crs="+proj=eqearth +lon_0=10 +datum=WGS84",
    ),
    Row("at the pole", made.plain(crs="EPSG:3413", transform=made.POLE), bbox=(-180.0, 89.9970445, 180.0, 90.0)),
    Row("four points", made.placed_by("EPSG:32630", made.UTM_POINTS), gsd_m=10.0, gsd_found_m=10.0),
    Row("two points", made.placed_by("EPSG:32630", made.UTM_POINTS[:2]), gsd_m=10.0, refused="nothing that places"),
    Row(
        "points across the antimeridian",
        made.placed_by("EPSG:4326", made.FIJI_POINTS),
        gsd_m=11.0,
        bbox=(179.9975, 9.996, -179.9975, 10.0),
    ),
    Row(
        "beyond the pole",
        made.plain(crs="EPSG:4326", transform=made.Affine(1e-4, 0, 3, 0, -1e-4, 95)),
        warned="no place on Earth",
    ),
    # virtual rasters
    Row(
        "VRT scaled",
        made.virtual(
            lambda band: made.source(
                band, more="<ScaleOffset>100</ScaleOffset><ScaleRatio>0.5</ScaleRatio>", kind="ComplexSource"
            ),
            dtype="Float32",
            values=lambda v: v * 0.5 + 100,
        ),
    ),
    Row(
        "VRT of sums",
        made.virtual(
            lambda band: made.SUM + "".join(made.source(b) for b in (1, 2, 3)),
            dtype="Float32",
            attributes='subClass="VRTDerivedRasterBand"',
            values=lambda v: np.stack([v.astype(float).sum(axis=0)] * 3),
        ),
        ("--scale", "0.00005"),
        scale=5e-5,
    ),
    Row(
        "VRT of Python",
        made.virtual(lambda band: made.PYTHON + made.source(band), attributes='subClass="VRTDerivedRasterBand"'),
        refused="Python code",
    ),
    Row("VRT of itself", made.virtual(lambda band: made.source(band, "s.vrt")), refused="nested deeper"),
    Row("VRT of 2^31 px", made.virtual(made.source, size=(2**31 - 1, 2**31 - 1)), refused="at most 16777216 a side"),
    Row("VRT of a torn PNG", made.torn_png, refused="no whole PNG"),
    Row("VRT in lower case", beside.rewritten(beside.lower_case)),
    Row(
        "VRT in lower case of the network",
        beside.rewritten(lambda text: beside.lower_case(text).replace(">a.tif<", ">http://localhost:1/a.tif<", 1)),
        refused="the network source http://localhost:1/a.tif",
    ),
    Row("VRT in a namespace", beside.rewritten(lambda text: text.replace("<VRTDataset", '<VRTDataset xmlns="urn:x"'))),
    Row("linked VRT", beside.linked_virtual),
    Row("VRTs in VRTs", beside.nested(3, 3)),
    Row("a bomb of VRTs", beside.nested(6, 4), refused="found more than 64 ways to its source"),
    Row("VRT of a cut ENVI", beside.cut_source("ENVI", "a.img"), refused="found 7200 bytes, expected 12000"),
    Row("VRT of a cut PNM", beside.cut_source("PNM", "a.ppm"), refused="s.vrt: cannot be read at rows"),
    Row("VRT of short raw bytes", made.short_raw, refused="found 9000 bytes"),
    # what lies beside
    Row("odd neighbours", beside.with_odd_neighbours),
    Row("pipe beside", beside.with_pipe, refused="s.tif.aux.xml: found no regular file"),
    Row("torn overviews beside", beside.with_file("s.tif.ovr", "II*\0junkjunk"), warned="s.tif.ovr"),
    Row("mask elsewhere", beside.with_file("s.tif.msk", "<GDAL_WMS/>"), refused="description of other data"),
    Row("overviews elsewhere", beside.with_file("s.tif.aux.xml", ELSEWHERE), refused="found the overviews NETCDF:"),
    # damage, and what is no TIFF
    Row("a file name in Latin-1", beside.misnamed, refused="no UTF-8"),
    Row("damaged overviews", made.damaged_overview),
    Row("cut in a tile", made.cut(0.6, tiled=True, blockxsize=16, blockysize=16), refused="s.tif"),
    Row("half an index of places", beside.listing(273), refused="in 10 blocks, but lists 2"),
    Row("half an index of sizes", beside.listing(279), refused="in 10 blocks, but lists 2"),
    Row("cut in its header", made.cut(0.0005), refused="not a GeoTIFF"),
    Row("PNG", made.picture("PNG"), refused="not a GeoTIFF"),
    Row("text", made.of_bytes(b"version https://git-lfs.github.com/spec/v1\n"), refused="not a GeoTIFF"),
    Row("pipe", made.no_file, refused="no regular file"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_scene_made_by_hand(server: Server, tmp_path: Path, row: Row) -> None:
    artifact = make_artifact(
        tmp_path / "artifact", bands=bands_named("B04", "B03", "B02"), gsd_m=row.gsd_m, tile_px=TILE_PX
    )
    (tmp_path / "work").mkdir()
    scene = row.make(tmp_path / "work")
    argv = ["classify", scene.path.name, "-o", "out", "--artifact", str(artifact), "--stride", str(TILE_PX), *row.flags]
    run = server.run(argv, tmp_path / "work", SECONDS)
    assert not run.trace
    assert run.mib < MIB
    if row.refused:
        assert run.code in (1, 2), run.stderr
        assert len(run.stderr.strip().splitlines()) == 1
        assert row.refused in run.stderr
        assert not (tmp_path / "work" / "out" / "classes.tif").exists()
        return
    assert run.code == 0, run.stderr
    assert all(line.startswith("warning: ") for line in run.stderr.splitlines()), run.stderr
    assert row.warned in run.stderr
    _compare(tmp_path / "work" / "out", scene, row)


def _compare(out: Path, scene: made.Made, row: Row) -> None:
    """The map against the reference, and what the files beside it say of the place."""
    with rasterio.open(out / "classes.tif") as dataset, rasterio.open(scene.path) as source:
        found = dataset.read(1)
        assert dataset.crs == (source.crs if row.crs is None else rasterio.CRS.from_user_input(row.crs))
    with rasterio.open(out / "confidence.tif") as dataset:
        percent = dataset.read(1).astype(float)
    assert found.shape == scene.valid.shape
    for rows, columns, chances in reference_cells(scene.values, scene.valid, TILE_PX, row.scale / 1e-4):
        here, known = found[rows, columns], scene.valid[rows, columns]
        if chances is None:
            assert (here == NODATA).all()
            continue
        assert ((here != NODATA) == known).all()
        second, first = np.sort(chances)[-2:]
        assert (np.abs(percent[rows, columns][known] - first * 100) < 0.51).all()
        assert first - second < 1e-4 or (here[known] == chances.argmax()).all()
    summary, item = (json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("summary", "stac-item"))
    if row.gsd_found_m is not None:
        assert summary["scene"]["gsd_m"] == pytest.approx(row.gsd_found_m)
    if row.bbox is not None:
        assert item["bbox"] == pytest.approx(row.bbox)
