"""Cuts in depth: which are tried, in which order, and what a plan says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.cuts import Cut
from edgeslim.device import take_device
from edgeslim.device_card import load_card, take_card
from edgeslim.device_text import device_text
from edgeslim.errors import InputError, NothingFits, UsageError
from edgeslim.figure import Figure
from edgeslim.measurement import Measurement
from edgeslim.planning.boards import plan_boards, to_dict
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.estimate import estimate
from edgeslim.planning.plan import Plan
from edgeslim.planning.search import cuts_of
from edgeslim.profile import Profile, take_profile
from edgeslim.report.plan import chosen_facts
from edgeslim.score import Score
from edgeslim.target import take_target

EMBEDDED = take_profile("eurosat-rgb")
PI4 = take_device("raspberry-pi-4b-4gb")
ONNX = take_target("onnx")


def scored(*scores: tuple[float, int | None, float], dataset: str = "test part") -> Profile:
    """EMBEDDED, of five blocks and heads of 32, with scores of these widths and depths only."""
    return replace(EMBEDDED, scores=tuple(Score(w, "accuracy", dataset, v, "a test", depth=d) for w, d, v in scores))


DEEP = scored((1.0, None, 0.95), (0.5, None, 0.9), (1.0, 3, 0.96), (0.5, 3, 0.91), (0.75, 2, 0.8), (1.0, 5, 0.94))


def test_depth_is_cut_where_a_score_says_what_is_left() -> None:
    cuts = cuts_of(DEEP, Ask())
    assert [cut for cut in cuts if cut.depth is not None] == [(1.0, 3), (0.75, 2), (0.5, 3)]
    assert [cut for cut in cuts if cut.depth is None] == [(j / 32, None) for j in range(32, 0, -1)]
    flop = [estimate(DEEP, cut.width_multiplier, PI4, PI4.runtime[0], "fp32", depth=cut.depth).gflop for cut in cuts]
    assert flop == sorted(flop, reverse=True)
    # Scores of another data set are no evidence for this one.
    other = scored((0.5, 2, 0.7), dataset="another").scores
    both = replace(DEEP, scores=DEEP.scores + other)
    assert Cut(0.5, 2) not in cuts_of(both, Ask())
    assert [cut for cut in cuts_of(both, Ask(score_on="another")) if cut.depth is not None] == [(0.5, 2)]


def test_a_depth_may_be_asked_or_forbidden() -> None:
    plan = make_plan(EMBEDDED, PI4, ONNX, Ask(depth=2))
    assert (plan.chosen.cut, plan.chosen.score) == ((1.0, 2), None)
    assert {step.estimate.depth for step in plan.steps} == {2}
    assert plan.slim_architecture == replace(EMBEDDED.architecture, depth=2)
    whole = make_plan(DEEP, PI4, ONNX, Ask(depth=5))
    assert not whole.cuts_depth
    assert whole == make_plan(replace(DEEP, scores=DEEP.scores[:2]), PI4, ONNX)
    with pytest.raises(UsageError, match="--depth: found 6, expected 1 to the 5 blocks of eurosat-rgb, or all"):
        make_plan(EMBEDDED, PI4, ONNX, Ask(depth=6))
    with pytest.raises(UsageError, match="--depth: found 0, expected at least 1 block"):
        Ask(depth=0)
    with pytest.raises(UsageError, match="no \\[\\[score\\]\\] of a width of depth 4"):
        make_plan(DEEP, PI4, ONNX, Ask(depth=4, objective="score"))


def test_the_best_score_is_taken_over_both() -> None:
    plan = make_plan(DEEP, PI4, ONNX, Ask(objective="score"))
    assert (plan.chosen.cut, plan.chosen.score) == ((1.0, 3), 0.96)
    assert {step.verdict for step in plan.larger} == {"lower score", "score not measured", "unaligned"}
    least = make_plan(DEEP, PI4, ONNX, Ask(min_score=0.955))
    assert least.chosen.cut == (1.0, 3)
    with pytest.raises(UsageError, match=r"expected at most 0\.96, .* \(at 1 with 3 blocks\); nothing reaches more"):
        make_plan(DEEP, PI4, ONNX, Ask(min_score=0.97))
    with pytest.raises(NothingFits, match=r"no width and depth of eurosat-rgb fits .*: the nearest, 0\.0312 \(head"):
        make_plan(DEEP, PI4, ONNX, Ask(gflop=0.001))
    with pytest.raises(NothingFits, match=r"expected one of 1, 1 with 3 blocks, 0\.5, 0\.75 with 2 blocks"):
        make_plan(DEEP, PI4, ONNX, Ask(objective="score", gflop=0.02))


def test_the_most_flop_that_fits_then_the_widest() -> None:
    three = estimate(DEEP, 1.0, PI4, PI4.runtime[0], "fp32", depth=3)
    plan = make_plan(DEEP, PI4, ONNX, Ask(gflop=three.gflop))
    assert plan.chosen.cut == (1.0, 3)
    assert [step.verdict for step in plan.larger] == ["over budget"] * len(plan.larger)
    # Less than a FLOP fewer, and an aligned width step has the most.
    assert make_plan(DEEP, PI4, ONNX, Ask(gflop=three.gflop * (1 - 1e-9))).chosen.cut == (0.5, None)


def test_a_smaller_aligned_cut_that_takes_as_long_is_no_reason_to_pass_a_larger_one_over() -> None:
    # A millisecond for each product: two blocks of many FLOP are faster than five of fewer.
    slow = replace(PI4, runtime=(replace(PI4.runtime[0], op_overhead_us=Figure(1000, "a test")),))
    unaligned = scored((31 / 32, 2, 0.9))
    budget = estimate(unaligned, 31 / 32, slow, slow.runtime[0], "fp32", depth=2).gflop
    assert make_plan(replace(unaligned, scores=()), slow, ONNX, Ask(gflop=budget)).chosen.cut == (0.25, None)
    plan = make_plan(unaligned, slow, ONNX, Ask(gflop=budget))
    assert (plan.chosen.cut, plan.chosen.aligned) == ((31 / 32, 2), False)
    narrower = next(step.estimate for step in plan.steps if step.estimate.cut == (0.25, None))
    assert narrower.gflop < plan.chosen.gflop
    assert narrower.latency_high_ms > plan.chosen.latency_high_ms
    # On the board as it is the smaller one is faster, and aligned.
    assert make_plan(unaligned, PI4, ONNX, Ask(gflop=budget)).chosen.cut == (0.25, None)


def test_a_plan_that_cuts_depth_is_read_back() -> None:
    plan = make_plan(DEEP, PI4, ONNX, Ask(objective="score"))
    data = json.loads(json.dumps(plan.to_dict()))
    assert Plan.from_dict(data) == plan
    assert plan.summary()["chosen"]["depth"] == 3
    data["slim_architecture"]["depth"] = 4
    with pytest.raises(InputError, match="slim_architecture: found head_dim 32, FFN 512 and 4 blocks, expected"):
        Plan.from_dict(data)


def test_a_plan_of_before_depth_was_cut_is_read() -> None:
    plan = make_plan(EMBEDDED, PI4, ONNX)
    data = json.loads(json.dumps(plan.to_dict()))
    for found in (data["chosen"], *(step["estimate"] for step in data["steps"])):
        assert found.pop("depth") is None
    assert Plan.from_dict(data) == plan


def test_a_cut_that_was_timed_is_measured_and_sets_others_right() -> None:
    gflop = estimate(DEEP, 1.0, PI4, PI4.runtime[0], "fp32", depth=3).gflop
    mode = PI4.default_power_mode
    row = Measurement("eurosat-rgb", 1.0, gflop, PI4.runtime[0].id, "fp32", mode, 1, 1, 3.0, 3.3, "a test", depth=3)
    timed = replace(PI4, measurement=(row,))
    bases = {step.estimate.cut: step.estimate.latency_basis for step in make_plan(DEEP, timed, ONNX).steps}
    assert {cut for cut, basis in bases.items() if basis == "measured"} == {(1.0, 3)}
    assert bases[Cut(1.0)] == "rescaled"
    with pytest.raises(InputError, match="another encoder of that name was timed"):
        make_plan(DEEP, replace(PI4, measurement=(replace(row, depth=None),)), ONNX)


def test_a_timed_cut_is_written_to_a_card_and_read_back(tmp_path: Path) -> None:
    card = take_card("raspberry-pi-4b-4gb")
    what = ("eurosat-rgb", 0.5, 0.05, card.runtime[0].id, "fp32", card.default_power_mode, 1, 1, 3.0, 3.3, "a test")
    rows = tuple(Measurement(*what, depth=depth) for depth in (None, 2, 3))
    path = tmp_path / f"{card.id}.toml"
    path.write_text(device_text(replace(card, measurement=rows)))
    assert load_card(path).measurement == rows
    assert path.read_text().count("depth = ") == 2


def test_boards_are_ordered_by_what_they_keep() -> None:
    ask = Ask(latency_ms=22.0, objective="score")
    found = plan_boards(DEEP, [take_card(name) for name in ("rpi4", "rpi5")], lambda _: [ONNX], ask)
    assert [board.plan.chosen.cut for board in found if board.plan is not None] == [(1.0, 3), (1.0, 3)]
    assert to_dict("eurosat-rgb", Ask(depth=3), found)["asked"]["depth"] == 3


@pytest.mark.parametrize("depth", [None, 5])
def test_all_blocks_are_no_cut(depth: int | None) -> None:
    profile = scored((1.0, depth, 0.9))
    assert profile.score_at(1.0) == profile.score_at(1.0, depth=5) == profile.scores[0]
    assert profile.score_at(1.0, depth=4) is None
    assert not make_plan(profile, PI4, ONNX).cuts_depth


def test_a_smaller_cut_that_scores_more_is_told() -> None:
    plan = make_plan(DEEP, PI4, ONNX)
    assert chosen_facts(plan)["better"] == (
        "1 with 3 blocks fits, too, and scores 0.960 for 61% of the full FLOP: --objective score goes by that"
    )
    assert "better" not in chosen_facts(make_plan(DEEP, PI4, ONNX, Ask(objective="score")))
    # Widths alone are told as before.
    assert "better" not in chosen_facts(make_plan(scored((1.0, None, 0.9), (0.5, None, 0.95)), PI4, ONNX))
