"""Laws of calibration, of a ConvNeXt V2: GRN stands between its hidden channels and what is refitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.slimming.calibration import FEWEST, Calibration, tiles_needed
from edgeslim.ground.slimming.slim import slim
from tests.ground.checkpoints.test_convnext_families import ARCH as FILE_ARCH
from tests.ground.checkpoints.test_convnext_families import timm_state
from tests.ground.conftest import CARD
from tests.ground.counter import count_flop
from tests.ground.test_convnext import SMALL, tiles

SHAPES = {"usual": SMALL, "convolution before the stem": replace(SMALL, stem_stride=2, conv_before_stem=True)}


def lively(arch: ConvNextArchitecture) -> ConvNext:
    """Random, as deep networks are: what a block adds is of the size of what it adds to."""
    encoder, generator = ConvNext(arch), torch.Generator().manual_seed(3)
    for name, value in encoder.named_parameters():
        inside = value[0].numel() if value.ndim > 1 else 4
        nn.init.normal_(value, std=inside**-0.5, generator=generator)
        if "norm" in name and name.endswith("weight"):
            nn.init.constant_(value, 1)
    return encoder.eval()


def features(encoder: nn.Module, given: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoder(given)
    return found


def error(encoder: nn.Module, slimmed: nn.Module, given: Tensor) -> float:
    """Mean square error of the features, as a share of their variance."""
    expected = features(encoder, given)
    return float((features(slimmed, given) - expected).square().sum() / (expected - expected.mean(0)).square().sum())


def calibration(arch: ConvNextArchitecture, count: int | None = None) -> Calibration:
    return Calibration(tiles(arch, count or tiles_needed(arch)))


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
def test_width_one_is_the_encoder(arch: ConvNextArchitecture) -> None:
    encoder = lively(arch)
    whole = slim(encoder, 1.0, method="calibrated", calibration=calibration(arch))
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("width", [0.75, 0.5, 0.2])
def test_it_is_nearer_than_the_first_channels_and_costs_the_same(arch: ConvNextArchitecture, width: float) -> None:
    encoder, fresh = lively(arch), tiles(arch, 500)[-100:]
    made = slim(encoder, width, method="calibrated", calibration=calibration(arch, 120))
    assert made.arch == arch.at(width)
    assert cost.parameters(made.arch) == sum(value.numel() for value in made.parameters())
    assert cost.flop(made.arch) == count_flop(made, fresh[:1])
    assert error(encoder, made, fresh) < 0.8 * error(encoder, slim(encoder, width), fresh)


def test_channels_that_repeat_others_cost_nothing() -> None:
    """Every hidden channel twice, each carrying half: the mean response is the same, and half of them are enough."""
    half = lively(SMALL)
    arch = replace(SMALL, hidden=tuple(2 * hidden for hidden in SMALL.hidden))
    state = half.state_dict()
    for name, value in state.items():
        if ".mlp.fc1." in name or ".mlp.grn." in name:
            state[name] = torch.cat([value, value])
        elif ".mlp.fc2.weight" in name:
            state[name] = torch.cat([value, value], 1) / 2
    doubled = ConvNext(arch).eval()
    doubled.load_state_dict(state)
    fresh = tiles(arch, 500)[-50:]
    torch.testing.assert_close(features(doubled, fresh), features(half, fresh), rtol=1e-4, atol=1e-4)
    made = slim(doubled, 0.5, method="calibrated", calibration=calibration(arch))
    assert error(doubled, made, fresh) < 1e-3 < error(doubled, slim(doubled, 0.4), fresh)


def test_the_scale_of_grn_takes_up_another_mean() -> None:
    """Channels that answer strongly are kept: without the scale each would count as a smaller share of their mean."""
    encoder = lively(SMALL)
    for stage in encoder.stages:
        for block in stage.blocks:  # type: ignore[union-attr]
            block.mlp.fc1.weight.data *= torch.linspace(0.1, 3, len(block.mlp.fc1.weight)).view(-1, 1, 1, 1)
    made = slim(encoder, 0.3, method="calibrated", calibration=calibration(SMALL, 120))
    before, after = (one.requires_grad_(False).stages[0].blocks[0].mlp for one in (encoder, made))  # type: ignore[union-attr,index]
    rows = [int((before.fc1.weight == row).flatten(1).all(1).nonzero()) for row in after.fc1.weight]
    ratio = after.grn.weight / before.grn.weight[rows]
    assert float(ratio.std()) < 1e-5
    assert float(ratio.mean()) > 1.2


def test_the_same_tiles_make_the_same_weights() -> None:
    made = [slim(lively(SMALL), 0.5, method="calibrated", calibration=calibration(SMALL)).state_dict() for _ in "ab"]
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_a_depth_cut_with_a_width() -> None:
    arch = replace(SMALL, depths=(1, 2, 3))
    made = slim(lively(arch), 0.5, 4, method="calibrated", calibration=calibration(arch))
    assert made.arch.depths == (1, 2, 1)
    assert cost.parameters(made.arch) == sum(value.numel() for value in made.parameters())


def test_channels_that_never_answer_do_no_harm() -> None:
    encoder = lively(SMALL)
    mlp = encoder.stages[1].blocks[0].mlp  # type: ignore[union-attr,index]
    mlp.fc1.weight.data[:] = 0  # type: ignore[union-attr,index,operator]
    mlp.fc1.bias.data[:] = 0  # type: ignore[union-attr,index,operator]
    made = slim(encoder, 0.5, method="calibrated", calibration=calibration(SMALL))
    assert all(value.isfinite().all() for value in made.state_dict().values())


def test_tiles_that_cannot_calibrate_it() -> None:
    """The last map has the fewest places and the most channels."""
    assert tiles_needed(replace(SMALL, hidden=(24, 40, 5600), dims=(6, 10, 1400))) == 4 * 5600 // 9 + 1
    assert tiles_needed(SMALL) == FEWEST
    with pytest.raises(InputError, match=r"found 20, expected at least 40 for 56 hidden units; give more tiles"):
        slim(lively(SMALL), 0.5, method="calibrated", calibration=calibration(SMALL, 20))
    bad = tiles(SMALL, 60)
    bad[7] = torch.nan
    with pytest.raises(InputError, match="1 of 60 hold NaN or infinity, the first is number 8"):
        slim(lively(SMALL), 0.5, method="calibrated", calibration=Calibration(bad))


def card_of(arch: ConvNextArchitecture, checkpoint: Path, cards: Path) -> None:
    """A card "own" of `cards`, of tiles of 64 px; the weights move there."""
    shelf = cards / "profiles"
    shelf.mkdir(parents=True)
    checkpoint.rename(shelf / checkpoint.name)
    fields = {**arch.to_dict(), "tile_px": 64}
    architecture = "\n".join(f"{key} = {json.dumps(value)}" for key, value in fields.items())
    facts = CARD[CARD.index("[[band]]") : CARD.index("[[class]]")]
    (shelf / "own.toml").write_text(
        f'schema = 1\nid = "own"\nname = "Own"\nsource = "a test"\ncheckpoint = "{checkpoint.name}"\n\n'
        f"[architecture]\n{architecture}\n\n{facts}",
        encoding="utf-8",
    )


def images(folder: Path, count: int) -> None:
    """So many images of 64 px, of random squares."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = np.kron(generator.integers(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_from_file_and_folder_to_a_slimmed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm_state(), "a.safetensors")
    card_of(FILE_ARCH, Path("a.safetensors"), Path("cards"))
    images(Path("tiles"), 130)
    asked = ["slim", "--encoder", "own", "--cards", "cards", "-w", "0.5", "--method", "calibrated", "--tiles", "tiles"]
    assert main([*asked, "-o", "s.safetensors"]) == 0
    profile = encoder_of("s.safetensors")
    assert profile.method == "calibrated"
    made = read_checkpoint(Path("s.safetensors"), profile.architecture).encoder
    assert made.keys() == ConvNext(FILE_ARCH).state_dict().keys()
