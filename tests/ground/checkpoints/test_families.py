"""Checkpoints of families: recognised by their names, converted, and held against the libraries that define them."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.families.family import all_families, load_family
from edgeslim.families.recognition import recognise
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint, shapes_of, write_checkpoint
from edgeslim.ground.slimming.slim import slim
from tests.ground.checkpoints.family_cases import CASES, CONVNEXT, DEPTH, DIM, HEADS, NEAR, TILE, library
from tests.ground.conftest import random_vit


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    state, original = case.make()
    path = tmp_path / "a.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    reading = recognise(shapes_of(path), all_families(), name, case.made_for)
    assert reading.family.id == case.family
    arch = reading.architecture(DIM // case.heads)
    if isinstance(arch, Architecture):
        assert (arch.depth, arch.dim, arch.attention_heads // arch.branches) == (DEPTH, DIM, case.heads)
    else:
        assert (arch.depths, arch.dims) == (CONVNEXT["depths"], CONVNEXT["dims"])
        arch = replace(arch, tile_px=case.tile_px)
    assert (arch.bands, arch.tile_px) == (case.bands, case.tile_px)
    tiles = case.tiles(4)
    encoder = read_checkpoint(path, arch, made_for=case.made_for).build()
    with torch.no_grad():
        expected, found = original(tiles), encoder(tiles)
        for width in (0.5, 0.1):
            slimmed = slim(encoder, width)
            narrow = slimmed(tiles)
            assert sum(value.numel() for value in slimmed.parameters()) == cost.parameters(arch.at(width))
    extent = float(expected.max() - expected.min())
    assert float((found - expected).abs().max()) <= NEAR * extent
    # The features are no constant that anything would reproduce.
    assert float(expected.std(0).mean()) > 100 * NEAR * extent
    assert narrow.shape == found.shape


def test_every_confirmed_family_is_confirmed_here() -> None:
    assert {family.id for family in all_families() if family.confirmed} == {case.family for case in CASES.values()}


def test_no_tensor_of_a_checkpoint_is_left_unused(tmp_path: Path) -> None:
    state, _ = CASES["transformers_dinov2_with_registers"].make()
    tiles = torch.randn(2, 5, TILE, TILE, generator=torch.Generator().manual_seed(1))

    def features(changed: str | None) -> Tensor:
        noise = torch.Generator().manual_seed(2)
        noised = {k: v + 0.1 * torch.randn(v.shape, generator=noise) if k == changed else v for k, v in state.items()}
        save_file({key: value.contiguous() for key, value in noised.items()}, tmp_path / "a.safetensors")
        arch = recognise(read_header(tmp_path / "a.safetensors")[0], all_families(), "a").architecture(DIM // HEADS)
        with torch.no_grad():
            return read_checkpoint(tmp_path / "a.safetensors", arch).build()(tiles)

    usual = features(None)
    # A bias of k adds the same to every score of a query, which softmax does not see.
    unseen = [key for key in state if key.endswith(("key.bias", "mask_token"))]
    for key in state:
        assert torch.allclose(features(key), usual, atol=1e-5) == (key in unseen), key


def test_a_real_vit_s14_is_what_transformers_makes_of_it(shared_data: Path) -> None:
    hub = library("transformers")
    path = shared_data / "weights" / "vit_s14_imgfocus_fp16.safetensors"
    profile, said = profile_of(path, *read_header(path))
    assert "(hf-dinov2), 222 tensors; 6 heads of 64" in said
    assert (profile.architecture.tile_px, profile.architecture.depth) == (518, 12)
    config = hub.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        save_file({k: v.float() for k, v in load_file(path).items()}, Path(folder) / "model.safetensors")
        original = hub.Dinov2Model.from_pretrained(folder).eval()
    tiles = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = original(tiles).last_hidden_state[:, 0]
        found = read_checkpoint(path, profile.architecture).build()(tiles)
    assert float((found - expected).abs().max()) <= NEAR * float(expected.max() - expected.min())


def test_a_slimmed_checkpoint_keeps_the_eps_of_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = CASES["transformers_vit"].make()
    monkeypatch.chdir(tmp_path)
    save_file({key: value.contiguous() for key, value in state.items()}, "a.safetensors")
    arch = recognise(shapes_of(Path("a.safetensors")), all_families(), "a").architecture(DIM // HEADS)
    assert arch.norm_eps == 1e-12
    full = read_checkpoint(Path("a.safetensors"), arch)
    write_checkpoint(full, Path("own.safetensors"), {}, torch.float32)
    again = read_checkpoint(Path("own.safetensors"), arch)
    assert all(torch.equal(value, again.encoder[key]) for key, value in full.encoder.items())
    with pytest.raises(InputError, match=r"hf-vit, whose LayerNorms add 1e-12, and architecture.norm_eps 1e-06"):
        read_checkpoint(Path("a.safetensors"), replace(arch, norm_eps=1e-6))


def test_biases_that_a_family_does_not_have_are_zero(tmp_path: Path) -> None:
    cards = own_cards(tmp_path)
    card = cards / "families" / "mine.toml"
    card.write_text(r"zeros = ['blocks\.\d+\.mlp\.fc[12]\.bias']" + "\n" + CARD, encoding="utf-8")
    arch = Architecture(2, DIM, HEADS, 16, 96, 8, TILE, 3)
    whole = mine(random_vit(arch).state_dict())
    state = {key: value for key, value in whole.items() if not re.search(r"fc.\.bias", key)}
    save_file(state, tmp_path / "a.safetensors")
    found = read_checkpoint(tmp_path / "a.safetensors", arch, cards).encoder
    assert not any(value.any() for key, value in found.items() if re.search(r"fc.\.bias", key))
    card.write_text(CARD, encoding="utf-8")
    with pytest.raises(InputError, match=r"blocks.0.mlp.fc1.bias is missing, expected this encoder's"):
        read_checkpoint(tmp_path / "a.safetensors", arch, cards)


class OverFrames(nn.Module):
    """The embedding of Prithvi for one frame, written from its description: a convolution over frames, then rows."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.state = state

    def forward(self, tiles: Tensor) -> Tensor:
        weight, bias = self.state["encoder.patch_embed.proj.weight"], self.state["encoder.patch_embed.proj.bias"]
        patches = nn.functional.conv3d(tiles[:, :, None], weight, bias, stride=(1, 8, 8)).flatten(2).transpose(1, 2)
        first = self.state["encoder.cls_token"].expand(len(tiles), -1, -1)
        return torch.cat([first, patches], dim=1) + self.state["encoder.pos_embed"][:, : patches.shape[1] + 1]


def test_one_frame_of_prithvi(tmp_path: Path) -> None:
    arch = Architecture(2, DIM, HEADS, 16, 96, 8, TILE, 6, pool="mean", norm_eps=1e-5)
    vit = random_vit(arch)
    state = {f"encoder.{key}": value.detach().clone() for key, value in vit.state_dict().items()}
    state["encoder.patch_embed.proj.weight"] = state["encoder.patch_embed.proj.weight"][:, :, None].contiguous()
    frames = torch.randn(1, 1 + 3 * arch.patches, DIM, generator=torch.Generator().manual_seed(3))
    state["encoder.pos_embed"] = frames
    state |= {"decoder.mask_token": torch.zeros(1, 1, 8), "decoder.decoder_embed.weight": torch.zeros(8, DIM)}
    torch.save({"model": state}, tmp_path / "a.pth")
    reading = recognise(shapes_of(tmp_path / "a.pth"), all_families(), "a.pth")
    assert reading.family.id == "prithvi"
    tiles = torch.randn(2, 6, TILE, TILE, generator=torch.Generator().manual_seed(1))
    found = read_checkpoint(tmp_path / "a.pth", arch).build()
    with torch.no_grad():
        assert torch.allclose(found.embed(tiles), OverFrames(state)(tiles), atol=1e-6)


def test_positions_for_another_tile_are_timms(tmp_path: Path) -> None:
    timm = library("timm")
    arch = Architecture(1, DIM, HEADS, 16, 96, 8, TILE, 3)
    state = {key: value.detach().clone().contiguous() for key, value in random_vit(arch).state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    found = read_checkpoint(tmp_path / "a.safetensors", replace(arch, tile_px=56)).encoder["pos_embed"]
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [7, 7], num_prefix_tokens=1)
    assert torch.allclose(found, expected, atol=1e-6)


CARD = """schema = 1
id = "mine"
name = "A family of one's own"
original = "a test"
head_dim = 16
patch_size = 8

[[key]]
original = 'class_code'
canonical = 'cls_token'

[[key]]
original = 'position_code'
canonical = 'pos_embed'

[[key]]
original = 'patches\\.weight'
canonical = 'patch_embed.proj.weight'
make = "convolution"

[[key]]
original = 'patches\\.bias'
canonical = 'patch_embed.proj.bias'

[[key]]
original = 'layer_(\\d+)\\.(norm1|norm2|attn\\.qkv|attn\\.proj|mlp\\.fc1|mlp\\.fc2)\\.(weight|bias)'
canonical = 'blocks.{1}.{2}.{3}'

[[key]]
original = 'last\\.(weight|bias)'
canonical = 'norm.{1}'
"""


def mine(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A canonical state dict under the names of that card, its patches embedded by a linear layer."""
    names = {"cls_token": "class_code", "pos_embed": "position_code", "patch_embed.proj.bias": "patches.bias"}
    names |= {"norm.weight": "last.weight", "norm.bias": "last.bias"}
    found = {}
    for key, value in state.items():
        if key == "patch_embed.proj.weight":
            found["patches.weight"] = value.permute(0, 2, 3, 1).flatten(1).clone()
        else:
            found[names.get(key) or re.sub(r"^blocks\.(\d+)", r"layer_\1", key)] = value.clone()
    return found


def own_cards(folder: Path) -> Path:
    (folder / "families").mkdir(parents=True)
    (folder / "families" / "mine.toml").write_text(CARD, encoding="utf-8")
    return folder


def test_a_family_is_added_by_a_card_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = Architecture(2, DIM, HEADS, 16, 96, 8, TILE, 3)
    vit, cards = random_vit(arch), own_cards(tmp_path / "cards")
    monkeypatch.chdir(tmp_path)
    save_file(mine(vit.state_dict()), "weights.safetensors")
    words = ["--encoder", "weights.safetensors", "--cards", str(cards)]
    assert main(["plan", *words, "--device", "rpi5", "--target", "onnx", "--gflop", "0.002"]) == 0
    assert "A family of one's own (mine), 30 tensors; 3 heads of 16 are taken for granted" in capsys.readouterr().err
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["architecture"] == arch.to_dict()
    assert main(["slim", "--cards", str(cards)]) == 0
    width = plan["chosen"]["width_multiplier"]
    slimmed = read_checkpoint(tmp_path / "slimmed.safetensors", arch.at(width))
    assert all(torch.equal(value, slimmed.encoder[key]) for key, value in slim(vit, width).state_dict().items())
    # edgeslim's own file says its shape itself.
    profile, said = profile_of(Path("slimmed.safetensors"), *read_header(Path("slimmed.safetensors")))
    assert profile.architecture == arch.at(width)
    assert "as it says itself" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.attn.rel_pos": (4, 4)}, r"of no family; the nearest is timm: blocks.0.attn.rel_pos: not known; "),
        ({"norm.weight": None}, r"the nearest is timm: norm.weight: found none; expected one of `edgeslim encoders"),
    ],
)
def test_what_no_family_understands_is_said(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    shapes = shapes_of_plain(tmp_path)
    for key, shape in change.items():
        shapes = {k: v for k, v in shapes.items() if k != key} | ({key: shape} if shape else {})
    with pytest.raises(InputError, match=message):
        recognise(shapes, [family for family in all_families() if family.id == "timm"], "a.safetensors")


def shapes_of_plain(folder: Path) -> dict[str, tuple[int, ...]]:
    arch = Architecture(1, DIM, HEADS, 16, 96, 8, TILE, 3)
    state = {key: value.detach().clone() for key, value in random_vit(arch).state_dict().items()}
    save_file(state, folder / "plain.safetensors")
    return read_header(folder / "plain.safetensors")[0]


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ("schema = 1", "schema = 2", "schema: found 2, expected 1"),
        ("head_dim = 16", 'pool = "max"', "pool: found 'max', expected one of class, mean"),
        ("canonical = 'norm.{1}'", "canonical = 'norm.{1}'\nmake = 'twice'", "key 6: make: found 'twice', expected"),
        ("canonical = 'norm.{1}'", "canonical = 'norm.{1}'\npart = 'o'", "part: found 'o', expected one of q, k, v"),
        (r"'last\.(weight|bias)'", "'last('", r"original: found 'last\(', expected a regular expression"),
        ("head_dim = 16", "heads = 16", "unknown key 'heads'"),
        ("head_dim = 16", "head_dim = 0", "head_dim: found 0, expected at least 1"),
        (
            "canonical = 'norm.{1}'",
            "canonical = 'norm.{2}'",
            r"canonical: found 'norm.\{2\}', expected a name with groups up",
        ),
    ],
)
def test_a_card_says_what_is_wrong_with_it(line: str, changed: str, message: str, tmp_path: Path) -> None:
    assert line in CARD
    (tmp_path / "mine.toml").write_text(CARD.replace(line, changed), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_family(tmp_path / "mine.toml")


def test_files_that_are_no_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {"a.safetensors": b"\x10", "b.safetensors": b"\x05\0\0\0\0\0\0\0[1,2]", "c.pth": b"text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert main(["plan", "--device", "rpi5", "--encoder", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["plan", "--device", "rpi5", "--encoder", str(tmp_path / "none.safetensors")]) == 1
    assert "found no such file, expected a checkpoint, or the name of a card" in capsys.readouterr().err
