"""Layer: one result raster. Its tags are written by GDAL into memory, so that every convention is GDAL's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import rasterio
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from edgeslim import __version__
from edgeslim.onboard.writing.cog import CogWriter, Encoding
from edgeslim.onboard.writing.maps import NODATA, PROBABILITY_ONE, MapPlan
from edgeslim.onboard.writing.overview import mean_known, most_frequent
from edgeslim.onboard.writing.style import rgb_of
from edgeslim.onboard.writing.tiff import Directory, read_directory
from edgeslim.onboard.writing.wgs84 import uses_gcps
from edgeslim.scene_buffers import RESULT_BLOCK


def class_layer(path: Path, plan: MapPlan) -> Layer:
    """The class map, with its names and colours. Raises InputError if the folder cannot be written."""

    def fill(dataset: Any, whole: bool) -> None:
        colours = {i: (*rgb_of(label.color), 255) for i, label in enumerate(plan.classes)}
        dataset.write_colormap(1, {**colours, NODATA: (0, 0, 0, 0)})
        if whole:
            names = {f"class_{i}": label.name for i, label in enumerate(plan.classes)}
            titles = {f"class_{i}_title": label.title for i, label in enumerate(plan.classes)}
            dataset.update_tags(**_origin(plan), **names)
            dataset.update_tags(1, **names, **titles)
            dataset.set_band_description(1, "class")

    return Layer(path, plan, 1, Encoding(most_frequent, differences=False), fill)


def confidence_layer(path: Path, plan: MapPlan) -> Layer:
    """The confidence map, percent. Raises InputError if the folder cannot be written."""

    def fill(dataset: Any, whole: bool) -> None:
        if whole:
            dataset.update_tags(**_origin(plan))
            dataset.update_tags(1, unit="percent")
            dataset.set_band_description(1, "confidence, percent")

    return Layer(path, plan, 1, Encoding(mean_known, differences=True), fill)


def probability_layer(path: Path, plan: MapPlan) -> Layer:
    """The probability of each class, one band a class. Raises InputError if the folder cannot be written."""

    def fill(dataset: Any, whole: bool) -> None:
        if whole:
            dataset.update_tags(**_origin(plan))
            dataset.scales = (1 / PROBABILITY_ONE,) * len(plan.classes)
            for band, label in enumerate(plan.classes, 1):
                dataset.set_band_description(band, label.name)
                dataset.update_tags(band, title=label.title)

    return Layer(path, plan, len(plan.classes), Encoding(mean_known, differences=True), fill)


def _placed(plan: MapPlan) -> dict[str, Any]:
    """What places the raster on Earth, as rasterio takes it."""
    ground, step, t = plan.georeference, plan.step, plan.georeference.transform
    if uses_gcps(ground):
        points = [GroundControlPoint(g.row / step, g.col / step, g.x, g.y, g.z, g.id, g.info) for g in ground.gcps]
        return {"gcps": points, "crs": ground.gcps_crs} if ground.gcps_crs else {}  # points of nowhere place nothing
    if t == Affine.identity():
        return {"crs": ground.crs}
    return {"crs": ground.crs, "transform": Affine(t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f)}


@lru_cache(1)  # every map of a scene asks for the same
def flavour_of(crs: Any) -> str | None:
    """How GDAL has to write a CRS so that GeoTIFF's keys hold it; None: no way, or there is none to write.

    What its standard keys cannot express GDAL puts into a side file, unless ESRI's text of it may stand among them.
    """
    if not crs:
        return None
    for flavour in ("standard", "esri_pe"):
        with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
            options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": 1, "height": 1}
            with memory.open(**options, crs=crs, transform=Affine.scale(2), geotiff_keys_flavor=flavour):
                pass
            with memory.open(driver="GTiff") as dataset:
                if dataset.crs:
                    return flavour
    return None


def _origin(plan: MapPlan) -> dict[str, str]:
    return {"edgeslim": __version__, "artifact": plan.artifact}


class Layer:
    """One result raster, given from top to bottom."""

    def __init__(
        self, path: Path, plan: MapPlan, bands: int, encoding: Encoding, fill: Callable[[Any, bool], None]
    ) -> None:
        """`fill` gives an open dataset its tags; those of an overview (False) are fewer. Raises InputError."""
        self._plan, self._bands, self._encoding, self._fill = plan, bands, encoding, fill
        self._writer = CogWriter(path, bands, plan.height, plan.width, encoding)
        self.append = self._writer.append
        self.abandon = self._writer.abandon

    def finish(self) -> None:
        """Write the file. Raises InputError if the disk does not take it."""
        self._writer.finish(self._tags(whole=True), self._tags(whole=False))

    def _tags(self, whole: bool) -> Directory:
        """As GDAL writes them, of a raster of one pixel in memory; the writer puts in the size."""
        placed = _placed(self._plan) if whole else {}
        options: dict[str, Any] = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": self._bands,
            "width": 1,
            "height": 1,
            "nodata": NODATA,
            "compress": "deflate",
            "predictor": 2 if self._encoding.differences else 1,
            "tiled": True,
            "blockxsize": RESULT_BLOCK,
            "blockysize": RESULT_BLOCK,
            "interleave": "band",
            "sparse_ok": True,
            "bigtiff": "no",
            "endianness": "little",
            **placed,
            "geotiff_keys_flavor": flavour_of(placed.get("crs")) or "standard",
        }
        with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**options) as dataset:
                self._fill(dataset, whole)
            memory.seek(0)
            data: bytes = memory.read()
        return read_directory(data)
