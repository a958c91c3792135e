"""Percentiles, rates and answers of timed calls, on a clock that the test moves."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgeslim.errors import UntrustedResult
from edgeslim.onboard.timing.calls import Golden, time_calls, timing_of
from edgeslim.onboard.timing.case import Case
from tests.onboard.timing.fakes import TILES, FakeNetwork

COSTS = {"open_ms": 1.0, "first_ms": 2.0, "peak_mib": 3.0, "others_cores": None}


@pytest.mark.parametrize("batch", [1, 4])
def test_percentiles_are_numpys_and_the_rate_is_tiles_by_time(batch: int) -> None:
    times = np.random.default_rng(1).gamma(2.0, 0.01, 150)
    network = FakeNetwork(lambda call: times[call])
    case = Case(batch, 1, 2, seconds=0.0, least_calls=150)
    tally, found = time_calls(network.golden(batch), case, clock=network.clock)
    assert found == pytest.approx(times)
    timing = timing_of(case, tally, found, **COSTS)
    expected = np.percentile(times, (50, 95, 99)) * 1e3 / batch
    assert (timing.p50_ms, timing.p95_ms, timing.p99_ms) == pytest.approx(tuple(expected), rel=1e-5)
    assert timing.tiles_per_s == pytest.approx(150 * batch / times.sum(), rel=1e-5)
    assert (timing.calls, timing.batch, timing.workers, timing.threads) == (150, batch, 1, 2)
    assert timing.seconds == pytest.approx(times.sum(), rel=1e-5)


def test_calls_go_on_until_there_is_enough_of_both() -> None:
    slow = FakeNetwork(lambda call: 1.0)
    assert len(time_calls(slow.golden(1), Case(1, 1, 1, seconds=3.0, least_calls=40), clock=slow.clock)[1]) == 40
    fast = FakeNetwork(lambda call: 2.0**-6)
    assert len(time_calls(fast.golden(1), Case(1, 1, 1, seconds=3.0, least_calls=40), clock=fast.clock)[1]) == 192


def test_no_99th_percentile_of_few_calls() -> None:
    network = FakeNetwork(lambda call: 0.1)
    case = Case(1, 1, 1, seconds=0.0, least_calls=99)
    assert timing_of(case, *time_calls(network.golden(1), case, clock=network.clock), **COSTS).p99_ms is None


def test_a_stop_ends_after_the_call_under_way() -> None:
    network = FakeNetwork(lambda call: 0.1)
    case = Case(1, 1, 1, seconds=1e9)
    assert len(time_calls(network.golden(1), case, lambda: network.calls >= 7, clock=network.clock)[1]) == 7


def test_tiles_go_round_in_whole_batches() -> None:
    network = FakeNetwork(lambda call: 0.1)
    time_calls(network.golden(3), Case(3, 1, 1, 0.0, 5), clock=network.clock)
    assert network.seen == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1], [2, 3, 4]]
    network = FakeNetwork(lambda call: 0.1)
    time_calls(network.golden(7), Case(7, 1, 1, 0.0, 2), clock=network.clock)
    assert network.seen == [[0, 1, 2, 3, 4, 0, 1], [2, 3, 4, 0, 1, 2, 3]]


def test_workers_call_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def run(tiles: np.ndarray) -> np.ndarray:
        together.wait(60)  # passes only while three are inside
        return tiles.reshape(-1, 1)

    tally, times = time_calls(Golden("art", run, TILES, 1, 0.01), Case(1, 3, 1, seconds=0.0))
    assert tally.calls == [1, 1, 1]
    assert len(times) == 3


@pytest.mark.parametrize("wrong", [0.02, np.nan, np.inf])
def test_an_answer_that_changes_is_no_time(wrong: float) -> None:
    calls = 0

    def run(tiles: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return tiles.reshape(-1, 1) + (np.float32(wrong) if calls == 13 else 0)

    with pytest.raises(UntrustedResult, match=r"art: found another answer .* expected the same within 0.01; run `edge"):
        time_calls(Golden("art", run, TILES, 2, 0.01), Case(2, 1, 1, seconds=0.0, least_calls=20))


def test_one_failing_worker_ends_them_all() -> None:
    def run(tiles: np.ndarray) -> np.ndarray:
        if tiles[0, 0, 0, 0] == 4:
            raise ValueError("broken")
        time.sleep(0.001)
        return tiles.reshape(-1, 1)

    with pytest.raises(ValueError, match="broken"):
        time_calls(Golden("art", run, TILES, 1, 0.01), Case(1, 2, 1, seconds=1e9))
