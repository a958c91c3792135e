from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeslim.onboard.timing.sensors import OtherWork, Sensors, crowded


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def zone(root: Path, number: int, kind: str, text: str) -> None:
    folder = f"class/thermal/thermal_zone{number}/"
    write(root, **{folder + "type": kind + "\n", folder + "temp": text})


def test_the_warmest_sensor_at_the_processor(tmp_path: Path) -> None:
    zone(tmp_path, 0, "CPU-therm", "61500\n")
    zone(tmp_path, 1, "cpu-thermal", "63000\n")
    zone(tmp_path, 2, "GPU-therm", "90000\n")
    zone(tmp_path, 3, "soc0-thermal", "-274000\n")
    assert Sensors(tmp_path).temperature_c() == 63.0


@pytest.mark.parametrize("name", ["k10temp", "coretemp"])
def test_monitors_of_the_hardware(tmp_path: Path, name: str) -> None:
    folder = "class/hwmon/hwmon1/"
    write(tmp_path, **{folder + "name": name, folder + "temp1_input": "55125\n", folder + "temp2_input": "41000\n"})
    assert Sensors(tmp_path).temperature_c() == 55.125


@pytest.mark.parametrize("text", ["", "unknown\n", "-274000\n", "9" * 30])
def test_what_makes_no_sense_is_not_known(tmp_path: Path, text: str) -> None:
    zone(tmp_path, 0, "cpu-thermal", text)
    assert Sensors(tmp_path).temperature_c() is None


def test_a_sensor_that_goes_away_is_no_error(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", "50000")
    sensors = Sensors(tmp_path)
    (tmp_path / "class/thermal/thermal_zone0/temp").unlink()
    assert sensors.temperature_c() is None


def test_the_mean_clock_of_the_cores_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2}, raising=False)
    for core, khz in enumerate((600000, 1500000, 1800000)):
        write(tmp_path, **{f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq": f"{khz}\n"})
    assert Sensors(tmp_path).frequency_mhz() == 1650.0


def test_nothing_is_known_where_nothing_is(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert (sensors.temperature_c(), sensors.frequency_mhz()) == (None, None)


def test_others_are_what_is_busy_less_this_process(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    path = tmp_path / "stat"
    path.write_text("cpu  100 0 100 9000 50 0 0 0 0 0\ncpu0 1 2 3\n")
    own, now = iter((1.0, 9.0)), iter((50.0, 60.0))
    others = OtherWork(path, lambda: next(own), lambda: next(now))
    # 13 s of user, system, interrupts and what other machines stole; idle and waiting count for nothing.
    path.write_text(f"cpu  {100 + 6 * tick} 0 {100 + 4 * tick} 99000 950 {tick} {tick} {tick} 0 0\n")
    assert others.cores() == pytest.approx(0.5)


def test_others_are_not_known_without_a_table(tmp_path: Path) -> None:
    assert OtherWork(tmp_path / "stat").cores() is None


@pytest.mark.parametrize(
    ("others", "asked", "cores", "expected"),
    [
        (0.3, 4, 4, False),
        (0.5, 4, 4, True),
        (2.9, 1, 4, False),
        (3.2, 1, 4, True),
        (0.5, 8, 4, True),
        (None, 4, 4, False),
    ],
)
def test_crowded(others: float | None, asked: int, cores: int, expected: bool) -> None:
    assert crowded(others, asked, cores) is expected
