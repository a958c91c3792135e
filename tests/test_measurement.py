"""Rows of a device card that say what was timed: what they may hold, and what they change in a plan."""

from dataclasses import replace

import pytest

from edgeslim import cost
from edgeslim.device import Device, take_device
from edgeslim.errors import InputError
from edgeslim.measurement import Measurement
from edgeslim.planning.budget import Ask
from edgeslim.planning.call_time import ESTIMATED, MEASURED, RESCALED
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import Scene, timed_call
from edgeslim.planning.plan import Plan
from edgeslim.profile import take_profile
from edgeslim.report.plan import print_plan
from edgeslim.target import take_target
from edgeslim.units import gflop

EMBEDDED, PI5 = take_profile("eurosat-rgb"), take_device("raspberry-pi-5-8gb")
MODE, RUNTIME = PI5.default_power_mode, PI5.runtime[0]
CORES = 4
ONNX, OPENVINO = take_target("onnx"), take_target("openvino")


def row(width: float, p50_ms: float, batch: int = 1, workers: int = 1, **other: object) -> Measurement:
    work = gflop(cost.flop(EMBEDDED.architecture.at(width), EMBEDDED.num_classes))
    made = Measurement(
        "eurosat-rgb", width, work, "onnxruntime-cpu", "fp32", MODE, batch, workers, p50_ms, p50_ms * 1.1, "a test"
    )
    return replace(made, **other)  # type: ignore[arg-type]


def timed(*rows: Measurement, device: Device = PI5) -> Device:
    return replace(device, measurement=rows)


def step(plan: Plan, width: float) -> tuple[float, float, str]:
    found = next(s.estimate for s in plan.steps if s.estimate.width_multiplier == width)
    return found.latency_ms, found.latency_high_ms, found.latency_basis


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "fp8"}, "precision: found 'fp8', expected one of fp32, fp16, int8-dynamic, int8-static"),
        ({"width_multiplier": 1.5}, "width_multiplier: found 1.5, expected more than 0, at most 1"),
        ({"depth": 0}, "depth: found 0, expected at least 1 block"),
        ({"gflop": 0.0}, "gflop: found 0, expected more than 0"),
        ({"p50_ms": -1.0, "p95_ms": 1.0}, "p50_ms: found -1, expected more than 0"),
        ({"p95_ms": 1.0}, "p95_ms: found 1, expected at least p50_ms 2"),
        ({"batch": 0}, "batch: found 0, expected a whole number from 1 to 1024"),
        ({"workers": 5000}, "workers: found 5000, expected a whole number from 1 to 1024"),
        ({"source": " "}, "source: found ' ', expected a text"),
    ],
)
def test_a_row_that_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as refused:
        replace(row(0.5, 2.0), **wrong)  # type: ignore[arg-type]
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((row(0.5, 2.0, runtime="tensorrt"),), "measurement 1: runtime: found 'tensorrt', expected one of"),
        ((row(0.5, 2.0), row(1.0, 2.0, power_mode="7W")), "measurement 2: power_mode: found '7W', expected one of"),
        ((row(0.5, 2.0), row(0.5, 3.0)), "measurement 2: found a second row of the same, expected one: remove one"),
    ],
)
def test_a_card_with_rows_of_something_else_is_refused(rows: tuple[Measurement, ...], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        timed(*rows)


def test_what_was_timed_replaces_the_estimate_and_sets_the_rest_right() -> None:
    plain = make_plan(EMBEDDED, PI5, ONNX)
    plan = make_plan(EMBEDDED, timed(row(1.0, 10.0), row(0.5, 4.0)), ONNX)
    assert step(plan, 1.0) == (pytest.approx(10.0), pytest.approx(11.0), MEASURED)
    assert step(plan, 0.5) == (pytest.approx(4.0), pytest.approx(4.4), MEASURED)
    between, high, basis = step(plan, 0.75)
    assert basis == RESCALED
    assert 4.0 < between < 10.0
    assert high == pytest.approx(between * 1.1 * 1.05)
    below = step(plan, 0.25)
    assert below[0] < 4.0
    assert below[1] > below[0] * 1.25
    assert below[2] == RESCALED
    assert step(plain, 0.25)[2] == ESTIMATED


def test_a_width_keeps_its_time_in_its_own_batches_only() -> None:
    device, arch = timed(row(0.5, 4.0), row(0.5, 3.0, 4, CORES)), EMBEDDED.architecture.at(0.5)
    for batch, workers, seconds, basis in (
        (1, 1, 0.004, MEASURED),
        (4, CORES, 0.012, MEASURED),
        (4, 1, None, RESCALED),
        (2, CORES, None, RESCALED),
        (16, CORES, None, RESCALED),
    ):
        found = timed_call(EMBEDDED, arch, batch, device, RUNTIME, "fp32", workers=workers)
        assert found.basis == basis
        assert seconds is None or found.seconds == pytest.approx(seconds)
        assert found.low_s <= found.seconds <= found.high_s


def test_a_scene_takes_what_was_timed_with_a_call_a_core() -> None:
    scene = Scene(1000, 640, 64)
    usual = cost.default_batch(EMBEDDED.architecture)
    plan = make_plan(EMBEDDED, timed(row(1.0, 8.0, usual, CORES)), ONNX, Ask(scene=scene))
    time = plan.chosen.scene
    assert time is not None
    assert time.basis == MEASURED
    assert time.network_s == pytest.approx(time.tiles * 8e-3 / CORES)


def test_rows_of_another_encoder_precision_or_mode_change_nothing() -> None:
    plain = make_plan(EMBEDDED, PI5, ONNX)
    others = timed(row(1.0, 99.0, encoder="another"), row(1.0, 99.0, precision="int8-dynamic"))
    assert make_plan(EMBEDDED, others, ONNX).steps == plain.steps
    orin = take_device("jetson-orin")
    asked = Ask(power_mode="7W")
    elsewhere = timed(row(1.0, 99.0, power_mode="15W", runtime="onnxruntime-cpu"), device=orin)
    assert make_plan(EMBEDDED, elsewhere, ONNX, asked).steps == make_plan(EMBEDDED, orin, ONNX, asked).steps


def test_another_encoder_of_the_same_name_is_noticed() -> None:
    said = (
        r"device card raspberry-pi-5-8gb: measurement of eurosat-rgb at 1: found 0\.5 GFLOP, expected 0\.190\d*: "
        "another encoder of that name was timed; calibrate again"
    )
    with pytest.raises(InputError, match=said):
        make_plan(EMBEDDED, timed(row(1.0, 10.0, gflop=0.5)), ONNX)


def test_of_timed_ways_the_fastest_is_planned() -> None:
    second = replace(RUNTIME, id="openvino-cpu")
    device = replace(PI5, runtime=(RUNTIME, second), measurement=(row(1.0, 9.0), row(1.0, 6.0, runtime="openvino-cpu")))
    assert make_plan(EMBEDDED, device, [ONNX, OPENVINO]).runtime == "openvino-cpu"
    slower = replace(device, measurement=(row(1.0, 6.0), row(1.0, 9.0, runtime="openvino-cpu")))
    assert make_plan(EMBEDDED, slower, [ONNX, OPENVINO]).runtime == "onnxruntime-cpu"


def test_the_plan_says_which_of_its_figures_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    device = timed(row(1.0, 10.0), row(0.5, 4.0))
    console = Console(width=200, highlight=False)
    print_plan(make_plan(EMBEDDED, device, ONNX), console)
    print_plan(make_plan(EMBEDDED, device, ONNX, Ask(latency_ms=5.0)), console)
    out = capsys.readouterr().out
    assert "10.0 to 11.0 ms from the half of the calls to 95 of 100; measured on this board" in out
    assert "11.0†" in out
    assert "† measured on this board; the others are computed, and set right by what was" in out
