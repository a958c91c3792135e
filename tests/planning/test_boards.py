"""Plans the other way round: every board, alone and in the list, is told the same."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeslim.device import Device, complete
from edgeslim.device_card import ALL_MODES, all_cards, take_card
from edgeslim.errors import InputError, NothingFits, UnknownName, UsageError
from edgeslim.planning.boards import VERDICTS, Board, plan_boards, require_mode, require_one, to_dict
from edgeslim.planning.budget import KINDS, Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import Scene, startup_lacks
from edgeslim.planning.estimate import estimate
from edgeslim.planning.plan import Plan
from edgeslim.planning.ways import ways_on
from edgeslim.profile import Profile, take_profile
from edgeslim.target import Target, take_target

EMBEDDED, VIT_S = take_profile("eurosat-rgb"), take_profile("vit-s-16")
CARDS = {card.id: card for card in all_cards()}
TARGETS = [take_target(name) for name in ("onnx", "openvino", "tflite", "tensorrt")]
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def targets_of(device: Device) -> list[Target]:
    ids = {runtime.id for runtime in device.runtime}
    return [target for target in TARGETS if target.id == "onnx" or ids & set(target.runtimes)]


def boards_of(ask: Ask, ids: list[str] | None = None, allow_unverified: bool = False) -> tuple[Board, ...]:
    cards = list(CARDS.values()) if ids is None else [CARDS[name] for name in ids]
    return plan_boards(EMBEDDED, cards, targets_of, ask, allow_unverified)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    scene = draw(st.sampled_from([None, Scene(4096, 4096), Scene(10980, 10980)]))
    return Ask(
        latency_ms=draw(st.none() | st.floats(0.5, 60)),
        memory_mib=draw(st.none() | st.floats(100, 900)),
        scene=scene,
        deadline_s=None if scene is None else draw(st.none() | st.floats(20, 3000)),
        startup_s=draw(st.none() | st.floats(0.5, 30)),
        max_w=draw(st.none() | st.floats(3, 12)),
        min_score=draw(st.none() | st.floats(0.9, 0.97)),
        objective=draw(st.sampled_from(["widest", "score"])),
        power_mode=draw(st.sampled_from([None, None, "15W", "MAXN", ALL_MODES])),
        precision=draw(st.sampled_from([None, None, "fp16"])),
    )


@laws
@given(asks(), st.lists(st.sampled_from(sorted(CARDS)), min_size=4, max_size=6, unique=True), st.booleans())
def test_a_board_in_the_list_is_told_what_planning_it_alone_says(
    ask: Ask, ids: list[str], allow_unverified: bool
) -> None:
    found = boards_of(ask, ids, allow_unverified)
    modes = {name: len(CARDS[name].power_mode) if ask.power_mode == ALL_MODES else 1 for name in ids}
    assert len(found) == sum(modes.values())
    for board in found:
        plan, message, verdicts = alone(board, ask, allow_unverified)
        assert board.verdict in verdicts
        assert (board.message, bool(board.why)) == (message, plan is None)
        if plan is None:
            assert board.plan is None
        else:
            assert board.plan is not None
            assert board.plan.chosen == plan.chosen
            assert board.plan.summary() == plan.summary()


def alone(board: Board, ask: Ask, allow_unverified: bool) -> tuple[Plan | None, str, tuple[str, ...]]:
    """What planning for a board alone gives: a plan, or what it ends with; and what the list may call it."""
    asked = ask if ask.power_mode is None else replace(ask, power_mode=board.power_mode)
    try:
        device = complete(CARDS[board.id], allow_unverified)
        return make_plan(EMBEDDED, device, targets_of(device), asked), "", ("qualifies",)
    except InputError as error:
        return None, str(error), ("no such mode", "card lacks", "refused")
    except NothingFits as error:
        return None, str(error), ("nothing fits",)


@laws
@given(asks())
def test_the_best_come_first_and_what_lacks_least_comes_next(ask: Ask) -> None:
    found = boards_of(ask)
    order = [VERDICTS.index(board.verdict) for board in found]
    assert order == sorted(order)
    chosen = [board.plan.chosen for board in found if board.plan is not None]
    if ask.objective == "widest":
        assert [c.width_multiplier for c in chosen] == sorted((c.width_multiplier for c in chosen), reverse=True)
    else:
        assert [c.score for c in chosen] == sorted((c.score or 0 for c in chosen), reverse=True)
    over = [board.over for board in found if board.verdict == "nothing fits" and board.over is not None]
    assert over == sorted(over)
    assert json.loads(json.dumps(to_dict("eurosat-rgb", ask, found), allow_nan=False))["boards"]


def test_the_example_of_a_scene_and_a_deadline() -> None:
    found = {b.id: b for b in boards_of(Ask(min_score=0.9, scene=Scene(10980, 10980), deadline_s=600))}
    pi = found["raspberry-pi-5-8gb"].plan
    assert pi is not None
    assert pi.chosen.scene is not None
    assert pi.chosen.scene.high_s <= 600
    assert found["raspberry-pi-zero-2w"].why.startswith("scene +")
    assert found["imx8m-plus"].lacks[0] == "memory.total_mib"
    assert "OpenVINO 2022.3" in found["myriad-x"].why
    assert found["hailo-8"].verdict == "refused"
    assert found["rk3588-8gb"].plan is not None


def test_watts_that_nobody_measured_are_named() -> None:
    found = {board.id: board for board in boards_of(Ask(max_w=7))}
    assert found["raspberry-pi-4b-4gb"].plan is not None
    assert found["raspberry-pi-5-8gb"].lacks == ("power_w of power_mode default",)
    assert found["raspberry-pi-5-8gb"].why == "card lacks power_w of power_mode default"


def test_power_modes_by_name_and_all() -> None:
    named = {board.id: board for board in boards_of(Ask(power_mode="15W"), ["jetson-orin-nano-8gb", "rk3588-8gb"])}
    assert named["jetson-orin-nano-8gb"].plan is not None
    assert named["jetson-orin-nano-8gb"].plan.power_mode == "15W"
    assert named["rk3588-8gb"].verdict == "no such mode"
    assert named["rk3588-8gb"].why == "has default"
    every = boards_of(Ask(power_mode=ALL_MODES), ["jetson-orin-nano-8gb"])
    assert {board.power_mode for board in every} == {"15W", "7W", "25W", "MAXN_SUPER"}


def test_an_unverified_unit_is_estimated_when_asked_and_marked() -> None:
    card = take_card("jetson-xavier-nx")
    tensorrt = [take_target("tensorrt")]
    with pytest.raises(InputError, match="expected one that tensorrt runs on"):
        make_plan(VIT_S, complete(card), tensorrt)
    plan = make_plan(VIT_S, complete(card, allow_unverified=True), tensorrt)
    assert plan.unverified is not None
    assert "no transformer" in plan.unverified
    assert plan.summary()["unverified"] == plan.unverified
    # Asked or not, what runs on the processor is not marked.
    assert make_plan(EMBEDDED, complete(card, allow_unverified=True), take_target("onnx")).unverified is None


def test_what_no_board_could_mend_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"--min-score: found 0\.999, expected at most"):
        boards_of(Ask(min_score=0.999))
    with pytest.raises(UsageError, match="--stride: found 999 px, expected 1 to 64"):
        boards_of(Ask(scene=Scene(1000, 1000, 999)))


def test_nothing_that_qualifies_names_the_nearest() -> None:
    found = boards_of(Ask(latency_ms=0.01))
    with pytest.raises(
        NothingFits, match=r"no board of \d+ flies eurosat-rgb within these budgets: the nearest, "
    ) as e:
        require_one("eurosat-rgb", found)
    assert found[0].id in str(e.value)
    require_one("eurosat-rgb", boards_of(Ask()))


def test_where_nothing_was_held_against_a_budget_none_is_to_be_loosened() -> None:
    with pytest.raises(NothingFits, match=r"no board of 1 can be planned for as asked: 1 refused; "):
        require_one("eurosat-rgb", boards_of(Ask(), ["hailo-8"]))
    with pytest.raises(NothingFits) as error:
        require_one("eurosat-rgb", boards_of(Ask(precision="int8-dynamic", power_mode="15W")))
    assert "budget" not in str(error.value)
    assert " without that power mode, " in str(error.value)
    assert " whose card has no figures for it" in str(error.value)


@pytest.mark.parametrize(("name", "near"), [("15w", "15W, "), ("", ".*, 15W, .*all"), ("fast", "default")])
def test_a_power_mode_that_no_board_has(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown power mode '{name}': expected one of {near}"):
        require_mode(CARDS.values(), Ask(power_mode=name))
    require_mode(CARDS.values(), Ask(power_mode="15W"))
    require_mode(CARDS.values(), Ask(power_mode=ALL_MODES))


@pytest.mark.parametrize("profile", [EMBEDDED, VIT_S], ids=lambda p: p.id)
@pytest.mark.parametrize("scene", [None, Scene(3000, 5000)], ids=["no scene", "scene"])
def test_a_narrower_width_is_never_estimated_to_need_more_on_any_board(profile: Profile, scene: Scene | None) -> None:
    ask = Ask(scene=scene, uplink_kb_day=10)
    ways = [
        (device, way)
        for device in _plannable()
        for way in ways_on(device, targets_of(device), ask)
        if scene is None or not startup_lacks(device, way.runtime)
    ]
    assert len({device.id for device, _ in ways}) >= 20
    needs = [name for name, kind in KINDS.items() if not kind.least and name not in ("max_w", "energy_j")]
    for device, way in ways:
        steps = [
            estimate(profile, width, device, way.runtime, way.precision, way.target, ask.conditions)
            for width in profile.architecture.width_steps()
        ]
        for narrow, wide in pairwise(steps):
            for name in needs:
                less, more = narrow.found(name), wide.found(name)
                assert (less is None) == (more is None)
                assert less is None or more is None or less <= more, (device.id, way.precision, name)


def _plannable() -> list[Device]:
    found = []
    for card in CARDS.values():
        with suppress(InputError):  # CardLacks, too
            found.append(complete(card, allow_unverified=True))
    return found
