"""Outputs: finished rows into rasters, and a result folder that is complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from edgeslim import __version__
from edgeslim.errors import InputError, UsageError
from edgeslim.grid import Axis
from edgeslim.onboard.blend import Settled
from edgeslim.onboard.georeference import Georeference
from edgeslim.onboard.runtime import one_line
from edgeslim.onboard.scene import GDAL_ERRORS
from edgeslim.profile import ClassLabel

NODATA = 255
"""Of both rasters; a class raster holds at most 255 classes."""
CLASSES_NAME = "classes.tif"
CONFIDENCE_NAME = "confidence.tif"
SUMMARY_NAME = "summary.json"
QUICKLOOK_NAME = "quicklook.png"
RESULT_NAMES = (CLASSES_NAME, CONFIDENCE_NAME, SUMMARY_NAME, QUICKLOOK_NAME)
_BLOCK = 256

U8 = NDArray[np.uint8]


class ResultFolder:
    """A hidden folder beside OUT that becomes OUT, or its results, at `commit`; without it nothing is left."""

    def __init__(self, out: Path, overwrite: bool) -> None:
        """Raises InputError if OUT cannot be written, or holds results and `overwrite` was not asked."""
        self._out = out
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: found a file, expected a folder to write results into; choose another -o")
        held = [name for name in RESULT_NAMES if os.path.lexists(out / name)]
        if held and not overwrite:
            raise InputError(
                f"{out}: found results there ({', '.join(held)}), expected none; choose another -o, or replace them "
                "with --overwrite"
            )
        if blocked := [name for name in held if (out / name).is_dir()]:
            raise InputError(f"{out / blocked[0]}: found a folder where a result goes; choose another -o")
        parent = out.absolute().parent
        while not parent.exists():  # made at commit only, so that a failed run leaves no folder either
            parent = parent.parent
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=parent))
        except OSError as error:
            raise InputError(f"{parent}: cannot be written ({error.strerror}); choose another -o") from None

    def commit(self) -> None:
        """Move the results into place. Raises InputError if that fails."""
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            if self._out.is_dir():
                for path in sorted(self.path.iterdir()):
                    path.replace(self._out / path.name)
            else:
                umask = os.umask(0)
                os.umask(umask)
                self.path.chmod(0o777 & ~umask)  # mkdtemp makes it private; a result folder is an ordinary one
                self.path.rename(self._out)
        except OSError as error:
            raise InputError(f"{self._out}: cannot be written ({error.strerror}); choose another -o") from None

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class RowWriter:
    """A one-band uint8 GeoTIFF written in whole blocks, top to bottom."""

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        georeference: Georeference,
        step: int = 1,
    ) -> None:
        """Open for writing; one output pixel is `step` x `step` scene pixels. Raises InputError."""
        self._path, self._rows, self._row = path, np.empty((0, width), np.uint8), 0
        options: dict[str, Any] = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": 1,
            "width": width,
            "height": height,
            "nodata": NODATA,
            "compress": "deflate",
            "tiled": True,
            "blockxsize": _BLOCK,
            "blockysize": _BLOCK,
            "bigtiff": "if_safer",
        }
        if georeference.gcps:
            options["gcps"] = [
                GroundControlPoint(g.row / step, g.col / step, g.x, g.y, g.z, g.id, g.info) for g in georeference.gcps
            ]
            options["crs"] = georeference.gcps_crs
        else:
            options["crs"] = georeference.crs
            if georeference.transform != Affine.identity():
                t = georeference.transform
                options["transform"] = Affine(t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f)
        try:
            self.dataset = rasterio.open(path, "w", **options)
        except GDAL_ERRORS as error:
            raise InputError(f"{path.name}: cannot be written ({one_line(error)})") from None

    def append(self, rows: U8) -> None:
        """Add the next rows (n, width). Raises InputError if the disk does not take them."""
        self._rows = np.concatenate([self._rows, rows])
        if ready := self._rows.shape[0] // _BLOCK * _BLOCK:
            self._write(ready)

    def _write(self, count: int) -> None:
        window = rasterio.windows.Window(0, self._row, self._rows.shape[1], count)
        try:
            self.dataset.write(self._rows[:count], 1, window=window)
        except GDAL_ERRORS as error:
            raise InputError(f"{self._path.name}: cannot be written ({one_line(error.__cause__ or error)})") from None
        self._rows, self._row = self._rows[count:], self._row + count

    def close(self) -> None:
        """Write what is left and close. Raises InputError if the disk does not take it."""
        if self._rows.shape[0]:
            self._write(self._rows.shape[0])
        self.abandon()

    def abandon(self) -> None:
        """Close without writing more."""
        try:
            self.dataset.close()
        except GDAL_ERRORS as error:
            raise InputError(f"{self._path.name}: cannot be written ({one_line(error)})") from None


class Maps:
    """The class raster and the confidence raster of one scene."""

    def __init__(
        self,
        folder: Path,
        width: int,
        height: int,
        georeference: Georeference,
        classes: tuple[ClassLabel, ...],
        artifact: str,
        step: int = 1,
    ) -> None:
        """Open both for writing. Raises InputError, also for more classes than a byte holds."""
        if len(classes) > NODATA:
            raise InputError(f"{artifact}: found {len(classes)} classes, expected at most {NODATA}")
        self._classes = RowWriter(folder / CLASSES_NAME, width, height, georeference, step)
        try:
            self._confidence = RowWriter(folder / CONFIDENCE_NAME, width, height, georeference, step)
        except InputError:
            self._classes.abandon()
            raise
        tags = {"edgeslim": __version__, "artifact": artifact}
        names = {f"class_{i}": label.name for i, label in enumerate(classes)}
        titles = {f"class_{i}_title": label.title for i, label in enumerate(classes)}
        dataset = self._classes.dataset
        dataset.write_colormap(
            1,
            {
                **{i: (*rgb_of(label.color), 255) for i, label in enumerate(classes)},
                NODATA: (0, 0, 0, 0),
            },
        )
        dataset.update_tags(**tags, **names)
        dataset.update_tags(1, **names, **titles)
        dataset.set_band_description(1, "class")
        dataset = self._confidence.dataset
        dataset.update_tags(**tags)
        dataset.update_tags(1, unit="percent")
        dataset.set_band_description(1, "confidence, percent")

    def append(self, classes: U8, confidence: U8) -> None:
        """Add the next rows (n, width) of both."""
        self._classes.append(classes)
        self._confidence.append(confidence)

    def close(self) -> None:
        """Finish both files."""
        self._classes.close()
        self._confidence.close()

    def __enter__(self) -> Maps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for writer in (self._classes, self._confidence):
                with suppress(InputError):  # the first error is the one to tell
                    writer.abandon()


def decide(probabilities: NDArray[np.floating], known: NDArray[np.bool_]) -> tuple[U8, U8]:
    """Class and confidence in percent, both (rows, width), of probabilities (classes, rows, width)."""
    best = np.where(known, probabilities.argmax(axis=0), NODATA).astype(np.uint8)
    percent = np.where(known, np.rint(probabilities.max(axis=0) * 100), NODATA).astype(np.uint8)
    return best, percent


class Cells:
    """Mean probability of the known pixels of each stride x stride cell."""

    def __init__(self, rows: Axis, columns: Axis, classes: int) -> None:
        self._size, self._step = rows.size, rows.stride_px
        self._edges = np.arange(0, columns.size, columns.stride_px)
        self._sum = np.zeros((classes, columns.cells), np.float64)
        self._count = np.zeros(columns.cells, np.int64)

    def add(self, settled: Settled) -> tuple[U8, U8, NDArray[np.float64]]:
        """Class and confidence (n, cells) of the rows of cells that these pixel rows finish, and their middle rows."""
        finished: list[tuple[U8, U8]] = []
        middles: list[float] = []
        row, stop = settled.row, settled.row + settled.known.shape[0]
        while row < stop:
            end = min((row // self._step + 1) * self._step, self._size)
            here = slice(row - settled.row, min(end, stop) - settled.row)
            known = settled.known[here]
            summed = (settled.probabilities[:, here] * known).sum(axis=1, dtype=np.float64)
            self._sum += np.add.reduceat(summed, self._edges, axis=1)
            self._count += np.add.reduceat(known.sum(axis=0, dtype=np.int64), self._edges)
            if end <= stop:
                mean = self._sum / np.maximum(self._count, 1)
                finished.append(decide(mean[:, None], (self._count > 0)[None]))
                middles.append((row // self._step + 0.5) * self._step)
                self._sum[:] = 0
                self._count[:] = 0
            row = min(end, stop)
        if not finished:
            empty = np.empty((0, self._edges.size), np.uint8)
            return empty, empty, np.empty(0)
        return np.concatenate([f[0] for f in finished]), np.concatenate([f[1] for f in finished]), np.array(middles)


def rgb_of(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of "RRGGBB". Raises UsageError for anything else."""
    text = color.lstrip("#")
    try:
        red, green, blue = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"class color: found {color!r}, expected RRGGBB") from None
    return red, green, blue
