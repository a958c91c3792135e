"""Measures of redundancy: laws, and slow references."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.ground.measuring.redundancy import (
    EXPLAINED,
    effective_dimension,
    explained_variance,
    likeness,
    mean_feature_correlation,
    pixel_statistics,
    spectrum,
    spectrum_slope,
    standardised,
)

seeds = st.integers(0, 2**32 - 1)


def _turn(random: np.random.Generator, size: int) -> np.ndarray:
    return np.linalg.qr(random.normal(size=(size, size)))[0]


@settings(deadline=None)
@given(seeds, st.integers(2, 40), st.integers(2, 12))
def test_the_spectrum_is_that_of_the_covariance(seed: int, tiles: int, features: int) -> None:
    values = np.random.default_rng(seed).normal(size=(tiles, features)) + 5
    found = spectrum(values)
    expected = np.linalg.eigvalsh(np.cov(values, rowvar=False))[::-1][: min(tiles - 1, features)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert explained_variance(found).sum() == pytest.approx(1)
    assert 1 <= effective_dimension(found) <= min(tiles - 1, features) + 1e-9


@settings(deadline=None)
@given(seeds, st.floats(0.1, 50))
def test_dimension_and_likeness_do_not_see_rotation_scale_or_shift(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(30, 6)) * (1, 2, 3, 4, 5, 6)
    changed = scale * values @ _turn(random, 6) + 3
    assert effective_dimension(spectrum(changed)) == pytest.approx(effective_dimension(spectrum(values)), rel=1e-6)
    assert likeness([values, changed])[0, 1] == pytest.approx(1, abs=1e-9)


def test_dimensions_at_their_ends() -> None:
    assert effective_dimension(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_dimension(np.array([2.0, 0, 0])) == pytest.approx(1)
    assert effective_dimension(np.zeros(3)) == 0
    assert explained_variance(np.zeros(3)).tolist() == [0, 0, 0]


@given(st.floats(0.1, 1.4), st.integers(30, 200))
def test_the_slope_of_a_power_law_is_its_exponent(exponent: float, count: int) -> None:
    shares = explained_variance(np.arange(1, count + 1) ** -exponent)
    assert np.cumsum(shares)[2] < EXPLAINED
    assert spectrum_slope(shares) == pytest.approx(-exponent, rel=1e-6)


def test_two_directions_have_no_slope() -> None:
    assert spectrum_slope(np.array([0.9, 0.1, 0.0])) is None


@settings(deadline=None)
@given(seeds)
def test_correlation_is_the_mean_of_all_pairs(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(25, 5))
    matrix = np.abs(np.corrcoef(values, rowvar=False))
    assert mean_feature_correlation(values) == pytest.approx(matrix[np.triu_indices(5, 1)].mean())
    # A feature that does not vary is in no pair.
    assert mean_feature_correlation(np.c_[values, np.full(25, 7.0)]) == pytest.approx(mean_feature_correlation(values))


def test_copies_of_a_feature_are_one() -> None:
    one = np.random.default_rng(0).normal(size=(20, 1))
    assert mean_feature_correlation(np.hstack([one, -2 * one, 3 * one + 1])) == pytest.approx(1)
    assert mean_feature_correlation(one) == 0


def _slow_hsic(one: np.ndarray, other: np.ndarray) -> float:
    """The U-statistic that the closed form sums up (Song et al. 2012, theorem 2), over all quadruples of tiles."""
    total, count = 0.0, 0
    for i, j, q, r in permutations(range(len(one)), 4):
        total += one[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
        count += 1
    return total / count


def test_likeness_is_the_unbiased_one() -> None:
    random = np.random.default_rng(1)
    values, others = random.normal(size=(7, 3)), random.normal(size=(7, 4))
    one, other = ((v - v.mean(0)) @ (v - v.mean(0)).T for v in (values, others))
    slow = _slow_hsic(one, other) / np.sqrt(_slow_hsic(one, one) * _slow_hsic(other, other))
    assert likeness([values, others])[0, 1] == pytest.approx(slow, abs=1e-9)


def test_unrelated_features_are_not_found_alike() -> None:
    random = np.random.default_rng(2)
    values, others = random.normal(size=(2, 100, 400))
    one, other = ((v - v.mean(0)) @ (v - v.mean(0)).T for v in (values, others))
    biased = np.vdot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    assert biased > 0.7  # what the usual estimator says of noise
    assert abs(likeness([values, others])[0, 1]) < 0.1
    assert likeness([values, np.ones((100, 3))])[0, 1] == 0


def test_pixel_statistics_are_what_numpy_says() -> None:
    tiles = np.random.default_rng(3).uniform(0, 255, (6, 2, 9, 9))
    found = pixel_statistics(tiles)
    assert found.shape == (6, 14)
    np.testing.assert_allclose(found[:, 0], tiles[:, 0].mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found[:, 8], tiles[:, 1].std((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found[4, 11], np.median(tiles[4, 1]), rtol=1e-6)
    even = standardised(np.c_[found, np.full(6, 4.0, np.float32)])
    np.testing.assert_allclose(even[:, :14].std(0), 1, rtol=1e-5)
    assert (even[:, 14] == 0).all()
