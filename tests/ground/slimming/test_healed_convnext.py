"""Laws of healing, of a ConvNeXt V2: its maps are the tokens, and all else is as of a ViT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.encoder import tokens_of
from edgeslim.ground.slimming import healed
from edgeslim.ground.slimming.calibration import Calibration, tiles_needed
from edgeslim.ground.slimming.healed import heal
from edgeslim.ground.slimming.healing import Healing
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.slimming.targets import make_targets
from tests.ground.checkpoints.test_convnext_families import ARCH as FILE_ARCH
from tests.ground.checkpoints.test_convnext_families import timm_state
from tests.ground.counter import count_flop
from tests.ground.slimming.test_calibrated_convnext import card_of, error, features, images, lively
from tests.ground.test_convnext import tiles

TINY = ConvNextArchitecture(depths=(1, 2), dims=(6, 10), hidden=(24, 40), tile_px=24, bands=3)
SHAPES = {"usual": TINY, "convolution before the stem": replace(TINY, stem_stride=2, conv_before_stem=True)}


@pytest.fixture
def quick(tmp_path: Path) -> Healing:
    return Healing(tmp_path / "run", steps=6, batch=8, looks=3)


@pytest.fixture(autouse=True)
def few_views_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """More threads wait for each other longer than networks this small take."""
    monkeypatch.setattr(healed, "VIEWS_WANTED", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def by_healing(healing: Healing, arch: ConvNextArchitecture, width: float, depth: int | None = None) -> ConvNext:
    calibration = Calibration(tiles(arch, tiles_needed(arch)))
    made = slim(lively(arch), width, depth, method="healed", calibration=calibration, healing=healing)
    assert isinstance(made, ConvNext)
    return made


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_width_one_reproduces_the_features(arch: ConvNextArchitecture, quick: Healing) -> None:
    fresh = tiles(arch, 60)[-5:]
    expected = features(lively(arch), fresh)
    torch.testing.assert_close(features(by_healing(quick, arch, 1.0), fresh), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_it_costs_what_first_does(arch: ConvNextArchitecture, quick: Healing) -> None:
    made = by_healing(quick, arch, 0.4)
    assert made.arch == arch.at(0.4)
    assert not made.training
    assert sum(value.numel() for value in made.parameters()) == cost.parameters(made.arch)
    assert count_flop(made, tiles(arch, 1)) == cost.flop(made.arch)
    assert features(made, tiles(arch)).isfinite().all()


def test_healing_mends_what_calibration_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tiles that neither has seen, features are nearer; and of the held-out ones more neighbours are kept."""
    monkeypatch.setattr(healed, "VIEWS_WANTED", 400)
    healing = Healing(tmp_path, steps=120, batch=32, looks=2, learning_rate=1e-2)
    encoder, all_ = lively(TINY), tiles(TINY, 400)
    made = heal(encoder, TINY.at(0.1), Calibration(all_[:300]), healing)
    assert made.step > 0
    assert made.neighbours[made.step] > made.neighbours[0]
    assert error(encoder, made.encoder, all_[300:]) < 0.9 * error(encoder, made.start.encoder, all_[300:])


def test_a_depth_is_cut_besides_and_no_stage_with_it(quick: Healing) -> None:
    assert by_healing(quick, TINY, 0.5, depth=2).arch == TINY.at(0.5, 2)
    with pytest.raises(InputError, match="depth: found 1, expected at least 2"):
        by_healing(quick, TINY, 0.5, depth=1)


def test_targets_are_features_and_places_of_the_last_map(tmp_path: Path) -> None:
    encoder, given = lively(TINY), tiles(TINY, 4)
    made = make_targets(encoder, given, torch.arange(4), 2, 0, tmp_path)
    chosen = torch.tensor([0, 5, 7])
    with torch.no_grad():
        maps = encoder.encode(encoder.embed(made.seen(chosen)))
    torch.testing.assert_close(made.features[chosen], encoder.pool(maps))
    assert made.index.shape == (8, TINY.patches)
    for row, example in enumerate(chosen.tolist()):
        places = [maps[row, :, at // 3, at % 3] for at in made.index[example].tolist()]
        torch.testing.assert_close(made.encoded(chosen)[row], torch.stack(places), rtol=2e-3, atol=2e-3)


def test_tokens_of_maps_are_their_places_row_by_row() -> None:
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    assert tokens_of(maps).tolist() == [[[n, n + 12] for n in range(12)]]
    tokens: Tensor = torch.zeros(1, 5, 2)
    assert tokens_of(tokens) is tokens


def test_half_precision_goes_the_same_way(quick: Healing, monkeypatch: pytest.MonkeyPatch) -> None:
    better = iter(range(100))
    monkeypatch.setattr(healed, "neighbours_kept", lambda found, expected: next(better))
    calibration, healing = Calibration(tiles(TINY, 60)), replace(quick, learning_rate=1e-2, looks=1)
    whole, half = (
        heal(lively(TINY), TINY.at(0.25), calibration, replace(healing, precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert whole.step == half.step == 6
    fresh = tiles(TINY, 100)[60:]
    apart, gone = (error(whole.encoder, other, fresh) for other in (half.encoder, whole.start.encoder))
    assert apart < 0.25 * gone


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """That even a killed one does is shown of a ViT; here, that all of this encoder's state is on disk."""

    def run(folder: Path, stops_at: str) -> dict[str, Any]:
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            if line.startswith(stops_at):
                raise KeyboardInterrupt

        healing = Healing(folder, 12, 8, learning_rate=1e-2, looks=4)
        made = heal(lively(TINY), TINY.at(0.25), Calibration(tiles(TINY, 60), 3, say), healing)
        (path,) = folder.glob("healed-*.pt")
        last = torch.load(path, weights_only=True)
        return {"kept": made.neighbours, "best": made.encoder.state_dict(), "last": last["model"], "said": said}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn", "step 6 of")
    torn, whole = run(tmp_path / "torn", "never"), run(tmp_path / "whole", "never")
    assert "resuming after step 6 of 12" in torn["said"]
    assert whole["kept"] == torn["kept"]
    for part in ("best", "last"):
        assert all(torch.equal(value, torn[part][key]) for key, value in whole[part].items())


def test_a_seed_decides_all(tmp_path: Path) -> None:
    healing = Healing(tmp_path, 4, 8, learning_rate=1e-2, looks=1)
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = tmp_path / name
        heal(lively(TINY), TINY.at(0.5), Calibration(tiles(TINY, 60), seed), replace(healing, folder=folder))
        (path,) = folder.glob("healed-*.pt")
        made.append(torch.load(path, weights_only=True)["model"])
    assert all(torch.equal(value, made[1][key]) for key, value in made[0].items())
    assert any(not torch.equal(value, made[2][key]) for key, value in made[0].items())


def test_what_cannot_heal_is_refused(quick: Healing) -> None:
    encoder, some = lively(TINY), tiles(TINY, tiles_needed(TINY))

    def refusal(given: Tensor, healing: Healing | None = quick) -> str:
        with pytest.raises(InputError) as caught:
            slim(encoder, 0.5, method="healed", calibration=Calibration(given), healing=healing)
        return str(caught.value)

    needed = tiles_needed(TINY)
    assert f"found {needed - 1}, expected at least {needed} for 40 hidden units" in refusal(some[1:])
    assert "found (2, 24, 24), expected (bands, height, width) (3, 24, 24)" in refusal(some[:, :2])
    assert "method 'healed': found no healing, expected one" in refusal(some, None)
    holed = some.clone()
    holed[4, 0, 3, 3] = torch.nan
    assert f"1 of {needed} hold NaN or infinity, the first is number 5" in refusal(holed)
    assert not quick.folder.exists()


def test_from_file_and_folder_to_a_healed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`slim`, and once more from what its run folder holds, to the same bits."""
    monkeypatch.chdir(tmp_path)
    better = iter(range(100))
    monkeypatch.setattr(healed, "neighbours_kept", lambda found, expected: 0.5 + 0.1 * next(better))
    monkeypatch.setattr(healed, "VIEWS_WANTED", 1)
    save_file(timm_state(), "a.safetensors")
    card_of(FILE_ARCH, Path("a.safetensors"), Path("cards"))
    images(Path("tiles"), 130)
    asked = ["slim", "--encoder", "own", "--cards", "cards", "-w", "0.5", "--method", "healed", "--tiles", "tiles"]
    asked += ["--steps", "2", "--batch", "8", "--learning-rate", "0.001", "--run", "run"]
    assert main([*asked, "-o", "one.safetensors"]) == 0
    captured = capsys.readouterr()
    assert "own at width 0.5: hidden channels 32/64/96/128 -> 16/32/48/64" in captured.out
    assert re.search(r"step 2 of 2: loss [0-9.]+", captured.err)
    assert main([*asked, "-o", "other.safetensors"]) == 0
    assert "resuming after step 2 of 2" in capsys.readouterr().err
    assert encoder_of("one.safetensors").method == "healed"
    with safe_open("one.safetensors", "pt") as one, safe_open("other.safetensors", "pt") as other:
        assert one.metadata()["healing_step"] == "2"
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())  # noqa: SIM118
