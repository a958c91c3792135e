"""Redundancy: what features of many tiles tell of themselves and of each other. NumPy, no labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
EXPLAINED = 0.95
"""Share of the variance whose ranks the slope is fitted to: behind it lies noise, and the number of tiles."""
_LEAST_RANKS = 3
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def spectrum(features: NDArray[np.floating]) -> F64:
    """Eigenvalues of the covariance of (n, d) features, largest first, at least 0; min(n - 1, d) of them."""
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2 / max(1, len(centred) - 1)
    found: F64 = values[: min(len(centred) - 1, centred.shape[1])]
    return found


def explained_variance(values: F64) -> F64:
    """Share of all variance that each eigenvalue explains; zeros where there is none (arXiv 2601.22841)."""
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)


def spectrum_slope(shares: F64) -> float | None:
    """Least-squares slope of log share against log rank, over the ranks that explain EXPLAINED together.

    The steeper it falls, the fewer directions carry the features; None where fewer than three ranks do.
    """
    ranks = int(np.searchsorted(np.cumsum(shares), EXPLAINED * shares.sum())) + 1
    kept = shares[:ranks]
    if ranks < _LEAST_RANKS or not (kept > 0).all():
        return None
    return float(np.polyfit(np.log(np.arange(1, ranks + 1)), np.log(kept), 1)[0])


def effective_dimension(values: F64) -> float:
    """(sum of eigenvalues)^2 / sum of their squares (arXiv 2601.22841): d for a sphere, 1 for a line; 0 for a point."""
    squares = float(np.square(values).sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else 0.0


def mean_feature_correlation(features: NDArray[np.floating]) -> float:
    """2 / (D (D - 1)) sum of |corr| over pairs of the D features that vary (arXiv 2601.22841); 0 where fewer than two.

    `features` is (n, d).
    """
    values = np.asarray(features, np.float64)
    spread = values.std(0)
    moving = spread > 1e-9 * np.maximum(np.abs(values.mean(0)), 1e-30)
    if moving.sum() < 2:
        return 0.0
    standard = (values[:, moving] - values[:, moving].mean(0)) / spread[moving]
    correlations = np.abs(standard.T @ standard / len(standard))
    count = len(correlations)
    return float((correlations.sum() - np.trace(correlations)) / (count * (count - 1)))


def likeness(features: Sequence[NDArray[np.floating]]) -> F64:
    """(k, k) debiased linear CKA of k sets of (n, d) features of the same n tiles, n at least 4.

    Linear CKA (Kornblith et al. 2019, arXiv 1905.00414) with the unbiased estimator of HSIC (Song et al. 2012): the
    usual one finds unrelated features alike where tiles are not many more than features. 0 against features that do
    not vary.
    """
    if len(features[0]) < 4:
        raise ValueError(f"likeness: found {len(features[0])} tiles, expected at least 4")
    grams = [_gram(one) for one in features]
    own = np.array([_hsic(gram, gram) for gram in grams])
    found = np.eye(len(grams))
    for row in range(len(grams)):
        for column in range(row):
            scale = np.sqrt(max(own[row], 0.0) * max(own[column], 0.0))
            value = _hsic(grams[row], grams[column]) / scale if scale > 0 else 0.0
            found[row, column] = found[column, row] = np.clip(value, -1.0, 1.0)
    return found


def _gram(features: NDArray[np.floating]) -> F64:
    values = np.asarray(features, np.float64)
    values = values - values.mean(0)
    size = np.sqrt(np.square(values).sum())
    gram: F64 = (values / (size if size > 0 else 1.0)) @ (values / (size if size > 0 else 1.0)).T
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(one: F64, other: F64) -> float:
    """Unbiased HSIC of two Gram matrices whose diagonals are zero (Song et al. 2012, equation 5)."""
    n = len(one)
    trace = float(np.vdot(one, other))
    sums = float(one.sum()) * float(other.sum()) / ((n - 1) * (n - 2))
    cross = 2 * float(one.sum(0) @ other.sum(0)) / (n - 2)
    return (trace + sums - cross) / (n * (n - 3))


def pixel_statistics(tiles: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, bands, H, W) -> (n, 7 bands): mean, deviation and five quantiles of each band, without any network.

    What an encoder must beat to have anything of its own. `standardised` makes them comparable.
    """
    flat = np.asarray(tiles, np.float64).reshape(*tiles.shape[:2], -1)
    quantiles = np.moveaxis(np.quantile(flat, _QUANTILES, axis=2), 0, 2)
    return (
        np.concatenate([flat.mean(2)[..., None], flat.std(2)[..., None], quantiles], 2)
        .reshape(len(flat), -1)
        .astype(np.float32)
    )


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) features, each with mean 0 and deviation 1 over the tiles; what does not vary becomes 0."""
    values = np.asarray(features, np.float64)
    spread = values.std(0)
    moving = spread > 1e-9 * np.maximum(np.abs(values.mean(0)), 1e-30)
    return np.where(moving, (values - values.mean(0)) / np.where(moving, spread, 1.0), 0.0).astype(np.float32)
