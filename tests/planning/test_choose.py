"""Budgets of the artifact, the link, the scene, its score and its energy, and which way to run it."""

import json
from dataclasses import replace

import pytest

from edgeslim import cost
from edgeslim.device import Device, take_device
from edgeslim.errors import InputError, NothingFits, UsageError
from edgeslim.figure import Figure
from edgeslim.grid import plan_axis
from edgeslim.measurement import Measurement
from edgeslim.planning.budget import Ask, short_text
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import Scene
from edgeslim.planning.plan import Plan
from edgeslim.profile import Profile, take_profile
from edgeslim.score import Score
from edgeslim.target import Target, take_target, targets_on

EMBEDDED, VIT_S = take_profile("eurosat-rgb"), take_profile("vit-s-16")
PI4, PI5, ORIN = take_device("raspberry-pi-4b-4gb"), take_device("raspberry-pi-5-8gb"), take_device("jetson-orin")
ONNX = take_target("onnx")


def test_an_artifact_budget_narrows_the_plan() -> None:
    whole = make_plan(EMBEDDED, PI5, ONNX)
    assert whole.chosen.artifact_mb == pytest.approx(5.945, rel=0.01)
    plan = make_plan(EMBEDDED, PI5, ONNX, Ask(artifact_mb=3.0))
    assert plan.width_multiplier == 0.25
    assert plan.chosen.artifact_mb is not None
    assert plan.chosen.artifact_mb <= 3.0
    assert [miss.budget for miss in plan.steps[0].misses] == ["artifact_mb"]
    assert plan.steps[0].misses[0].over == pytest.approx(whole.chosen.artifact_mb / 3 - 1)


def test_days_to_uplink_follow_from_the_rate() -> None:
    told = make_plan(EMBEDDED, PI5, ONNX, Ask(uplink_kb_day=500.0))
    assert told.chosen.artifact_mb is not None
    assert told.width_multiplier == 1.0
    assert told.chosen.uplink_days == pytest.approx(told.chosen.artifact_mb * 1000 / 500)
    held = make_plan(EMBEDDED, PI5, ONNX, Ask(uplink_kb_day=500.0, uplink_days=7))
    assert held.width_multiplier < 1.0
    assert held.chosen.uplink_days is not None
    assert held.chosen.uplink_days <= 7
    with pytest.raises(NothingFits, match=r"misses uplink .* days > 0\.1 .*; raise --uplink-days"):
        make_plan(EMBEDDED, PI5, ONNX, Ask(uplink_kb_day=500.0, uplink_days=0.1))


@pytest.mark.parametrize("asked", [{"artifact_mb": 3.0}, {"uplink_kb_day": 10.0}])
def test_a_target_of_unknown_size_is_refused_by_key(asked: dict[str, float]) -> None:
    silent = replace(ONNX, graph_kb=None)
    assert make_plan(EMBEDDED, PI5, silent).chosen.artifact_mb is None
    with pytest.raises(InputError, match=r"export card onnx has no graph_kb\.fp32; add it to a card of your own") as e:
        make_plan(EMBEDDED, PI5, silent, Ask(**asked))
    assert "\n" not in str(e.value)


def test_a_scene_takes_its_start_up_and_its_tiles() -> None:
    device, runtime = PI4, PI4.runtime[0]
    plan = make_plan(EMBEDDED, device, ONNX, Ask(scene=Scene(1000, 640, 64)))
    found, startup = plan.chosen.scene, plan.chosen.startup
    assert found is not None
    assert startup is not None
    assert (found.tiles, found.batch, found.cores) == (16 * 10, 4, 4)
    core, bus, share = 57.6e9 / 4, 12.8e9 * 0.43 / 4, runtime.efficiency["fp32"]
    ops = cost.ops(EMBEDDED.architecture, 10, 4)
    call = 0.5e-3 + sum(60e-6 + max(o.flop / (core * share[o.op_class].value), o.moved_bytes / bus) for o in ops)
    assert found.startup_s == pytest.approx(startup.total_ms / 1e3)
    assert found.network_s == pytest.approx(160 * call / 4 / 4)
    assert runtime.band_pixel_ns is not None
    assert runtime.window_us is not None
    beside = 1000 * 640 * 3 * runtime.band_pixel_ns.value * 1e-9 + 160 * runtime.window_us.value * 1e-6
    assert found.beside_s == pytest.approx(beside / 4)
    assert found.total_s == pytest.approx(found.startup_s + found.network_s + found.beside_s)
    band = 1 + runtime.error_band.value
    assert (found.low_s, found.high_s) == pytest.approx((found.total_s / band, found.total_s * band))


def test_a_card_that_does_not_say_what_goes_on_beside_counts_none() -> None:
    silent = replace(PI4, runtime=(replace(PI4.runtime[0], band_pixel_ns=None, window_us=None),))
    ask = Ask(scene=Scene(1000, 640, 64))
    whole, without = (make_plan(EMBEDDED, device, ONNX, ask).chosen.scene for device in (PI4, silent))
    assert whole is not None
    assert without is not None
    assert without.beside_s == 0
    assert without.network_s == whole.network_s


def test_calls_to_a_gpu_go_one_after_the_other_and_nothing_beside_them() -> None:
    tensorrt = take_target("tensorrt")
    plan = make_plan(EMBEDDED, ORIN, tensorrt, Ask(scene=Scene(10980, 10980), deadline_s=600))
    found = plan.chosen.scene
    assert found is not None
    single = plan.chosen.latency_ms
    assert found.cores == 1
    assert found.network_s < found.tiles * single / 1e3  # a batch's overhead is shared
    processor = make_plan(EMBEDDED, ORIN, ONNX, Ask(scene=Scene(10980, 10980))).chosen.scene
    assert processor is not None
    assert found.beside_s == pytest.approx(processor.beside_s * processor.cores)


@pytest.mark.parametrize("sides", [(64, 64), (63, 65), (1, 1), (10980, 10980), (97, 4000)])
@pytest.mark.parametrize("stride", [None, 1, 31, 64])
def test_tiles_of_a_scene_are_the_windows_that_classify_takes(sides: tuple[int, int], stride: int | None) -> None:
    axes = [plan_axis(side, 64, stride or 32) for side in sides]
    assert Scene(*sides, stride).tiles(64) == len(axes[0].windows) * len(axes[1].windows)


def test_a_deadline_is_held_against_the_upper_end() -> None:
    scene = Scene(10980, 10980)
    told = make_plan(EMBEDDED, PI5, ONNX, Ask(scene=scene)).chosen.scene
    assert told is not None
    assert make_plan(EMBEDDED, PI5, ONNX, Ask(scene=scene, deadline_s=told.high_s)).width_multiplier == 1.0
    tight = make_plan(EMBEDDED, PI5, ONNX, Ask(scene=scene, deadline_s=told.high_s * 0.99))
    assert tight.width_multiplier < 1.0
    assert [miss.budget for miss in tight.steps[0].misses] == ["deadline_s"]
    with pytest.raises(NothingFits, match=r"misses scene up to .* s > 1 \(.* times\); raise --deadline-s, or"):
        make_plan(EMBEDDED, PI5, ONNX, Ask(scene=scene, deadline_s=1))


def test_a_stride_longer_than_a_tile() -> None:
    with pytest.raises(UsageError, match=r"--stride: found 65 px, expected 1 to 64 \(the tile\)"):
        make_plan(EMBEDDED, PI5, ONNX, Ask(scene=Scene(100, 100, 65)))


def test_a_scene_on_a_card_without_start_up_figures() -> None:
    older = replace(PI5, storage_mb_s=None)
    with pytest.raises(
        InputError, match=r"--scene: the start-up of raspberry-pi-5-8gb is not known, its card has no s"
    ):
        make_plan(EMBEDDED, older, ONNX, Ask(scene=Scene(100, 100)))


def scored(**scores: float) -> Profile:
    """EMBEDDED with scores of these head widths only: h24 = 0.9 is that of head_dim 24."""
    found = (Score(int(key[1:]) / 32, "accuracy", "test part", value, "a test") for key, value in scores.items())
    return replace(EMBEDDED, scores=tuple(found))


def test_a_least_score_refuses_what_is_below_it_and_what_was_not_measured() -> None:
    profile = scored(h32=0.91, h24=0.95, h16=0.93)
    plan = make_plan(profile, PI5, ONNX, Ask(min_score=0.93))
    assert plan.width_multiplier == 0.75
    misses = {step.estimate.head_dim: step.misses[0] for step in plan.steps if step.misses}
    assert misses[32].over == pytest.approx(0.02)
    assert (misses[31].found, misses[31].over) == (None, None)
    assert 16 not in misses
    assert short_text(misses[32]) == "score 0.02 short"
    assert short_text(misses[31]) == "score not measured"


def test_the_best_score_that_fits() -> None:
    profile = scored(h32=0.91, h25=0.97, h24=0.95, h16=0.93)
    plan = make_plan(profile, PI5, ONNX, Ask(objective="score"))
    assert (plan.width_multiplier, plan.objective) == (0.75, "score")
    verdicts = {step.estimate.head_dim: step.verdict for step in plan.steps}
    assert (verdicts[32], verdicts[25], verdicts[24], verdicts[16]) == (
        "lower score",
        "unaligned",
        "chosen",
        "narrower",
    )
    assert make_plan(profile, PI5, ONNX).width_multiplier == 1.0
    equal = scored(h32=0.9, h24=0.9)
    assert make_plan(equal, PI5, ONNX, Ask(objective="score")).width_multiplier == 1.0
    unmeasured = make_plan(scored(h24=0.9), PI5, ONNX, Ask(objective="score"))
    assert unmeasured.steps[0].verdict == "score not measured"


def test_a_best_score_where_none_that_fits_was_measured() -> None:
    with pytest.raises(NothingFits, match=r"has a measured score, expected one of 1, 0\.75; loosen"):
        make_plan(scored(h32=0.91, h24=0.95), PI5, ONNX, Ask(objective="score", gflop=0.1))


def test_a_quick_search_names_the_scored_widths_that_it_left_out() -> None:
    profile, said = scored(h32=0.91), set()
    for narrower in (True, False):
        with pytest.raises(NothingFits) as caught:
            make_plan(profile, PI5, ONNX, Ask(objective="score", artifact_mb=1.0), narrower=narrower)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "expected one of 1; loosen the budgets" in said.pop()


@pytest.mark.parametrize(
    ("profile", "ask", "message"),
    [
        (VIT_S, Ask(min_score=0.5), r"--min-score: found 0\.5, expected an encoder with .*card vit-s-16 has no \[\[sc"),
        (VIT_S, Ask(objective="score"), r"--objective: found 'score', expected an encoder with measured scores"),
        (EMBEDDED, Ask(min_score=0.999), r"--min-score: found 0\.999, expected at most 0\.97\d+, the best measured"),
    ],
)
def test_a_score_that_nothing_can_have(profile: Profile, ask: Ask, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        make_plan(profile, PI5, ONNX, ask)
    assert "\n" not in str(error.value)


def test_no_width_of_a_score_fits() -> None:
    nearest = r"the nearest, 0\.75 \(head_dim 24\), misses score 0\.01 short: 0\.95 < 0\.96; lower --min-score, or take"
    with pytest.raises(NothingFits, match=nearest):
        make_plan(scored(h32=0.97, h24=0.95), PI5, ONNX, Ask(min_score=0.96, gflop=0.16))


def test_energy_is_measured_power_for_the_upper_end_of_a_scene() -> None:
    scene = Scene(4096, 4096)
    whole = make_plan(EMBEDDED, PI4, ONNX, Ask(scene=scene)).chosen
    assert whole.scene is not None
    assert whole.energy_j == pytest.approx(whole.scene.high_s * 6.4)
    tight = make_plan(EMBEDDED, PI4, ONNX, Ask(scene=scene, energy_j=whole.energy_j * 0.8))
    assert tight.width_multiplier < 1.0
    assert [miss.budget for miss in tight.steps[0].misses] == ["energy_j"]


def test_power_is_of_the_board_and_no_width_draws_less() -> None:
    assert make_plan(EMBEDDED, PI4, ONNX, Ask(max_w=6.4)).width_multiplier == 1.0
    with pytest.raises(NothingFits, match=r"misses power 6\.4 W > 5 \(\+28 %\); raise --max-w, or take"):
        make_plan(EMBEDDED, PI4, ONNX, Ask(max_w=5))


@pytest.mark.parametrize("ask", [Ask(max_w=20), Ask(energy_j=20, scene=Scene(100, 100))])
def test_power_that_nobody_measured_is_refused_by_card_and_key(ask: Ask) -> None:
    with pytest.raises(InputError) as error:
        make_plan(EMBEDDED, ORIN, ONNX, ask)
    flag = "--max-w" if ask.max_w else "--energy-j"
    assert str(error.value) == (
        f"{flag}: device card jetson-orin-nano-8gb: power_mode 15W: power_w: found nothing, expected watts that were "
        f"measured; add them to a card of your own (--cards), or leave {flag} out"
    )


def every(device: Device) -> list[Target]:
    return [ONNX, *(t for t in targets_on(r.id for r in device.runtime) if t.id != "onnx")]


def test_the_usual_way_where_the_whole_encoder_fits() -> None:
    plan = make_plan(EMBEDDED, ORIN, every(ORIN))
    assert (plan.target, plan.runtime, plan.precision, plan.batch) == ("onnx", "onnxruntime-cpu", "fp32", 1)
    assert plan.tried == ()


def test_another_way_lets_a_wider_width_fit() -> None:
    ask = Ask(latency_ms=100)
    plan = make_plan(VIT_S, ORIN, every(ORIN), ask)
    usual = make_plan(VIT_S, ORIN, ONNX, ask)
    assert (plan.target, plan.runtime, plan.precision) == ("tensorrt", "tensorrt", "fp16")
    assert plan.width_multiplier == 1.0 > usual.width_multiplier
    assert [(t.target, t.precision, t.outcome) for t in plan.tried] == [
        ("onnx", "fp32", f"fits {usual.width_multiplier:.4g} at most")
    ]
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_way_whose_start_up_is_not_known_is_left_out_where_it_is_limited() -> None:
    ask = Ask(latency_ms=100, startup_s=60)
    assert make_plan(VIT_S, ORIN, every(ORIN), ask).target == "tensorrt"
    silent = replace(
        ORIN, runtime=tuple(replace(r, startup_ms=None) if r.id == "tensorrt" else r for r in ORIN.runtime)
    )
    plan = make_plan(VIT_S, silent, every(silent), ask)
    assert (plan.target, plan.width_multiplier < 1) == ("onnx", True)
    assert plan.tried[0].outcome == "start-up not known"


def test_asked_ways() -> None:
    tensorrt = take_target("tensorrt")
    assert make_plan(EMBEDDED, ORIN, tensorrt).precision == "fp16"
    assert make_plan(EMBEDDED, ORIN, every(ORIN), Ask(precision="fp16")).runtime == "tensorrt"
    with pytest.raises(InputError, match=r"found onnxruntime-cpu \(fp32\), expected one that onnx runs on in fp16: on"):
        make_plan(EMBEDDED, PI5, ONNX, Ask(precision="fp16"))
    with pytest.raises(UsageError, match=r"--precision: found 'int4', expected one of fp32, .*, of onnx"):
        make_plan(EMBEDDED, PI5, ONNX, Ask(precision="int4"))


def test_int8_is_no_promise_unless_it_was_timed() -> None:
    quick = {kind: Figure(0.9, "a test") for kind in ("gemm", "attention", "conv")}
    runtime = replace(PI4.runtime[0], efficiency={**PI4.runtime[0].efficiency, "int8": quick})
    unit = replace(PI4.unit[0], peak_gflop_s={**PI4.unit[0].peak_gflop_s, "int8": Figure(230, "a test")})
    device = replace(PI4, unit=(unit,), runtime=(runtime,))
    ask = Ask(latency_ms=12)
    assert make_plan(EMBEDDED, device, ONNX, ask).precision == "fp32"
    mode = device.default_power_mode
    fp32 = Measurement("vit-s-16", 1.0, 9.2, runtime.id, "fp32", mode, 1, 1, 400.0, 440.0, "a test")
    measured = replace(device, runtime=(replace(runtime, basis="measured"),), measurement=(fp32,))
    assert make_plan(EMBEDDED, measured, ONNX, ask).precision == "fp32"
    timed = replace(measured, measurement=(fp32, replace(fp32, precision="int8-dynamic", p50_ms=190.0, p95_ms=200.0)))
    plan = make_plan(EMBEDDED, timed, ONNX, ask)
    assert (plan.precision, plan.width_multiplier) == ("int8-dynamic", 1.0)
    # The score that was measured is the fp32 network's.
    assert plan.chosen.score is None
    assert make_plan(EMBEDDED, device, ONNX, Ask(precision="int8-static")).precision == "int8-static"


def test_a_batch_is_answered_at_once() -> None:
    one, eight = make_plan(EMBEDDED, PI4, ONNX).chosen, make_plan(EMBEDDED, PI4, ONNX, Ask(batch=8)).chosen
    assert (one.batch, eight.batch) == (1, 8)
    assert eight.latency_ms < one.latency_ms
    assert eight.gflop == one.gflop
    # Unasked, it is in the batches that `classify` takes: 4 of this width, 8 of narrower ones.
    assert one.memory.activations_mib < eight.memory.activations_mib
    assert make_plan(EMBEDDED, PI4, ONNX, Ask(batch=1)).chosen.memory.total_mib < one.memory.total_mib
    assert one.found("latency_ms") == one.latency_high_ms
    assert eight.found("latency_ms") == eight.latency_high_ms * 8
    scene = Scene(1000, 1000)
    single = make_plan(EMBEDDED, PI4, ONNX, Ask(batch=1, scene=scene)).chosen.scene
    usual = make_plan(EMBEDDED, PI4, ONNX, Ask(scene=scene)).chosen.scene
    assert single is not None
    assert usual is not None
    assert (single.batch, usual.batch) == (1, 4)
    assert single.network_s > usual.network_s
