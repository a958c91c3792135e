"""Known: how far a tile is from those that a head was fitted on, by its features and by its pixels. NumPy alone.

Three distances to the nearest class mean, each divided by its limit; the largest counts, and above 1 a tile is unknown:

    features    Mahalanobis, one covariance for all classes (Lee et al. 2018, arXiv 1807.03888), of which RANK principal
                axes are kept and the others share one variance (Tipping & Bishop, J. R. Stat. Soc. B 61, 1999): a new
                head must go up a narrow link, and the rest of the matrix tells hardly more
    direction   cosine of the features about the mean of all of them, each in units of its deviation: a class that the
                head never saw lies between the others rather than far from them
    pixels      Mahalanobis, whole covariance, of numbers that tell brightness, contrast, sharpness and how bands go
                together, as an encoder may map another sensor's tiles, a black or a white one, onto features it knows
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, one_line
from edgeslim.manifest import Manifest
from edgeslim.onboard.check import UNREADABLE, npz_array

F32 = NDArray[np.float32]
LIMIT = np.float32(1)
"""A distance above it is that of an unknown tile."""
RANK = 16
"""Principal axes of the features that are kept: sixteen tell classes and sensors apart as well as all do
(benchmarks/results/unknown.md)."""
_ROWS = 16
"""Of a tile, that its pixels are judged by."""
_LEVELS = 255.0
"""The range of the clip in levels, in which the statistics are counted."""
_SMALLEST = np.float32(1e-12)
"""Added to a squared length that is divided by."""


def statistics_of(bands: int) -> int:
    """Numbers that `pixel_statistics` gives of a tile."""
    return 4 * bands + bands - 1


def rank_of(dim: int) -> int:
    """Principal axes that are kept of features (n, dim)."""
    return min(RANK, dim - 1)


def array_shapes(dim: int, classes: int, bands: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each array that `Distances.of` is made from.

    features_middle   mean of all features
    features_scale    reciprocal of each one's deviation: y = (x - middle) * scale
    features_means    class means of y
    features_axes     principal axes u of y about its class mean, times sqrt(1 / s2 - 1 / variance), over the limit
    features_limits   1 / s2 over the squared limit, with s2 the variance of all other axes; 1 / limit of 1 - cosine
    pixels_whitening  of the statistics, over their limit
    pixels_means      class means of the statistics, whitened alike
    """
    pixels = statistics_of(bands)
    return {
        "features_middle": (dim,),
        "features_scale": (dim,),
        "features_means": (classes, dim),
        "features_axes": (dim, rank_of(dim)),
        "features_limits": (2,),
        "pixels_whitening": (pixels, pixels),
        "pixels_means": (classes, pixels),
    }


def pixel_statistics(tiles: NDArray[np.generic], clip: tuple[float, float]) -> F32:
    """(n, statistics_of(bands)) of raw tiles (n, bands, H, W): log(1 + x) of what follows.

    Of each band the mean, the deviation, the mean step and the mean bend; of each band and the next, the mean step of
    what they differ by. In levels, of which the clip spans 255. A step is the absolute difference of neighbours in a
    row, a bend that of neighbouring differences. About _ROWS rows, evenly spaced, stand for all: in flight these
    numbers may cost a hundredth of a small network's time.
    """
    low, gain = np.float32(clip[0]), np.float32(_LEVELS / (clip[1] - clip[0]))
    some = tiles[:, :, :: max(1, tiles.shape[2] // _ROWS)]
    levels = np.clip(some, low, np.float32(clip[1]), dtype=np.float32)
    if low:
        levels -= low
    flat = levels.reshape(*levels.shape[:2], -1)
    count = np.float32(flat.shape[2])
    mean = flat.sum(axis=2) / count
    square = np.einsum("nbp,nbp->nb", flat, flat) / count
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    steps = levels[..., 1:] - levels[..., :-1]
    bend, apart = _mean_size(steps[..., 1:] - steps[..., :-1]), _mean_size(steps[:, 1:] - steps[:, :-1])
    found: F32 = np.log1p(gain * np.concatenate([mean, deviation, _mean_size(steps), bend, apart], axis=1))
    return found


def _mean_size(values: F32) -> F32:
    """(n, b, h, w) -> (n, b) mean absolute value, 0 of none; `values` are overwritten."""
    np.abs(values, out=values)
    tiles, bands, height, width = values.shape
    flat = values.reshape(tiles, bands, height * width)  # its rows are summed in one pass
    found: F32 = flat.sum(axis=2) / np.float32(max(1, height * width))
    return found


def _each(values: F32, matrix: F32) -> F32:
    """Values (n, d) @ matrix (d, r), a row at a time: what a row gives depends on no other, however many there are."""
    found: F32 = np.matmul(values[:, None], matrix)[:, 0]
    return found


def nearest(values: F32, whitening: F32, means: F32) -> F32:
    """(n,) Euclidean distance of values (n, d) @ whitening (d, r) to the nearest of means (classes, r).

    |z - m|^2 = |z|^2 - 2 z m + |m|^2, in one product for all classes.
    """
    white = _each(values, whitening)
    apart = np.einsum("cr,cr->c", means, means) - 2 * _each(white, means.T)
    found: F32 = np.sqrt(np.maximum(apart.min(axis=1) + np.einsum("nr,nr->n", white, white), 0))
    return found


@dataclass(frozen=True, slots=True)
class FeatureDistances:
    """Measures features (n, d).

    With y and the arrays of `array_shapes`, A the axes and m a class mean, |y - m|^2 / s2 - |A'y - A'm|^2 is the
    squared Mahalanobis distance: the principal axes of a covariance are orthonormal. What depends on y alone is apart
    from what is a product with y, and that is one product for all classes, axes and directions.
    """

    middle: F32
    """(d,)"""
    scale: F32
    """(d,)"""
    projection: F32
    """(d, classes + r + classes): 2 (A A'm - m / s2), the axes, and class means of length 1."""
    constant: F32
    """(classes,) |m|^2 / s2 - |A'm|^2."""
    precision: np.float32
    """1 / s2, over the squared limit."""
    per_cosine: np.float32
    """1 / limit of 1 - cosine."""

    @staticmethod
    def of(middle: F32, scale: F32, means: F32, axes: F32, limits: F32) -> FeatureDistances:
        """From the arrays of `array_shapes`."""
        precision, per_cosine = limits
        placed, squares = means @ axes, np.einsum("cd,cd->c", means, means)
        inner = 2 * (placed @ axes.T - precision * means)
        directions = means / np.sqrt(squares + _SMALLEST)[:, None]
        projection = np.concatenate([inner.T, axes, directions.T], axis=1)
        constant = precision * squares - np.einsum("cr,cr->c", placed, placed)
        return FeatureDistances(middle, scale, np.ascontiguousarray(projection), constant, precision, per_cosine)

    def __call__(self, features: F32) -> tuple[F32, F32]:
        """(n,) Mahalanobis distances and (n,) distances of direction, to the nearest class mean, over their limits."""
        y = (features - self.middle) * self.scale
        classes, found = len(self.constant), _each(y, self.projection)
        axes, length = found[:, classes:-classes], np.einsum("nd,nd->n", y, y)
        squared = (found[:, :classes] + self.constant).min(axis=1)
        squared += self.precision * length - np.einsum("nr,nr->n", axes, axes)
        cosine = found[:, -classes:].max(axis=1) / np.sqrt(length + _SMALLEST)
        return np.sqrt(np.maximum(squared, 0)), (1 - cosine) * self.per_cosine


@dataclass(frozen=True, slots=True)
class Distances:
    """Measures tiles. Takes calls from any number of threads."""

    features: FeatureDistances
    """Of what the network gives."""
    pixels_whitening: F32
    """(p, p), divided by the limit of the distance."""
    pixels_means: F32
    """(classes, p) class means, whitened."""
    clip: tuple[float, float]
    """Of the radiometry, raw values."""

    @staticmethod
    def of(arrays: Mapping[str, F32], clip: tuple[float, float]) -> Distances:
        """From arrays by the names of `array_shapes`."""
        parts = ("middle", "scale", "means", "axes", "limits")
        features = FeatureDistances.of(*(arrays[f"features_{part}"] for part in parts))
        return Distances(features, arrays["pixels_whitening"], arrays["pixels_means"], clip)

    def __call__(self, tiles: NDArray[np.generic], features: F32) -> F32:
        """(n,) distances of raw tiles (n, bands, H, W) whose features are (n, d); above LIMIT: unknown."""
        return self.of_both(pixel_statistics(tiles, self.clip), features)

    def of_both(self, pixels: F32, features: F32) -> F32:
        """The same, of tiles whose `pixel_statistics` are given."""
        apart = nearest(pixels, self.pixels_whitening, self.pixels_means)
        for more in self.features(features):
            np.maximum(apart, more, out=apart)
        return apart


def read_distances(folder: Path, manifest: Manifest) -> Distances | None:
    """What an artifact measures tiles with; None where it has no limit.

    Raises InputError where the file is not what the manifest describes.
    """
    if manifest.known is None:
        return None
    path = folder / manifest.known.file
    arrays: dict[str, F32] = {}
    shapes = array_shapes(manifest.architecture.dim, len(manifest.classes), len(manifest.bands))
    try:
        with zipfile.ZipFile(path) as archive:
            for name, shape in shapes.items():
                arrays[name] = npz_array(archive, name, shape)
                if not np.isfinite(arrays[name]).all():
                    raise ValueError(f"{name} is not finite")
    except UNREADABLE as error:
        raise InputError(f"{path}: no class means ({one_line(error)}); export the artifact again") from None
    return Distances.of(arrays, manifest.radiometry.clip)
