"""Laws of a time that is set right by what was measured."""

import math
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.planning.call_time import ESTIMATED, INSIDE_BAND, MEASURED, OUTSIDE_BAND, RESCALED, Timed, call_time

times = st.floats(1e-5, 10.0)


@st.composite
def measured(draw: st.DrawFn) -> list[Timed]:
    """Some widths, wider ones slower, as computed and as timed."""
    count = draw(st.integers(2, 6))
    apart = st.lists(times, min_size=count, max_size=count, unique_by=lambda seconds: round(math.log(seconds), 3))
    modelled = sorted(draw(apart))
    p50 = sorted(draw(st.lists(times, min_size=count, max_size=count)))
    spread = draw(st.floats(1, 2))
    return [Timed(m, p, p * spread, alike=True) for m, p in zip(modelled, p50, strict=True)]


@given(times, st.integers(1, 64), st.floats(0, 3))
def test_without_measurements_it_is_what_is_computed(seconds: float, batch: int, band: float) -> None:
    found = call_time(seconds, batch, band)
    assert (found.seconds, found.basis) == (seconds, ESTIMATED)
    assert found.low_s == seconds / (1 + band)
    assert found.high_s == seconds * (1 + band)


@given(measured(), st.integers(0, 5), st.integers(1, 64))
def test_what_was_timed_is_believed(rows: list[Timed], index: int, batch: int) -> None:
    row = rows[index % len(rows)]
    exact = Timed(row.modelled_s, row.p50_s, row.p95_s, alike=True, same=True)
    found = call_time(row.modelled_s * batch, batch, 1.0, [*rows, exact])
    assert found.basis == MEASURED
    assert (found.seconds, found.high_s) == (row.p50_s * batch, row.p95_s * batch)


@given(measured(), st.floats(0, 1), st.integers(1, 64))
def test_between_two_timed_widths_it_lies_between_their_times(rows: list[Timed], share: float, batch: int) -> None:
    for narrow, wide in pairwise(rows):
        at = math.exp(math.log(narrow.modelled_s) * (1 - share) + math.log(wide.modelled_s) * share)
        at = min(max(at, narrow.modelled_s), wide.modelled_s)
        found = call_time(at * batch, batch, 1.0, rows)
        assert found.basis == RESCALED
        assert narrow.p50_s * (1 - 1e-9) <= found.seconds / batch <= wide.p50_s * (1 + 1e-9)


@given(measured(), times, times)
def test_more_work_never_takes_less_time(rows: list[Timed], a: float, b: float) -> None:
    less, more = sorted((a, b))
    assert call_time(less, 1, 1.0, rows).seconds <= call_time(more, 1, 1.0, rows).seconds * (1 + 1e-9)


@given(measured(), times)
def test_its_band_holds_it_and_is_wider_beyond_what_was_timed(rows: list[Timed], seconds: float) -> None:
    found = call_time(seconds, 1, 1.0, rows)
    assert found.low_s <= found.seconds <= found.high_s
    spread = median(row.p95_s / row.p50_s for row in rows)
    inside = rows[0].modelled_s <= seconds <= rows[-1].modelled_s
    assert found.high_s / found.seconds == pytest.approx(spread * (1 + (INSIDE_BAND if inside else OUTSIDE_BAND)))


def test_rows_of_other_batches_count_where_there_are_none_of_the_same() -> None:
    other = Timed(1.0, 2.0, 2.0, alike=False)
    found = call_time(3.0, 1, 1.0, [other])
    assert (found.seconds, found.basis) == (pytest.approx(6.0), RESCALED)
    assert found.high_s == pytest.approx(6.0 * (1 + OUTSIDE_BAND))


def test_beyond_what_was_timed_it_stays_on_the_line_within_a_factor_of_two() -> None:
    rows = [Timed(1.0, 2.0, 2.0, alike=True), Timed(2.0, 3.0, 3.0, alike=True)]
    assert call_time(0.5, 1, 1.0, rows).seconds == pytest.approx(1.5)
    assert call_time(4.0, 1, 1.0, rows).seconds == pytest.approx(5.0)
    steep = [Timed(1.0, 1.0, 1.0, alike=True), Timed(2.0, 9.0, 9.0, alike=True)]
    assert call_time(0.5, 1, 1.0, steep).seconds == pytest.approx(0.25)  # the line is below nothing there
    assert call_time(8.0, 1, 1.0, steep).seconds == pytest.approx(57.0)
    assert call_time(100.0, 1, 1.0, steep).seconds == pytest.approx(793.0)
    flat = [Timed(1.0, 2.0, 2.0, alike=True), Timed(2.0, 2.0, 2.0, alike=True)]
    assert call_time(8.0, 1, 1.0, flat).seconds == pytest.approx(4.0)
    assert call_time(0.1, 1, 1.0, flat).seconds == pytest.approx(0.4)
