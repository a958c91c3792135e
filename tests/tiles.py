"""Labelled tiles for tests: each class a colour, with noise, so that any encoder tells them apart."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

COLOURS = {"Forest": (40, 90, 50), "Highway": (150, 140, 140), "River": (60, 90, 160)}


def pixels(name: str, index: int, tile_px: int = 16, spread: float = 12.0) -> NDArray[np.uint8]:
    """(3, tile_px, tile_px) of a class; the same for the same index."""
    random = np.random.default_rng([index, *name.encode()])
    noise = random.normal(0, spread, (3, tile_px, tile_px)) + random.normal(0, spread / 2, (3, 1, 1))
    return np.clip(np.array(COLOURS[name])[:, None, None] + noise, 0, 255).astype(np.uint8)


def write(path: Path, values: NDArray[np.generic], driver: str, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=count, height=height, width=width, dtype=values.dtype, **options
        ) as dataset:
            dataset.write(values)


def image_folder(folder: Path, count: int = 20, tile_px: int = 16, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """PNG tiles, one folder a class."""
    for name in classes:
        for index in range(count):
            write(folder / name / f"{name}_{index}.png", pixels(name, index, tile_px), "PNG")
    return folder


def geotiff_folder(folder: Path, count: int = 20, tile_px: int = 16, together: tuple[str, ...] = ()) -> Path:
    """uint16 GeoTIFF tiles (reflectance x 10000) at 10 m, in columns of four; classes `together` lie in one place."""
    step = tile_px * 10.0
    for number, name in enumerate(COLOURS):
        for index in range(count):
            column, row = (0, 0) if name in together else (index // 4, 4 * number + index % 4)
            values = np.rint(pixels(name, index, tile_px).astype(float) * 2750 / 255).astype(np.uint16)
            transform = from_origin(500_000 + column * step * 20, 5_000_000 - row * step, 10, 10)
            path = folder / name / f"{name}_{index}.tif"
            write(path, values, "GTiff", crs="EPSG:32630", transform=transform)
            with rasterio.open(path, "r+") as dataset:
                dataset.descriptions = ("B04", "B03", "B02")
    return folder
