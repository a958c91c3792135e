import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeslim.architecture import Architecture
from edgeslim.device import Device, take_device
from edgeslim.errors import EdgeslimError, InputError, NothingFits, UsageError
from edgeslim.figure import Figure
from edgeslim.planning.budget import Ask, Miss, miss_text, over_text
from edgeslim.planning.choose import make_plan
from edgeslim.planning.estimate import estimate
from edgeslim.planning.plan import Plan, read_plan
from edgeslim.profile import Profile, take_profile
from edgeslim.score import Score
from edgeslim.target import take_target

EMBEDDED = Profile(
    id="embedded",
    aliases=(),
    name="Embedded",
    licence="Apache-2.0",
    source="a test",
    architecture=Architecture(
        depth=5,
        dim=160,
        attention_heads=5,
        head_dim=32,
        ffn_hidden=512,
        patch_size=8,
        tile_px=64,
        bands=3,
        class_token=False,
        pool="mean",
        stem_channels=(16, 32, 64),
    ),
    gsd_m=10.0,
    bands=(),
    radiometry=None,
    classes=(),
    land_share_source=None,
    checkpoint=None,
    checkpoint_sha256=None,
    scores=(Score(0.75, "accuracy", "test part", 0.9, "a test"),),
)
TARGET = take_target("onnx")
PI4, ORIN = take_device("raspberry-pi-4b-4gb"), take_device("jetson-orin")
VIT_L = take_profile("vit-l-16")

limits = st.one_of(st.none(), st.floats(1e-3, 1e5))
seconds = st.one_of(st.none(), st.floats(1, 100))
widening = st.floats(1, 1e3)
profiles = st.sampled_from([EMBEDDED, take_profile("vit-s-16"), VIT_L])
devices = st.sampled_from([PI4, ORIN, take_device("x86-64-host")])
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def planned(profile: Profile, device: Device, *budget: float | None) -> Plan | None:
    gflop, memory_mib, latency_ms, startup_s = budget
    try:
        return make_plan(
            profile,
            device,
            TARGET,
            Ask(gflop=gflop, memory_mib=memory_mib, latency_ms=latency_ms, startup_s=startup_s),
        )
    except NothingFits:
        return None


@quick
@given(profiles, devices, limits, limits, limits, seconds, st.tuples(widening, widening, widening, widening))
def test_a_looser_budget_never_gives_a_narrower_plan(
    profile: Profile,
    device: Device,
    g: float | None,
    m: float | None,
    t: float | None,
    s: float | None,
    more: tuple[float, float, float, float],
) -> None:
    tight = planned(profile, device, g, m, t, s)
    if tight is None:
        return
    loose = planned(profile, device, *(None if b is None else b * f for b, f in zip((g, m, t, s), more, strict=True)))
    assert loose is not None
    assert loose.width_multiplier >= tight.width_multiplier


@quick
@given(profiles, devices, limits, limits, limits, seconds)
def test_the_chosen_plan_meets_every_budget_and_each_refusal_is_true(
    profile: Profile, device: Device, g: float | None, m: float | None, t: float | None, s: float | None
) -> None:
    plan = planned(profile, device, g, m, t, s)
    if plan is None:
        return
    for name, limit in plan.budget.limits():
        assert plan.chosen.found(name) <= limit.value
    for step in plan.steps:
        missed = {miss.budget for miss in step.misses}
        assert missed == {n for n, limit in plan.budget.limits() if step.estimate.found(n) > limit.value}
        assert all(miss.over > 0 for miss in step.misses)
        if step.verdict == "unaligned":
            assert not step.estimate.aligned
            assert plan.chosen.aligned
        if step.estimate.width_multiplier > plan.width_multiplier:
            assert step.verdict in ("over budget", "unaligned")
    assert [s.verdict for s in plan.steps].count("chosen") == 1
    if not plan.chosen.aligned:
        assert not any(s.estimate.aligned and not s.misses for s in plan.steps)


@pytest.mark.parametrize("device", [PI4, ORIN], ids=lambda d: d.id)
@pytest.mark.parametrize("profile", [EMBEDDED, VIT_L], ids=lambda p: p.id)
def test_narrower_is_never_estimated_to_need_more(profile: Profile, device: Device) -> None:
    runtime = next(r for r in device.runtime if r.id == "onnxruntime-cpu")
    steps = [estimate(profile, w, device, runtime, "fp32") for w in profile.architecture.width_steps()]
    for narrow, wide in pairwise(steps):
        assert narrow.memory.total_mib <= wide.memory.total_mib
        assert narrow.gflop < wide.gflop
        assert narrow.parameters < wide.parameters
        assert narrow.latency_ms < wide.latency_ms
        assert narrow.startup is not None
        assert wide.startup is not None
        assert narrow.startup.total_ms < wide.startup.total_ms
        assert narrow.found("startup_s") < wide.found("startup_s")


def test_the_embedded_encoder_fits_whole_on_a_jetson_orin() -> None:
    plan = make_plan(EMBEDDED, ORIN, TARGET)
    assert plan.width_multiplier == 1.0
    assert plan.slim_architecture == EMBEDDED.architecture
    assert (plan.power_mode, plan.runtime, plan.precision, plan.batch) == ("15W", "onnxruntime-cpu", "fp32", 1)
    assert plan.budget.gflop.value == pytest.approx(144 * ORIN.runtime[0].efficiency["fp32"]["gemm"].value)
    assert plan.budget.memory_mib.value == 6000
    assert plan.budget.latency_ms is None


def test_vit_l_on_a_raspberry_pi_4_is_neither_whole_nor_the_floor() -> None:
    plan = make_plan(VIT_L, PI4, TARGET, Ask(gflop=20))
    assert VIT_L.architecture.width_steps()[0] < plan.width_multiplier < 1.0
    assert plan.chosen.aligned


def test_a_latency_budget_is_held_against_the_upper_end() -> None:
    plan = make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20))
    assert plan.width_multiplier == 0.75
    assert plan.chosen.latency_high_ms <= 20
    refused = plan.steps[0]
    assert refused.estimate.latency_ms < 20 < refused.estimate.latency_high_ms
    assert [miss.budget for miss in refused.misses] == ["latency_ms"]
    assert refused.misses[0].over == pytest.approx(refused.estimate.latency_high_ms / 20 - 1)


def test_an_unaligned_step_only_if_no_aligned_one_fits() -> None:
    steps = make_plan(EMBEDDED, PI4, TARGET).steps
    eighth = next(s.estimate for s in steps if s.estimate.head_dim == 8)
    assert make_plan(EMBEDDED, PI4, TARGET, Ask(gflop=eighth.gflop)).chosen.head_dim == 8
    below = make_plan(EMBEDDED, PI4, TARGET, Ask(gflop=eighth.gflop * 0.999))
    assert below.chosen.head_dim == 7
    assert not below.chosen.aligned


def test_nothing_fits_names_the_nearest_miss() -> None:
    with pytest.raises(NothingFits) as error:
        make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=1, memory_mib=50))
    message = str(error.value)
    assert "the nearest, 0.0312 (head_dim 1), misses memory" in message
    assert "raise --memory-mib and --latency-ms" in message
    assert error.value.exit_code == 3
    assert "\n" not in message


def test_three_missed_budgets_are_a_list_and_large_factors_have_separators() -> None:
    with pytest.raises(NothingFits) as error:
        make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=1, memory_mib=50, gflop=1e-9))
    assert "raise --gflop, --memory-mib and --latency-ms, or take" in str(error.value)
    assert re.search(r"> 1e-09 \(\d{1,3}(,\d{3})+ times\)", str(error.value))


def test_misses_of_thousands_are_written_out() -> None:
    with pytest.raises(NothingFits, match=r"> 1e-09 \([\d,]+ times\)"):
        make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=1e-9))
    missed = Miss("memory_mib", 1500.0, 2833.6, 2833.6 / 1500 - 1)
    assert miss_text(missed) == "memory 2,834 MiB > 1,500 (+89 %)"
    assert miss_text(Miss("latency_ms", 20.0, 28.04, 0.402)) == "latency up to 28 ms > 20 (+41 %)"


def test_scores_are_measured_or_absent() -> None:
    assert make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20)).chosen.score == 0.9
    assert make_plan(EMBEDDED, PI4, TARGET).chosen.score is None


def test_a_power_mode_slows_the_plan_down() -> None:
    slow = make_plan(EMBEDDED, ORIN, TARGET, Ask(power_mode="7W"))
    assert slow.chosen.latency_ms > make_plan(EMBEDDED, ORIN, TARGET).chosen.latency_ms
    assert (slow.power_mode, slow.power_mode_basis) == ("7W", "asked")
    with pytest.raises(UsageError, match="unknown power mode '70W'"):
        make_plan(EMBEDDED, ORIN, TARGET, Ask(power_mode="70W"))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_is_no_budget_is_a_usage_error(value: float) -> None:
    with pytest.raises(UsageError, match=r"--latency-ms: found .*, expected a number of more than 0"):
        make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=value))


def test_a_device_without_the_runtime_is_refused_by_field() -> None:
    gpu_only = replace(ORIN, runtime=tuple(r for r in ORIN.runtime if r.id == "tensorrt"))
    with pytest.raises(InputError, match=r"runtime: found tensorrt \(fp16\), expected one that onnx runs on in fp32"):
        make_plan(EMBEDDED, gpu_only, TARGET)


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [("op_overhead_us", 1e5, "overhead"), ("op_overhead_us", 0, "compute")],
)
def test_the_bound_names_what_takes_most_time(field: str, value: float, bound: str) -> None:
    runtime = replace(PI4.runtime[0], **{field: Figure(value, "a test")})
    assert estimate(EMBEDDED, 1.0, PI4, runtime, "fp32").bound == bound


def test_a_slow_memory_bounds_by_bandwidth() -> None:
    starved = replace(PI4, memory=replace(PI4.memory, bandwidth_gb_s=Figure(0.01, "a test")))
    assert estimate(EMBEDDED, 1.0, starved, starved.runtime[0], "fp32").bound == "bandwidth"


def test_latency_is_the_written_sum() -> None:
    from edgeslim import cost

    runtime = PI4.runtime[0]
    total = 0.5e-3
    for op in cost.ops(EMBEDDED.architecture):
        share = runtime.efficiency["fp32"][op.op_class].value
        total += 60e-6 + max(op.flop / (57.6e9 * share), op.moved_bytes / (12.8e9 * 0.43))
    found = estimate(EMBEDDED, 1.0, PI4, runtime, "fp32")
    assert found.latency_ms == pytest.approx(total * 1e3)
    band = 1 + runtime.error_band.value
    assert found.latency_low_ms == pytest.approx(found.latency_ms / band)
    assert found.latency_high_ms == pytest.approx(found.latency_ms * band)


def test_start_up_is_the_written_sum() -> None:
    from edgeslim import cost

    runtime, share = PI4.runtime[0], PI4.runtime[0].efficiency["fp32"]
    arch, core, bus = EMBEDDED.architecture.at(0.5), 57.6e9 / 4, 12.8e9 * 0.43

    def seconds_of(batch: int, bytes_s: float) -> float:
        ops = cost.ops(arch, 0, batch)
        return 0.5e-3 + sum(
            60e-6 + max(o.flop / (core * share[o.op_class].value), o.moved_bytes / bytes_s) for o in ops
        )

    card = {"startup_ms": 1000.0, "startup_read_mb": 100.0, "weights_mb_s": 50.0}
    runtime = replace(runtime, **{key: Figure(value, "a test") for key, value in card.items()})  # type: ignore[arg-type]
    device = replace(PI4, storage_mb_s=Figure(40, "a test"))
    found = estimate(EMBEDDED, 0.5, device, runtime, "fp32").startup
    assert found is not None
    weights_mb = cost.parameters(arch) * 4 / 1e6
    assert found.libraries_ms == 1000
    assert found.storage_ms == pytest.approx((100 + weights_mb + 16 * 3 * 64**2 * 4 / 1e6) / 40 * 1e3)
    assert found.weights_ms == pytest.approx(weights_mb / 50 * 1e3)
    assert found.golden_ms == pytest.approx(seconds_of(1, bus / 4) * 1e3)  # one on each of the four cores
    assert found.batch_ms == pytest.approx(3 * seconds_of(8, bus / 4) * 1e3)
    band = 1 + runtime.error_band.value
    assert (found.low_ms, found.high_ms) == pytest.approx((found.total_ms / band, found.total_ms * band))


def test_a_start_up_budget_is_held_against_the_upper_end() -> None:
    whole = make_plan(EMBEDDED, PI4, TARGET)
    assert (whole.width_multiplier, whole.budget.startup_s) == (1.0, None)
    assert whole.chosen.startup is not None
    limit = whole.chosen.startup.high_ms / 1e3
    assert make_plan(EMBEDDED, PI4, TARGET, Ask(startup_s=limit)).width_multiplier == 1.0
    tight = make_plan(EMBEDDED, PI4, TARGET, Ask(startup_s=limit * 0.99))
    assert tight.width_multiplier < 1.0
    assert [miss.budget for miss in tight.steps[0].misses] == ["startup_s"]


def test_a_start_up_shorter_than_its_fixed_part_fits_nothing() -> None:
    with pytest.raises(NothingFits) as error:
        make_plan(EMBEDDED, PI4, TARGET, Ask(startup_s=2))
    assert error.value.exit_code == 3
    assert re.search(r"misses start-up up to [\d.]+ s > 2 \([\d.]+ times\); raise --startup-s, or", str(error.value))


def test_a_slower_power_mode_starts_later() -> None:
    startups = [make_plan(EMBEDDED, ORIN, TARGET, Ask(power_mode=mode)).chosen.startup for mode in ("7W", "15W")]
    assert startups[0] is not None
    assert startups[1] is not None
    assert startups[0].libraries_ms == pytest.approx(startups[1].libraries_ms * 1.5 / 0.96, rel=1e-3)
    assert startups[0].golden_ms > startups[1].golden_ms
    assert startups[0].storage_ms == startups[1].storage_ms


def test_a_card_without_start_up_figures_says_so() -> None:
    older = replace(PI4, storage_mb_s=None, runtime=(replace(PI4.runtime[0], startup_ms=None),))
    plan = make_plan(EMBEDDED, older, TARGET)
    assert plan.chosen.startup is None
    assert plan.startup_lacks == ("storage_mb_s", "startup_ms of runtime onnxruntime-cpu")
    with pytest.raises(InputError) as error:
        make_plan(EMBEDDED, older, TARGET, Ask(startup_s=10))
    assert "its card has no storage_mb_s, no startup_ms of runtime onnxruntime-cpu; add that" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_of_before_start_up_was_planned_is_read(tmp_path: Path) -> None:
    plan = make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20))
    data = plan.to_dict()
    del data["startup_lacks"], data["budget"]["startup_s"], data["chosen"]["startup"]
    for step in data["steps"]:
        del step["estimate"]["startup"]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    older = read_plan(tmp_path / "plan.json")
    assert older.slim_architecture == plan.slim_architecture
    assert older.chosen == replace(plan.chosen, startup=None)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20, startup_s=30))
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    data = json.loads((tmp_path / "plan.json").read_text())
    assert data["edgeslim_plan"] == 1
    assert data["chosen"]["width_multiplier"] == 0.75
    assert data["slim_architecture"]["head_dim"] == 24
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    assert set(plan.summary()) >= {"device", "budget", "chosen", "power_mode", "runtime"}
    json.dumps(plan.summary())


def test_an_older_plan_is_replaced_and_any_other_file_kept(tmp_path: Path) -> None:
    plan = make_plan(EMBEDDED, PI4, TARGET)
    path = tmp_path / "plan.json"
    plan.write(path)
    plan.write(path)
    for other in ("{}", "my notes", "[1]"):
        path.write_text(other)
        with pytest.raises(InputError, match=r"found a file that is no plan, kept it; .*--overwrite"):
            plan.write(path)
        assert path.read_text() == other
    plan.write(path, overwrite=True)
    assert read_plan(path) == plan
    with pytest.raises(InputError, match="found a folder"):
        plan.write(tmp_path)
    plan.write(tmp_path / "new" / "plan.json")
    assert read_plan(tmp_path / "new" / "plan.json") == plan
    with pytest.raises(InputError, match="found a file at"):
        plan.write(path / "plan.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edgeslim_plan": 2}, "found edgeslim_plan = 2, expected edgeslim_plan = 1"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"classes": "ten"}, "classes: found 'ten', expected a whole number"),
        ({"chosen": {}}, "chosen: missing key 'width_multiplier'"),
        ({"budget": {"gflop": 1}}, "budget"),
        ({"batch": -8}, "plan.json: batch: found -8, expected no number below 0"),
        ({"slim_architecture": EMBEDDED.architecture.to_dict()}, "slim_architecture: found head_dim 32"),
    ],
)
def test_a_damaged_plan_is_refused_by_file_and_key(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20)).to_dict()
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**data, **change}))
    with pytest.raises(InputError) as error:
        read_plan(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    make_plan(EMBEDDED, PI4, TARGET, Ask(latency_ms=20)).write(path)
    path.write_text(path.read_text().replace('"gflop": ', '"gflop": 0.1, "gflop": ', 1))
    with pytest.raises(InputError, match=f"^{path}: 'gflop': found more than once, expected each key once; leave one"):
        read_plan(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_no_plan_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(EdgeslimError, match="`edgeslim plan` writes one"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("over", "text"), [(0.0001, "+1 %"), (0.12, "+12 %"), (0.985, "+99 %"), (1.0, "2.0 times"), (250, "251 times")]
)
def test_by_how_much(over: float, text: str) -> None:
    assert over_text(over) == text


def test_planning_loads_nothing_heavy() -> None:
    code = (
        "import sys; import edgeslim.planning.choose, edgeslim.report.plan; "
        "print([m for m in ('torch', 'rasterio', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [m for m in ("torch", "rasterio", "onnx", "onnxruntime") if m in out] == []
