from __future__ import annotations

import numpy as np
import pytest

from edgeslim.errors import ParityError
from edgeslim.parity import compare


def test_differences_are_recorded() -> None:
    expected = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    parity = compare(expected + np.array([[0.25, 0.0], [0.0, 2.5]], np.float32), expected)
    assert (parity.tiles, parity.max_abs, parity.argmax_agreement) == (2, 2.5, 0.5)
    assert parity.mean_abs == pytest.approx(2.75 / 4)
    assert set(parity.to_dict()) == {"tiles", "max_abs", "mean_abs", "argmax_agreement"}


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
