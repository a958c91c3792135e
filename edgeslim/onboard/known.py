"""Known: how far a tile is from those that a head was fitted on, by its features and by its pixels. NumPy alone.

Two Mahalanobis distances to the nearest class mean, with one covariance for all classes (Lee et al. 2018, arXiv
1807.03888): of the features that the head is given, and of three numbers a band that tell brightness, contrast and
sharpness, as an encoder may map another sensor's tiles, a black or a white one, onto features that it knows.
Each is divided by its limit, and the larger of the two counts: above 1 a tile is unknown.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.manifest import Manifest
from edgeslim.onboard.check import UNREADABLE, npz_array
from edgeslim.onboard.runtime import one_line

F32 = NDArray[np.float32]
LIMIT = np.float32(1)
"""A distance above it is that of an unknown tile."""
STATISTICS = 3
"""Numbers a band that `pixel_statistics` gives."""
_ROWS = 16
"""Of a tile, that its pixels are judged by."""
_LEVELS = 255.0
"""The range of the clip in levels, in which the statistics are counted."""
ARRAYS = ("features_whitening", "features_means", "pixels_whitening", "pixels_means")


def pixel_statistics(tiles: NDArray[np.generic], clip: tuple[float, float]) -> F32:
    """(n, 3 * bands) of raw tiles (n, bands, H, W): log(1 + x) of each band's mean, deviation and mean step.

    In levels, of which the clip spans 255; the step is the mean absolute difference of neighbours in a row. About
    _ROWS rows, evenly spaced, stand for all: in flight these numbers may cost a hundredth of a small network's time.
    """
    low, gain = np.float32(clip[0]), np.float32(_LEVELS / (clip[1] - clip[0]))
    some = tiles[:, :, :: max(1, tiles.shape[2] // _ROWS)]
    levels = np.clip(some, low, np.float32(clip[1]), dtype=np.float32)
    levels -= low
    levels *= gain
    flat = levels.reshape(*levels.shape[:2], -1)
    count = np.float32(flat.shape[2])
    mean = flat.sum(axis=2) / count
    square = np.einsum("nbp,nbp->nb", flat, flat) / count
    steps = np.abs(levels[..., 1:] - levels[..., :-1])
    step = steps.reshape(*levels.shape[:2], -1).mean(axis=2)
    found: F32 = np.log1p(np.concatenate([mean, np.sqrt(np.maximum(square - mean * mean, 0)), step], axis=1))
    return found


def nearest(values: F32, whitening: F32, means: F32) -> F32:
    """(n,) Euclidean distance of values (n, d) @ whitening (d, r) to the nearest of means (classes, r).

    |z - m|^2 = |z|^2 - 2 z m + |m|^2, in one product for all classes.
    """
    white = values @ whitening
    apart = np.einsum("cr,cr->c", means, means) - 2 * (white @ means.T)
    found: F32 = np.sqrt(np.maximum(apart.min(axis=1) + np.einsum("nr,nr->n", white, white), 0))
    return found


@dataclass(frozen=True, slots=True)
class Distances:
    """Measures tiles. Takes calls from any number of threads."""

    features_whitening: F32
    """(d, d), divided by the limit of the distance."""
    features_means: F32
    """(classes, d) class means, whitened."""
    pixels_whitening: F32
    """(3 * bands, 3 * bands), divided by the limit of the distance."""
    pixels_means: F32
    """(classes, 3 * bands) class means, whitened."""
    clip: tuple[float, float]
    """Of the radiometry, raw values."""

    @staticmethod
    def of(arrays: Mapping[str, F32], clip: tuple[float, float]) -> Distances:
        """From arrays by the names of ARRAYS."""
        features, means, pixels, pixel_means = (arrays[name] for name in ARRAYS)
        return Distances(features, means, pixels, pixel_means, clip)

    def __call__(self, tiles: NDArray[np.generic], features: F32) -> F32:
        """(n,) distances of raw tiles (n, bands, H, W) whose features are (n, d); above LIMIT: unknown."""
        pixels = pixel_statistics(tiles, self.clip)
        return np.maximum(
            nearest(features, self.features_whitening, self.features_means),
            nearest(pixels, self.pixels_whitening, self.pixels_means),
        )


def read_distances(folder: Path, manifest: Manifest) -> Distances | None:
    """What an artifact measures tiles with; None where it has no limit.

    Raises InputError where the file is not what the manifest describes.
    """
    if manifest.known is None:
        return None
    path = folder / manifest.known.file
    dim, pixels, classes = manifest.architecture.dim, STATISTICS * len(manifest.bands), len(manifest.classes)
    shapes = ((dim, dim), (classes, dim), (pixels, pixels), (classes, pixels))
    arrays: dict[str, F32] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, shape in zip(ARRAYS, shapes, strict=True):
                arrays[name] = npz_array(archive, name, shape)
                if not np.isfinite(arrays[name]).all():
                    raise ValueError(f"{name} is not finite")
    except UNREADABLE as error:
        raise InputError(f"{path}: no class means ({one_line(error)}); export the artifact again") from None
    return Distances.of(arrays, manifest.radiometry.clip)
