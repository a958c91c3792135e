from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.report.axis import Axis, Labels, axis_for

values = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=30)


@given(values)
def test_an_axis_holds_its_values_in_their_order(found: list[float]) -> None:
    axis = axis_for(found, 40, 400)
    places = [axis.at(value) for value in sorted(found)]
    assert all(40 <= place <= 400 for place in places)
    assert all(one <= other for one, other in pairwise(places))


@given(values, st.integers(2, 8))
def test_ticks_are_few_round_and_on_the_axis(found: list[float], most: int) -> None:
    axis = axis_for(found, 0, 100)
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    slack = (axis.high - axis.low) * 1e-6
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert len({float(f"{step:.3g}") for step in steps}) <= 1


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 22, [0, 5, 10, 15, 20]), (0.94, 0.975, [0.94, 0.95, 0.96, 0.97]), (0, 0.3, [0, 0.1, 0.2, 0.3])],
)
def test_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert Axis(low, high, 0, 1).ticks() == ticks


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300), st.text("0.1x", min_size=1, max_size=12)), max_size=12))
def test_labels_do_not_collide_and_stay_in_their_room(points: list[tuple[float, float, str]]) -> None:
    labels = Labels(0, 0, 400, 300)
    placed = [(x, y, text) for x, y, text in points if labels.place(x, y, text) is not None]
    assert len(labels.taken) == len(placed)
    for one, other in combinations(labels.taken, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for left, top, right, bottom in labels.taken:
        assert 0 <= left <= right <= 400
        assert 0 <= top <= bottom <= 300
