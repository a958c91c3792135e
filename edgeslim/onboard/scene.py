"""Scene: a GeoTIFF on disk as row bands of raw values and validity, never the whole of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from edgeslim.errors import InputError
from edgeslim.onboard.bands import pick_bands
from edgeslim.onboard.georeference import Georeference, check_gsd, georeference_of
from edgeslim.onboard.radiometry import SceneScale, check_range, scale_of
from edgeslim.onboard.runtime import one_line
from edgeslim.profile import Band, Radiometry

MIB = 1 << 20
CACHE_MIB = 64
"""GDAL's block cache, enough for a row of blocks of a Sentinel-2 scene."""
_BAND_MIB = 64
"""Row bands grow to whole blocks up to this size."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_GDAL_OPTIONS = {
    "GDAL_CACHEMAX": CACHE_MIB * MIB,  # rasterio hands this on as bytes
    # A VRT may point at the network; on board nothing is fetched unasked. No remote name ends like this.
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".edgeslim-reads-no-network",
}
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises; its own tree does not cover GDAL's."""


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


@contextmanager
def gdal_environment() -> Iterator[None]:
    """GDAL with a bounded cache and no network; a raster without CRS is no event here."""
    with rasterio.Env(**_GDAL_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


class Scene:
    """An open scene that agrees with a manifest. Use it in a `with`, inside `gdal_environment`."""

    def __init__(self, path: Path, expected: Expected, options: SceneOptions) -> None:
        """Open and check it.

        Raises InputError for a scene that is missing, unreadable, or disagrees with what is expected, UsageError for
        options that do not fit it.
        """
        self.path = path
        self.warnings: list[str] = []
        with ExitStack() as self._stack:
            self._dataset = self._stack.enter_context(_open(path))
            self._inspect(expected, options)
            self._stack = self._stack.pop_all()

    def _inspect(self, expected: Expected, options: SceneOptions) -> None:
        dataset, where, radiometry = self._dataset, str(self.path), expected.radiometry
        if radiometry is None or not expected.bands:
            raise InputError(f"{where}: the encoder names no bands or radiometry to hold it against; take another")
        self.width: int = dataset.width
        self.height: int = dataset.height
        colours = [c.name for c in dataset.colorinterp]
        self.bands = pick_bands(where, expected.bands, dataset.descriptions, colours, options.bands)
        self.dtype = str(np.result_type(*(dataset.dtypes[b - 1] for b in self.bands)))
        if self.dtype.startswith("complex"):
            raise InputError(f"{where}: found {self.dtype} pixels, expected real numbers; detect the signal first")
        self.band_names = tuple(dataset.descriptions[b - 1] or colours[b - 1] for b in self.bands)
        self.georeference: Georeference = georeference_of(dataset)
        self.warnings += check_gsd(where, self.georeference, expected.gsd_m, options.accept_gsd)
        if len(dataset.subdatasets) > 1:
            self.warnings.append(f"found {len(dataset.subdatasets)} images in the file: the first is used")
        tags = [(dataset.scales[b - 1], dataset.offsets[b - 1]) for b in self.bands]
        self.scale: SceneScale = scale_of(tags, radiometry, options.scale, options.offset)
        self._radiometry = radiometry
        self._plan_masks(colours)
        self._buffer = np.empty((len(self.bands), 0, self.width), self.dtype)
        self._valid = np.empty((0, self.width), bool)
        self._buffer_start = 0
        self._block_rows = self._aligned_rows()
        self._check_sample(where)

    def _plan_masks(self, colours: list[str]) -> None:
        """Decide once what marks an invalid pixel. Nodata is compared here: GDAL's mask would decode the band twice."""
        dataset = self._dataset
        self._nodata = [dataset.nodatavals[b - 1] for b in self.bands]
        self._alpha = [i for i, c in enumerate(colours, 1) if c == "alpha"]
        self._masks: list[int] = []
        for band in dict.fromkeys(self.bands):
            flags = dataset.mask_flag_enums[band - 1]
            if MaskFlags.all_valid in flags or MaskFlags.nodata in flags or MaskFlags.alpha in flags:
                continue
            if MaskFlags.per_dataset not in flags or not self._masks:
                self._masks.append(band)

    def _aligned_rows(self) -> int:
        """Rows to read at once so that no block is decoded twice, as far as memory allows."""
        block = max(self._dataset.block_shapes[b - 1][0] for b in self.bands)
        itemsize = max(np.dtype(t).itemsize for t in self._dataset.dtypes)
        row_bytes = self.width * len(self.bands) * itemsize
        if block * row_bytes <= _BAND_MIB * MIB:
            return int(block)
        # Blocks too tall to buffer stay decoded in GDAL's cache instead, or each read would decode them again.
        interleaved = self._dataset.count if self._dataset.interleaving == Interleaving.pixel else len(self.bands)
        needed = block * self.width * itemsize * interleaved
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=int(max(CACHE_MIB * MIB, min(needed * 1.1, 1 << 30)))))
        return 1

    def _check_sample(self, where: str) -> None:
        for side, count in ((32, 5), (32, 16)):
            values, valid = self._sample(side, count)
            if valid.any():
                break
        self.warnings += check_range(where, values[:, valid], self.dtype, self.scale, self._radiometry)
        zero = float((values[:, valid] == 0).all(axis=0).mean()) if valid.any() else 0.0
        if zero > 0.01 and not any(n == 0 for n in self._nodata):
            self.warnings.append(
                f"{zero:.0%} of the sampled pixels are 0 in every band and no nodata value says that they are empty: "
                "they are classified; if they are empty, run gdal_edit -a_nodata 0 first"
            )

    def _sample(self, side: int, count: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (bands, n) of count² small windows spread over the scene, and their validity (n,)."""
        height, width = min(side, self.height), min(side, self.width)
        rows = np.unique(np.linspace(0, self.height - height, count).astype(int))
        columns = np.unique(np.linspace(0, self.width - width, count).astype(int))
        parts = [self._read(Window(c, r, width, height)) for r in rows for c in columns]
        values = np.concatenate([p[0].reshape(len(self.bands), -1) for p in parts], axis=1)
        return values, np.concatenate([p[1].ravel() for p in parts])

    def _read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, h, w) in the scene's type and validity (h, w). Raises InputError where it cannot be read."""
        dataset = self._dataset
        try:
            values: NDArray[Any] = dataset.read(list(self.bands), window=window, out_dtype=self.dtype)
            valid = np.ones(values.shape[1:], bool)
            for band in self._alpha:
                valid &= dataset.read(band, window=window) != 0
            for band in self._masks:
                valid &= dataset.read_masks(band, window=window) != 0
        except (*GDAL_ERRORS, MemoryError) as error:
            raise InputError(
                f"{self.path}: cannot be read at rows {window.row_off} to {window.row_off + window.height} "
                f"({one_line(error.__cause__ or error)}); the file is damaged or incomplete, copy it again"
            ) from None
        for plane, nodata in zip(values, self._nodata, strict=True):
            if np.issubdtype(plane.dtype, np.floating):
                valid &= np.isfinite(plane)
            if nodata is not None and np.isfinite(nodata):
                valid &= ~_equals(plane, nodata)
        return values, valid

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw band values (bands, stop - start, width) float32 and validity (stop - start, width).

        `start` must not go back: earlier rows are forgotten. Invalid pixels are 0. Raises InputError on damage.
        """
        have = self._buffer_start + self._buffer.shape[1]
        keep_from = start - self._buffer_start
        values, valid = self._buffer[:, keep_from:], self._valid[keep_from:]
        if stop > have:
            first = max(have, start)  # rows between two requests are never read
            aligned = min(self.height, -(-stop // self._block_rows) * self._block_rows)
            new_values, new_valid = self._read(Window(0, first, self.width, aligned - first))
            values = np.concatenate([values, new_values], axis=1)
            valid = np.concatenate([valid, new_valid])
            self._buffer, self._valid, self._buffer_start = values, valid, start
        here = valid[: stop - start]
        raw = self.scale.to_raw(values[:, : stop - start], self._radiometry)
        if not here.all():
            raw[:, ~here] = 0
        return raw, here

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _equals(plane: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where a band holds its nodata value; a float one to within two units in the last place, as GDAL compares."""
    if not np.issubdtype(plane.dtype, np.floating):
        fits = nodata == int(nodata) and np.iinfo(plane.dtype).min <= nodata <= np.iinfo(plane.dtype).max
        return plane == plane.dtype.type(int(nodata)) if fits else np.zeros(plane.shape, bool)
    limits = np.finfo(plane.dtype)
    mark = plane.dtype.type(np.clip(nodata, limits.min, limits.max))
    with np.errstate(all="ignore"):
        same: NDArray[np.bool_] = np.abs(plane - mark) <= 2 * limits.eps * np.abs(mark)
    return same


def _open(path: Path) -> Any:
    text = str(path)
    if text.startswith("/vsi") or (_SCHEME.match(text) and not path.exists()):
        raise InputError(f"{text}: found a network or virtual path, expected a local file; copy it here first")
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected a GeoTIFF")
    if not path.exists():
        raise InputError(f"{path}: found no such file, expected a GeoTIFF")
    try:
        # Named, because GDAL would otherwise try every driver it has, some of which talk to the network.
        dataset = rasterio.open(path.resolve(), driver="VRT" if path.suffix.lower() == ".vrt" else "GTiff")
    except GDAL_ERRORS as error:
        raise InputError(f"{path}: not a GeoTIFF that can be opened ({one_line(error)})") from None
    if not dataset.count:
        dataset.close()
        raise InputError(f"{path}: found no band, expected a GeoTIFF with pixels")
    return dataset
