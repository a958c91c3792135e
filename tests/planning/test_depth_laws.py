"""What holds of every plan where depth joins width: on any board, for any encoder, within any budgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.device import Device, take_device
from edgeslim.errors import NothingFits
from edgeslim.figure import Figure
from edgeslim.measurement import Measurement
from edgeslim.planning.budget import KINDS, Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.estimate import Conditions, Estimate, estimate
from edgeslim.planning.plan import Plan
from edgeslim.profile import Profile, take_profile
from edgeslim.score import Score
from edgeslim.units import gflop
from tests.planning.test_laws import (
    SCENE,
    TARGETS,
    budgets,
    devices,
    figure,
    laws,
    least_scores,
    less_and_more,
    looser,
    planned,
    profiles,
)


@st.composite
def deep_profiles(draw: st.DrawFn) -> Profile:
    """An encoder that was scored behind some of its blocks, too."""
    profile = draw(profiles())
    arch = profile.architecture
    cuts = st.tuples(st.sampled_from(arch.width_steps()), st.integers(1, arch.depth))
    found = draw(st.dictionaries(cuts, st.floats(0.1, 1), min_size=1, max_size=24))
    scores = tuple(Score(w, "accuracy", "a part", value, "a test", depth=d) for (w, d), value in sorted(found.items()))
    return replace(profile, scores=scores)


@st.composite
def deep_budgets(draw: st.DrawFn, profile: Profile) -> dict[str, float | None]:
    """Limits of which FLOP's is often just what a scored cut takes, and the others leave much."""
    costs = draw(budgets)
    if draw(st.booleans()):
        score = draw(st.sampled_from(profile.scores))
        arch = profile.architecture.at(score.width_multiplier, score.depth)
        costs = dict.fromkeys(costs) | {"gflop": gflop(cost.flop(arch, profile.num_classes))}
        costs["memory_mib"] = draw(st.one_of(st.none(), st.floats(100, 3000)))
    return costs


@st.composite
def timed_devices(draw: st.DrawFn, profile: Profile) -> Device:
    """A board that is slow at many small products, or on which some cuts were timed, in whatever times."""
    device = draw(devices())
    if draw(st.booleans()):
        slow = tuple(replace(runtime, op_overhead_us=figure(draw, 300, 5000)) for runtime in device.runtime)
        return replace(device, runtime=slow)
    arch = profile.architecture
    steps = [(width, None) for width in arch.width_steps()]
    steps += [(score.width_multiplier, score.depth) for score in profile.scores if score.depth != arch.depth]
    rows = []
    for width, depth in draw(st.lists(st.sampled_from(steps), min_size=1, max_size=4, unique=True)):
        work = estimate(profile, width, device, device.runtime[0], "fp32", depth=depth).gflop
        p50 = draw(st.floats(0.1, 100))
        what = (profile.id, width, work, device.runtime[0].id, "fp32", device.default_power_mode)
        rows.append(Measurement(*what, 1, 1, p50, p50 * 1.2, "a test", depth=depth))
    return replace(device, measurement=tuple(rows))


@laws
@given(st.data(), looser, least_scores, st.sampled_from([None, 1, 4]))
def test_a_looser_budget_never_gives_a_plan_of_lower_rank(
    data: st.DataObject,
    factors: dict[str, float],
    min_score: float | None,
    batch: int | None,
) -> None:
    profile = data.draw(deep_profiles())
    device, costs = data.draw(timed_devices(profile)), data.draw(deep_budgets(profile))
    tight = planned(profile, device, costs, min_score=min_score, batch=batch)
    if tight is None:
        return
    more = {name: None if value is None else value * factors[name] for name, value in costs.items()}
    loose = planned(profile, device, more, min_score=min_score, batch=batch)
    assert loose is not None
    # The order is: aligned (or as fast as a smaller one that is) before unaligned, then FLOP, then width.
    assert loose.chosen.size >= tight.chosen.size or not tight.chosen.aligned
    at_one_depth = {step.estimate.depth for step in tight.steps} == {None}
    if at_one_depth and not device.measurement:
        assert loose.width_multiplier >= tight.width_multiplier


@laws
@given(st.data(), least_scores, st.sampled_from(["widest", "score"]))
def test_the_chosen_plan_meets_every_budget_and_no_larger_one_is_as_fast(
    data: st.DataObject, min_score: float | None, objective: str
) -> None:
    profile = data.draw(deep_profiles())
    device, costs = data.draw(timed_devices(profile)), data.draw(deep_budgets(profile))
    plan = planned(profile, device, costs, min_score=min_score, objective=objective)
    if plan is None:
        return
    limits = dict(plan.budget.limits())

    def misses(found: Estimate) -> set[str]:
        short = set()
        for name, limit in limits.items():
            value = found.found(name)
            if value is None or (value < limit.value if KINDS[name].least else value > limit.value):
                short.add(name)
        return short

    assert misses(plan.chosen) == set()
    assert plan.slim_architecture == profile.architecture.at(*plan.chosen.cut)
    sizes = [step.estimate.size for step in plan.steps]
    assert sizes == sorted(sizes, reverse=True)
    measured = {(score.width_multiplier, score.depth) for score in profile.scores}
    full = profile.architecture.depth
    for step in plan.steps:
        assert {miss.budget for miss in step.misses} == misses(step.estimate)
        assert (step.verdict == "over budget") == bool(step.misses)
        # Depth is cut only where a score says what is left.
        assert step.estimate.depth is None or tuple(step.estimate.cut) in measured
        assert step.estimate.depth != full
    assert [step.verdict for step in plan.steps].count("chosen") == 1
    fitting = [step.estimate for step in plan.larger if not step.misses]
    if objective == "widest":
        # Never a narrower one that is estimated or measured slower than a wider one.
        assert all(plan.chosen.latency_high_ms < found.latency_high_ms for found in fitting)
        assert not any(found.aligned for found in fitting)
    else:
        scored = [found for found in fitting if found.score is not None]
        best = plan.chosen.score or 0
        assert all((found.score or 0) < best or not found.aligned for found in scored)


@laws
@given(st.data(), st.floats(200, 3000))
def test_no_larger_one_that_fits_is_as_fast_where_many_products_are_slow(
    data: st.DataObject, op_overhead_us: float
) -> None:
    encoder, board = take_profile("eurosat-rgb"), take_device("raspberry-pi-4b-4gb")
    overhead = Figure(op_overhead_us, "a test")
    device = replace(board, runtime=(replace(board.runtime[0], op_overhead_us=overhead),))
    cuts = st.tuples(st.sampled_from(encoder.architecture.width_steps()), st.integers(1, 4))
    found = data.draw(st.lists(cuts, min_size=1, max_size=8, unique=True))
    profile = replace(encoder, scores=tuple(Score(w, "accuracy", "a part", 0.9, "a test", depth=d) for w, d in found))
    width, depth = data.draw(st.sampled_from(found))
    limit = estimate(profile, width, device, device.runtime[0], "fp32", depth=depth).gflop
    plan = make_plan(profile, device, TARGETS[:1], Ask(gflop=limit))
    fitting = [step.estimate for step in plan.larger if not step.misses]
    assert all(plan.chosen.latency_high_ms < other.latency_high_ms for other in fitting)
    assert make_plan(profile, device, TARGETS[:1], Ask(gflop=limit), narrower=False).chosen == plan.chosen


@laws
@given(deep_profiles(), devices(), st.sampled_from(["fp32", "fp16", "int8-dynamic"]), st.sampled_from([None, 1, 8]))
def test_fewer_blocks_and_narrower_ones_never_need_more(
    profile: Profile, device: Device, precision: str, batch: int | None
) -> None:
    runtime = device.runtime[0]
    if precision[:4] not in runtime.precisions:
        return
    conditions = Conditions(uplink_kb_day=10.0, scene=SCENE, power_w=5.0, batch=batch)

    def of(width: float, depth: int) -> Estimate:
        return estimate(profile, width, device, runtime, precision, TARGETS[0], conditions, depth)

    arch = profile.architecture
    widths = arch.width_steps()[:: max(1, arch.head_dim // 4)]
    for width in widths:
        less_and_more(*(of(width, depth) for depth in range(1, arch.depth + 1)))
    for depth in {1, arch.depth}:
        less_and_more(*(of(width, depth) for width in widths))


@laws
@given(st.data(), least_scores, st.sampled_from(["widest", "score"]))
def test_what_is_searched_quickly_is_what_is_found_among_all(
    data: st.DataObject, min_score: float | None, objective: str
) -> None:
    profile, device = data.draw(deep_profiles()), data.draw(devices())
    costs = data.draw(deep_budgets(profile))
    if device.power_mode[0].power_w is None:
        costs = {**costs, "energy_j": None, "max_w": None}
    best = max(score.value for score in profile.scores)
    asked = {**costs, "min_score": None if min_score is None else min(min_score, best), "objective": objective}
    ask = Ask(scene=SCENE, uplink_kb_day=100.0, **asked)  # type: ignore[arg-type]

    def found(narrower: bool) -> Plan | str:
        try:
            return make_plan(profile, device, TARGETS, ask, narrower=narrower)
        except NothingFits as error:
            return str(error)

    slow, quick = found(True), found(False)
    if isinstance(slow, Plan):
        assert isinstance(quick, Plan)
        assert quick.chosen == slow.chosen
        assert quick.summary() == slow.summary()
        assert {step.estimate.cut for step in quick.steps} <= {step.estimate.cut for step in slow.steps}
    else:
        assert quick == slow


@pytest.mark.parametrize("objective", ["widest", "score"])
def test_the_laws_see_cuts_in_depth_that_are_chosen(objective: str) -> None:
    """Guards the others against drawing nothing that matters."""
    chosen = []

    @settings(laws, derandomize=True, max_examples=100)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        profile, device = data.draw(deep_profiles()), data.draw(devices())
        plan = planned(profile, device, data.draw(deep_budgets(profile)), objective=objective)
        chosen.append(plan is not None and plan.depth is not None)

    look()
    assert sum(chosen) > 5
