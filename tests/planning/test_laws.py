"""What holds of every plan: on any board, for any encoder, within any budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeslim.architecture import Architecture
from edgeslim.device import Device, take_device
from edgeslim.device_card import PowerMode
from edgeslim.errors import NothingFits, UsageError
from edgeslim.figure import Figure
from edgeslim.planning.budget import KINDS, Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import Scene
from edgeslim.planning.estimate import Conditions, Estimate, estimate
from edgeslim.planning.plan import Plan
from edgeslim.profile import Profile, take_profile
from edgeslim.score import Score
from edgeslim.target import take_target

BOARDS = [take_device(name) for name in ("raspberry-pi-4b-4gb", "jetson-orin", "x86-64-host", "raspberry-pi-5-8gb")]
TARGETS = [take_target(name) for name in ("onnx", "tensorrt", "openvino")]
SCENE = Scene(700, 500)
laws = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def figure(draw: st.DrawFn, low: float, high: float) -> Figure:
    return Figure(math.exp(draw(st.floats(math.log(low), math.log(high)))), "measured by a test")


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """A board with figures of its own, where several runtimes may run in several precisions."""
    board = draw(st.sampled_from(BOARDS))
    unit = board.unit_of(board.runtime[0])
    precisions = draw(st.sets(st.sampled_from(["fp16", "int8"])))
    peaks = {precision: figure(draw, 5, 5000) for precision in ("fp32", *sorted(precisions))}
    share = {kind: figure(draw, 0.02, 1) for kind in ("gemm", "attention", "conv")}
    usual = replace(
        board.runtime[0],
        efficiency=dict.fromkeys(peaks, share),
        basis=draw(st.sampled_from(["measured", "related"])),
        op_overhead_us=figure(draw, 1, 1000),
        fixed_overhead_ms=figure(draw, 0.01, 10),
        memory_mib=figure(draw, 20, 400),
        error_band=figure(draw, 0.05, 2),
    )
    second = replace(usual, id="openvino-cpu", op_overhead_us=figure(draw, 1, 1000), memory_mib=figure(draw, 20, 400))
    others = [second] if draw(st.booleans()) else []
    power = figure(draw, 1, 60) if draw(st.booleans()) else None
    multiple = Figure(draw(st.sampled_from([1, 4, 8])), "a test")
    return replace(
        board,
        default_power_mode="only",
        power_mode=(PowerMode("only", "a test", power_w=power),),
        unit=(replace(unit, peak_gflop_s=peaks, cores=Figure(draw(st.integers(1, 12)), "a test")), *board.unit[1:]),
        runtime=(usual, *others, *(r for r in board.runtime[1:] if r.id != second.id)),
        storage_mb_s=figure(draw, 10, 3000),
        multiples=replace(board.multiples, head_dim=multiple, ffn_hidden=multiple),
        memory=replace(
            board.memory,
            total_mib=figure(draw, 300, 16000),
            reserve_mib=Figure(draw(st.just(0.0) | st.floats(1e-6, 100)), "a test"),
            bandwidth_gb_s=figure(draw, 0.5, 300),
        ),
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """An encoder of any shape, scored at some of its widths."""
    head_dim = draw(st.sampled_from([4, 8, 12, 16, 24]))
    patch = draw(st.sampled_from([4, 8, 16]))
    architecture = Architecture(
        depth=draw(st.integers(1, 12)),
        dim=draw(st.integers(8, 400)),
        attention_heads=draw(st.integers(1, 8)),
        head_dim=head_dim,
        ffn_hidden=head_dim * draw(st.integers(1, 32)),
        patch_size=patch,
        tile_px=patch * draw(st.integers(1, 8)),
        bands=draw(st.integers(1, 12)),
        ffn=draw(st.sampled_from(["mlp", "swiglu"])),
    )
    scores = draw(st.dictionaries(st.integers(1, head_dim), st.floats(0.1, 1), max_size=head_dim))
    return replace(
        take_profile("vit-s-16"),
        architecture=architecture,
        scores=tuple(Score(j / head_dim, "accuracy", "a part", value, "a test") for j, value in sorted(scores.items())),
    )


def limit(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.floats(math.log(low), math.log(high)).map(math.exp))


COSTS = {
    "gflop": limit(1e-4, 1e2),
    "memory_mib": limit(30, 2000),
    "latency_ms": limit(0.1, 1e4),
    "startup_s": limit(0.1, 100),
    "artifact_mb": limit(0.01, 300),
    "uplink_days": limit(0.01, 100),
    "deadline_s": limit(0.1, 1e4),
    "energy_j": limit(1, 1e5),
    "max_w": limit(1, 60),
}
budgets = st.fixed_dictionaries(COSTS)
looser = st.fixed_dictionaries({name: st.floats(1, 100) for name in COSTS})
least_scores = st.one_of(st.none(), st.floats(0.1, 1))


def planned(profile: Profile, device: Device, costs: dict[str, float | None], **asked: object) -> Plan | None:
    """A plan, or None where nothing fits, or where a score is asked that no width has."""
    if device.power_mode[0].power_w is None:
        costs = {**costs, "energy_j": None, "max_w": None}
    try:
        ask = Ask(**{"scene": SCENE, "uplink_kb_day": 100.0, **costs, **asked})  # type: ignore[arg-type]
        return make_plan(profile, device, TARGETS, ask)
    except (NothingFits, UsageError):
        return None


def test_every_cost_is_tried() -> None:
    assert set(COSTS) == {name for name, kind in KINDS.items() if not kind.least}


@laws
@given(profiles(), devices(), budgets, looser, least_scores, st.sampled_from([None, 1, 4]))
def test_a_looser_budget_never_gives_a_narrower_plan(
    profile: Profile,
    device: Device,
    costs: dict[str, float | None],
    factors: dict[str, float],
    min_score: float | None,
    batch: int | None,
) -> None:
    tight = planned(profile, device, costs, min_score=min_score, batch=batch)
    if tight is None:
        return
    more = {name: None if value is None else value * factors[name] for name, value in costs.items()}
    loose = planned(profile, device, more, min_score=min_score, batch=batch)
    assert loose is not None
    assert loose.width_multiplier >= tight.width_multiplier


@laws
@given(profiles(), devices(), budgets, least_scores, st.sampled_from(["widest", "score"]))
def test_the_chosen_plan_meets_every_budget_and_each_refusal_is_true(
    profile: Profile, device: Device, costs: dict[str, float | None], min_score: float | None, objective: str
) -> None:
    plan = planned(profile, device, costs, min_score=min_score, objective=objective)
    if plan is None:
        return
    limits = dict(plan.budget.limits())
    given_costs = {name for name, value in costs.items() if value is not None}
    assert given_costs - set(limits) <= ({"energy_j", "max_w"} if device.power_mode[0].power_w is None else set())

    def misses(found: Estimate) -> set[str]:
        short = set()
        for name, limit in limits.items():
            value = found.found(name)
            if value is None or (value < limit.value if KINDS[name].least else value > limit.value):
                short.add(name)
        return short

    assert misses(plan.chosen) == set()
    for step in plan.steps:
        assert {miss.budget for miss in step.misses} == misses(step.estimate)
        assert all(miss.over is None or miss.over > 0 for miss in step.misses)
        assert (step.verdict == "over budget") == bool(step.misses)
        if step.estimate.width_multiplier > plan.width_multiplier and not step.misses:
            if objective == "widest":
                assert plan.chosen.aligned
                assert not step.estimate.aligned
            # Never a narrower one that is estimated slower than a wider one.
            assert plan.chosen.latency_high_ms < step.estimate.latency_high_ms
    assert [step.verdict for step in plan.steps].count("chosen") == 1
    if objective == "score":
        fitting = [s.estimate for s in plan.steps if not s.misses and s.estimate.score is not None]
        usable = [e for e in fitting if e.aligned] or fitting
        assert plan.chosen.score == max(e.score for e in usable if e.score is not None)


@laws
@given(profiles(), devices(), st.sampled_from(["fp32", "fp16", "int8-dynamic"]), st.sampled_from([None, 1, 8]))
def test_narrower_is_never_estimated_to_need_more(
    profile: Profile, device: Device, precision: str, batch: int | None
) -> None:
    runtime = device.runtime[0]
    if precision[:4] not in runtime.precisions:
        return
    conditions = Conditions(uplink_kb_day=10.0, scene=SCENE, power_w=5.0, batch=batch)
    widths = profile.architecture.width_steps()
    steps = [estimate(profile, w, device, runtime, precision, TARGETS[0], conditions) for w in widths]
    less_and_more(*steps)


def less_and_more(*steps: Estimate) -> None:
    for less, more in pairwise(steps):
        assert less.memory.total_mib <= more.memory.total_mib
        assert less.latency_ms < more.latency_ms
        for name in COSTS:
            few, many = less.found(name), more.found(name)
            assert few is not None
            assert many is not None
            assert few <= many * (1 + 1e-12), name


@laws
@given(profiles(), devices(), budgets)
def test_another_way_is_taken_only_for_a_wider_width(
    profile: Profile, device: Device, costs: dict[str, float | None]
) -> None:
    any_way = planned(profile, device, costs)
    usual = planned(profile, replace(device, runtime=device.runtime[:1]), costs, precision="fp32")
    if usual is None:
        return
    assert any_way is not None
    assert any_way.width_multiplier >= usual.width_multiplier
    if any_way.width_multiplier == usual.width_multiplier and any_way.width_multiplier == 1.0:
        assert (any_way.runtime, any_way.precision) == (usual.runtime, "fp32")
