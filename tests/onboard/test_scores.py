"""Scores against scikit-learn, where it is installed, and the laws that they keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.onboard.scores import (
    calibration_error,
    class_scores,
    confusion_of,
    micro_f1,
    wilson_interval,
)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_wilson_interval_holds_its_share_and_narrows(right: int, count: int) -> None:
    share = min(right, count) / count
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share + 5e-5
    assert share - 5e-5 <= high <= 1
    closer = wilson_interval(share, 4 * count)
    assert closer[1] - closer[0] <= high - low + 1e-4


def test_the_interval_is_that_of_the_textbook() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263.
    assert wilson_interval(81 / 263, 263) == (0.2553, 0.3662)
    for count in range(1, 400):
        assert str(wilson_interval(0.0, count)[0]) == "0.0"  # not "-0.0", nor less
        assert wilson_interval(1.0, count)[1] == 1.0


def test_numbers_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels, answers = random.integers(0, 4, (2, 200))
    assert (confusion_of(labels, answers, 4) == metrics.confusion_matrix(labels, answers)).all()
    has, called = (np.arange(4) == values[:, None] for values in (labels, answers))
    found = class_scores(("a", "b", "c", "d"), has, called)
    precision, recall, _, support = metrics.precision_recall_fscore_support(labels, answers)
    assert [one.recall for one in found] == pytest.approx(list(recall))
    assert [one.precision for one in found] == pytest.approx(list(precision))
    assert [one.tiles for one in found] == list(support)
    assert micro_f1(has, called) == pytest.approx(metrics.accuracy_score(labels, answers))
    several = random.random((200, 4)) < 0.4
    assert micro_f1(several, called) == pytest.approx(metrics.f1_score(several, called, average="micro"))


def test_what_nothing_is_known_of_is_none() -> None:
    none = np.zeros((3, 1), np.bool_)
    assert class_scores(("a",), none, none)[0].recall is None
    assert class_scores(("a",), none, none)[0].precision is None
    assert micro_f1(none, none) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_a_share_and_that_of_a_loop(rows: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*rows, strict=True))
    found = calibration_error(confidence, right)
    expected = 0.0
    for index in range(15):
        inside = np.minimum((confidence * 15).astype(int), 14) == index
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 <= found <= 1


def test_certainty_that_is_always_right_has_no_error() -> None:
    assert calibration_error(np.ones(5), np.ones(5, np.bool_)) == 0
    assert calibration_error(np.ones(5), np.zeros(5, np.bool_)) == 1
