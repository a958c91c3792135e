from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.report.tables import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (5e-5, "0.0001"),
        (4.9e-5, "4.9e-05"),
        (1e-9, "1e-09"),
        (0.19, "0.190"),
        (99.96, "100"),
        (7792, "7,792"),
        (1e14, "100,000,000,000,000"),
        (1e15, "1e+15"),
        (1e300, "1e+300"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@settings(deadline=None)
@given(st.one_of(st.floats(0, 1e307), st.just(float("inf"))))
def test_no_number_is_long_and_none_but_zero_looks_like_it(value: float) -> None:
    text = number(value)
    assert len(text) <= 21
    assert float(text.replace(",", "")) == pytest.approx(value, rel=1.01 if 5e-5 <= value < 1e-4 else 0.006)
