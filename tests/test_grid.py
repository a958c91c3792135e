from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.grid import plan_axis
from tests.onboard.artifacts import slow_axis

SIZES = st.integers(1, 60)


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int]:
    tile = draw(st.integers(1, 17))
    return draw(SIZES), tile, draw(st.integers(1, tile))


@given(axes())
def test_windows_are_those_of_the_slow_reference(axis: tuple[int, int, int]) -> None:
    plan = plan_axis(*axis)
    expected = slow_axis(*axis)
    assert [w.start for w in plan.windows] == [start for start, _, _ in expected]
    for window, (_, pixels, weights) in zip(plan.windows, expected, strict=True):
        assert list(range(window.fill_start, window.fill_stop)) == pixels
        found = plan.weights(window)
        np.testing.assert_allclose(found / found[0], np.array(weights) / weights[0], rtol=1e-6)


@given(axes())
def test_every_pixel_has_weight_and_edges_never_blend(axis: tuple[int, int, int]) -> None:
    size, tile, stride = axis
    plan = plan_axis(size, tile, stride)
    weight, windows = np.zeros(size), np.zeros(size, int)
    for window in plan.windows:
        assert 0 <= window.start <= window.fill_start < window.fill_stop <= window.stop <= size
        assert window.stop - window.start == min(size, tile)
        here = slice(window.fill_start, window.fill_stop)
        assert (plan.weights(window) > 0).all()
        assert (plan.weights(window) <= 1).all()
        weight[here] += plan.weights(window)
        windows[here] += 1
        if not window.blends:
            assert (windows[here] == 1).all()
    assert (weight > 0).all()
    if stride == tile:
        assert (windows == 1).all()


@given(axes())
def test_settled_rows_are_touched_by_no_later_window(axis: tuple[int, int, int]) -> None:
    plan = plan_axis(*axis)
    for index in range(len(plan.windows)):
        assert all(w.fill_start >= plan.settled(index) for i, w in enumerate(plan.windows) if i > index)
    assert plan.settled(len(plan.windows) - 1) == plan.size
    assert plan.cells == len(range(0, plan.size, plan.stride_px))


@settings(deadline=None, max_examples=40)
@given(axes(), axes())
def test_normalised_weights_of_two_axes_sum_to_one(rows: tuple[int, int, int], columns: tuple[int, int, int]) -> None:
    planned = plan_axis(*rows), plan_axis(*columns)
    total = np.zeros((rows[0], columns[0]))
    for y in planned[0].windows:
        for x in planned[1].windows:
            outer = np.outer(planned[0].weights(y), planned[1].weights(x))
            total[y.fill_start : y.fill_stop, x.fill_start : x.fill_stop] += outer
    lines = [np.zeros(p.size) for p in planned]
    for line, plan in zip(lines, planned, strict=True):
        for w in plan.windows:
            line[w.fill_start : w.fill_stop] += plan.weights(w)
    np.testing.assert_allclose(total / np.outer(*lines), 1, rtol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(0, 4), (10, 0), (10, 9)])
def test_impossible_axes_are_refused(size: int, stride: int) -> None:
    with pytest.raises(InputError, match="expected"):
        plan_axis(size, 8, stride)


@given(axes(), st.integers(1, 70))
def test_spans_complete_every_window_once_with_pixels_at_hand(axis: tuple[int, int, int], step: int) -> None:
    plan = plan_axis(*axis)
    done, pixel = 0, 0
    for index in range(plan.spans(step)):
        span = plan.span(index, step)
        assert (span.start, span.first) == (pixel, done)
        assert 0 < span.stop - span.start <= step
        assert span.start - plan.tile_px < span.keep <= span.start
        for number in range(span.first, span.last):
            window = plan.windows[number]
            assert span.keep <= window.start < window.stop <= span.stop
            assert window.stop > span.start
        done, pixel = span.last, span.stop
    assert (pixel, done) == (plan.size, len(plan.windows))
    spans = [plan.span(index, step) for index in range(plan.spans(step))]
    assert plan.kept_px(step) == max(span.start - span.keep for span in spans)


def test_a_plan_of_millions_of_windows_is_not_a_list() -> None:
    plan = plan_axis(16_777_215, 64, 1)
    assert len(plan.windows) == 16_777_152
    assert plan.windows[len(plan.windows) - 1].stop == plan.size
