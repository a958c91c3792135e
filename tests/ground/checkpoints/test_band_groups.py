"""Groups of bands: patches of each, what tells them apart, modalities that are asked together, and what is refused."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.families.family import all_families, load_family
from edgeslim.families.recognition import recognise
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.checkpoints.convert import canonical_tensors
from edgeslim.ground.flight import FlightModel, normalised
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.vit import Vit, picked
from edgeslim.profile import all_profiles, take_profile
from edgeslim.shelf import card_paths
from tests.cli.test_encoders import header
from tests.ground.checkpoints.family_cases import NEAR, galileo_features, library, random_value
from tests.ground.checkpoints.test_family_figures import FIGURES
from tests.ground.conftest import random_vit
from tests.ground.slimming.test_slim import SATMAE

GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
"""Of SatMAE's ten bands."""


def state_of(case: str) -> dict[str, Tensor]:
    return {name: random_value(name, shape) for name, shape in FIGURES[case]["state"].items()}


def encoder_of(state: dict[str, Tensor], folder: Path, asked: str | None = None, **change: Any) -> Vit:
    path = folder / "a.safetensors"
    save_file(state, path)
    arch = recognise(read_header(path)[0], all_families(), "a", asked).architecture(16)
    return read_checkpoint(path, replace(arch, **change), made_for=asked).build()


@given(st.permutations(range(7)), st.integers(1, 7))
def test_bands_are_picked_in_any_order(order: list[int], count: int) -> None:
    tiles = torch.arange(2 * 7 * 4).view(2, 7, 2, 2)
    assert torch.equal(picked(tiles, order[:count]), tiles[:, order[:count]])


def test_each_group_is_embedded_by_itself_and_stands_behind_the_one_before() -> None:
    encoder, tiles = random_vit(SATMAE), torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    state = encoder.state_dict()
    with torch.no_grad():
        tokens = encoder.embed(tiles) - F.pad(state["pos_embed"], (0, 0, 2, 0))
        for number, group in enumerate(SATMAE.band_groups):
            kernel, bias = (state[f"patch_embed.proj.{number}.{kind}"] for kind in ("weight", "bias"))
            patches = F.conv2d(tiles[:, list(group)], kernel, bias, stride=8).flatten(2).mT
            at = 3 + 4 * number  # behind class token and two registers
            assert torch.allclose(tokens[:, at : at + 4], patches, atol=1e-6)
        encoded = encoder.encode(encoder.embed(tiles))
        mean = encoded[:, 4:].mean(1)  # the first patch is left out
        expected = F.layer_norm(mean, (SATMAE.dim,), state["norm.weight"], state["norm.bias"], SATMAE.norm_eps)
        assert torch.allclose(encoder(tiles), expected, atol=1e-6)


def test_places_and_groups_stand_side_by_side_in_a_token(tmp_path: Path) -> None:
    state = state_of("satmae")
    encoder = encoder_of(state, tmp_path)
    assert (encoder.arch.band_groups, encoder.arch.tile_px) == (GROUPS, 32)
    positions = encoder.state_dict()["pos_embed"]
    for token in (1, 7, 16 + 3, 32 + 16):
        place, group = (token - 1) % 16, (token - 1) // 16
        said = torch.cat([state["pos_embed"][0, 1 + place], state["channel_embed"][0, group]])
        assert torch.equal(positions[0, token], said)
    first = torch.cat([state["pos_embed"][0, 0], state["channel_cls_embed"][0, 0]])
    assert torch.equal(positions[0, 0], first)
    # Pretrained ones have nothing for the class token there.
    del state["channel_cls_embed"]
    assert not encoder_of(state, tmp_path).state_dict()["pos_embed"][0, 0, 32:].any()


def test_places_of_another_tile_are_resampled_group_by_group(tmp_path: Path) -> None:
    state = state_of("spectralgpt")
    own, wide = (encoder_of(state, tmp_path, tile_px=side).state_dict()["pos_embed"] for side in (32, 56))
    assert (own.shape[1], wide.shape[1]) == (4 * 16, 4 * 49)
    said = state["pos_embed_temporal"][0]
    square = state["pos_embed_spatial"].view(1, 4, 4, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, (7, 7), mode="bicubic", antialias=True).flatten(2).mT[0]
    for group in range(4):
        assert torch.equal(own[0, 16 * group : 16 * group + 16], state["pos_embed_spatial"][0] + said[group])
        assert torch.allclose(wide[0, 49 * group : 49 * group + 49], square + said[group], atol=1e-6)


def test_one_kernel_of_bands_that_are_frames_embeds_every_group(tmp_path: Path) -> None:
    state = state_of("spectralgpt")
    encoder = encoder_of(state, tmp_path)
    tiles = torch.randn(2, 12, 32, 32, generator=torch.Generator().manual_seed(1))
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    with torch.no_grad():
        frames = F.conv3d(tiles[:, None], weight, bias, stride=(3, 8, 8)).flatten(2).mT
        assert torch.allclose(encoder.patch_embed(tiles), frames, atol=1e-5)


def test_a_group_alone_is_what_it_is_among_several_that_are_not_attended(tmp_path: Path) -> None:
    state = state_of("galileo")
    tiles = torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    both = encoder_of(state, tmp_path, "swir+rgb")
    assert both.arch.band_groups == ((0, 1), (2, 3, 4))
    with torch.no_grad():
        tokens = both.embed(tiles)
        for asked, bands, at in (("swir", slice(0, 2), 0), ("rgb", slice(2, 5), 64)):
            alone = encoder_of(state, tmp_path, asked)
            assert alone.arch.band_groups == ()
            assert torch.allclose(alone.embed(tiles[:, bands]), tokens[:, at : at + 64], atol=1e-5)


def test_the_order_of_groups_does_not_matter_to_the_mean(tmp_path: Path) -> None:
    state = state_of("terramind_base")
    tiles = torch.randn(2, 14, 32, 32, generator=torch.Generator().manual_seed(1))
    one, other = (encoder_of(state, tmp_path, asked) for asked in ("s2l2a+s1grd", "s1grd+s2l2a"))
    with torch.no_grad():
        assert torch.allclose(one(tiles), other(torch.cat([tiles[:, 12:], tiles[:, :12]], dim=1)), atol=1e-5)


def test_the_real_galileo_nano_on_all_groups_of_sentinel_2(shared_data: Path) -> None:
    original, folder = library("single_file_galileo"), shared_data / "weights"
    config = json.loads((folder / "galileo_nano_config.json").read_text())["model"]["encoder"]
    made = original.Encoder(**config).eval()
    made.load_state_dict(torch.load(folder / "galileo_nano_encoder.pt", map_location="cpu", weights_only=True))
    profile = take_profile("galileo-nano-s2")
    encoder = read_checkpoint(
        folder / "galileo_nano_encoder.pt", profile.architecture, made_for=profile.made_for
    ).build()
    tiles = torch.rand(4, 10, 64, 64, generator=torch.Generator().manual_seed(1))
    groups = ("S2_RGB", "S2_Red_Edge", "S2_NIR_10m", "S2_NIR_20m", "S2_SWIR")
    with torch.no_grad():
        expected, found = galileo_features(original, made, *groups)(tiles), encoder(tiles)
    assert float((found - expected).abs().max()) <= NEAR * float(expected.max() - expected.min())


def test_values_are_normalised_as_satmae_does_it() -> None:
    """Deviations about the mean of each band become 0 to 1, and are clipped there."""
    profile = take_profile("satmae-l-8")
    radiometry = profile.radiometry
    assert radiometry is not None
    mean, deviation = 1184.3824625, 650.2842772  # of B02 of fMoW-Sentinel
    assert radiometry.mean[0] == pytest.approx(mean - 2 * deviation)
    raw = torch.rand(2, 10, 96, 96, generator=torch.Generator().manual_seed(1)) * 12000 - 1000
    low, high = (torch.tensor(ends).view(-1, 1, 1) for ends in zip(*radiometry.band_clip, strict=True))
    expected = ((raw - low) / (high - low)).clamp(0, 1)
    assert torch.allclose(normalised(raw, radiometry), expected, atol=1e-5)
    assert float(expected.max()) == 1
    small = replace(profile.architecture, depth=1, dim=16, attention_heads=1, head_dim=16, ffn_hidden=16)
    flying = FlightModel(random_vit(small), (torch.zeros(2, 16), torch.zeros(2)), radiometry).eval()
    with torch.no_grad():
        assert torch.allclose(flying(raw)[1], flying.encoder(expected), atol=1e-4)


def test_cards_have_the_groups_of_their_families() -> None:
    families = {family.id: family for family in all_families()}
    found = {profile.id: profile for profile in all_profiles() if profile.architecture.band_groups}
    assert {"satmae-b-8", "satmae-l-8", "satmae-pp-l-8", "spectralgpt-b-8", "spectralgpt-plus-b-8"} < set(found)
    for name, profile in found.items():
        if profile.made_for is None:
            family = families[name.split("-")[0]]
            assert profile.architecture.band_groups == family.band_groups
            assert profile.architecture.pool == family.pool
        assert len(profile.bands) == profile.architecture.bands
    groups = [[found["satmae-l-8"].bands[band].name for band in group] for group in GROUPS]
    assert groups == [["B02", "B03", "B04", "B08"], ["B05", "B06", "B07", "B8A"], ["B11", "B12"]]


SATMAE_SHAPES = {name: tuple(shape) for name, shape in FIGURES["satmae"]["state"].items()}
SPECTRALGPT_SHAPES = {name: tuple(shape) for name, shape in FIGURES["spectralgpt"]["state"].items()}


@pytest.mark.parametrize(
    ("shapes", "change", "message"),
    [
        (SATMAE_SHAPES, {"channel_embed": None}, "the nearest is satmae: group_embed: found none"),
        (SATMAE_SHAPES, {"patch_embed.2.proj.weight": None}, r"is satmae: patch_embed.proj.2.weight: found none"),
        (
            SATMAE_SHAPES,
            {"patch_embed.3.proj.weight": (48, 2, 8, 8)},
            r"patch_embed.3.proj.weight: found one more group",
        ),
        (SATMAE_SHAPES, {"channel_embed": (3, 16)}, r"channel_embed: found shape \(3, 16\), expected 3 axes"),
        (SATMAE_SHAPES, {"channel_embed": (1, 4, 16)}, "group_embed: found 4 groups of bands, expected 3"),
        (
            SATMAE_SHAPES,
            {"patch_embed.1.proj.weight": (48, 3, 8, 8)},
            "proj.1.weight: found 3 bands, .* expected 4 and 8",
        ),
        (
            SATMAE_SHAPES,
            {"patch_embed.2.proj.weight": (48, 2, 4, 4)},
            "found 2 bands, patches of 4 px, expected 2 and 8",
        ),
        (SPECTRALGPT_SHAPES, {"pos_embed_temporal": None}, "the nearest is spectralgpt: group_embed: found none"),
        (SPECTRALGPT_SHAPES, {"pos_embed_temporal": (1, 6, 48)}, "group_embed: found 6 groups of bands, expected 4"),
        (
            SPECTRALGPT_SHAPES,
            {"patch_embed.proj.weight": (48, 1, 2, 8, 8)},
            "found 2 bands, patches of 8 px, expected 3",
        ),
        (
            SPECTRALGPT_SHAPES,
            {"patch_embed.proj.weight": (48, 3, 8, 8)},
            r"found shape \(48, 3, 8, 8\), expected 5 axes",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(shapes: dict[str, Any], change: dict[str, Any], message: str) -> None:
    changed = {name: shape for name, shape in {**shapes, **change}.items() if shape is not None}
    with pytest.raises(InputError, match=message) as found:
        recognise(changed, all_families(), "a.pth").architecture(16)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"channel_embed": (1, 3, 20)},
            r"apart by shape \(1, 3, 20\) beside places of \(1, 16, 32\), expected 3 groups",
        ),
        ({"channel_cls_embed": (1, 1, 7)}, "a.safetensors: found groups of bands told apart"),
        ({"pos_embed": (1, 17, 48)}, r"apart by shape \(1, 3, 16\) beside places of \(1, 16, 48\)"),
        ({"patch_embed.0.proj.bias": (7,)}, r"patch_embed.proj.0.bias has shape \(7,\), expected \(48,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = state_of("satmae") | {name: torch.zeros(shape) for name, shape in change.items()}
    with pytest.raises(InputError, match=message) as found:
        encoder_of(state, tmp_path)
    assert "\n" not in str(found.value)


def test_a_card_must_say_the_groups_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found satmae, whose bands are in 3 groups, and .*band_groups of 1"):
        encoder_of(state_of("satmae"), tmp_path, band_groups=())


def test_a_kernel_over_bands_must_be_of_one_channel(tmp_path: Path) -> None:
    state = state_of("spectralgpt") | {"patch_embed.proj.weight": torch.zeros(48, 2, 3, 8, 8)}
    with pytest.raises(InputError, match=r"found shape \(48, 2, 3, 8, 8\), expected \(d, 1, bands, patch, patch\)"):
        encoder_of(state, tmp_path)


@pytest.mark.parametrize(
    ("case", "asked", "message"),
    [
        ("galileo", "rgb+rgb", r"a.pth: found band B02 twice in 'rgb\+rgb', expected each once"),
        ("galileo", "rgb+thermal", "a.pth: 'thermal' is none that this galileo ever saw, expected one of rgb"),
        ("galileo", "rgb+", "a.pth: '' is none that this galileo ever saw"),
        ("terramind_base", "s2l2a+rgb", "a.pth: found band B02 twice|a.pth: found band B04 twice"),
        ("croma_radar_beside_optical", "s1+s2", "a.pth: s1 and s2 of croma are encoders of their own, expected one"),
    ],
)
def test_modalities_that_are_not_asked_together(case: str, asked: str, message: str) -> None:
    shapes = {name: tuple(shape) for name, shape in FIGURES.get(case, {"state": CROMA_OF_BOTH})["state"].items()}
    with pytest.raises(InputError, match=message) as found:
        profile_of(Path("a.pth"), shapes, {}, None, asked)
    assert "\n" not in str(found.value)


def _croma_of_both() -> dict[str, tuple[int, ...]]:
    """Two encoders side by side, as CROMA's file has them."""
    one = {name.removeprefix("s2_encoder."): shape for name, shape in FIGURES["croma_optical"]["state"].items()}
    return {f"{sensor}_encoder.{name}": tuple(shape) for sensor in ("s1", "s2") for name, shape in one.items()}


CROMA_OF_BOTH = _croma_of_both()


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ("band_groups = [[", "# [[", r"canonical: found \{group\}, expected band_groups in a card that has it"),
        ("[[size]]", '[[modality]]\nid = "a"\nkey = "a"\nbands = ["B"]\n[[size]]', "found beside \\[\\[modality"),
    ],
)
def test_a_card_says_what_is_wrong_with_its_groups(line: str, changed: str, message: str, tmp_path: Path) -> None:
    card = next(path for path in card_paths("families") if path.stem == "spectralgpt").read_text(encoding="utf-8")
    assert line in card
    (tmp_path / "spectralgpt.toml").write_text(card.replace(line, changed, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_family(tmp_path / "spectralgpt.toml")


def test_what_trained_it_may_stand_beside_the_weights(tmp_path: Path) -> None:
    """Both repositories write the arguments of their command beside `model`, and the state of the optimiser."""
    state = state_of("satmae")
    arguments = argparse.Namespace(model="mae_vit_large_patch16", grouped_bands=[list(g) for g in GROUPS], blr=1e-4)
    beside = {"optimizer": {"state": {0: {"step": 1}}}, "epoch": 199, "scaler": {}, "args": arguments}
    torch.save({"model": state, **beside}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    reading = recognise(read_header(tmp_path / "a.safetensors")[0], all_families(), "a")
    arch = reading.architecture(16)
    found = read_checkpoint(tmp_path / "a.pth", arch).encoder
    expected = dict(canonical_tensors(reading, state, arch, "a"))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_satmaes_of_three_bands_are_plain(tmp_path: Path) -> None:
    """SatMAE RGB and SatMAE++ RGB, pretrained: a decoder stands beside a plain encoder, and what enlarges images."""
    more = ("decoder_pred.weight", "decoder_embed.bias", "mask_token")
    plus = ("proj_up_conv.weight", "proj_up_norm.bias", "up_block.res_block.conv1.weight")
    for names in (more, (*more, *plus)):
        shapes = {name: tuple(shape) for name, shape in FIGURES["plain"]["state"].items()}
        reading = recognise({**shapes, **dict.fromkeys(names, (7,))}, all_families(), "a.pth")
        assert reading.family.id == "timm"


def test_from_a_checkpoint_to_a_slimmed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Heads of 64 are the family's own, and the encoder of the figures has 48 dimensions.
    others = {48: 192, 144: 576, 192: 768, 32: 176, 16: 16, 17: 17}
    state = state_of("satmae")
    wide = {name: random_value(name, [others.get(size, size) for size in value.shape]) for name, value in state.items()}
    wide |= {"pos_embed": random_value("pos_embed", (1, 17, 176))}
    save_file(wide, "satmae.safetensors")
    words = ["--encoder", "satmae.safetensors"]
    assert main(["encoders", "show", "satmae.safetensors"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "takes 10 bands of 32 px" in shown
    assert "patches of 8 px of 3 groups of bands, 49 tokens, pool class" in shown
    assert main(["plan", *words, "--device", "rpi5", "--target", "onnx", "--gflop", "0.1"]) == 0
    plan = json.loads(Path("plan.json").read_text())
    assert plan["architecture"]["band_groups"] == [list(group) for group in GROUPS]
    assert main(["slim"]) == 0
    profile, said = profile_of(Path("slimmed.safetensors"), *read_header(Path("slimmed.safetensors")))
    assert "as it says itself" in said
    assert profile.architecture.band_groups == GROUPS
    full = recognise(read_header(Path("satmae.safetensors"))[0], all_families(), "a").architecture()
    whole = read_checkpoint(Path("satmae.safetensors"), full).build()
    narrow = slim(whole, plan["chosen"]["width_multiplier"])
    found = read_checkpoint(Path("slimmed.safetensors"), profile.architecture).encoder
    assert all(torch.equal(value, found[name]) for name, value in narrow.state_dict().items())


def test_a_plan_of_several_groups_of_galileo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = header(tmp_path / "g.safetensors", {n: tuple(s) for n, s in FIGURES["galileo"]["state"].items()})
    cards = tmp_path / "cards" / "profiles"
    cards.mkdir(parents=True)
    arch = recognise(read_header(Path(name))[0], all_families(), "g", "rgb+nir").architecture(16)
    lines = [f"{key} = {json.dumps(value)}" for key, value in arch.to_dict().items()]
    card = f'schema = 1\nid = "mine"\nmade_for = "rgb+nir"\ncheckpoint = "../../{name}"\n[architecture]\n'
    (cards / "mine.toml").write_text(card + "\n".join(lines), encoding="utf-8")
    assert main(["plan", "--device", "rpi5", "--encoder", "mine", "--cards", "cards", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["architecture"]["band_groups"] == [[0, 1, 2], [3]]
    assert recognise(read_header(Path(name))[0], all_families(), "g", "rgb+nir").made_for == "rgb+nir (B02,B03,B04,B08)"
