"""Tiles as the network takes them, whatever file they come in; what cannot be used is counted or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import Tile, TileReader, Wanted
from edgeslim.profile import Band, Radiometry
from tests.tiles import geotiff_folder, image_folder, pixels, write

BANDS = (Band("B04", "red"), Band("B03", "green"), Band("B02", "blue"))
RADIOMETRY = Radiometry(("L1C",), 1e-4, 0.0, (0.0, 2750.0), (1.0,) * 3, (1.0,) * 3, 2750 / 255)


def wanted(**changes: object) -> Wanted:
    return Wanted(**{"tile_px": 16, "band_count": 3, "bands": BANDS, "radiometry": RADIOMETRY} | changes)  # type: ignore[arg-type]


def read(folder: Path, expected: Wanted) -> tuple[list[Tile], TileReader]:
    reader = TileReader(expected)
    with gdal_environment():
        return list(reader.read(labelled_tiles(folder).files)), reader


def test_a_grey_level_is_worth_what_the_card_says(tmp_path: Path) -> None:
    tiles, reader = read(image_folder(tmp_path, count=2), wanted())
    assert [tile.file.name for tile in tiles] == [
        f"{c}/{c}_{i}.png" for c in ("Forest", "Highway", "River") for i in (0, 1)
    ]
    expected = np.round(pixels("Highway", 1).astype(np.float64) * 2750 / 255).astype(np.float32)
    assert np.array_equal(tiles[3].values, expected)
    assert tiles[0].place is None
    assert reader.warnings() == []


def test_a_geotiff_gives_the_same_and_knows_where_it_lies(tmp_path: Path) -> None:
    images, _ = read(image_folder(tmp_path / "png", count=5), wanted())
    tiles, reader = read(geotiff_folder(tmp_path / "tif", count=5), wanted())
    assert all(np.array_equal(a.values, b.values) for a, b in zip(images, tiles, strict=True))
    places = [tile.place for tile in tiles if tile.place is not None]
    assert len(places) == len(tiles)
    assert places[0].crs == "EPSG:32630"
    assert (places[0].x_m, places[0].y_m) == (500_080, 4_999_920)
    assert places[4].x_m - places[0].x_m == 20 * 160
    assert {tile.gsd_m is not None and round(tile.gsd_m, 1) for tile in tiles} == {10.0}
    assert reader.warnings() == []


def test_bands_are_found_by_name_or_asked_for_by_number(tmp_path: Path) -> None:
    forest = pixels("Forest", 0).astype(np.uint16) * 10
    write(tmp_path / "a" / "x.tif", np.concatenate([forest[::-1], forest[:1]]), "GTiff")
    (tile,), _ = read(tmp_path, wanted(asked_bands="3,2,1"))
    assert np.array_equal(tile.values, forest)
    with pytest.raises(InputError, match=r"found 4 bands .* without names"):
        read(tmp_path, wanted())
    (tile,), _ = read(tmp_path, wanted(bands=(), asked_bands="3,2,1", radiometry=None))
    assert np.array_equal(tile.values, forest)
    with pytest.raises(InputError, match="has 4 bands, expected the encoder's 3; choose"):
        read(tmp_path, wanted(bands=(), radiometry=None))
    for bad in ("3,2", "3,2,9", "red,green,blue"):
        with pytest.raises(UsageError, match="--bands"):
            read(tmp_path, wanted(bands=(), asked_bands=bad, radiometry=None))


def test_another_size_is_refused_or_resampled(tmp_path: Path) -> None:
    image_folder(tmp_path, count=1, tile_px=8, classes=("River",))
    with pytest.raises(InputError, match=r"River_0.png is 8x8 px, expected 16x16 px; cut them so, or add --resample"):
        read(tmp_path, wanted())
    (tile,), _ = read(tmp_path, wanted(resample=True))
    assert tile.values.shape == (3, 16, 16)
    assert tile.values.mean() == pytest.approx(pixels("River", 0, 8).mean() * 2750 / 255, rel=0.02)
    write(tmp_path / "River" / "long.png", np.zeros((3, 8, 9), np.uint8), "PNG")
    with pytest.raises(InputError, match="expected a square"):
        read(tmp_path, wanted(resample=True))


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    image_folder(tmp_path, count=2, classes=("Forest",))
    whole = (tmp_path / "Forest" / "Forest_0.png").read_bytes()
    (tmp_path / "Forest" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "Forest" / "bitflip.png").write_bytes(whole[:300] + bytes([whole[300] ^ 4]) + whole[301:])
    (tmp_path / "Forest" / "words.jpg").write_bytes(b"no image")
    values = np.full((3, 16, 16), 0.1, np.float32)
    values[1, 3, 3] = np.nan
    write(tmp_path / "Forest" / "nan.tif", values, "GTiff", photometric="RGB")
    write(tmp_path / "Forest" / "nodata.tif", np.zeros((3, 16, 16), np.uint16), "GTiff", nodata=0, photometric="RGB")
    tiles, reader = read(tmp_path, wanted())
    assert len(tiles) == 2
    assert reader.warnings() == [
        "left out 3 tiles: cannot be read (Forest/bitflip.png and 2 more)",
        "left out 2 tiles: has nodata or NaN in it (Forest/nan.tif and 1 more)",
    ]


def test_impossible_units_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.tif", pixels("Forest", 0), "GTiff", photometric="RGB")
    _, reader = read(tmp_path, wanted())
    with pytest.raises(InputError, match=r"say what one unit is with --scale"):
        reader.warnings()
    (tile,), reader = read(tmp_path, wanted(scale=2750 / 255 * 1e-4))
    assert reader.warnings() == []
    assert tile.values == pytest.approx(pixels("Forest", 0).astype(float) * 2750 / 255, rel=1e-5)


def test_what_a_file_is_and_what_its_name_says(tmp_path: Path) -> None:
    image_folder(tmp_path, count=2)
    forest = tmp_path / "Forest"
    (forest / "Forest_0.png").rename(forest / "Forest_0.jpg")
    (forest / "Forest_1.png").write_bytes(b"")
    tiles, reader = read(tmp_path, wanted())
    assert len(tiles) == 4
    assert reader.skipped == {
        "is a PNG, which its name does not say: rename it": ["Forest/Forest_0.jpg"],
        "cannot be read": ["Forest/Forest_1.png"],
    }


def test_grey_levels_are_of_eight_bits(tmp_path: Path) -> None:
    values = pixels("Forest", 0).astype(np.uint16) * 257
    write(tmp_path / "a" / "x.png", values, "PNG")
    with pytest.raises(InputError, match=r"a/x.png is uint16, expected an image of 8 bits: .* with --scale"):
        read(tmp_path, wanted())
    (tile,), _ = read(tmp_path, wanted(scale=1e-5))
    assert np.allclose(tile.values, values * 0.1)
    with pytest.raises(UsageError, match=r"--offset: found -0.1 without --scale, expected both"):
        read(image_folder(tmp_path / "png", count=1), wanted(offset=-0.1))


def test_eight_bit_tiffs_are_called_what_they_are(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.tif", pixels("Forest", 0), "GTiff", photometric="RGB")
    _, reader = read(tmp_path, wanted())
    with pytest.raises(InputError, match=r"found uint8 values .* \(by the encoder's card\) .* for 8-bit images"):
        reader.warnings()
