"""A rate that falls is seen, one that does not is not, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeslim.onboard.timing.case import Case
from edgeslim.onboard.timing.sensors import Sensors
from edgeslim.onboard.timing.sustained import Meter, Sustained, sustain, sustained_of
from tests.onboard.timing.fakes import FakeNetwork


def watched(
    seconds_of_call: Callable[[float], float],
    seconds: float = 600.0,
    window_s: float = 10.0,
    stop_at: float = 1e9,
    sensors: Sensors | None = None,
    others_cores: float | None = 0.0,
) -> Sustained:
    """What is found of calls of 2 tiles that take as long as the time since the first one says."""
    network = FakeNetwork(lambda call: seconds_of_call(network.now - 100.0))
    case = Case(2, 1, 1, seconds, window_s=window_s)
    seen = sustain(
        network.golden(2),
        case,
        sensors or Sensors(Path("/nowhere")),
        lambda: network.now - 100.0 >= stop_at,
        clock=network.clock,
    )
    return sustained_of(case, *seen, peak_mib=1.0, others_cores=others_cores, cores=1)


def test_a_steady_rate() -> None:
    found = watched(lambda at: 0.25)
    assert (found.tiles_per_s, found.first_tiles_per_s, found.last_tiles_per_s) == (8.0, 8.0, 8.0)
    assert (found.seconds, found.span_s, found.fall, found.throttled) == (600.0, 60.0, 0.0, False)
    assert len(found.windows) == 60
    assert [window.end_s for window in found.windows[:3]] == [10.0, 20.0, 30.0]
    assert {window.tiles_per_s for window in found.windows} == {8.0}
    assert found.windows[0].temperature_c is None


@pytest.mark.parametrize(("slower", "throttled"), [(0.03, False), (0.5, True)])
def test_a_fall_of_more_than_five_per_cent_is_throttling(slower: float, throttled: bool) -> None:
    found = watched(lambda at: 0.25 if at < 300 else 0.25 * (1 + slower))
    assert found.throttled is throttled
    assert found.fall == pytest.approx(1 - 1 / (1 + slower), rel=1e-4)
    assert found.first_tiles_per_s == pytest.approx(8.0)
    assert found.last_tiles_per_s == pytest.approx(8.0 / (1 + slower))


def test_a_fall_in_company_is_no_verdict() -> None:
    assert watched(lambda at: 0.25 if at < 300 else 0.5, others_cores=0.5).throttled is None
    assert watched(lambda at: 0.25 if at < 300 else 0.5, others_cores=None).throttled is True
    assert watched(lambda at: 0.25, others_cores=0.5).throttled is False


def test_a_dip_is_the_lowest_window_but_no_throttling() -> None:
    found = watched(lambda at: 0.5 if 200 <= at < 210 else 0.25)
    assert (found.lowest_tiles_per_s, found.lowest_end_s, found.throttled) == (4.0, 210.0, False)


def test_long_calls_do_not_jump_between_windows() -> None:
    found = watched(lambda at: 7.0)
    assert [window.tiles_per_s for window in found.windows] == pytest.approx([2 / 7] * len(found.windows), rel=1e-5)
    assert found.throttled is False


def test_calls_longer_than_a_window() -> None:
    found = watched(lambda at: 35.0)
    assert [window.tiles_per_s for window in found.windows] == pytest.approx([2 / 35] * len(found.windows), rel=1e-5)


def test_stopped_early_tells_what_was_seen() -> None:
    found = watched(lambda at: 0.25, stop_at=95.0)
    assert (found.seconds, len(found.windows), found.span_s, found.throttled) == (95.0, 9, 40.0, False)
    assert found.tiles_per_s == 8.0


def test_too_short_to_tell() -> None:
    found = watched(lambda at: 0.25, stop_at=4.0)
    assert (found.windows, found.throttled, found.tiles_per_s, found.lowest_tiles_per_s) == ((), None, 8.0, 8.0)


def test_short_runs_are_halved() -> None:
    found = watched(lambda at: 0.25 if at < 15 else 0.5, seconds=30.0, window_s=3.0)
    assert (found.span_s, found.first_tiles_per_s, found.last_tiles_per_s) == (15.0, 8.0, 4.0)
    assert found.throttled is True


def test_two_workers_add_up() -> None:
    meter = Meter(Case(4, 2, 1, 20.0), 10.0)
    meter.add(0, 0.0, 5.0)
    meter.add(0, 5.0, 15.0)
    meter.add(1, 8.0, 12.0)
    assert (meter.rate(0), meter.rate(1), meter.rate(2)) == (0.8, 0.4, 0.0)


def test_each_window_has_its_temperature_and_clock(tmp_path: Path) -> None:
    zone = tmp_path / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    temperature = zone / "temp"
    temperature.write_text("48000\n")

    def call(at: float) -> float:
        temperature.write_text(f"{48000 + int(at) * 100}\n")
        return 2.5

    found = watched(call, seconds=40.0, sensors=Sensors(tmp_path))
    degrees = [window.temperature_c for window in found.windows]
    assert degrees == sorted(degrees, key=lambda value: value or 0.0)
    assert (len(degrees), degrees[0], degrees[-1]) == (4, 48.7, 51.7)
    assert found.windows[0].frequency_mhz is None
