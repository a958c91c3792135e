"""Known: from the tiles that a head was fitted on, the limits beyond which a tile is none of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from edgeslim.errors import InputError
from edgeslim.ground.heads.fitting import MOST_CHECKED, Fold
from edgeslim.onboard.known import LIMIT, Distances, FeatureDistances, nearest, rank_of

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
UNKNOWN_SHARE = 0.05
"""Of tiles like those that it was fitted on, unless another share is asked for."""
_PIXELS = 0.25
"""Of the share that is beyond either limit of the features, that beyond the limit of the pixels: other sensors lie far
beyond it, and what it does not take is left to the features, which tell classes that were never seen."""


class _Features(NamedTuple):
    """Arrays of edgeslim.onboard.known.FeatureDistances, their limits 1."""

    middle: F32
    scale: F32
    means: F32
    axes: F32
    limits: F32


def known_of(
    features: F32, pixels: F32, labels: NDArray[np.int64], classes: int, folds: Sequence[Fold], unknown_share: float
) -> dict[str, F32]:
    """Arrays of edgeslim.onboard.known.Distances, from features (n, d) and pixel statistics (n, p) of tiles.

    The limits are quantiles of the distances of tiles to class means that they had no part in, over all `folds`: as
    many of them are beyond that of the features as beyond that of their direction, _PIXELS times as many beyond that of
    the pixels, and `unknown_share` of them beyond at least one.
    """
    apart: list[tuple[F32, ...]] = []
    for fit, check in folds:
        fit = fit[:: max(1, -(-len(fit) // MOST_CHECKED))]
        measure = FeatureDistances.of(*fit_features(features[fit], labels[fit], classes))
        whitened = whitened_means(pixels[fit], labels[fit], classes)
        apart.append((*measure(features[check]), nearest(pixels[check], *whitened)))
    distances = [np.concatenate(parts).astype(np.float64) for parts in zip(*apart, strict=True)]
    far, turned, other = limits_for(distances, unknown_share, (1.0, 1.0, _PIXELS))
    fitted = fit_features(features, labels, classes)
    whitening, means = whitened_means(pixels, labels, classes)
    return {
        "features_middle": fitted.middle,
        "features_scale": fitted.scale,
        "features_means": fitted.means,
        "features_axes": _short(fitted.axes / far),
        "features_limits": np.array([fitted.limits[0] / far**2, 1 / turned], np.float32),
        "pixels_whitening": (whitening / other).astype(np.float32),
        "pixels_means": (means / other).astype(np.float32),
    }


def beyond(arrays: dict[str, F32], features: F32, pixels: F32) -> NDArray[np.bool_]:
    """(n,) whether tiles with these features (n, d) and pixel statistics (n, p) are unknown."""
    found: NDArray[np.bool_] = Distances.of(arrays, (0.0, 1.0)).of_both(pixels, features) > LIMIT
    return found


def fit_features(values: F32, labels: NDArray[np.int64], classes: int) -> _Features:
    """What the features (n, d) of tiles with labels (n,) are measured with, before limits.

    Their covariance about their class's mean is shrunk towards a multiple of the identity as far as their number asks
    for (Ledoit and Wolf, J. Multivar. Anal. 88, 2004), then cut to `rank_of(d)` principal axes. A class without tiles
    has the mean of all.
    """
    middle = values.mean(0, dtype=np.float64)
    scale = 1 / np.maximum(values.std(0, dtype=np.float64), 1e-6)
    scaled = (values - middle) * scale
    means = _class_means(scaled, labels, classes)
    covariance = LedoitWolf(assume_centered=True).fit(scaled - means[labels]).covariance_
    variances, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    rank = rank_of(len(middle))
    rest = max(float(variances[:-rank].mean()), 1e-12)
    # Where an axis is no longer than those that are left out, rounding decides the sign.
    weights = np.sqrt(np.maximum(1 / rest - 1 / np.maximum(variances[-rank:], 1e-12), 0))
    kept = axes[:, -rank:] * weights
    limits = np.array([1 / rest, 1], np.float32)
    return _Features(middle.astype(np.float32), scale.astype(np.float32), _short(means), _short(kept), limits)


def whitened_means(values: F32, labels: NDArray[np.int64], classes: int) -> tuple[F32, F32]:
    """Whitening (d, d) and whitened class means (classes, d) of values (n, d) with labels (n,).

    Distances after it are Mahalanobis distances with the covariance of all tiles about their class's mean, shrunk as in
    `fit_features`. Numbers are brought to unit deviation first, lest the largest of them decide the shrinkage. Raises
    InputError where all tiles of a class are alike, for every class: nothing is far from them, or everything.
    """
    scale = np.maximum(values.std(0, dtype=np.float64), 1e-6)
    scaled = values / scale
    means = _class_means(scaled, labels, classes)
    fitted = LedoitWolf(assume_centered=True).fit(scaled - means[labels])
    try:
        root = np.linalg.cholesky(np.asarray(fitted.precision_, np.float64))
    except np.linalg.LinAlgError:
        raise InputError(
            "--tiles: found pixels that do not differ within any class, expected tiles of what the encoder will see; "
            "are they empty, or is their --scale wrong?"
        ) from None
    return (root / scale[:, None]).astype(np.float32), (means @ root).astype(np.float32)


def _class_means(values: F64, labels: NDArray[np.int64], classes: int) -> F64:
    """(classes, d); of a class without tiles the mean of all."""
    return np.stack([values[labels == k].mean(0) if (labels == k).any() else values.mean(0) for k in range(classes)])


def _short(values: F64 | F32) -> F32:
    """With the eleven digits of half precision, so that an uplink takes half the bytes: the exponents stay."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: F32 = ((bits + np.uint32(1 << 12)) & ~np.uint32((1 << 13) - 1)).view(np.float32)
    return rounded


def limits_for(distances: Sequence[F64], unknown_share: float, parts: Sequence[float] | None = None) -> list[float]:
    """Limits of several distances (n,) of the same tiles, beyond any of which lie at most `unknown_share` of them.

    Beyond each alone lie as many as its part says, beside the others'; the same of all if none is given.
    """
    parts = [1.0] * len(distances) if parts is None else parts
    low, high = 0.0, unknown_share
    for _ in range(30):
        middle = (low + high) / 2
        limits = [float(np.quantile(one, 1 - middle * part)) for one, part in zip(distances, parts, strict=True)]
        beyond = np.logical_or.reduce([one > limit for one, limit in zip(distances, limits, strict=True)])
        low, high = (low, middle) if beyond.mean() > unknown_share else (middle, high)
    found = [np.quantile(one, 1 - low * part) for one, part in zip(distances, parts, strict=True)]
    return [max(1e-6, float(limit)) for limit in found]
