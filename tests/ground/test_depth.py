"""Depth on the ground: what `measure` scores is planned, fitted, exported, updated and slimmed as it was scored."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import FlightModel, profile_checkpoint, radiometry_of
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.ground.heads.head import Asked, tiles_wanted
from edgeslim.ground.heads.head_file import read_head
from edgeslim.ground.measuring.features import look_at
from edgeslim.ground.slimming.slim import slim
from edgeslim.manifest import Manifest, parse_manifest, read_manifest
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import TileReader
from edgeslim.onboard.uplink.apply import apply
from edgeslim.onboard.uplink.delta import write_delta
from edgeslim.planning.plan import read_plan
from edgeslim.profile import Profile, load_profile
from edgeslim.target import take_target
from tests.onboard.artifacts import make_artifact
from tests.onboard.uplink.updates import everything, held
from tests.tiles import image_folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cards: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "images", count=12)
    shutil.copytree(tiny_cards, tmp_path / "cards")
    return tmp_path


def test_measured_planned_fitted_exported_and_flown(
    here: Path, tiny: Profile, capsys: pytest.CaptureFixture[str]
) -> None:
    # Measured: the card has a score of every width behind every block, as what the probes saw.
    words = ["--tiles", "images", "--seeds", "2", "-w", "0.5"]
    assert main(["measure", "tiny", *words, "--cards", "cards", "-o", "cards/profiles/deep.toml"]) == 0
    printed = capsys.readouterr().out
    assert "of all widths and depths (Pareto front)" in printed
    card = load_profile(here / "cards" / "profiles" / "deep.toml")
    first = card.scores_on()
    assert {(score.width_multiplier, score.depth) for score in first} == {(0.5, 1), (0.5, None), (1, 1), (1, None)}
    assert len(card.scores) == 2 * len(first)

    # Planned: half of the FLOP are one block of the full width.
    gflop = str(cost.flop(card.architecture.at(1.0, 1), 3) / 1e9)
    plan = ["plan", "--device", "rpi5", "--encoder", "deep", "--cards", "cards", "--gflop", gflop]
    assert main(plan) == 0
    assert "Chosen: width multiplier 1 with 1 of 2 blocks" in capsys.readouterr().out
    assert read_plan(here / "plan.json").chosen.cut == (1.0, 1)

    # No head was fitted behind one block; one that is flies there and nowhere else.
    weights = ["--cards", "cards", "--checkpoint", "cards/profiles/tiny.safetensors"]
    assert main(["export", *weights]) == 1
    assert "no head behind 1 of 2 blocks, found some behind 2; fit one by `edgeslim head`" in capsys.readouterr().err
    assert main(["head", "plan.json", "--tiles", "images", *weights]) == 0
    assert read_head(here / "head.safetensors").card.cut == (1.0, 1)
    assert main(["export", "plan.json", "--head", "head.safetensors", "--tiles", "images", *weights]) == 0
    assert "deep at width 1 with 1 block" in capsys.readouterr().out
    manifest = read_manifest(here / "artifact")
    assert (manifest.name, manifest.depth, manifest.plan["chosen"]["depth"]) == ("deep-w1-d1", 1, 1)
    assert manifest.architecture == card.architecture.at(1.0, 1)
    assert manifest.total_parameters == cost.parameters(manifest.architecture, classes=len(manifest.classes))
    assert main(["export", "--head", "head.safetensors", "--depth", "2", "-o", "other", *weights]) == 2
    assert "--head: was fitted at width 1 with 1 block, found 1; fit one at that cut" in capsys.readouterr().err
    assert main(["check"]) == 0
    assert main(["evaluate", "--tiles", "images", "--json"]) == 0
    told = capsys.readouterr().out
    evaluation = json.loads(told[told.index("{") :])
    assert (evaluation["name"], evaluation["accuracy"] > 0.9) == ("deep-w1-d1", True)


def test_an_update_goes_from_all_blocks_to_one_and_back(here: Path, tiny: Profile) -> None:
    checkpoint, digest = profile_checkpoint(tiny)
    # Heads behind one block have the same shape.
    for name, weights, depth in (("whole", checkpoint, None), ("cut", replace(checkpoint, heads_depth=1), 1)):
        source = Source(tiny, weights, digest, 0.5, depth=depth)
        export(source, [Request(take_target("onnx"))], Proving(synthetic_tiles(tiny)), here / name)
        assert read_manifest(here / name).depth == depth
    for old, new in (("whole", "cut"), ("cut", "whole")):
        write_delta(here / old, here / new, here / f"{new}.delta")
        place = shutil.copytree(here / old, here / f"place-{new}")
        apply(here / f"{new}.delta", place, threads=1)
        assert held(place) == everything(here / new)


def test_features_behind_a_block_are_those_of_the_encoder_that_is_cut_there(here: Path, tiny: Profile) -> None:
    checkpoint, _ = profile_checkpoint(tiny)
    tiles = labelled_tiles(here / "images")
    seen = look_at(tiny, checkpoint, tiles, (0.5, 1.0), Asked(), lambda _: None)
    with gdal_environment():
        wanted = replace(tiles_wanted(tiny, Asked()), radiometry=tiny.radiometry)
        read = list(TileReader(wanted).read(tiles.files))
    values = torch.from_numpy(np.stack([tile.values for tile in read]))
    for width in (0.5, 1.0):
        cut = slim(checkpoint.build(), width, 1)
        model = FlightModel(cut, (torch.zeros(1, cut.arch.dim), torch.zeros(1)), radiometry_of(tiny)).eval()
        with torch.inference_mode():
            np.testing.assert_allclose(model(values)[1].numpy(), seen.features[width, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [[], ["-w", "0.5"]])
def test_slim_writes_the_encoder_that_is_cut_there(
    here: Path, tiny: Profile, width: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slim", "--encoder", "tiny", "--depth", "1", *width, "--cards", "cards"]) == 0
    printed = capsys.readouterr().out
    share = float(width[1]) if width else 1.0
    assert f"tiny at width {share:g} with 1 block" in printed
    assert "heads are fitted behind all blocks: the file holds the encoder alone" in printed
    expected = slim(profile_checkpoint(tiny)[0].build(), share, 1)
    found = read_checkpoint(here / "slimmed.safetensors", expected.arch)
    assert found.heads == {}
    assert found.encoder.keys() == expected.state_dict().keys()
    assert all(torch.equal(found.encoder[name], value) for name, value in expected.state_dict().items())
    assert main(["slim", "--encoder", "tiny", "--depth", "3", "--cards", "cards", "-o", "no.safetensors"]) == 1
    assert "depth: found 3, expected 1 to the encoder's 2 blocks" in capsys.readouterr().err


def test_a_manifest_says_a_depth_that_is_its_architectures(here: Path, tiny: Profile) -> None:
    made = make_artifact(here / "made")
    manifest = read_manifest(made if isinstance(made, Path) else here / "made")
    assert "depth" not in manifest.to_dict()
    cut = replace(manifest, depth=manifest.architecture.depth)
    path = cut.write(here)
    read: Manifest = parse_manifest(path.read_bytes(), path)[0]
    assert read.depth == manifest.architecture.depth
    with pytest.raises(InputError, match="depth: found 99, expected the architecture's"):
        replace(manifest, depth=99)
