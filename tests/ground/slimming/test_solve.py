"""The closed forms of calibration against what defines them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeslim.ground.slimming import solve
from edgeslim.ground.slimming.moments import Covariance, Moments


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments_of(x: Tensor, y: Tensor) -> Covariance:
    moments = Moments()
    moments.add(x, y, torch.ones(len(x)))
    return moments.centred()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000))
def test_moments_in_pieces_are_those_of_all_rows(cut: int, seed: int) -> None:
    x, y = normal(41, 5, seed=seed) * 3 + 1e4, normal(41, 3, seed=seed + 1)
    weights = torch.rand(41, generator=torch.Generator().manual_seed(seed)) + 0.1
    moments = Moments()
    moments.add(x[:cut], y[:cut], weights[:cut])
    moments.add(x[cut:], y[cut:], weights[cut:])
    found, share = moments.centred(), weights.double() / weights.double().sum()
    centred_x, centred_y = x - share @ x, y - share @ y
    torch.testing.assert_close(found.x, share @ x, rtol=1e-8, atol=1e-4)
    torch.testing.assert_close(found.xx, centred_x.T @ (centred_x * share[:, None]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.yx, centred_y.T @ (centred_x * share[:, None]), rtol=1e-5, atol=1e-5)
    weight, bias = normal(3, 5, seed=seed + 2), normal(3, seed=seed + 3)
    expected = (share[:, None] * (y - x @ weight.T - bias).square()).sum()
    assert found.error(weight, bias) == pytest.approx(float(expected), rel=1e-5)


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Moments().centred()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_a_form_of_rank_r_is_exact_at_r_kept_dimensions(rank: int, seed: int) -> None:
    dk, tokens = 6, 50
    mixing = normal(rank, dk, seed=seed)
    q, k = normal(2, tokens, rank, seed=seed + 1) @ mixing, normal(2, tokens, dk, seed=seed + 2)
    to_q, to_k = solve.bilinear(q.mT @ q / tokens, k.mT @ k / tokens, rank)
    found = (q @ to_q.mT) @ (k @ to_k.mT).mT / rank**0.5
    torch.testing.assert_close(found, q @ k.mT / dk**0.5, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_truncated_forms_err_least(kept: int, seed: int) -> None:
    """The error is the sum of the squared singular values left out, and plain first-k is never better."""
    dk = 6
    q, k = normal(200, dk, seed=seed) @ normal(dk, dk, seed=seed + 1), normal(200, dk, seed=seed + 2)
    queries, keys = q.T @ q / 200, k.T @ k / 200
    to_q, to_k = solve.bilinear(queries[None], keys[None], kept)
    scale = (dk / kept) ** 0.5
    left = torch.eye(dk, dtype=torch.float64) - scale * to_q[0].T @ to_k[0]
    error = torch.trace(left.T @ queries @ left @ keys)
    singular = torch.linalg.svdvals(solve.roots(queries)[0] @ solve.roots(keys)[0])
    assert float(error) == pytest.approx(float(singular[kept:].square().sum()), rel=1e-6, abs=1e-9)
    first = torch.diag((torch.arange(dk) >= kept).double())
    assert error <= torch.trace(first @ queries @ first @ keys) * (1 + 1e-9)


def test_values_find_what_each_head_alone_can_say() -> None:
    """Two heads of four dimensions; the targets see two directions of each: two kept dimensions lose nothing."""
    x = normal(400, 8)
    seen = torch.block_diag(normal(2, 4, seed=1), normal(2, 4, seed=2))
    y = x @ seen.T @ normal(4, 5, seed=3)
    moments = moments_of(x, y)
    maps = solve.values(moments, heads=2, kept=2)
    assert maps.shape == (4, 8)
    assert not maps[:2, 4:].any()
    assert not maps[2:, :4].any()
    weight, bias = solve.refit(moments.of(maps), moments.of(maps))
    assert moments.of(maps).error(weight, bias) < 1e-9 * float(moments.yy.sum())
    fewer = solve.values(moments, heads=2, kept=1)
    weight, bias = solve.refit(moments.of(fewer), moments.of(fewer))
    assert moments.of(fewer).error(weight, bias) > 1e-3 * float(moments.yy.sum())


@pytest.mark.parametrize("branches", [1, 2])
def test_units_that_repeat_others_are_left_out(branches: int) -> None:
    """Unit j + 6 is twice unit j. Half of them explain all, and no pair is kept."""
    x = normal(300, 6)
    x = torch.cat([x, 2 * x], dim=1)
    moments = moments_of(x, x @ normal(12, 4, seed=1))
    chosen = solve.units(moments, 6, branches)
    assert sorted(index % 6 for index in chosen.tolist()) == list(range(6))
    assert all(unit % branches == place % branches for place, unit in enumerate(chosen.tolist()))
    some = moments.of(torch.eye(12, dtype=torch.float64)[chosen])
    assert some.error(*solve.refit(some, some)) < 1e-9 * float(moments.yy.sum())


def test_units_are_chosen_as_by_trying_each() -> None:
    x, y = normal(200, 7), normal(200, 3, seed=4)
    y = y + x @ normal(7, 3, seed=5)
    moments = moments_of(x, y)
    expected: list[int] = []
    for _ in range(4):
        errors = {}
        for unit in set(range(7)) - set(expected):
            some = moments.of(torch.eye(7, dtype=torch.float64)[[*expected, unit]])
            errors[unit] = some.error(*solve.refit(some, some, (1e-12,)))
        expected.append(min(errors, key=lambda unit: errors[unit]))
    assert solve.units(moments, 4).tolist() == expected


def test_refit_takes_the_penalty_that_is_best_elsewhere() -> None:
    x, y = normal(30, 20), normal(30, 2, seed=1)  # pure noise: nothing to learn
    other = moments_of(normal(400, 20, seed=2), normal(400, 2, seed=3))
    fit = moments_of(x, y)
    strong, weak = solve.refit(fit, other)[0], solve.refit(fit, fit)[0]
    assert strong.norm() < 0.7 * weak.norm()
    with pytest.raises(ValueError, match="expected at least one"):
        solve.refit(fit, other, ())
