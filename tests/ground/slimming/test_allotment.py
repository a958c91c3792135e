"""Laws of the allotment, and an exhaustive search as its oracle."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.ground.slimming.allotment import Curve, allot

LOSSES = st.lists(st.floats(0, 100), min_size=1, max_size=6)


@st.composite
def curves(draw: st.DrawFn) -> list[Curve]:
    """One to four halves."""

    def one() -> Curve:
        losses = draw(LOSSES)
        step = draw(st.integers(1, 8))
        sizes = tuple(step * (place + 1) for place in range(len(losses)))
        return Curve(sizes, tuple(losses), draw(st.integers(1, 20)))

    return [one() for _ in range(draw(st.integers(1, 4)))]


def cost_of(some: list[Curve], sizes: list[int]) -> int:
    return sum(c.sizes.index(size) * c.step_flop for c, size in zip(some, sizes, strict=True))


def loss_of(some: list[Curve], sizes: tuple[int, ...] | list[int]) -> float:
    return sum(c.losses[c.sizes.index(size)] for c, size in zip(some, sizes, strict=True))


@given(curves(), st.integers(0, 400))
def test_the_budget_is_kept(some: list[Curve], flop: int) -> None:
    sizes = allot(some, flop)
    assert cost_of(some, sizes) <= flop
    assert all(size in curve.sizes for curve, size in zip(some, sizes, strict=True))


@given(curves(), st.integers(0, 400), st.integers(0, 400))
def test_more_budget_makes_nothing_narrower(some: list[Curve], one: int, other: int) -> None:
    small, large = (allot(some, flop) for flop in sorted((one, other)))
    assert all(a <= b for a, b in zip(small, large, strict=True))


@given(curves())
def test_enough_budget_is_all_of_it(some: list[Curve]) -> None:
    assert allot(some, 10_000) == [curve.sizes[-1] for curve in some]
    assert allot(some, 0) == [curve.sizes[0] for curve in some]


@given(LOSSES, st.integers(1, 5), st.integers(0, 100))
def test_equal_curves_stay_within_a_step_of_each_other(losses: list[float], halves: int, flop: int) -> None:
    curve = Curve(tuple(range(1, len(losses) + 1)), tuple(losses), 3)
    sizes = allot([curve] * halves, flop)
    assert max(sizes) - min(sizes) <= 1
    whole = [place for place in range(len(losses)) if 3 * halves * place <= flop]
    assert min(sizes) == whole[-1] + 1


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 12))
def test_of_falling_savings_nothing_better_exists(savings: list[list[int]], flop: int) -> None:
    """Steps of one price: the greedy choice is the best of all."""
    some = []
    for saved in savings:
        falling = sorted(saved, reverse=True)
        losses = [float(sum(falling[place:])) for place in range(len(falling) + 1)]
        some.append(Curve(tuple(range(1, len(losses) + 1)), tuple(losses), 1))
    every = [sizes for sizes in product(*(c.sizes for c in some)) if cost_of(some, list(sizes)) <= flop]
    assert loss_of(some, allot(some, flop)) == min(loss_of(some, sizes) for sizes in every)


@given(LOSSES)
def test_savings_never_rise_and_sum_to_what_all_steps_save(losses: list[float]) -> None:
    saved = Curve(tuple(range(1, len(losses) + 1)), tuple(losses), 1).savings()
    assert all(before >= after - 1e-9 for before, after in pairwise(saved))
    assert sum(saved) == pytest.approx(losses[0] - losses[-1], abs=1e-6)


def test_a_step_that_saves_nothing_alone_counts_with_the_next() -> None:
    late, even = Curve((1, 2, 3), (10.0, 10.0, 0.0), 1), Curve((1, 2, 3), (8.0, 4.0, 0.0), 1)
    assert late.savings() == [5.0, 5.0]
    assert allot([late, even], 2) == [3, 1]
    assert allot([late, even], 3) == [3, 2]


@pytest.mark.parametrize(
    ("sizes", "losses", "step_flop", "message"),
    [
        ((1, 3, 4), (1.0, 1.0, 0.0), 1, "expected ascending ones, a step apart"),
        ((), (), 1, "expected ascending ones"),
        ((2, 1), (1.0, 0.0), 1, "expected ascending ones"),
        ((1, 2), (1.0,), 1, "expected 2 numbers"),
        ((1, 2), (1.0, float("nan")), 1, "expected 2 numbers"),
        ((1, 2), (1.0, 0.0), 0, "expected at least 1"),
    ],
)
def test_what_is_no_curve_is_refused(
    sizes: tuple[int, ...], losses: tuple[float, ...], step_flop: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Curve(sizes, losses, step_flop)
