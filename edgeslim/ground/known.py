"""Known: from the tiles that a head was fitted on, the limits beyond which a tile is none of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from edgeslim.ground.fitting import MOST_CHECKED, Fold
from edgeslim.onboard.known import ARRAYS, nearest

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
UNKNOWN_SHARE = 0.05
"""Of tiles like those that it was fitted on, unless another share is asked for."""


def whitened_means(values: F32, labels: NDArray[np.int64], classes: int) -> tuple[F32, F32]:
    """Whitening (d, d) and whitened class means (classes, d) of values (n, d) with labels (n,).

    Distances after it are Mahalanobis distances with the covariance of all tiles about their class's mean, shrunk
    towards a multiple of the identity as far as their number asks for (Ledoit and Wolf, J. Multivar. Anal. 88, 2004).
    Numbers are brought to unit deviation first, lest the largest of them decide the shrinkage. A class without tiles
    has the mean of all.
    """
    scale = np.maximum(values.std(0, dtype=np.float64), 1e-6)
    scaled = values / scale
    means = np.stack([scaled[labels == k].mean(0) if (labels == k).any() else scaled.mean(0) for k in range(classes)])
    fitted = LedoitWolf(assume_centered=True).fit(scaled - means[labels])
    root = np.linalg.cholesky(np.asarray(fitted.precision_, np.float64))
    return (root / scale[:, None]).astype(np.float32), (means @ root).astype(np.float32)


def known_of(
    features: F32, pixels: F32, labels: NDArray[np.int64], classes: int, folds: Sequence[Fold], unknown_share: float
) -> dict[str, F32]:
    """Arrays of edgeslim.onboard.known.Distances, from features (n, d) and pixel statistics (n, 3 * bands) of tiles.

    The limits are quantiles of the distances of tiles to class means that they had no part in, over all `folds`: the
    same share of them is beyond either limit, and `unknown_share` of them beyond one of the two or both.
    """
    apart: list[tuple[F32, F32]] = []
    for fit, check in folds:
        fit = fit[:: max(1, -(-len(fit) // MOST_CHECKED))]
        found = [
            nearest(values[check], *whitened_means(values[fit], labels[fit], classes)) for values in (features, pixels)
        ]
        apart.append((found[0], found[1]))
    distances = [np.concatenate(parts).astype(np.float64) for parts in zip(*apart, strict=True)]
    limits = limits_for(distances, unknown_share)
    arrays: list[F32] = []
    for values, limit in zip((features, pixels), limits, strict=True):
        whitening, means = whitened_means(values, labels, classes)
        arrays += [(whitening / limit).astype(np.float32), (means / limit).astype(np.float32)]
    return dict(zip(ARRAYS, arrays, strict=True))


def limits_for(distances: Sequence[F64], unknown_share: float) -> list[float]:
    """Limits of several distances (n,) of the same tiles, beyond any of which lie at most `unknown_share` of them.

    All at the same quantile, the lowest that does: it lies between those for one limit and for all of them apart.
    """
    low, high = 1 - unknown_share, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        limits = [float(np.quantile(one, middle)) for one in distances]
        beyond = np.logical_or.reduce([one > limit for one, limit in zip(distances, limits, strict=True)])
        low, high = (middle, high) if beyond.mean() > unknown_share else (low, middle)
    return [max(1e-6, float(np.quantile(one, high))) for one in distances]
