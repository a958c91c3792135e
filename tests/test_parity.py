from __future__ import annotations

import numpy as np
import pytest

from edgeslim.errors import ParityError
from edgeslim.parity import CEILINGS, Ceiling, compare


def test_differences_are_recorded() -> None:
    expected = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    parity = compare(expected + np.array([[0.25, 0.0], [0.0, 2.5]], np.float32), expected)
    assert (parity.tiles, parity.max_abs, parity.argmax_agreement) == (2, 2.5, 0.5)
    assert parity.mean_abs == pytest.approx(2.75 / 4)
    assert parity.logits_range == 2.0
    assert parity.relative == 1.25
    assert set(parity.to_dict()) == {
        "tiles", "max_abs", "mean_abs", "argmax_agreement", "logits_range", "feature_cosine",
    }  # fmt: skip


def test_within_tolerance_passes_and_beyond_is_refused() -> None:
    logits = np.zeros((3, 2), np.float32)
    compare(logits + np.float32(1e-5), logits).require(1e-4, "tiny")
    with pytest.raises(ParityError, match="do not fly") as caught:
        compare(logits + np.float32(1e-3), logits).require(1e-4, "tiny")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("both", [True, False])
def test_what_is_not_finite_never_agrees(bad: float, both: bool) -> None:
    found = np.zeros((2, 2), np.float32)
    found[1, 1] = bad
    expected = found.copy() if both else np.zeros((2, 2), np.float32)
    with pytest.raises(ParityError):
        compare(found, expected).require(1e9, "tiny")


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (4,), (0, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ParityError, match="shape"):
        compare(np.zeros(shape, np.float32), np.zeros((2, 2) if shape != (0, 2) else shape, np.float32))


def test_a_ceiling_names_what_is_beyond_it() -> None:
    expected = np.eye(4, dtype=np.float32)[np.arange(200) % 4] * 10
    near = expected + np.float32(5e-4)
    turned = expected.copy()
    turned[:3] = turned[:3, ::-1]
    assert compare(near, expected).missed(CEILINGS["fp32"]) is None
    missed = compare(near + np.float32(6e-4), expected).missed(CEILINGS["fp32"])
    assert missed is not None
    assert "expected at most 0.0001 of it" in missed
    missed = compare(turned, expected).missed(CEILINGS["int8-static"])
    assert missed is not None
    assert missed.startswith("98.50% of 200 tiles have the same class")
    assert compare(turned, expected).missed(Ceiling(None, 0.98)) is None
    assert compare(turned * np.float32(np.nan), expected).missed(Ceiling(None, 0.0)) == "logits that are not finite"


def test_a_range_of_nothing_allows_nothing() -> None:
    flat = np.zeros((2, 3), np.float32)
    assert compare(flat, flat).relative == 0
    assert compare(flat, flat).missed(CEILINGS["fp32"]) is None
    assert compare(flat + np.float32(1e-6), flat).missed(CEILINGS["fp32"]) is not None


def test_the_least_cosine_of_features_is_kept() -> None:
    logits = np.zeros((3, 2), np.float32)
    features = np.array([[1, 0], [0, 2], [0, 0]], np.float32)
    other = np.array([[1, 0], [2, 2], [0, 0]], np.float32)
    assert compare(logits, logits, (features, features)).feature_cosine == 1
    assert compare(logits, logits, (other, features)).feature_cosine == pytest.approx(0.5**0.5)
    with pytest.raises(ParityError, match="features"):
        compare(logits, logits, (features[:2], features))
