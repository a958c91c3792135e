"""Tile: an image file of a person's own -> raw band values, read alike on the ground and on board."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.labels import TileFile
from edgeslim.onboard.reading.bands import pick_bands
from edgeslim.onboard.reading.gdal import GDAL_ERRORS, DamageLog
from edgeslim.onboard.reading.georeference import georeference_of
from edgeslim.onboard.reading.png import SIGNATURE, require_whole_png
from edgeslim.onboard.reading.radiometry import SceneScale, ToRaw, check_range, scale_of
from edgeslim.profile import Band, Radiometry

F32 = NDArray[np.float32]
_MOST_PX = 1 << 14
"""Side of an image that is resampled to a tile."""
_SAMPLED = 1000
"""Tiles whose values are looked at to tell their units."""
_DEGREE_M = 111_320.0
"""Metres of a degree at the equator: how far tiles are apart need not be known better."""
_UNREADABLE = "cannot be read"
_BEGINNINGS = {"PNG": (SIGNATURE,), "JPEG": (b"\xff\xd8\xff",), "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")}
"""GDAL's driver -> how its files begin."""
_SPOKEN = {"PNG": "a PNG", "JPEG": "a JPEG", "GTiff": "a TIFF"}
"""GDAL's driver -> its files, in messages."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tile has to be."""

    tile_px: int
    """Side, px."""
    band_count: int
    """Of the encoder."""
    bands: tuple[Band, ...] = ()
    """In the encoder's order; empty: the tile's own, in their order."""
    radiometry: Radiometry | None = None
    """What raw values mean; None: they are taken as they stand in the file."""
    asked_bands: str | None = None
    """`--bands`."""
    scale: float | None = None
    """`--scale`: reflectance of one unit of the file."""
    offset: float | None = None
    """`--offset`: reflectance at 0."""
    resample: bool = False
    """Bring images of another size to the tile's, bilinearly."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tile lies, near enough to tell which tiles are neighbours."""

    crs: str
    """Coordinates of different ones are not compared."""
    x_m: float
    """Of the centre, metres."""
    y_m: float
    """Of the centre, metres."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile as the network takes it."""

    file: TileFile
    """Where it comes from, and its classes."""
    values: F32
    """(bands, tile_px, tile_px), raw band values."""
    place: Place | None
    """None: the file has no coordinates."""
    gsd_m: float | None
    """Metres a pixel of the tile; None: not known."""
    dtype: str
    """Of the file."""
    file_px: int
    """Side of the image in the file, px: `tile_px`, unless it was resampled."""


@dataclass(slots=True)
class TileReader:
    """Reads tiles; those that cannot be used are left out and counted. Use it inside `gdal_environment`."""

    wanted: Wanted
    """What they have to be."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Why -> names of tiles that were left out."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """numpy name of a type that was read -> the first tile that has it."""
    tags: tuple[float, float] | None = None
    """Scale and offset in the tags of the first GeoTIFF that has any."""
    _samples: list[F32] = field(default_factory=list)

    def read(self, files: Sequence[TileFile]) -> Iterator[Tile]:
        """The tiles, in order.

        Raises InputError for one of another size or with other bands than expected: all are likely to be so.
        """
        for file in files:
            try:
                found, reason = self._read(file)
            except (*GDAL_ERRORS, ValueError, MemoryError, struct.error):
                found, reason = None, _UNREADABLE
            if found is None:
                self.skipped.setdefault(reason, []).append(file.name)
            else:
                yield found

    def warnings(self) -> list[str]:
        """What was left out and why, and what is odd about the values. Raises InputError for impossible units."""
        notes = []
        for reason, names in self.skipped.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            notes.append(f"left out {len(names)} {'tile' if len(names) == 1 else 'tiles'}: {reason} ({names[0]}{more})")
        radiometry = self.wanted.radiometry
        if radiometry is not None and self._samples:
            sample = np.concatenate(self._samples, axis=1)
            scale = SceneScale((radiometry.scale,) * len(sample), (radiometry.offset,) * len(sample), "card")
            as_stored = len(self.dtypes) == 1 and self.tags is None and self.wanted.scale is None
            dtype = next(iter(self.dtypes)) if as_stored else "float32"
            try:
                notes += check_range("--tiles", sample, dtype, scale, radiometry)
            except InputError:
                if self.wanted.scale is None:
                    raise
                notes.append("the tiles' reflectance is out of any usual range: check --scale")
        return notes

    def _read(self, file: TileFile) -> tuple[Tile | None, str]:
        """As `_tile`, of a file that is not opened yet."""
        data, driver = file.read(), _driver(file)
        if (kind := _kind_of(data)) != driver:
            return None, _UNREADABLE if kind is None else f"is {_SPOKEN[kind]}, which its name does not say: rename it"
        if driver == "PNG":
            require_whole_png(BytesIO(data))
        with MemoryFile(data) as memory, memory.open(driver=driver) as dataset:
            return self._tile(file, dataset)

    def _tile(self, file: TileFile, dataset: Any) -> tuple[Tile | None, str]:
        """The tile, or why it is left out."""
        wanted, side = self.wanted, self.wanted.tile_px
        size = dataset.height, dataset.width
        if size != (side, side) and not wanted.resample:
            raise InputError(
                f"--tiles: {file.name} is {size[1]}x{size[0]} px, expected {side}x{side} px; cut them so, or add "
                "--resample"
            )
        if size[0] != size[1] or max(size) > _MOST_PX:
            raise InputError(
                f"--tiles: {file.name} is {size[1]}x{size[0]} px, expected a square of at most {_MOST_PX} px"
            )
        colours = [colour.name for colour in dataset.colorinterp]
        if "palette" in colours:
            return None, "has a palette: indices of colours, no measurements"
        numbers = self._bands(file, list(dataset.descriptions), colours)
        dtype = str(np.result_type(*(dataset.dtypes[number - 1] for number in numbers)))
        if np.dtype(dtype).kind not in "uif":
            return None, "has complex numbers"
        with DamageLog() as log:
            values = dataset.read(numbers, out_shape=(len(numbers), side, side), resampling=Resampling.bilinear)
            valid = dataset.read_masks(numbers, out_shape=(len(numbers), side, side)) if file.is_tiff else None
        if log.found is not None:
            return None, _UNREADABLE
        if not np.isfinite(values).all() or (valid is not None and not valid.all()):
            return None, "has nodata or NaN in it"
        if self.tags is None and file.is_tiff:
            tags = float(dataset.scales[numbers[0] - 1]), float(dataset.offsets[numbers[0] - 1])
            self.tags = None if tags == (1.0, 0.0) else tags
        raw = self._raw(file, values, [(dataset.scales[n - 1], dataset.offsets[n - 1]) for n in numbers])
        self.dtypes.setdefault(dtype, file.name)
        place, gsd_m = _place_of(dataset) if file.is_tiff else (None, None)
        if gsd_m is not None:
            gsd_m *= size[0] / side
        return Tile(file, raw, place, gsd_m, dtype, size[0]), ""

    def _bands(self, file: TileFile, descriptions: list[str | None], colours: list[str]) -> list[int]:
        wanted, usable = self.wanted, [i + 1 for i, colour in enumerate(colours) if colour != "alpha"]
        if wanted.bands:
            return list(pick_bands(f"--tiles: {file.name}", wanted.bands, descriptions, colours, wanted.asked_bands))
        if wanted.asked_bands is not None:
            items = [item.strip() for item in wanted.asked_bands.split(",")]
            bad = [i for i in items if not i.isdecimal() or not 1 <= int(i) <= len(colours)]
            if bad or len(items) != wanted.band_count:
                raise UsageError(
                    f"--bands {wanted.asked_bands}: found {bad[0] if bad else len(items)}, expected "
                    f"{wanted.band_count} numbers from 1 to {len(colours)}"
                )
            return [int(item) for item in items]
        if len(usable) != wanted.band_count:
            raise InputError(
                f"--tiles: {file.name} has {len(usable)} bands, expected the encoder's {wanted.band_count}; choose "
                "them with --bands, by number"
            )
        return usable

    def _raw(self, file: TileFile, values: NDArray[Any], tags: list[tuple[float, float]]) -> F32:
        """Raw band values, as the encoder's radiometry has them."""
        radiometry, wanted = self.wanted.radiometry, self.wanted
        if radiometry is None:
            return np.ascontiguousarray(values, np.float32)
        if not file.is_tiff and wanted.scale is None:
            _require_grey_levels(file, values.dtype, wanted.offset)
            # A grey level of a training image, rounded as `edgeslim export` rounds it.
            return np.round(values.astype(np.float64) * radiometry.image_scale).astype(np.float32)
        scale = scale_of(f"--tiles: {file.name}", tags, radiometry, wanted.scale, wanted.offset)
        raw = ToRaw(scale, radiometry)(values, np.empty(values.shape, np.float32))
        if file.is_tiff and len(self._samples) < _SAMPLED:
            self._samples.append(raw[:, ::8, ::8].reshape(len(raw), -1))
        return raw


def _driver(file: TileFile) -> str:
    # Drivers are named, because GDAL would otherwise try every one it has.
    if file.is_tiff:
        return "GTiff"
    return "PNG" if file.name.lower().endswith(".png") else "JPEG"


def _kind_of(data: bytes) -> str | None:
    """The driver of what a file holds; None: of none that is read."""
    return next((driver for driver, beginnings in _BEGINNINGS.items() if data.startswith(beginnings)), None)


def _require_grey_levels(file: TileFile, dtype: np.dtype[Any], offset: float | None) -> None:
    """Raise InputError for an image whose values are not the grey levels of 8 bits that an encoder's card speaks of."""
    if offset is not None:
        raise UsageError(f"--offset: found {offset:g} without --scale, expected both: {file.name} has grey levels")
    if dtype != np.uint8:
        raise InputError(
            f"--tiles: {file.name} is {dtype}, expected an image of 8 bits: the card says what a grey level of those "
            "counts; say what one unit is with --scale, or store it as GeoTIFF"
        )


def _place_of(dataset: Any) -> tuple[Place | None, float | None]:
    """Where the tile's centre lies, and how large its pixels are."""
    ground = georeference_of(dataset)
    if ground.crs is None:
        return None, ground.gsd_m
    x, y = dataset.xy((dataset.height - 1) / 2, (dataset.width - 1) / 2)
    if ground.crs.is_geographic:
        x, y = x * _DEGREE_M * math.cos(math.radians(min(89.0, abs(y)))), y * _DEGREE_M
    return Place(ground.name, float(x), float(y)), ground.gsd_m
