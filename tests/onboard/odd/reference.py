"""What a raster holds, read whole and plainly with rasterio: the oracle of the scene reader. Shares no code with it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning


def read_whole(
    path: Path, reads: list[int] | str, image: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[object, object]]:
    """Values (bands, h, w), validity (h, w), and (CRS, transform)."""
    name = str(path) if image is None else f"GTIFF_DIR:{image}:{path}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        with rasterio.open(name) as dataset:
            stored = [1] if isinstance(reads, str) else reads
            values = dataset.read(stored)
            valid = np.ones(values.shape[1:], bool)
            for band in set(stored):
                valid &= dataset.read_masks(band) != 0
            for band, colour in enumerate(dataset.colorinterp, 1):
                if colour.name == "alpha":
                    valid &= dataset.read(band) != 0
            if values.dtype.kind == "f":
                valid &= np.isfinite(values).all(axis=0)
            if isinstance(reads, str):
                table = np.zeros((4, 256), np.uint8)
                for index, colour in dataset.colormap(1).items():
                    if index < 256:
                        table[:, index] = colour
                valid &= table[3][values[0]] > 0
                values = table[:3][:, values[0]]
            return values, valid, (dataset.crs, dataset.transform)
