"""Limits of distances: against scikit-learn's own Mahalanobis distance, and the share that they let through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from edgeslim.ground.known import known_of, limits_for, whitened_means
from edgeslim.onboard.known import nearest


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


def test_a_constant_number_and_an_absent_class_are_no_trouble() -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 3)).astype(np.float32)
    values[:, 1] = 2.0
    whitening, means = whitened_means(values, np.zeros(40, np.int64), 2)
    assert np.isfinite(whitening).all()
    assert np.isfinite(means).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.floats(0, 1))
def test_the_share_beyond_either_limit_is_that_asked_for(seed: int, share: float, alike: float) -> None:
    random = np.random.default_rng(seed)
    first, other = random.gamma(2, 1, (2, 500))
    second = alike * first + (1 - alike) * other
    limits = limits_for([first, second], share)
    beyond = ((first > limits[0]) | (second > limits[1])).mean()
    assert share - 0.01 <= beyond <= share + 1e-9


def test_tiles_like_the_fitted_ones_pass_and_others_do_not() -> None:
    random = np.random.default_rng(1)
    labels = np.arange(600) % 3
    centres = random.normal(0, 6, (3, 8))
    features = (centres[labels] + random.normal(0, 1, (600, 8))).astype(np.float32)
    pixels = random.normal(0, 1, (600, 9)).astype(np.float32)
    numbers = random.permutation(600)
    folds = [(np.setdiff1d(numbers, part), part) for part in np.array_split(numbers, 5)]
    found = known_of(features, pixels, labels, 3, folds, 0.05)

    def beyond(some: np.ndarray, other: np.ndarray) -> float:
        apart = [
            nearest(v.astype(np.float32), found[f"{n}_whitening"], found[f"{n}_means"])
            for n, v in (("features", some), ("pixels", other))
        ]
        return float((np.maximum(*apart) > 1).mean())

    fresh = centres[labels] + random.normal(0, 1, (600, 8)), random.normal(0, 1, (600, 9))
    assert beyond(*fresh) == pytest.approx(0.05, abs=0.03)
    assert beyond(fresh[0] + 8, fresh[1]) > 0.95
    assert beyond(fresh[0], fresh[1] + 8) > 0.95
