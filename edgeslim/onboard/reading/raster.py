"""Raster: one open file, read natively: the bands asked for, and where they hold pixels at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from edgeslim.errors import InputError, UsageError, one_line
from edgeslim.onboard.quiet import quiet_libraries
from edgeslim.onboard.reading.beside import check_beside, check_mask, check_overviews, is_spare
from edgeslim.onboard.reading.decoding import decoding_of
from edgeslim.onboard.reading.gdal import GDAL_ERRORS, DamageLog
from edgeslim.onboard.reading.header import Header, check_header, holds_mask
from edgeslim.onboard.reading.images import images_of
from edgeslim.onboard.reading.nodata import Mark, mark_of, strike
from edgeslim.onboard.reading.palette import Palette, palette_of
from edgeslim.onboard.reading.vrt import is_remote, is_vrt, vrt_sources

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")
_COLOURS = ("red", "green", "blue")
_WIDE = ("int64", "uint64")
"""rasterio tells nodata as a float, which does not hold every number of these: GDAL itself must compare."""


class Raster:
    """An open local file. Use `select` before `read`; close it when done."""

    def __init__(self, path: Path, image: int | None = None, allow_network: bool = False) -> None:
        """Open `path`, image number `image` (from 1) of it.

        Raises InputError for what is missing, remote unasked, no TIFF or VRT, or claims what it cannot hold, UsageError
        for an image that it does not have.
        """
        self.path = path
        self.warnings: list[str] = []
        self._stack = ExitStack()
        self._header: Header | None = None
        self._sources: list[Header] = []
        sources: list[Path] = []
        name, driver = str(path), "GTiff"
        local = not is_remote(name)
        if not local:
            if not allow_network:
                raise InputError(
                    f"{name}: found a network or virtual path, expected a local file; copy it here first, or ask "
                    "for it with --allow-network"
                )
            name = _URL.sub(r"\1://", name)  # a Path joins the slashes of a URL
        else:
            _look(path)
            try:
                virtual = is_vrt(path)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None
            if virtual:
                driver, sources = "VRT", vrt_sources(path.resolve() if path.is_symlink() else path, allow_network)
            elif image in (None, 1):
                self._header = check_header(path)
            check_beside((path, *sources), allow_network)
            for source in sources:
                if (header := check_header(source)) is not None:
                    check_mask(source, header.width, header.height)
                    self._sources.append(header)
            name = str(path.absolute())  # of a link, what lies beside the link counts, as for GDAL
        self.virtual: bool = driver == "VRT"
        self.dataset = self._open(name, driver, image)
        self.width: int = self.dataset.width
        self.height: int = self.dataset.height
        self._handles: list[Any] = []
        self._decoded = False
        self._palette: Palette | None = None
        if not self.dataset.count:
            self.close()
            raise InputError(f"{path}: found no band, expected a GeoTIFF with pixels")
        try:
            if local:
                check_overviews(path, self.dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", ""), allow_network)
                if image in (None, 1):
                    check_mask(path, self.width, self.height)
            found = [Path(f) for f in (name, *self.dataset.files) if Path(f).is_file()]
            self.files: tuple[Path, ...] = tuple(dict.fromkeys(f.resolve() for f in (*found, *sources)))
            """Every local file that decides its pixels, itself first."""
            self.colours: list[str] = self._colours()
            self.descriptions: list[str | None] = self._descriptions()
            self.has_rational_polynomials: bool = bool(self.dataset.tags(ns="RPC"))
            """Whether it says where it lies by rational polynomial coefficients, too."""
        except (*GDAL_ERRORS, ValueError) as error:  # GDAL reports a bad side file at the first look, whatever that is
            self.close()
            raise InputError(f"{path}: not a GeoTIFF that can be used ({one_line(error)})") from None
        except InputError:
            self.close()
            raise

    def _open(self, name: str, driver: str, image: int | None) -> Any:
        # Drivers are named, because GDAL would otherwise try every one it has; some of them talk to the network.
        try:
            with quiet_libraries():  # of a place beyond any file, libtiff complains past GDAL
                dataset = self._stack.enter_context(rasterio.open(name, driver=driver))
                images = [] if self.virtual else images_of(dataset)
            if image is None:
                if len(images) > 1:
                    self.warnings.append(
                        f"found {len(images)} images in the file: the first is used; choose with --image"
                    )
                return dataset
            if not 1 <= image <= max(1, len(images)):
                many = f"{len(images)} images" if len(images) > 1 else "one image"
                raise UsageError(f"--image {image}: found {many} in {self.path}")
            if image > 1:
                number = images[image - 1]
                self._header = check_header(self.path, number)
                dataset.close()
                with quiet_libraries():
                    dataset = self._stack.enter_context(rasterio.open(f"GTIFF_DIR:{number}:{name}", driver=driver))
                if holds_mask(self.path):
                    self.warnings.append(
                        f"found a mask in the file that is not tied to image {image}: its pixels are all taken as valid"
                    )
            return dataset
        except (*GDAL_ERRORS, ValueError) as error:  # ValueError: a name that is no UTF-8
            self.close()
            raise InputError(f"{self.path}: not a GeoTIFF that can be opened ({one_line(error)})") from None
        except InputError:
            self.close()
            raise

    def _colours(self) -> list[str]:
        try:
            return [c.name for c in self.dataset.colorinterp]
        except GDAL_ERRORS as error:  # what GDAL said of side files is raised at the first look alone
            if not is_spare(self.path, one_line(error)):
                raise
            self.warnings.append(f"found a side file that cannot be read: not used ({one_line(error)})")
            return [c.name for c in self.dataset.colorinterp]

    def _descriptions(self) -> list[str | None]:
        try:
            return list(self.dataset.descriptions)
        except UnicodeDecodeError:
            self.warnings.append("found names of bands that are no UTF-8: taken as none")
            return [None] * self.dataset.count

    def close(self) -> None:
        """Close it."""
        self._stack.close()

    @property
    def has_palette(self) -> bool:
        """Whether its one band (alpha aside) holds indices of colours."""
        return [c for c in self.colours if c != "alpha"] == ["palette"]

    def expand_palette(self) -> None:
        """Show the palette's red, green and blue as bands 1, 2 and 3, and no other band.

        Raises InputError where the colour table cannot be read.
        """
        try:
            self._palette = palette_of(self.dataset, self.colours.index("palette") + 1)
        except (*GDAL_ERRORS, ValueError) as error:
            raise InputError(f"{self.path}: found a palette band without a colour table ({one_line(error)})") from None
        self.descriptions, self.colours = list(_COLOURS), list(_COLOURS)

    def scale_tags(self, band: int) -> tuple[float, float]:
        """(scale, offset) that the file states of a band."""
        if self._palette is not None:
            return 1.0, 0.0
        return float(self.dataset.scales[band - 1]), float(self.dataset.offsets[band - 1])

    def select(self, bands: Sequence[int]) -> None:
        """Choose the bands (from 1) that `read` returns, in that order, and what marks their invalid pixels.

        Raises InputError for complex pixels.
        """
        dataset = self.dataset
        self.bands = tuple(bands)
        stored = (self._palette.band,) if self._palette is not None else tuple(dict.fromkeys(bands))
        dtypes = [dataset.dtypes[b - 1] for b in stored]
        for dtype in dtypes:
            if dtype.startswith("complex"):
                raise InputError(f"{self.path}: found {dtype} pixels, expected real numbers; detect the signal first")
        self._stored_dtype = np.result_type(*dtypes)
        self.dtype = np.dtype(np.uint8) if self._palette is not None else self._stored_dtype
        self._marks: list[Mark | None] = [
            None if t in _WIDE else mark_of(dataset.nodatavals[b - 1], np.dtype(t), self._stored_dtype)
            for b, t in zip(stored, dtypes, strict=True)
        ]
        alpha = [i for i, c in enumerate(dataset.colorinterp, 1) if c.name == "alpha" and i not in stored]
        self._alpha = len(alpha)
        if alpha and self._header is not None and self._header.premultiplied:
            self.warnings.append("found premultiplied alpha: taken as stored, what is half transparent is too dark")
        self._read_bands = [*stored, *alpha]
        self._planes = None if stored == self.bands or self._palette is not None else [stored.index(b) for b in bands]
        self._masks = self._mask_bands(stored)
        self.decoding = decoding_of(dataset, self._read_bands, len(self._masks), self._header, self._sources)
        """How its blocks are decoded, and what that costs."""
        if self.decoding.handles > 1:
            self._handles = [dataset, *(self._reopen() for _ in self._read_bands[1:])]
        self.always_valid = (
            not self._alpha
            and not self._masks
            and not any(self._marks)
            and not np.issubdtype(self._stored_dtype, np.floating)
            and (self._palette is None or self._palette.opaque)
        )
        """True: no pixel can be invalid."""
        self.zero_is_nodata: bool = any(dataset.nodatavals[b - 1] == 0 for b in stored)
        """Whether 0 marks empty pixels."""
        if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
            self.warnings.append("found values that count from white (MinIsWhite): taken as stored, large is dark")

    def _mask_bands(self, stored: Sequence[int]) -> list[int]:
        """Bands whose mask must be read. Nodata is compared here: GDAL's mask would decode the band twice."""
        masks: list[int] = []
        shared = False
        for band in stored:
            flags = self.dataset.mask_flag_enums[band - 1]
            if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
                continue
            nodata = MaskFlags.nodata in flags and self.dataset.dtypes[band - 1] not in _WIDE
            if nodata and MaskFlags.per_dataset not in flags:
                continue
            if MaskFlags.per_dataset not in flags:
                masks.append(band)
            elif not shared:
                masks.append(band)
                shared = True
        return masks

    def _reopen(self) -> Any:
        """Another handle: each band of a planar strip is walked along by its own, or all would start anew in turn."""
        try:
            return self._stack.enter_context(rasterio.open(self.dataset.name, driver="GTiff"))
        except GDAL_ERRORS as error:
            raise InputError(f"{self.path}: cannot be opened once more ({one_line(error)})") from None

    def read_bytes(self, rows: int, columns: int) -> int:
        """Bytes that one `read` of this size needs at most beyond the arrays that it returns, GDAL's included."""
        pixels = min(rows, self.height) * min(columns, self.width)
        cache = max(self.decoding.cache_bytes(0, 0, rows, columns), self.decoding.band_block_bytes)
        ours = pixels * self._alpha * self._stored_dtype.itemsize
        ours += pixels * (1 if any(self._marks) or self._alpha else 0) + 2 * pixels * bool(self._masks)
        if np.issubdtype(self._stored_dtype, np.floating):
            ours += 2 * pixels
        if self._palette is not None or self._planes is not None:
            ours += pixels * len(self._read_bands) * self._stored_dtype.itemsize
        if self._palette is not None:
            ours += pixels * self._palette.index_bytes
        return self.decoding.working_bytes + cache + ours

    @property
    def held_bytes(self) -> int | None:
        """Of `read_bytes`, what GDAL holds for it since an earlier read; None: it has decoded nothing yet."""
        return self.decoding.held_bytes if self._decoded else None

    @property
    def fills(self) -> bool:
        """Whether `read` needs no array of its own beside the one that it is given."""
        return self._palette is None and self._planes is None and not self._alpha

    def read(
        self, row: int, column: int, rows: int, columns: int, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, rows, columns) and validity (rows, columns) of a rectangle inside the raster.

        Where every pixel is valid, validity is a broadcast of one True: its strides are 0. Invalid pixels keep what
        the file holds there. Values are in `out` where it is given and `fills` is true. Raises InputError where the
        file is damaged.
        """
        return self._load(Window(column, row, columns, rows), (rows, columns), out if self.fills else None)

    @property
    def block_px(self) -> tuple[int, int]:
        """(rows, columns) of what is decoded at once."""
        return self.decoding.block_px

    @property
    def has_overviews(self) -> bool:
        """Whether GDAL would answer thinned reads from smaller copies."""
        return bool(self.dataset.overviews(self._read_bands[0]))

    def read_thinned(
        self, row: int, column: int, rows: int, columns: int, shape: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `read`, of fewer pixels spread over the rectangle; each of its blocks is decoded once."""
        return self._load(Window(column, row, columns, rows), shape)

    def read_overview(self, most_px: int) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """As `read`, the whole raster through its largest overview of at most `most_px`; None where it has none.

        A damaged one is none: the pixels themselves may be whole.
        """
        fitting = [
            f
            for f in self.dataset.overviews(self._read_bands[0])
            if f > 1 and self.width * self.height <= most_px * f * f
        ]
        if not fitting:
            return None
        factor = min(fitting)
        shape = -(-self.height // factor), -(-self.width // factor)
        try:
            return self._load(Window(0, 0, self.width, self.height), shape)
        except InputError:
            return None

    def _load(
        self, window: Window, shape: tuple[int, int], out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        masks: list[NDArray[np.uint8]] = []
        size = {} if shape == (window.height, window.width) else {"out_shape": shape}
        try:
            values = np.empty((len(self._read_bands), *shape), self._stored_dtype) if out is None else out
            with DamageLog() as log:
                if self._handles:
                    for handle, band, plane in zip(self._handles, self._read_bands, values, strict=True):
                        handle.read(band, window=window, out=plane)
                elif len({self.dataset.dtypes[band - 1] for band in self._read_bands}) > 1:
                    for band, plane in zip(self._read_bands, values, strict=True):  # rasterio reads no mixture at once
                        self.dataset.read(band, window=window, out=plane)
                else:
                    self.dataset.read(self._read_bands, window=window, out=values)
                masks = [self.dataset.read_masks(band, window=window, **size) for band in self._masks]
        except (*GDAL_ERRORS, MemoryError) as error:
            raise self._damaged(window, error.__cause__ or error) from None
        if log.found is not None:
            raise self._damaged(window, log.found)
        self._decoded = self._decoded or not (size and self.has_overviews)
        stored = values[: len(self._marks)]
        valid = None if self.always_valid else strike(stored, self._marks, values[len(self._marks) :], masks)
        if self._palette is not None:
            index, table = self._palette.index(stored[0]), self._palette.table
            if not self._palette.opaque:
                opaque = table[3][index] != 0
                valid = opaque if valid is None else valid & opaque
            picked: NDArray[Any] = np.stack([table[b - 1][index] for b in self.bands])
        else:
            picked = stored if self._planes is None else stored[self._planes]
        if valid is None or bool(valid.all()):
            valid = np.broadcast_to(np.True_, shape)
        return picked, valid

    def _damaged(self, window: Window, reason: BaseException | str) -> InputError:
        rows = f"{window.row_off} to {window.row_off + window.height}"
        return InputError(
            f"{self.path}: cannot be read at rows {rows} ({one_line(reason)}); the file is damaged or incomplete, copy "
            "it again"
        )


def _look(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: found a folder, expected a GeoTIFF")
    if not path.exists():
        raise InputError(f"{path}: found no such file, expected a GeoTIFF")
    if not path.is_file():
        raise InputError(f"{path}: found no regular file, expected a GeoTIFF")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: found a path that is no UTF-8, which GDAL cannot open; rename it") from None
