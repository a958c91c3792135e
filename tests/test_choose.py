"""Budgets of the artifact, the link, the scene, its score and its energy, and which way to run it."""

from dataclasses import replace

import pytest

from edgeslim.budget import Ask
from edgeslim.choose import make_plan
from edgeslim.device import take_device
from edgeslim.errors import InputError, NothingFits
from edgeslim.profile import take_profile
from edgeslim.target import take_target

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
