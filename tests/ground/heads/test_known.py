"""Limits of distances: against scikit-learn's own Mahalanobis distance, and the share that they let through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from edgeslim.errors import InputError
from edgeslim.ground.heads.known import beyond, fit_features, known_of, limits_for, whitened_means
from edgeslim.onboard.known import FeatureDistances, nearest, statistics_of


def test_distances_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    values = (random.normal(0, 1, (120, 6)) * np.logspace(-1, 2, 6) + 5.0 * labels[:, None]).astype(np.float32)
    found = nearest(values, *whitened_means(values, labels, 3))
    scaled = values.astype(np.float64) / values.std(0, dtype=np.float64)
    means = np.stack([scaled[labels == k].mean(0) for k in range(3)])
    oracle = LedoitWolf(assume_centered=True).fit(scaled - means[labels])
    expected = np.sqrt(np.stack([oracle.mahalanobis(scaled - mean) for mean in means]).min(0))
    assert found == pytest.approx(expected, rel=1e-3)


def test_tiles_that_are_alike_have_no_limits() -> None:
    """Saturated or empty tiles: nothing is far from them, or everything."""
    labels = np.arange(12) % 3
    with pytest.raises(InputError, match="found pixels that do not differ within any class"):
        whitened_means(np.ones((12, 4), np.float32) * labels[:, None], labels, 3)


def test_few_features_are_measured_as_scikit_learn_would() -> None:
    """Of d features d - 1 axes are kept: then nothing is left out, and the distance is that of the whole matrix."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    values = (random.normal(0, 1, (120, 6)) * np.logspace(-1, 2, 6) + 5.0 * labels[:, None]).astype(np.float32)
    far, _ = FeatureDistances.of(*fit_features(values, labels, 3))(values)
    scaled = (values - values.mean(0, dtype=np.float64)) / values.std(0, dtype=np.float64)
    means = np.stack([scaled[labels == k].mean(0) for k in range(3)])
    oracle = LedoitWolf(assume_centered=True).fit(scaled - means[labels])
    expected = np.sqrt(np.stack([oracle.mahalanobis(scaled - mean) for mean in means]).min(0))
    assert far == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("tiles", [4, 12, 300])
def test_few_tiles_of_many_features_give_finite_arrays(tiles: int) -> None:
    values = np.random.default_rng(3).normal(0, 1, (tiles, 64)).astype(np.float32)
    fitted = fit_features(values, np.arange(tiles) % 2, 3)
    assert all(np.isfinite(array).all() for array in fitted)
    assert all(np.isfinite(found).all() for found in FeatureDistances.of(*fitted)(values))


def test_a_constant_number_and_an_absent_class_are_no_trouble() -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 3)).astype(np.float32)
    values[:, 1] = 2.0
    labels = np.zeros(40, np.int64)
    for array in (*whitened_means(values, labels, 2), *fit_features(values, labels, 2)):
        assert np.isfinite(array).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.floats(0, 1))
def test_the_share_beyond_either_limit_is_that_asked_for(seed: int, share: float, alike: float) -> None:
    random = np.random.default_rng(seed)
    first, other = random.gamma(2, 1, (2, 500))
    second = alike * first + (1 - alike) * other
    limits = limits_for([first, second], share)
    beyond = ((first > limits[0]) | (second > limits[1])).mean()
    assert share - 0.01 <= beyond <= share + 1e-9


def test_a_part_of_the_share_is_less_of_it() -> None:
    first, second = np.random.default_rng(0).normal(0, 1, (2, 10_000))
    limits = limits_for([first, second], 0.05, (1.0, 0.25))
    alone = [(values > limit).mean() for values, limit in zip((first, second), limits, strict=True)]
    assert alone[1] == pytest.approx(alone[0] / 4, rel=0.05)
    assert ((first > limits[0]) | (second > limits[1])).mean() == pytest.approx(0.05, abs=1e-3)


def test_tiles_like_the_fitted_ones_pass_and_others_do_not() -> None:
    random = np.random.default_rng(1)
    labels, numbers = np.arange(600) % 3, statistics_of(2)
    centres = random.normal(0, 6, (3, 8))
    features = (centres[labels] + random.normal(0, 1, (600, 8))).astype(np.float32)
    pixels = random.normal(0, 1, (600, numbers)).astype(np.float32)
    order = random.permutation(600)
    folds = [(np.setdiff1d(order, part), part) for part in np.array_split(order, 5)]
    arrays = known_of(features, pixels, labels, 3, folds, 0.05)

    def share(some: np.ndarray, other: np.ndarray) -> float:
        return float(beyond(arrays, some.astype(np.float32), other.astype(np.float32)).mean())

    fresh = centres[labels] + random.normal(0, 1, (600, 8)), random.normal(0, 1, (600, numbers))
    assert share(*fresh) == pytest.approx(0.05, abs=0.03)
    assert share(fresh[0] + 8, fresh[1]) > 0.95
    assert share(fresh[0], fresh[1] + 8) > 0.95
    assert share(0.05 * fresh[0] + features.mean(0), fresh[1]) > 0.9  # near none of the class means
