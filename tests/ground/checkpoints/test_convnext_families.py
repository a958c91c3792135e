"""ConvNeXt V2 from file to scene: recognised, planned, slimmed, exported and run, or refused in one line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.slimming.slim import slim
from tests.ground.checkpoints.family_cases import randomised
from tests.ground.conftest import TINY
from tests.ground.counter import count_flop

ARCH = ConvNextArchitecture((1, 2, 1, 2), (8, 16, 24, 32), (32, 64, 96, 128), tile_px=224, bands=3)
ATTO = ConvNextArchitecture((2, 2, 6, 2), (40, 80, 160, 320), (160, 320, 640, 1280), tile_px=224, bands=3)
BASE = ConvNextArchitecture((3, 3, 27, 3), (128, 256, 512, 1024), (512, 1024, 2048, 4096), tile_px=224, bands=3)


def timm_state(arch: ConvNextArchitecture = ARCH) -> dict[str, Tensor]:
    """As timm names a checkpoint of the sizes Tiny and above, whose products are linear layers."""
    state = randomised(ConvNext(arch)).state_dict()
    return {k: (v[..., 0, 0] if re.search(r"mlp\.fc.\.weight", k) else v).clone() for k, v in state.items()}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_file(timm_state(), "a.safetensors")
    return Path("a.safetensors")


@pytest.mark.parametrize("arch", [ATTO, BASE], ids=["atto", "base"])
def test_published_sizes_are_read_from_names_and_shapes(arch: ConvNextArchitecture) -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in ConvNext(arch).state_dict().items()}
    profile, said = profile_of(Path("a.safetensors"), shapes, {})
    assert profile.architecture == arch
    assert "(timm-convnextv2)" in said
    assert said.count("\n") == 0
    assert "tiles of 224 px are taken for granted" in said


@pytest.mark.parametrize("width", [1.0, 0.5, 0.25, 0.1])
def test_counts_are_the_modules_at_every_width(file: Path, width: float) -> None:
    arch = replace(ARCH, tile_px=64)
    made, cut = slim(read_checkpoint(file, arch).build(), width), arch.at(width)
    assert made.arch == cut
    assert cost.parameters(cut) == sum(value.numel() for value in made.parameters())
    assert cost.flop(cut) == count_flop(made, torch.zeros(1, 3, 64, 64))


def test_a_width_of_the_slimmed_is_that_of_the_full_one(file: Path) -> None:
    arch = replace(ARCH, tile_px=64)
    full = read_checkpoint(file, arch).build()
    tiles = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(slim(full, 0.5)(tiles), full(tiles, 0.5), atol=1e-5)


def test_slim_writes_a_file_that_is_read_again_and_slimmed_further(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slim", "--encoder", str(file), "-w", "0.5", "-o", "half.safetensors"]) == 0
    assert "hidden channels 32/64/96/128 -> 16/32/48/64" in capsys.readouterr().out
    assert main(["slim", "--encoder", "half.safetensors", "-w", "0.5", "-o", "quarter.safetensors"]) == 0
    assert main(["slim", "--encoder", str(file), "-w", "0.25", "-o", "at_once.safetensors"]) == 0
    quarter, at_once = load_file("quarter.safetensors"), load_file("at_once.safetensors")
    assert all(torch.equal(value, at_once[name]) for name, value in quarter.items())
    profile, said = profile_of(Path("half.safetensors"), *read_header(Path("half.safetensors")))
    assert "edgeslim's own" in said
    assert profile.architecture == ARCH.at(0.5)


def test_a_plan_is_made_and_followed(file: Path) -> None:
    budget = ["--device", "raspberry-pi-4b-4gb", "--gflop", "0.018", "-o", "plan.json"]
    assert main(["plan", "--encoder", str(file), *budget]) == 0
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert 0 < plan["chosen"]["width_multiplier"] < 1
    assert plan["chosen"]["head_dim"] == 0
    assert main(["slim", "plan.json", "-o", "s.safetensors"]) == 0
    profile, _ = profile_of(Path("s.safetensors"), *read_header(Path("s.safetensors")))
    assert profile.architecture.to_dict() == plan["slim_architecture"]


def test_weights_before_tuning_have_no_last_norm(file: Path) -> None:
    state = {name: value for name, value in timm_state().items() if not name.startswith("head.norm")}
    save_file(state, file)
    encoder = read_checkpoint(file, ARCH).encoder
    assert torch.equal(encoder["head.norm.weight"], torch.ones(32))
    assert not encoder["head.norm.bias"].any()


def test_a_depth_without_the_last_stage_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slim", "--encoder", str(file), "--depth", "3", "-o", "s.safetensors"]) == 1
    assert "--depth: found 3, expected at least 5" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_first_blocks_of_the_last_stage(file: Path) -> None:
    arch = replace(ARCH, tile_px=64)
    encoder = read_checkpoint(file, arch).build()
    assert slim(encoder, 1.0, depth=5).arch.depths == (1, 2, 1, 1)
    with pytest.raises(InputError, match="depth: found 4, expected at least 5"):
        slim(encoder, 1.0, depth=4)


def test_layer_scale_in_place_of_grn_is_the_first_convnext(file: Path) -> None:
    state = {re.sub(r"mlp\.grn\.weight", "gamma", k): v for k, v in timm_state().items() if ".grn.bias" not in k}
    save_file(state, file)
    with pytest.raises(InputError, match=r"of no family; the nearest is timm-convnextv2: .*grn"):
        profile_of(file, *read_header(file))


def test_a_card_of_another_kind_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="found timm-convnextv2, a ConvNeXt V2, expected the card's a ViT"):
        read_checkpoint(file, TINY)
