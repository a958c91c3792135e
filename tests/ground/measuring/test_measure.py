"""`edgeslim measure`: its scores against a slow reference, its card, its plot, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.heads.head import Asked
from edgeslim.ground.measuring.diagnose import diagnose
from edgeslim.ground.measuring.features import look_at
from edgeslim.ground.measuring.measure import mean_of, measure
from edgeslim.ground.slimming.slim import slim
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.profile import Profile, load_profile
from tests.ground.slimming.test_calibrated_convnext import lively
from tests.tiles import image_folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), count=20)


def test_a_mean_of_seeds_is_students() -> None:
    values = np.array([0.7, 0.75, 0.72, 0.8, 0.71])
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert mean_of(values[:1]).low == mean_of(values[:1]).high == 0.7


def test_scores_are_those_of_scikit_learn(tiny: Profile, images: Path) -> None:
    checkpoint, _ = profile_checkpoint(tiny)
    tiles = labelled_tiles(images)
    record = measure(tiny, checkpoint, tiles, (0.25,), 3, Asked(seed=4), lambda _: None)
    seen = look_at(tiny, checkpoint, tiles, (0.25, 1.0), Asked(), lambda _: None)
    labels = seen.has(tiles.classes).argmax(1)
    for one in record.kept:
        if one.probe != "k-NN":
            continue
        features, scores = seen.features[one.width_multiplier, one.blocks], []
        for seed in (4, 5, 6):
            train, test = next(iter(StratifiedKFold(5, shuffle=True, random_state=seed).split(labels, labels)))
            near = KNeighborsClassifier(5, metric="cosine").fit(features[train], labels[train])
            scores.append(near.score(features[test], labels[test]))
        assert one.score.value == pytest.approx(np.mean(scores), abs=1e-9)
        assert one.gflop == cost.flop(tiny.architecture.at(one.width_multiplier, one.blocks)) / 1e9
    full = record.at_full_depth("linear")[-1]
    assert full.ratio is not None
    assert full.ratio.value == 1
    assert [(one.width_multiplier, one.blocks) for one in record.at_full_depth("k-NN")] == [(0.25, 2), (1.0, 2)]
    assert {choice.probe for choice in record.choices} == {"k-NN", "linear"}
    assert all(width in (0.25, 1.0) for choice in record.choices for width in choice.widths)
    assert all(choice.blocks == () for choice in record.choices)
    for choice in record.cut_choices:
        assert len(choice.widths) == len(choice.blocks) == 3
        assert {*zip(choice.widths, choice.blocks, strict=True)} <= {(w, b) for w in (0.25, 1.0) for b in (1, 2)}
    for probe in ("k-NN", "linear"):
        rows = [one for one in record.kept if one.probe == probe]
        for one in rows:
            beaten = any(
                other.gflop <= one.gflop and other.score.value >= one.score.value and other is not one for other in rows
            )
            assert one.front == (not beaten)
    front = record.front("linear")
    assert [one.gflop for one in front] == sorted({one.gflop for one in front})
    assert all(a.score.value < b.score.value for a, b in pairwise(front))


CONVNEXT = ConvNextArchitecture((1, 2, 2), (6, 10, 14), (24, 40, 56), tile_px=16, bands=3, stem_stride=2)


def of_convnext(tiny: Profile, encoder: ConvNext) -> tuple[Profile, Checkpoint]:
    state = {name: value.detach() for name, value in encoder.state_dict().items()}
    return replace(tiny, architecture=encoder.arch), Checkpoint(encoder.arch, state, {})


def test_a_convnext_is_looked_at_behind_each_block_of_its_last_stage(tiny: Profile, images: Path) -> None:
    encoder, tiles = lively(CONVNEXT), labelled_tiles(images)
    seen = look_at(*of_convnext(tiny, encoder), tiles, (0.25, 1.0), Asked(), lambda _: None)
    assert seen.features.keys() == {(width, blocks) for width in (0.25, 1.0) for blocks in (4, 5)}
    for (width, blocks), features in seen.features.items():
        made = slim(encoder, width, blocks)
        assert isinstance(made, ConvNext)
        cut = look_at(*of_convnext(tiny, made), tiles, (1.0,), Asked(), lambda _: None)
        np.testing.assert_allclose(features, cut.features[1.0, blocks], atol=1e-5)
        assert features.std() > 0.1


def test_a_convnext_is_scored_and_diagnosed(tiny: Profile, images: Path) -> None:
    given, tiles = of_convnext(tiny, lively(CONVNEXT)), labelled_tiles(images)
    record = measure(*given, tiles, (0.25,), 2, Asked(), lambda _: None)
    assert {(one.width_multiplier, one.blocks) for one in record.kept} == {(w, b) for w in (0.25, 1.0) for b in (4, 5)}
    for one in record.kept:
        assert one.gflop == cost.flop(CONVNEXT.at(one.width_multiplier, one.blocks)) / 1e9
    found = diagnose(*given, tiles, (0.25,), Asked(), lambda _: None)
    assert [cut.blocks for cut in found.depths] == [4, 5]
    assert [cut.name for cut in found.depths] == ["block 4", "block 5"]
    assert found.depths[-1].linear == found.widths[-1].linear


def test_the_card_holds_the_scores_and_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = tmp_path / "mine" / "profiles"
    shelf.mkdir(parents=True)
    words = ["measure", "tiny", "--tiles", str(images), "--cards", str(tiny_cards), "--seeds", "2", "-w", "0.5"]
    assert main([*words, "-o", "mine/profiles/scored.toml", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[3] / "schemas" / "measure.schema.json").read_text())
    jsonschema.validate(record, schema)
    card = load_profile(shelf / "scored.toml")
    assert card.id == "scored"
    score = card.score_at(0.5)
    assert score is not None
    assert score.value == round(next(k for k in record["kept"] if k["blocks"] == 2)["score"]["value"], 4)
    assert score.interval is not None
    assert score.source.startswith("edgeslim measure tiny --tiles")
    assert str(tmp_path) not in (shelf / "scored.toml").read_text()
    assert (shelf / "scored.svg").read_text().startswith("<svg xmlns")
    # A plan reads them.
    assert main(["plan", "--device", "rpi4", "--encoder", "scored", "--cards", "mine", "-o", "plan.json"]) == 0
    assert "score" in capsys.readouterr().out
    # The same again replaces its own files, and nobody else's.
    assert main([*words, "-o", "mine/profiles/scored.toml"]) == 0
    (tmp_path / "other.toml").write_text("a = 1\n")
    capsys.readouterr()
    assert main([*words, "-o", "other.toml"]) == 1
    assert "no card that `measure` wrote, kept it" in capsys.readouterr().err


def test_tiles_of_several_classes_are_scored_by_precision(tmp_path: Path, tiny: Profile, images: Path) -> None:
    rows = ["file,class"]
    for index, path in enumerate(sorted(images.rglob("*.png"))):
        rows.append(f"{path.parent.name}/{path.name},{path.parent.name}")
        if index % 3 == 0:
            rows.append(f"{path.parent.name}/{path.name},Hazy")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    tiles = labelled_tiles(images, tmp_path / "labels.csv")
    checkpoint, _ = profile_checkpoint(tiny)
    record = measure(tiny, checkpoint, tiles, (0.5,), 2, Asked(), lambda _: None)
    assert record.metric == "mAP"
    # Three of the four classes are plain colours, the fourth is drawn by number: its precision is about its share.
    assert 0.7 < record.at_full_depth("linear")[-1].score.value < 0.95


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tiles", "one"], "found one class (Forest), expected at least 2"),
        (["--tiles", "few"], "found too few tiles of Forest 2"),
        (["--tiles", "few", "-o", "card.json"], "found suffix '.json', expected .toml"),
        (["--tiles", "few", "--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--tiles", "few", "--scale", "1", "--offset", "nan"], "--offset: found nan, expected a number"),
        (["--tiles", "few", "-w", "0"], "width multiplier: found 0"),
    ],
)
def test_what_cannot_be_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_cards: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "few", count=2)
    image_folder(tmp_path / "one", count=6, classes=("Forest",))
    assert main(["measure", "tiny", "--cards", str(tiny_cards), *words]) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert {path.name for path in tmp_path.iterdir()} == {"few", "one"}
