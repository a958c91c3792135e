"""Which cases are timed, what the record holds, and that an end asked for early keeps what was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.device import take_device
from edgeslim.errors import InputError, UsageError
from edgeslim.manifest import read_manifest, sha256_of
from edgeslim.onboard import bench as benches
from edgeslim.onboard.bench import Bench, BenchOptions, bench_artifact, cases, planned_of
from edgeslim.onboard.timing.case import Case
from edgeslim.planning.choose import make_plan
from edgeslim.profile import take_profile
from edgeslim.target import take_target


def of(found: list[Case]) -> list[tuple[int, int, int]]:
    return [(case.batch, case.workers, case.threads) for case in found]


def test_one_tile_and_what_classify_takes(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    found = cases(artifact, manifest, BenchOptions(threads=4))
    assert of(found) == [(1, 1, 4), (1, 4, 1), (8, 4, 1)]
    assert {(case.seconds, case.least_calls, case.window_s) for case in found} == {(3.0, 40, None)}
    assert of(cases(artifact, manifest, BenchOptions(threads=1))) == [(1, 1, 1), (8, 1, 1)]
    assert of(cases(artifact, manifest, BenchOptions((5, 2, 5), threads=2))) == [(2, 2, 1), (5, 2, 1)]


def test_a_static_format_has_only_its_files(artifact: Path) -> None:
    whole = read_manifest(artifact)
    manifest = replace(whole, runtime="litert", models={"1": "model.onnx", "16": "model.onnx"})
    assert of(cases(artifact, manifest, BenchOptions(threads=1))) == [(1, 1, 1), (16, 1, 1)]
    assert of(cases(artifact, manifest, BenchOptions((16,), threads=1))) == [(16, 1, 1)]
    with pytest.raises(UsageError, match=r"--batch: found 8, expected 1 or 16: .*artifact holds .* export with"):
        cases(artifact, manifest, BenchOptions((16, 8)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (BenchOptions(threads=2, sustained_s=600), (8, 600, 10.0)),
        (BenchOptions(threads=2, sustained_s=30), (8, 30, 3.0)),
        (BenchOptions((1, 4, 64), threads=2, sustained_s=600), (4, 600, 10.0)),
        (BenchOptions((64,), threads=2, sustained_s=600), (64, 600, 10.0)),
    ],
)
def test_the_rate_is_watched_as_it_flies(
    artifact: Path, options: BenchOptions, expected: tuple[int, float, float]
) -> None:
    last = cases(artifact, read_manifest(artifact), options)[-1]
    assert (last.workers, last.threads) == (2, 1)
    assert (last.batch, last.seconds, last.window_s) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"batches": (1, 0)},
        {"batches": (1025,)},
        {"threads": 0},
        {"threads": 1025},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"sustained_s": float("inf")},
    ],
)
def test_values_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def test_the_record_goes_through_json(artifact: Path) -> None:
    found = bench_artifact(artifact, BenchOptions((3,), threads=1, seconds=0.01, sustained_s=0.3))
    assert [(t.batch, t.workers, t.threads) for t in found.timings] == [(3, 1, 1)]
    assert found.sustained is not None
    assert len(found.sustained.windows) == 10
    assert (found.name, found.format, found.precision, found.width_multiplier) == ("tiny w1.0", "onnx", "fp32", 1.0)
    assert found.manifest_sha256 == sha256_of(artifact / "manifest.json")
    assert (found.synthetic, found.planned, found.stopped, found.chip) == (True, None, None, "")
    text = json.dumps(found.to_dict())
    assert Bench.from_dict(json.loads(text)) == found
    assert list(json.loads(text))[:4] == ["schema", "name", "encoder", "width_multiplier"]
    with pytest.raises(InputError, match="schema: found 2, expected 1"):
        Bench.from_dict({**found.to_dict(), "schema": 2})


def test_an_end_asked_for_keeps_what_was_seen(artifact: Path) -> None:
    wish: list[str] = []

    def observe(case: Case, seconds: float, tiles_per_s: float) -> None:
        assert tiles_per_s > 0
        if case.window_s is not None:
            wish.append("SIGTERM")

    options = BenchOptions((1,), threads=1, seconds=0.01, sustained_s=3600.0)
    found = bench_artifact(artifact, options, observe, lambda: wish[0] if wish else None)
    assert (found.stopped, len(found.timings)) == ("SIGTERM", 1)
    assert found.sustained is not None
    assert 0 < found.sustained.seconds < 3000
    assert found.sustained.tiles_per_s > 0


def test_stopped_before_the_first_case(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "measure_apart", lambda *_: pytest.fail("measured"))
    found = bench_artifact(artifact, stop=lambda: "SIGINT")
    assert (found.timings, found.sustained, found.stopped) == ((), None, "SIGINT")


def test_the_plans_estimate_is_held_against_one_call_on_all_cores(artifact: Path) -> None:
    plan = make_plan(take_profile("eurosat-rgb"), take_device("raspberry-pi-5-8gb"), take_target("onnx"))
    planned = planned_of(json.loads(json.dumps(plan.summary())))
    assert planned is not None
    assert (planned.device, planned.batch) == ("raspberry-pi-5-8gb", 1)
    assert planned.latency_ms == plan.chosen.latency_ms
    assert planned.latency_low_ms < planned.latency_ms < planned.latency_high_ms
    found = bench_artifact(artifact, BenchOptions((1,), threads=2, seconds=0.01))
    assert found.measured_as_planned is None
    measured = replace(found, planned=planned).measured_as_planned
    assert measured is not None
    assert (measured.batch, measured.workers, measured.threads) == (1, 1, 2)
    assert replace(found, planned=replace(planned, batch=4)).measured_as_planned is None
    summary = plan.summary()
    for broken in ({}, {**summary, "chosen": None}, {**summary, "batch": "1"}, {**summary, "chosen": {}}):
        assert planned_of(broken) is None
