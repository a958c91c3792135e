"""Closed-form artifacts and scenes: what a map must be is computed by plain numpy beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from edgeslim.architecture import Architecture
from edgeslim.manifest import GOLDEN_NAME, Golden, Manifest, sha256_of
from edgeslim.profile import Band, ClassLabel, Radiometry
from tests.onboard.tiny_onnx import linear_of_means

RGB = (Band("B04", "red", 0.665), Band("B03", "green", 0.56), Band("B02", "blue", 0.49))
SENTINEL2 = tuple(
    Band(name, common, um)
    for name, common, um in (
        ("B01", "coastal", 0.443),
        ("B02", "blue", 0.49),
        ("B03", "green", 0.56),
        ("B04", "red", 0.665),
        ("B05", "rededge071", 0.704),
        ("B06", "rededge075", 0.74),
        ("B07", "rededge078", 0.783),
        ("B08", "nir", 0.842),
        ("B8A", "nir08", 0.865),
        ("B09", "nir09", 0.945),
        ("B10", "cirrus", 1.375),
        ("B11", "swir16", 1.61),
        ("B12", "swir22", 2.19),
    )
)
"""For artifacts of 1 to 13 bands."""
LABELS = (
    ClassLabel("Forest", "Forest", "1B7837"),
    ClassLabel("SeaLake", "Sea or lake", "2166AC"),
    ClassLabel("Residential", "Residential", "D6604D"),
)
TILE_PX = 8
UTM = Affine(10, 0, 600000, 0, -10, 4800000)


def weights(bands: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.004, (bands, classes)).astype(np.float32), rng.normal(0, 1, classes).astype(np.float32)


def reference_logits(tiles: np.ndarray, bands: int = 3, classes: int = 3) -> np.ndarray:
    """(n, classes) of tiles (n, bands, h, w), as the artifact's network gives them."""
    weight, bias = weights(bands, classes)
    return tiles.mean(axis=(2, 3), dtype=np.float64) @ weight + bias


def bands_named(*names: str) -> tuple[Band, ...]:
    """Input bands of an artifact by their Sentinel-2 names."""
    known = {band.name: band for band in SENTINEL2}
    return tuple(known[name] for name in names)


def make_artifact(
    folder: Path,
    *,
    bands: tuple[Band, ...] = RGB,
    labels: tuple[ClassLabel, ...] = LABELS,
    gsd_m: float | None = 10.0,
    tile_px: int = TILE_PX,
    synthetic: bool = True,
    wrong_logit: float = 0.0,
    raw_scale: float = 1e-4,
    raw_offset: float = 0.0,
) -> Path:
    """An artifact directory whose logits are linear in the tile's band means.

    Its radiometry is reflectance = raw * raw_scale + raw_offset; its gain is set for raw values of up to 2750.
    """
    folder.mkdir(parents=True)
    count, classes = len(bands), len(labels)
    weight, bias = weights(count, classes)
    (folder / "model.onnx").write_bytes(linear_of_means(weight, bias, tile_px))
    tiles = np.random.default_rng(5).uniform(0, 2750, (5, count, tile_px, tile_px)).astype(np.float32)
    logits = reference_logits(tiles, count, classes).astype(np.float32)
    logits[2, 1] += wrong_logit
    np.savez(folder / GOLDEN_NAME, tiles=tiles, logits=logits)
    Manifest(
        name="tiny w1.0",
        edgeslim_version="0.1.0",
        encoder="tiny",
        licence="Apache-2.0",
        checkpoint_sha256="0" * 64,
        method="first",
        width_multiplier=1.0,
        architecture=Architecture(
            depth=1,
            dim=4,
            attention_heads=1,
            head_dim=4,
            ffn_hidden=4,
            patch_size=tile_px,
            tile_px=tile_px,
            bands=count,
        ),
        total_parameters=weight.size + bias.size,
        gflop_per_tile=1e-6,
        format="onnx",
        precision="fp32",
        runtime="onnxruntime",
        providers=(),
        models={"any": "model.onnx"},
        input_name="tiles",
        output_name="logits",
        features_name="",
        graph={},
        bands=bands,
        gsd_m=gsd_m,
        radiometry=Radiometry(
            ("L1C", "L2A"), raw_scale, raw_offset, (0.0, 2750.0), (1000.0,) * count, (500.0,) * count, 2750 / 255
        ),
        classes=labels,
        golden=Golden(5, synthetic, "seed 5", 1e-4),
        certificate=None,
        files={name: sha256_of(folder / name) for name in ("model.onnx", GOLDEN_NAME)},
        plan={},
    ).write(folder)
    return folder


def make_scene(
    path: Path,
    values: np.ndarray,
    *,
    descriptions: tuple[str, ...] = ("B04", "B03", "B02"),
    crs: str | None = "EPSG:32630",
    transform: Affine | None = UTM,
    mask: np.ndarray | None = None,
    scale: tuple[float, float] | None = None,
    **options: Any,
) -> Path:
    """Write values (bands, height, width) as a GeoTIFF."""
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **options) as dataset:
            dataset.write(values)
            for index, text in enumerate(descriptions, 1):
                dataset.set_band_description(index, text)
            if mask is not None:
                dataset.write_mask(mask)
            if scale is not None:
                dataset.scales = (scale[0],) * values.shape[0]
                dataset.offsets = (scale[1],) * values.shape[0]
    return path


def smooth(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    """Plausible surface reflectance x 10000, (bands, height, width) uint16, in patches so that classes differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(200, 2700, (bands, height // 6 + 1, width // 6 + 1))
    fine = coarse.repeat(6, axis=1).repeat(6, axis=2)[:, :height, :width]
    return (fine + rng.normal(0, 30, fine.shape)).clip(1, 10000).astype(np.uint16)


def reference_map(
    raw: np.ndarray, valid: np.ndarray, tile: int, stride: int, classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Slow 2-D reference: blended probabilities (classes, h, w), and where they are known (h, w)."""
    bands, height, width = raw.shape
    total, weight = np.zeros((classes, height, width)), np.zeros((height, width))
    for y, fill_y, wy in slow_axis(height, tile, stride):
        for x, fill_x, wx in slow_axis(width, tile, stride):
            part, seen = raw[:, y : y + tile, x : x + tile].astype(np.float64), valid[y : y + tile, x : x + tile]
            if seen.mean() < 0.5:
                continue
            for plane in part:
                plane[~seen] = plane[seen].mean()
            pad = ((0, 0), (0, tile - part.shape[1]), (0, tile - part.shape[2]))
            logits = reference_logits(np.pad(part, pad, mode="reflect")[None], bands, classes)[0]
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            for row, a in zip(fill_y, wy, strict=True):
                for column, b in zip(fill_x, wx, strict=True):
                    total[:, row, column] += a * b * chances
                    weight[row, column] += a * b
    known = (weight > 0) & valid
    return total / np.where(weight > 0, weight, 1), known


def slow_axis(size: int, tile: int, stride: int) -> list[tuple[int, list[int], list[float]]]:
    """(start, filled pixels, weights) of each window, by the words of the specification, pixel by pixel."""
    if size < tile:
        return [(0, list(range(size)), [1.0] * size)]
    found = []
    start = 0
    while start + tile <= size:
        found.append((start, list(range(start, start + tile)), [float(min(i + 1, tile - i)) for i in range(tile)]))
        start += stride
    covered = {p for _, pixels, _ in found for p in pixels}
    if left := [p for p in range(size) if p not in covered]:
        found.append((size - tile, left, [1.0] * len(left)))
    return found


def reference_cells(
    values: np.ndarray,
    valid: np.ndarray,
    tile: int,
    gain: float = 1.0,
    bias: float = 0.0,
    classes: int = 3,
) -> Iterator[tuple[slice, slice, np.ndarray | None]]:
    """Class probabilities of every cell at stride = tile, as (rows, columns, probabilities or None where skipped).

    `values` (bands, h, w) of any type; raw values are values * gain + bias. By the words of the specification: a tile's
    missing pixels hold its band's mean, so the mean of a whole tile is that of its valid pixels; the last tile is
    pulled back to end with the scene and fills only its own cell; a scene smaller than a tile is reflected.
    """
    bands, height, width = values.shape
    for top, bottom, y in cells_of(height, tile):
        for left, right, x in cells_of(width, tile):
            part, seen = values[:, y : y + tile, x : x + tile], valid[y : y + tile, x : x + tile]
            cell = slice(top, bottom), slice(left, right)
            if seen.mean() < 0.5:
                yield *cell, None
                continue
            if min(part.shape[1:]) < tile:  # reflected, holes filled first
                part = np.where(seen, part, part[:, seen].mean(axis=1, dtype=np.float64)[:, None, None])
                pad = ((0, 0), (0, tile - part.shape[1]), (0, tile - part.shape[2]))
                means = np.pad(part.astype(np.float64), pad, mode="reflect").mean(axis=(1, 2))
            elif seen.all():
                means = part.mean(axis=(1, 2), dtype=np.float64)
            else:
                means = part[:, seen].mean(axis=1, dtype=np.float64)
            weight, constant = weights(bands, classes)
            logits = (means * gain + bias) @ weight + constant
            chances = np.exp(logits - logits.max())
            yield *cell, chances / chances.sum()


def cells_of(size: int, tile: int) -> list[tuple[int, int, int]]:
    """(first pixel filled, one past the last, first pixel read) of each tile along an axis at stride = tile."""
    return [(s, min(s + tile, size), min(s, max(0, size - tile))) for s in range(0, size, tile)]
