"""Folds: parts that are missing or of another shape, places and patches of another tile, and a whole way to slim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.checkpoint_file import profile_of, read_header
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.family import all_families
from edgeslim.ground.checkpoint import read_checkpoint
from edgeslim.ground.fold import resampled_patches
from edgeslim.ground.slim import slim
from edgeslim.reading import recognise
from edgeslim.shelf import card_paths
from tests.ground.conftest import random_vit
from tests.ground.family_cases import random_value
from tests.ground.test_family_figures import FIGURES


def state_of(case: str) -> dict[str, Tensor]:
    return {name: random_value(name, shape) for name, shape in FIGURES[case]["state"].items()}


def read(state: dict[str, Tensor], folder: Path, asked: str | None, tile_px: int | None = None) -> dict[str, Tensor]:
    save_file(state, folder / "a.safetensors")
    shapes = read_header(folder / "a.safetensors")[0]
    arch = recognise(shapes, all_families(), "a", asked).architecture(16)
    arch = replace(arch, tile_px=tile_px or arch.tile_px)
    return read_checkpoint(folder / "a.safetensors", arch, made_for=asked).encoder


def test_a_part_that_is_missing_or_of_another_shape_is_one_line(tmp_path: Path) -> None:
    state = state_of("dofa")
    missing = {name: value for name, value in state.items() if name != "patch_embed.weight_generator.fc_bias.weight"}
    with pytest.raises(InputError, match=r"a.safetensors: fold dofa: 'fc_bias.weight' is missing") as found:
        read(missing, tmp_path, "B04")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match=r"fold dofa: a tensor has another shape \(.*fc_bias") as found:
        read(state | {"patch_embed.weight_generator.fc_bias.weight": torch.zeros(7, 128)}, tmp_path, "B04")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="expected those of a square patch of 48 values"):
        read(state | {"patch_embed.weight_generator.fc_weight.weight": torch.zeros(99, 128)}, tmp_path, "B04")


def test_a_bias_that_is_not_of_q_k_and_v(tmp_path: Path) -> None:
    arch = Architecture(1, 48, 3, 16, 96, 8, 32, 3, register_tokens=1, layer_scale=True, positions="rope", rope_dim=16)
    state = {name: value.detach().clone() for name, value in random_vit(arch).state_dict().items()}
    state["storage_tokens"] = state.pop("reg_token")
    for length, message in (
        (143, "found 143 values, expected those of q, k and v"),
        (141, "found 141 rows, expected 3"),
    ):
        save_file(state | {"blocks.0.attn.qkv.bias": torch.zeros(length)}, tmp_path / "a.safetensors")
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / "a.safetensors", replace(arch, norm_eps=1e-5))


def test_each_band_has_its_own_kernel_wherever_it_stands(tmp_path: Path) -> None:
    state = state_of("dofa")
    one = read(state, tmp_path, "B04,B08,VV")["patch_embed.proj.weight"]
    other = read(state, tmp_path, "VV,B04,B08")["patch_embed.proj.weight"]
    assert torch.allclose(one, other[:, [1, 2, 0]], atol=1e-5 * float(one.std()))
    # Every band is seen by the transformer that makes the kernels: one more changes those of the others.
    assert not torch.allclose(one[:, :2], read(state, tmp_path, "B04,B08")["patch_embed.proj.weight"])


def test_positions_of_another_tile_are_those_of_the_places_there(tmp_path: Path) -> None:
    small = read(state_of("galileo"), tmp_path, "rgb")["pos_embed"].view(8, 8, -1)
    large = read(state_of("galileo"), tmp_path, "rgb", tile_px=96)["pos_embed"].view(12, 12, -1)
    assert torch.equal(small, large[:8, :8])


@pytest.mark.parametrize("side", [3, 4, 8, 11])
def test_resampled_patches_embed_enlarged_patches_as_before(side: int) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 2, 8, 8, generator=generator)
    found = resampled_patches(weight, side)
    assert found.shape == (5, 2, side, side)
    if side == 8:
        assert found is weight
    if side > 8:
        patch = torch.randn(1, 2, 8, 8, generator=generator)
        larger = F.interpolate(patch, (side, side), mode="bicubic", antialias=True, align_corners=False)
        assert torch.allclose(F.conv2d(larger, found), F.conv2d(patch, weight), atol=1e-3)


def test_from_a_checkpoint_that_is_folded_to_a_slimmed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Heads of 64, as the family's card has them.
    wide = {48: 192, 144: 576, 48 * 64: 192 * 64}
    shapes = {name: [wide.get(size, size) for size in shape] for name, shape in FIGURES["dofa"]["state"].items()}
    torch.save({name: random_value(name, shape) for name, shape in shapes.items()}, "dofa.pth")
    words = ["--encoder", "dofa.pth:B04,B03,B02", "--device", "rpi5", "--target", "onnx", "--gflop", "0.02"]
    assert main(["plan", *words]) == 0
    width = json.loads(Path("plan.json").read_text())["chosen"]["width_multiplier"]
    assert width < 1
    assert main(["slim"]) == 0
    profile, said = profile_of(Path("slimmed.safetensors"), *read_header(Path("slimmed.safetensors")))
    assert "as it says itself" in said
    assert (profile.architecture.pool, profile.architecture.patch_padding) == ("mean-then-norm", 1)
    whole = replace(profile.architecture, head_dim=64, ffn_hidden=192)
    full = read_checkpoint(Path("dofa.pth"), whole, None, "B04,B03,B02")
    tiles = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = slim(full.build(), width)(tiles)
        found = read_checkpoint(Path("slimmed.safetensors"), profile.architecture).build()(tiles)
    assert torch.allclose(found, expected)
    assert set(load_file("slimmed.safetensors")) == {f"encoder.{name}" for name in full.encoder}


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("ran", "w")


@pytest.mark.parametrize("kind", ["pickle", "truncated", "of another shape", "of another family"])
def test_a_wrong_checkpoint_is_one_line_whatever_is_asked_of_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = state_of("dofa")
    if kind == "pickle":
        torch.save({**state, "patch_embed.more": Hostile()}, "a.pth")
    elif kind == "truncated":
        torch.save(state, "whole.pth")
        Path("a.pth").write_bytes(Path("whole.pth").read_bytes()[:-1000])
    elif kind == "of another shape":
        torch.save(state | {"blocks.0.attn.qkv.bias": torch.zeros(7)}, "a.pth")
    else:
        torch.save(state | {"blocks.0.attn.rel_pos": torch.zeros(7)}, "a.pth")
    # Heads of 16, as this small encoder has them, stand in a card of one's own.
    cards = tmp_path / "cards" / "families"
    cards.mkdir(parents=True)
    card = (card_paths("families")[0].parent / "dofa.toml").read_text(encoding="utf-8")
    (cards / "dofa.toml").write_text(card.replace("[[size]]", "[[size]]\ndim = 48\nhead_dim = 16\n\n[[size]]", 1))
    words = ["slim", "--encoder", "a.pth:B04", "-w", "0.5", "--cards", str(cards.parent)]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("error: a.pth: ")
    assert "Traceback" not in captured.err
    assert not Path("ran").exists()
    assert not Path("slimmed.safetensors").exists()
