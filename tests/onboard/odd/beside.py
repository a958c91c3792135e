"""Awkward scenes whose trouble lies beside them: side files, links, several images, damaged tags."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil

from tests.onboard.artifacts import make_scene, smooth
from tests.onboard.odd.made import HEIGHT, HOLE, WIDTH, Made, Maker, plain, source, virtual


def with_file(name: str, text: str) -> Maker:
    """A plain scene and a text file beside it."""

    def make(folder: Path) -> Made:
        (folder / name).write_text(text, encoding="utf-8")
        return plain()(folder)

    return make


def with_odd_neighbours(folder: Path) -> Made:
    """Links in a circle and to nowhere, a folder under the name of a side file, and a pipe that is none of its own."""
    for name, target in (("s.tif.ovr", "s.tif.ovr"), ("s.tif.msk", "nowhere"), ("other.tif", "other.tif")):
        (folder / name).symlink_to(target)
    (folder / "s.tif.aux.xml").mkdir()
    os.mkfifo(folder / "season.tif")
    return plain()(folder)


def with_pipe(folder: Path) -> Made:
    """A pipe under the name of a side file, which nobody writes to."""
    os.mkfifo(folder / "s.tif.aux.xml")
    return plain()(folder)


def masked(times: int = 1) -> Maker:
    """A mask beside the scene, so many times as large as it."""

    def make(folder: Path) -> Made:
        made = plain()(folder)
        mask = np.full((1, HEIGHT * times, WIDTH * times), 255, np.uint8)
        mask[0][HOLE], made.valid[HOLE] = 0, False
        make_scene(folder / "m.tif", mask, descriptions=(), crs=None, transform=None)
        with rasterio.open(folder / "m.tif", "r+") as dataset:
            dataset.update_tags(INTERNAL_MASK_FLAGS_1="2")
        (folder / "m.tif").rename(folder / "s.tif.msk")
        return made

    return make


def masked_virtual(folder: Path) -> Made:
    """A mask twice as large as the VRT that it lies beside."""
    masked(2)(folder)
    (folder / "s.tif.msk").rename(folder / "s.vrt.msk")
    return virtual(source)(folder)


def linked(folder: Path) -> Made:
    """Scene and mask are links to files of other names, as git-annex lays them out."""
    made = masked()(folder)
    for name, key in (("s.tif", "1f40"), ("s.tif.msk", "9c02")):
        (folder / name).rename(folder / key)
        (folder / name).symlink_to(key)
    return made


def linked_virtual(folder: Path) -> Made:
    """A link to a VRT elsewhere, whose source lies beside the VRT."""
    (folder / "there").mkdir()
    made = virtual(source)(folder / "there")
    (folder / "s.vrt").symlink_to("there/s.vrt")
    return Made(folder / "s.vrt", made.values, made.valid)


def rewritten(change: Callable[[str], str]) -> Maker:
    """A plain VRT, its text changed."""

    def make(folder: Path) -> Made:
        made = virtual(source)(folder)
        made.path.write_text(change(made.path.read_text("utf-8")), encoding="utf-8")
        return made

    return make


def lower_case(text: str) -> str:
    """The sources of a VRT as GDAL takes them, too."""
    return text.replace("SourceFilename", "sourcefilename").replace("relativeToVRT", "relativetovrt")


def cut_source(driver: str, name: str) -> Maker:
    """A VRT of a raw file that ends early: GDAL would read zeros."""

    def prepare(folder: Path, values: np.ndarray) -> None:
        make_scene(folder / "t.tif", values, photometric="rgb")
        rasterio.shutil.copy(folder / "t.tif", folder / name, driver=driver)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 3 // 5])

    return virtual(lambda band: source(band, name), prepare=prepare)


def palette(dtype: str, odd: float) -> Maker:
    """Six colours in a side file; in the hole an index that none of them has."""

    def make(folder: Path) -> Made:
        index = smooth(HEIGHT, WIDTH, bands=1).astype(dtype) % 6
        colours = np.random.default_rng(1).integers(0, 256, (6, 3))
        valid = np.ones((HEIGHT, WIDTH), bool)
        values = colours.T[:, index[0].astype(int)]
        index[0][HOLE], valid[HOLE] = odd, False
        path = make_scene(folder / "s.tif", index, descriptions=())
        table = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>' for r, g, b in colours)
        (folder / "s.tif.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><ColorInterp>Palette</ColorInterp>'
            f"<ColorTable>{table}</ColorTable></PAMRasterBand></PAMDataset>",
            encoding="utf-8",
        )
        return Made(path, values, valid)

    return make


def full_range(folder: Path) -> Made:
    """Reflectance x (2^32 - 1)."""
    values = (smooth(HEIGHT, WIDTH) / 10000 * (2**32 - 1)).astype(np.uint32)
    return Made(make_scene(folder / "s.tif", values), values, np.ones((HEIGHT, WIDTH), bool))


def premultiplied(folder: Path) -> Made:
    """Colours that were multiplied by their alpha."""
    values = smooth(HEIGHT, WIDTH, bands=4)
    values[3], values[3][HOLE] = 65535, 0
    path = make_scene(folder / "s.tif", values, descriptions=(), photometric="rgb", alpha="premultiplied")
    return Made(path, values[:3], values[3] != 0)


def images(wanted: int, count: int, mask: bool = False) -> Maker:
    """So many images, each larger than the one before; the last with a mask, which is not tied to it."""

    def make(folder: Path) -> Made:
        path, seen = folder / 's "1".tif', np.full((HEIGHT, WIDTH), 255, np.uint8)
        seen[HOLE] = 0
        for number in range(1, count + 1):
            values = smooth(HEIGHT + number, WIDTH, seed=number)
            hides = np.pad(seen, ((0, number), (0, 0)), constant_values=255) if mask and number == count else None
            more = {"APPEND_SUBDATASET": "YES"} if number > 1 else {}
            made = make_scene(path, values, mask=hides, **more)
            if number == wanted:
                found = Made(made, values, np.ones(values.shape[1:], bool))
        return found

    return make


def latin_1_name(folder: Path) -> Made:
    """The name of a band is "Né" in Latin-1."""
    made = plain(descriptions=("N#", "B03", "B02"))(folder)
    made.path.write_bytes(made.path.read_bytes().replace(b">N#<", b">N\xe9<"))
    return made


def half_rpc(folder: Path) -> Made:
    """One of the tags of rational polynomial coefficients, which is no number."""
    made = plain()(folder)
    with rasterio.open(made.path, "r+") as dataset:
        dataset.update_tags(ns="RPX", LINE_OFF="x")  # GDAL itself writes whole ones alone
    data = made.path.read_bytes()
    assert b'"RPX"' in data
    made.path.write_bytes(data.replace(b'"RPX"', b'"RPC"'))
    return made


def large_tag(folder: Path) -> Made:
    """A description of 900 MiB, which takes no room on the disk."""
    made = plain(descriptions=())(folder)
    with rasterio.open(made.path, "r+") as dataset:
        dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION="a description")
    data = bytearray(made.path.read_bytes())
    place = data.index((270).to_bytes(2, "little") + (2).to_bytes(2, "little"))
    data[place + 4 : place + 12] = (900 << 20).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    made.path.write_bytes(data)
    os.truncate(made.path, len(data) + (900 << 20))
    return made


def misnamed(folder: Path) -> Made:
    """A name of bytes that are no UTF-8."""
    made = plain()(folder)
    return Made(made.path.rename(folder / os.fsdecode(b"\xe9.tif")), made.values, made.valid)


def nested(levels: int, width: int) -> Maker:
    """So many levels of VRTs, each of so many below it: the ways to the lowest multiply."""

    def make(folder: Path) -> Made:
        below = ["a.tif"]
        for level in range(levels, 0, -1):
            names = [f"{level}-{i}.vrt" for i in range(width if level > 1 else 1)]
            for name in names:
                made = virtual(lambda band, below=tuple(below): "".join(source(band, file) for file in below))(folder)
                made.path.rename(folder / name)
            below = names
        return Made(folder / below[0], made.values, made.valid)

    return make


def listing(tag: int) -> Maker:
    """An index of blocks that lists the first two of ten."""

    def make(folder: Path) -> Made:
        made = plain(blockysize=4)(folder)
        data = made.path.read_bytes()
        entry = struct.pack("<HHI", tag, 4 if tag == 273 else 3, 10)
        assert entry in data
        made.path.write_bytes(data.replace(entry, entry[:4] + struct.pack("<I", 2)))
        return made

    return make
