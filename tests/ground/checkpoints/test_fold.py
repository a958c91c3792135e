"""Folds: parts that are missing or of another shape, places and patches of another tile, and a whole way to slim."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.families.family import all_families
from edgeslim.families.recognition import recognise
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint, shapes_of
from edgeslim.ground.checkpoints.fold import resampled_patches
from edgeslim.ground.slimming.slim import slim
from edgeslim.shelf import card_paths
from tests.ground.checkpoints.family_cases import random_value
from tests.ground.checkpoints.test_family_figures import FIGURES
from tests.ground.conftest import random_vit


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


def test_what_tells_a_band_goes_with_it_wherever_it_stands(tmp_path: Path) -> None:
    state = state_of("panopticon")
    one, other = (read(state, tmp_path, asked) for asked in ("B04,B08,VV", "VV,B04,B08"))
    assert torch.allclose(one["patch_embed.band_score"], other["patch_embed.band_score"][:, [1, 2, 0]])
    shifts = (found["patch_embed.band_shift.weight"].view(48, 16, 3) for found in (one, other))
    assert torch.equal(next(shifts), next(shifts)[..., [1, 2, 0]])
    # How a patch is embedded does not depend on the bands.
    assert torch.equal(one["patch_embed.proj.weight"], read(state, tmp_path, "0.7")["patch_embed.proj.weight"])


@pytest.mark.parametrize(("asked", "same"), [("0.57", "0.5705"), ("0.664", "B04"), ("VV", "VV ascending")])
def test_whole_nanometres_are_told_and_orbits(asked: str, same: str, tmp_path: Path) -> None:
    one, other = (read(state_of("panopticon"), tmp_path, band)["patch_embed.band_score"] for band in (asked, same))
    assert torch.equal(one, other) == (asked != "VV")


def test_a_band_twice_is_one_of_twice_the_weight(tmp_path: Path) -> None:
    # A softmax over three of which two are alike: what the pixels add depends on their shares alone.
    state = state_of("panopticon")
    tiles = torch.randn(2, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    found = []
    for asked, count in (("B04", 1), ("B04,B04,B04", 3)):
        read(state, tmp_path, asked)
        shapes = read_header(tmp_path / "a.safetensors")[0]
        arch = recognise(shapes, all_families(), "a", asked).architecture(16)
        encoder = read_checkpoint(tmp_path / "a.safetensors", arch, made_for=asked).build()
        with torch.no_grad():
            found.append(encoder.embed(tiles.expand(-1, count, -1, -1)))
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_an_attention_over_bands_that_is_not_whole(tmp_path: Path) -> None:
    state = state_of("panopticon")
    name = "patch_embed.chnfus.chnemb.embed_orbit"
    with pytest.raises(InputError, match=r"a.safetensors: fold panopticon: 'orbit' is missing"):
        read({key: value for key, value in state.items() if key != name}, tmp_path, "VV")
    for changed, shape in ((name, (2, 7)), ("patch_embed.chnfus.query", (1, 1, 90)), ("patch_embed.proj.weight", (9,))):
        with pytest.raises(InputError, match=r"fold panopticon: a tensor has another shape") as found:
            read(state | {changed: torch.zeros(shape)}, tmp_path, "VV")
        assert "\n" not in str(found.value)
    with pytest.raises(InputError, match=r"patch_embed.conv3d.conv3d.weight: found shape \(96, 196\), expected 5 axes"):
        read(state | {"patch_embed.conv3d.conv3d.weight": torch.zeros(96, 196)}, tmp_path, "VV")
    plain = Architecture(3, 48, 3, 16, 192, 14, 224, 1, layer_scale=True)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"whose bands are mixed by 16 heads, and no architecture.band_att"):
        read_checkpoint(tmp_path / "a.safetensors", plain, made_for="VV")


@pytest.mark.parametrize(("case", "asked"), [("scale_mae", "@{}m"), ("clay_v1", "B02@{}m")])
def test_positions_stretch_with_the_ground_sample_distance(case: str, asked: str, tmp_path: Path) -> None:
    state = state_of(case)
    fine, coarse = (read(state, tmp_path, asked.format(gsd))["pos_embed"] for gsd in (1.5, 3))
    assert not fine[:, 0].any()
    side = round((fine.shape[1] - 1) ** 0.5)
    # The second patch of a row at 3 m is as far along as the third at 1.5 m.
    assert torch.allclose(coarse[:, 1:].view(side, side, -1)[0, 1], fine[:, 1:].view(side, side, -1)[0, 2], atol=1e-5)
    assert not torch.allclose(coarse, fine, atol=1e-2)
    larger = read(state, tmp_path, asked.format(3), tile_px=288)["pos_embed"][:, 1:]
    wide = round(larger.shape[1] ** 0.5)
    assert torch.equal(larger.view(wide, wide, -1)[:side, :side], coarse[0, 1:].view(side, side, -1))


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


@pytest.mark.parametrize(("case", "asked"), [("panopticon", "B04,B03,VV"), ("clay_v1", "B04,B03,B02@10m")])
def test_it_is_slimmed_in_the_memory_of_one_tensor(
    case: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Heads of 64, as the families' cards have them.
    wide = {48: 192, 144: 576, 48 * 64: 192 * 64}
    shapes = {name: [wide.get(size, size) for size in shape] for name, shape in FIGURES[case]["state"].items()}
    state = {name: random_value(name, shape) for name, shape in shapes.items()}
    cards = tmp_path / "cards" / "families"
    cards.mkdir(parents=True)
    for name in ("panopticon", "clay"):
        text = (card_paths("families")[0].parent / f"{name}.toml").read_text(encoding="utf-8")
        small = re.sub(r"(?m)^head_dim = 48$", "head_dim = 64", text)
        (cards / f"{name}.toml").write_text(re.sub(r"(?m)^tile_px = \d+$", "tile_px = 56", small), encoding="utf-8")
    torch.save(state, "whole.pth")
    assert main(["slim", "-w", "0.25", "--encoder", f"whole.pth:{asked}", "--cards", str(cards.parent)]) == 0
    profile, _ = profile_of(Path("slimmed.safetensors"), *read_header(Path("slimmed.safetensors")))
    assert profile.gsd_m == (10 if "@" in asked else None)
    reading = recognise(shapes_of(Path("whole.pth")), all_families(cards.parent), "whole.pth", asked)
    full = read_checkpoint(Path("whole.pth"), reading.architecture(), cards.parent, asked)
    tiles = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = read_checkpoint(Path("slimmed.safetensors"), profile.architecture).build()(tiles)
        assert torch.allclose(found, slim(full.build(), 0.25)(tiles), atol=1e-6)


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
