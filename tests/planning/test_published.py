"""Cards of published encoders: what they keep at each width and what that costs, against the publication's own rows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgeslim import cost
from edgeslim.device import take_device
from edgeslim.errors import UsageError
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import make_plan
from edgeslim.profile import take_profile
from edgeslim.target import take_target

CURVES = Path(__file__).parents[3] / "shared" / "evidence" / "slimming_curves.csv"
MODELS = {
    "DOFA-B": "dofa-b-16",
    "DOFA-L": "dofa-l-16",
    "TerraMind-B": "terramind-b",
    "TerraMind-L": "terramind-l",
    "Prithvi2-300": "prithvi-2-300",
    "Prithvi2-600": "prithvi-2-600",
    "SSL4EO-S MoCo": "ssl4eo-s12-moco-s-16",
    "SSL4EO-S DINO": "ssl4eo-s12-dino-s-16",
    "Copernicus-FM": "copernicus-fm-b-16",
}
FOLDED = {"DOFA-B", "DOFA-L", "Copernicus-FM"}
"""Their patch weights come from a network of their own, which the publication counts and a flight does not run."""
BOARD, ONNX = take_device("jetson-agx-orin"), take_target("onnx")


def published() -> list[dict[str, str]]:
    if not CURVES.exists():
        pytest.skip(f"no {CURVES.name} beside the checkout")
    with CURVES.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["model"] in MODELS]


def test_scores_are_those_of_the_publication() -> None:
    rows = published()
    for model, name in MODELS.items():
        found = {(s.dataset.removeprefix("GEO-Bench "), s.width_multiplier): s.value for s in take_profile(name).scores}
        assert found == {
            (row["dataset"], float(row["width_multiplier"])): float(row["score"])
            for row in rows
            if row["model"] == model
        }


def test_costs_are_those_of_the_publication() -> None:
    for row in published():
        arch = take_profile(MODELS[row["model"]]).architecture
        fraction = cost.flop(arch.at(float(row["width_multiplier"]))) / cost.flop(arch)
        near = 0.025 if row["model"] in FOLDED else 0.007
        assert abs(fraction - float(row["compute_fraction"])) < near, row


@pytest.mark.parametrize("name", MODELS.values())
def test_a_published_encoder_is_planned_with_what_it_keeps(name: str) -> None:
    profile = take_profile(name)
    half = profile.score_at(0.5)
    assert half is not None
    assert half.probe == "5 nearest neighbours"
    assert half.interval is None
    # As many seconds a tile as it takes: the large ones are beyond the board's processor at a tile a second.
    plan = make_plan(profile, BOARD, ONNX, Ask(min_score=half.value, objective="score", gflop=1000))
    assert plan.chosen.score is not None
    assert plan.chosen.score >= half.value
    assert plan.chosen.score_basis is not None
    assert plan.chosen.score_basis.startswith("accuracy, GEO-Bench m-eurosat, 5 nearest neighbours; arXiv 2601.22841")


def test_the_scores_of_another_data_set_count_where_asked() -> None:
    profile = take_profile("prithvi-2-300")
    first, other = make_plan(profile, BOARD, ONNX), make_plan(profile, BOARD, ONNX, Ask(score_on="GEO-Bench m-so2sat"))
    assert first.chosen.score == profile.score_at(first.width_multiplier, "GEO-Bench m-eurosat").value  # type: ignore[union-attr]
    assert other.chosen.score == profile.score_at(other.width_multiplier, "GEO-Bench m-so2sat").value  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="--score-on: found 'm-so2', expected a data set of prithvi-2-300: 'GEO-Bench"):
        make_plan(profile, BOARD, ONNX, Ask(score_on="m-so2"))
    with pytest.raises(UsageError, match=r"of vit-s-16: none, as its card has no \[\[score\]\]"):
        make_plan(take_profile("vit-s-16"), BOARD, ONNX, Ask(score_on="m-so2"))
