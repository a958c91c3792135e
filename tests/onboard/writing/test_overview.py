from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeslim.onboard.writing.maps import NODATA
from edgeslim.onboard.writing.overview import mean_known, most_frequent

shapes = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9))
values_of = {"all known": [0, 1, 2, 253, 254], "with nodata": [0, 1, 2, 254, NODATA]}
maps = st.tuples(shapes, st.sampled_from(list(values_of)), st.sampled_from([1, 2, 4])).flatmap(
    # Rows of a window are often the same.
    lambda how: arrays(np.uint8, how[0], elements=st.sampled_from(values_of[how[1]])).map(lambda m: m.repeat(how[2], 1))
)


def fours(values: np.ndarray, of: Callable[[list[int]], int]) -> np.ndarray:
    bands, height, width = values.shape
    small = np.empty((bands, -(-height // 2), -(-width // 2)), np.uint8)
    for band, row, column in np.ndindex(small.shape):
        four = values[band, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel().tolist()
        known = [v for v in four if v != NODATA]
        small[band, row, column] = of(known) if known else NODATA
    return small


def frequent(known: list[int]) -> int:
    return max(Counter(known).items(), key=lambda item: (item[1], -known.index(item[0])))[0]


@given(maps)
def test_codes_are_counted_and_nodata_never_outvotes_a_pixel(values: np.ndarray) -> None:
    np.testing.assert_array_equal(most_frequent(values), fours(values, frequent))


@given(maps)
def test_quantities_are_averaged_over_what_is_known(values: np.ndarray) -> None:
    def mean(known: list[int]) -> int:
        return (2 * sum(known) + len(known)) // (2 * len(known))

    np.testing.assert_array_equal(mean_known(values), fours(values, mean))


@pytest.mark.parametrize("halve", [most_frequent, mean_known])
def test_halving_in_pieces_of_even_rows_changes_nothing(halve: Callable[[np.ndarray], np.ndarray]) -> None:
    values = np.random.default_rng(0).choice(np.array([0, 3, 7, NODATA], np.uint8), (1, 33, 17))
    pieces = [halve(values[:, i : i + 8]) for i in range(0, 33, 8)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), halve(values))
