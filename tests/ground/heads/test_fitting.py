"""Heads against scikit-learn itself, and what folding mean, scale and temperature into them must not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from edgeslim.ground.heads.fitting import (
    STRENGTHS,
    called_by,
    confidence_of,
    fit_linear,
    fit_neighbours,
    neighbours_say,
    temperature,
)

Folds = list[tuple[np.ndarray, np.ndarray]]


def made(count: int = 240, classes: int = 4, dim: int = 12, apart: float = 1.2) -> tuple[np.ndarray, np.ndarray, Folds]:
    """Features, flags of one class a tile, and three folds."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    features = random.normal(0, 1, (count, dim)) + apart * random.normal(0, 1, (classes, dim))[labels]
    features = (features * np.logspace(-3, 3, dim) + 7).astype(np.float32)
    numbers = random.permutation(count)
    folds = [(np.setdiff1d(numbers, part), part) for part in np.array_split(numbers, 3)]
    return features, np.arange(classes) == labels[:, None], folds


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_answers_are_scikit_learns_at_the_chosen_strength(kind: str) -> None:
    features, has, folds = made()
    head = fit_linear(kind, features, has, folds, False)
    assert head.converged
    assert head.strength in STRENGTHS
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    if kind == "ridge":
        oracle = RidgeClassifier(alpha=head.strength * len(scaled)).fit(scaled, has.argmax(1))
        expected = oracle.decision_function(scaled)
    else:
        oracle = LogisticRegression(C=1 / (head.strength * len(scaled)), max_iter=5000, tol=1e-8)
        expected = oracle.fit(scaled, has.argmax(1)).decision_function(scaled)
    assert head.logits(features) * head.temperature == pytest.approx(expected, abs=0.02)


def test_a_useless_feature_and_a_constant_one_do_no_harm() -> None:
    features, has, folds = made()
    features[:, 0] = 3.0
    head = fit_linear("logistic", features, has, folds, False)
    assert np.isfinite(head.weight).all()
    assert (head.weight[:, 0] == 0).all()


def test_two_classes_and_several_a_tile() -> None:
    features, has, folds = made(classes=2)
    head = fit_linear("logistic", features, has, folds, False)
    assert head.logits(features).shape == (240, 2)
    assert (called_by(head.logits(features), False) == has).all(1).mean() > 0.9
    several = np.concatenate([has, has[:, :1] | (features[:, 3:4] > features[:, 3].mean())], axis=1)
    head = fit_linear("logistic", features, several, folds, True)
    one = LogisticRegression(C=1 / (head.strength * 240), max_iter=5000, tol=1e-8)
    expected = one.fit(StandardScaler().fit_transform(features), several[:, 2]).decision_function(
        StandardScaler().fit_transform(features)
    )
    assert head.logits(features)[:, 2] * head.temperature == pytest.approx(expected, abs=0.02)
    assert ((head.logits(features) > 0) == called_by(head.logits(features), True)).all()


def test_a_class_that_a_fold_lacks_is_never_called_there() -> None:
    features, has, _ = made()
    fit = np.flatnonzero(~has[:, 3])
    head = fit_linear("logistic", features, has, [(fit, np.flatnonzero(has[:, 3])), (fit, fit)], False)
    assert np.isfinite(head.logits(features)).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 8.0), st.integers(0, 5))
def test_the_temperature_of_scaled_logits_is_scaled(factor: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (400, 3))
    labels = (logits + random.gumbel(0, 1, logits.shape)).argmax(1)  # drawn by their softmax: temperature 1
    has = np.arange(3) == labels[:, None]
    own = temperature(logits, has)
    assert own == pytest.approx(1.0, abs=0.35)
    assert temperature(logits * factor, has) == pytest.approx(own * factor, rel=1e-2)

    def loss(t: float) -> float:
        return float(-log_softmax(logits / t, axis=1)[has].mean())

    assert loss(own) <= min(loss(own * 1.05), loss(own / 1.05)) + 1e-9


def test_neighbours_are_scikit_learns() -> None:
    features, has, folds = made()
    model, count = fit_neighbours(features, has, folds)
    oracle = KNeighborsClassifier(count, metric="cosine").fit(features, has.argmax(1))
    assert neighbours_say(model, features) + 0.5 == pytest.approx(oracle.predict_proba(features))


def test_confidence_is_a_probability() -> None:
    logits = np.array([[0.0, 0.0], [3.0, -40.0]])
    assert confidence_of(logits, False) == pytest.approx([0.5, 1.0])
    assert confidence_of(logits, True) == pytest.approx([0.5, 1 / (1 + np.exp(-3))])
