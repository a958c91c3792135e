"""Scene: a GeoTIFF, or several of one sensor, as one grid of bands; read by rectangles, never the whole of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, one_line
from edgeslim.onboard.reading.acquired import acquired_of
from edgeslim.onboard.reading.bands import choose_bands
from edgeslim.onboard.reading.gdal import CACHE_BYTES, GDAL_ERRORS, MIB, gdal_environment, set_cache_bytes
from edgeslim.onboard.reading.georeference import Georeference, check_gsd, georeference_of
from edgeslim.onboard.reading.grids import MOST_PX, onto, resampled_grid
from edgeslim.onboard.reading.radiometry import SceneScale, ToRaw, check_range, scale_of, undeclared
from edgeslim.onboard.reading.raster import Raster
from edgeslim.onboard.reading.regrid import Regrid
from edgeslim.onboard.reading.sample import sample
from edgeslim.profile import Band, Radiometry
from edgeslim.scene_buffers import GDAL_OPENED_BYTES

__all__ = ["GDAL_ERRORS", "MIB", "Expected", "Scene", "SceneOptions", "gdal_environment"]


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What the user says about a scene that it does not say itself."""

    bands: str | None = None
    """Numbers or names, in the encoder's order."""
    scale: float | None = None
    """Reflectance of one unit."""
    offset: float | None = None
    """Reflectance at 0."""
    accept_gsd: bool = False
    """Process a scene whose ground sample distance is unknown or far off."""
    stack: tuple[Path, ...] = ()
    """More files of the same sensor and moment; their bands are numbered on after the scene's, on the scene's grid."""
    resample: bool = False
    """Bring a scene of another ground sample distance to the encoder's."""
    allow_network: bool = False
    """Let paths and the sources of VRTs lie elsewhere."""
    image: int | None = None
    """Which image of a file that holds several, from 1; None: the first, with a warning."""


class Expected(Protocol):
    """What a scene is held against: a manifest on board, an encoder's profile on the ground."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """Input bands, in the encoder's order."""

    @property
    def gsd_m(self) -> float | None:
        """Ground sample distance, metres a pixel; None: not tied to one."""

    @property
    def radiometry(self) -> Radiometry | None:
        """What a raw band value means; None on a card without weights."""


class Scene:
    """An open scene that agrees with a manifest. Use it in a `with`, inside `gdal_environment`, from one thread."""

    def __init__(self, path: Path, expected: Expected, options: SceneOptions) -> None:
        """Open and check it.

        Raises InputError for a scene that is missing, unreadable, or disagrees with what is expected, UsageError for
        options that do not fit it.
        """
        self.path = path
        self.warnings: list[str] = []
        if expected.radiometry is None or not expected.bands:
            raise InputError(f"{path}: the encoder names no bands or radiometry to hold it against; take another")
        self.radiometry: Radiometry = expected.radiometry
        with ExitStack() as self._stack:
            try:
                self._inspect(expected, options)
            except GDAL_ERRORS as error:  # some damage is noticed at the first look at a tag
                raise InputError(f"{path}: not a GeoTIFF that can be used ({one_line(error)})") from None
            self._stack = self._stack.pop_all()

    def _inspect(self, expected: Expected, options: SceneOptions) -> None:
        where = str(self.path)
        rasters = []
        for index, path in enumerate((self.path, *options.stack)):
            raster = Raster(path, options.image if index == 0 else None, options.allow_network)
            self._stack.callback(raster.close)
            rasters.append(raster)
        first = rasters[0]
        if max(first.width, first.height) > MOST_PX:  # a VRT of a few lines may claim as much
            raise InputError(
                f"{where}: found {first.width} × {first.height} px, expected at most {MOST_PX} a side; cut it in parts"
            )
        self.files: tuple[Path, ...] = tuple(dict.fromkeys(f for r in rasters for f in r.files))
        """Every local file that decides the pixels, the scene itself first."""
        self.bands, notes = choose_bands(where, expected.bands, rasters, options.bands)
        """Numbers (from 1) of the bands in the encoder's order, counted on through the stack."""
        self.warnings += notes
        self.georeference: Georeference = georeference_of(first.dataset)
        if self.georeference.transform != first.dataset.transform:
            self.warnings.append("found a transform that places nothing: taken as none")
        if self.georeference.gsd_m is None and first.has_rational_polynomials:
            self.warnings.append("found rational polynomial coefficients only: where it lies is not computed from them")
        self.warnings += check_gsd(
            where, self.georeference, expected.gsd_m, options.accept_gsd, resample=options.resample
        )
        self.width: int = first.width
        self.height: int = first.height
        if options.resample and expected.gsd_m is not None:
            self.georeference, self.width, self.height, notes = resampled_grid(
                self.georeference, first.width, first.height, expected.gsd_m
            )
            self.warnings += notes
        self._place(rasters)
        self.warnings += first.warnings + [f"{r.path}: {w}" for r in rasters[1:] for w in r.warnings]
        self.scale: SceneScale = scale_of(where, self._tags, self.radiometry, options.scale, options.offset)
        """What its values mean."""
        self._to_raw = ToRaw(self.scale, self.radiometry)
        self.acquired: str | None = acquired_of(first.dataset)
        """When it was taken, RFC 3339; None: its tags do not say."""
        self._cache = 0
        set_cache_bytes(CACHE_BYTES)  # another scene may have left more
        self._check_sample(where)
        self._cache = 0  # what the sample asked for is no measure of what chunks need

    def _place(self, rasters: list[Raster]) -> None:
        """Select each file's bands, map its grid onto the scene's, and note which plane goes where."""
        starts = np.cumsum([0, *(len(r.descriptions) for r in rasters)])
        names: list[str] = [""] * len(self.bands)
        tags: list[tuple[float, float]] = [(1.0, 0.0)] * len(self.bands)
        self._layers: list[tuple[Regrid, list[int]]] = []
        for raster, start in zip(rasters, starts[:-1], strict=True):
            planes = [i for i, b in enumerate(self.bands) if start < b <= start + len(raster.descriptions)]
            if not planes:
                self.warnings.append(f"{raster.path}: none of its bands is used")
                continue
            local = [int(self.bands[i] - start) for i in planes]
            raster.select(local)
            for plane, band in zip(planes, local, strict=True):
                names[plane] = raster.descriptions[band - 1] or raster.colours[band - 1]
                tags[plane] = raster.scale_tags(band)
            down, across = onto(raster, rasters[0], self.georeference, self.width, self.height)
            self._layers.append((Regrid(raster, down, across), planes))
        layers = [layer for layer, _ in self._layers]
        self.band_names = tuple(names)
        """As the scene describes them."""
        self._tags = tags
        self.dtype = str(np.result_type(*(layer.dtype for layer in layers)))
        """numpy name of the type that `read` returns: the scene's own unless it is resampled."""
        self.stored_dtype = str(np.result_type(*(layer.raster.dtype for layer in layers)))
        """numpy name of the type in the file."""
        self.always_valid = all(layer.always_valid for layer in layers)
        """True: no pixel can be invalid."""
        plain = [layer.block_px for layer in layers if layer.copies] or [layer.block_px for layer in layers]
        self.block_px: tuple[int, int] = (max(b[0] for b in plain), max(b[1] for b in plain))
        """(rows, columns) of what is decoded at once: reads aligned to it decode nothing twice."""

    def read_bytes(self, rows: int, columns: int) -> int:
        """Bytes that one `read` of this size needs at most beyond the two arrays that it returns, GDAL's included.

        It covers GDAL's cache for a scene read row by row of such rectangles, so that even rectangles that cut through
        blocks decode nothing twice.
        """
        total = sum(layer.read_bytes(rows, columns) for layer, _ in self._layers)
        if len(self._layers) > 1 or self._layers[0][1] != list(range(len(self.bands))):
            widest = max(len(planes) * layer.dtype.itemsize for layer, planes in self._layers)
            total += rows * columns * (widest + 2)
        return total

    @property
    def held_bytes(self) -> int:
        """Of `read_bytes`, what is allocated already since the scene was sampled."""
        held = [found for layer, _ in self._layers if (found := layer.raster.held_bytes) is not None]
        return sum(held) + (GDAL_OPENED_BYTES if held else 0)

    @property
    def fills(self) -> bool:
        """Whether `read` needs no array of its own beside the one that it is given."""
        return len(self._layers) == 1 and self._layers[0][0].fills

    def read(
        self, row: int, column: int, rows: int, columns: int, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, rows, columns) of type `dtype` and validity (rows, columns) of a rectangle inside the scene.

        Values are written into `out` where it is given. Where every pixel is valid, validity is a broadcast of one
        True: its strides are 0. What invalid pixels hold means nothing. Raises InputError where a file is damaged.
        """
        needed = sum(layer.cache_bytes(row, column, rows, columns) for layer, _ in self._layers)
        if needed > self._cache:
            set_cache_bytes(needed)
            self._cache = needed
        if len(self._layers) == 1:  # one file serves every band, in the encoder's order
            found, valid = self._layers[0][0].read(row, column, rows, columns, out)
            if out is None:
                return found, valid
            if not self.fills:
                out[...] = found
            return out, valid
        values = np.empty((len(self.bands), rows, columns), self.dtype) if out is None else out
        valid = np.broadcast_to(np.True_, (rows, columns))
        for layer, planes in self._layers:
            part, seen = layer.read(row, column, rows, columns)
            for plane, source in zip(planes, part, strict=True):
                values[plane] = source
            if seen.strides != (0, 0):
                valid = seen if valid.strides == (0, 0) else valid & seen
        return values, valid

    def to_raw(self, values: NDArray[Any], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Raw band values, float32, of scene values (..., bands, height, width); into `out` where it is given."""
        return self._to_raw(values, np.empty(values.shape, np.float32) if out is None else out)

    def _check_sample(self, where: str) -> None:
        rasters = [layer.raster for layer, _ in self._layers]
        for thorough in (False, True):
            values, valid = sample(self, rasters[0] if len(rasters) == 1 else None, thorough)
            try:
                notes = check_range(where, values[:, valid], self.stored_dtype, self.scale, self.radiometry)
            except InputError:
                if thorough:
                    raise
                continue
            if valid.any():
                break
        self.warnings += notes
        self.warnings += undeclared(values[:, valid], self.scale)
        zero = float((values[:, valid] == 0).all(axis=0).mean()) if valid.any() else 0.0
        if zero > 0.01 and not any(r.zero_is_nodata for r in rasters):
            self.warnings.append(
                f"{zero:.0%} of the sampled pixels are 0 in every band and no nodata value says that they are empty: "
                "they are classified; if they are empty, run gdal_edit -a_nodata 0 first"
            )

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
