"""What is asked of checkpoints that serve several kinds of tiles: said, or refused in a line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.families.asked import bands_asked, gsd_asked, split_gsd
from edgeslim.families.checkpoint_file import profile_of
from edgeslim.families.family import all_families
from edgeslim.families.recognition import recognise
from edgeslim.profile import all_profiles
from tests.cli.test_encoders import header

FIGURES = json.loads(
    (Path(__file__).parents[1] / "ground" / "checkpoints" / "family_figures.json").read_text(encoding="utf-8")
)


def shapes_of(case: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in FIGURES[case]["state"].items()}


@pytest.mark.parametrize(
    ("case", "asked", "bands", "said"),
    [
        ("dofa", "B04,B03,B02", 3, "(dofa), 66 tensors, made for B04,B03,B02; "),
        ("dofa", "0.4,2.5,VH", 3, "made for 0.4,2.5,VH; "),
        ("copernicus_fm", "B8A,0.49/0.065", 2, "made for B8A,0.49/0.065; "),
        ("terramind_base", "rgb", 3, "(terramind), 41 tensors, made for rgb (B04,B03,B02); "),
        ("terramind_base", "B04,B03,B02", 3, "made for rgb (B04,B03,B02); "),
        ("galileo", "s1", 2, "made for s1 (VV,VH); "),
        ("galileo", "rgb+B11,B12", 5, "made for rgb+swir (B02,B03,B04,B11,B12); "),
        ("terramind_base", "s1grd+rgb", 5, "made for s1grd+rgb (VV,VH,B04,B03,B02); "),
        ("clay_v1", "B04,0.48@0.6m", 2, "made for B04,0.48 at 0.6 m a pixel; "),
        ("panopticon", "B8A,0.57,HV descending", 3, "made for B8A,0.57,HV descending; "),
        ("scale_mae", "@10", 3, "(scale-mae), 41 tensors, made for 10 m a pixel; "),
    ],
)
def test_what_is_asked_is_said(case: str, asked: str, bands: int, said: str) -> None:
    shapes = shapes_of(case)
    # Heads of 64 are the families' own, and these small encoders have 48 dimensions.
    families = [family for family in all_families() if family.id == FIGURES[case]["family"]]
    assert recognise(shapes, families, "a.pth", asked).architecture(16).bands == bands
    wide = {name: widened(shape) for name, shape in shapes.items()}
    profile, text = profile_of(Path("a.pth"), wide, {}, None, asked)
    assert said.split(" tensors")[-1] in text
    assert (profile.id, profile.made_for, profile.architecture.bands) == (f"a.pth:{asked}", asked, bands)


def widened(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of an encoder of 48 dimensions as one of 192 has it."""
    others = {48: 192, 144: 576, 48 * 64: 192 * 64}
    return tuple(others.get(size, size) for size in shape)


@pytest.mark.parametrize(
    ("case", "asked", "message"),
    [
        ("dofa", None, r"dofa is made for the bands asked, found none asked; .* \(a.pth:B01,B02,B03\) or as made_for"),
        (
            "dofa",
            "B04,B99",
            r"band 'B99' is none that dofa ever saw, expected one of B01, .*, or a wavelength",
        ),
        ("dofa", "10.9", "band '10.9' is none that dofa ever saw.* from 0.4 to 2.5"),
        ("dofa", "nan", "band 'nan' is none that dofa ever saw"),
        ("dofa", "0.49/0.065", "band '0.49/0.065' is none that dofa ever saw"),
        ("dofa", "", "band '' is none that dofa ever saw"),
        ("dofa", ",".join(["B04"] * 5000), "found 5000 bands asked, expected at most 4096"),
        ("copernicus_fm", "0.49", "band '0.49' is none that copernicus-fm ever saw.* or a wavelength/width in micro"),
        ("terramind_base", None, r"takes s2l2a, rgb, s1grd, s1rtc; say which behind its name \(a.pth:s2l2a\)"),
        ("terramind_base", "s2l1c", r"'s2l1c' is none that this terramind ever saw, expected one of s2l2a \(B01,"),
        ("galileo", "B04,B03,B02", r"is none that this galileo ever saw, expected one of rgb \(B02,B03,B04\)"),
        ("plain", "rgb", "found 'rgb' asked of timm's VisionTransformer, which takes one kind of tile"),
        ("scale_mae", "rgb@10m", "found 'rgb' asked of Scale-MAE, .* which takes one kind of tile"),
        ("scale_mae", "@0m", r"found '@0m' asked, expected behind the @ metres a pixel, more than 0: @10m"),
        ("scale_mae", "@far", "found '@far' asked, expected behind the @ metres a pixel"),
        ("scale_mae", "@nanm", "found '@nanm' asked, expected behind the @ metres a pixel"),
        ("clay_v1", "B02,B03", "clay is made for the ground sample distance asked, found none"),
        ("clay_v1", "@10m", "clay is made for the bands asked, found none asked"),
        (
            "clay_v1",
            "B10@10m",
            "band 'B10' is none that clay ever saw, .* a wavelength in micrometres from 0.44 to 2.2",
        ),
        ("panopticon", None, r"panopticon is made for the bands asked, found none asked"),
        ("panopticon", "B04,VX", "band 'VX' is none that panopticon ever saw"),
        ("dofa", "B04@10m", "found @10m asked of dofa, which is told no ground sample distance"),
    ],
)
def test_what_an_encoder_never_saw_is_refused(case: str, asked: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile_of(Path("a.pth"), shapes_of(case), {}, None, asked)


def test_a_cards_ground_sample_distance_is_one_that_is_asked() -> None:
    shapes, families = shapes_of("clay_v1"), all_families()
    assert recognise(shapes, families, "a.pth", "B04", gsd_m=10).gsd_m == 10
    assert recognise(shapes, families, "a.pth", "B04@10m", gsd_m=10).gsd_m == 10
    with pytest.raises(InputError, match="found @5m asked and a card's gsd_m of 10; set them alike"):
        recognise(shapes, families, "a.pth", "B04@5m", gsd_m=10)
    # Names of Scale-MAE are timm's: a card's distance alone makes none of an encoder that was told none.
    shapes = shapes_of("scale_mae")
    assert recognise(shapes, families, "a.pth", gsd_m=10).family.id == "timm"
    assert recognise(shapes, families, "a.pth", "@10m", gsd_m=10).family.id == "scale-mae"
    beside_a_decoder = shapes | {"mask_token_decoder": (1, 1, 8), "fcn.conv.weight": (1,)}
    assert recognise(beside_a_decoder, families, "a.pth", gsd_m=10).family.id == "scale-mae"
    with pytest.raises(InputError, match=r"scale-mae is made for the ground .* found none; .* \(a.pth:@10m\)"):
        recognise(beside_a_decoder, families, "a.pth")
    profile, _ = profile_of(Path("a.pth"), {name: widened(shape) for name, shape in shapes.items()}, {}, None, "@2.5m")
    assert profile.gsd_m == 2.5


def test_a_card_of_so_many_bands_needs_no_name_of_a_modality() -> None:
    shapes, families = shapes_of("terramind_base"), all_families()
    chosen = recognise(shapes, families, "a.pth", bands=12).modalities[0]
    assert chosen is not None
    assert chosen.id == "s2l2a"
    with pytest.raises(InputError, match="found a card of 2 bands; say which"):
        recognise(shapes, families, "a.pth", bands=2)


@pytest.mark.parametrize("change", ["fold", "bands"])
def test_a_part_that_only_the_embedding_needs_is_missed(change: str) -> None:
    case, name = {
        "fold": ("dofa", "patch_embed.fclayer.w1.weight"),
        "bands": ("terramind_base", "encoder_embeddings.untok_sen2l2a@224.mod_emb"),
    }[change]
    shapes: dict[str, Any] = shapes_of(case)
    del shapes[name]
    if change == "fold":
        with pytest.raises(InputError, match=r"the nearest is dofa: fold.fclayer.w1.weight: found none"):
            recognise(shapes, all_families(), "a.pth", "B04")
    else:
        with pytest.raises(InputError, match="'s2l2a' is none that this terramind ever saw"):
            recognise(shapes, all_families(), "a.pth", "s2l2a")


PLAIN = ("satmae", "spectralgpt")
"""Of which nothing is asked."""


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_shapes_are_read_or_refused_in_a_line(data: st.DataObject) -> None:
    cases = ["dofa", "copernicus_fm", "terramind_base", "galileo", "clay_v1", "panopticon", *PLAIN]
    case = data.draw(st.sampled_from(cases))
    ways = ["B04", "VV,B11", "s2l2a", "rgb", "rgb+s1", "rgb+s1grd", "B04@10m", "@3m", "a@b@c", None]
    asked = None if case in PLAIN else data.draw(st.sampled_from(ways))
    shapes = {name: widened(shape) for name, shape in shapes_of(case).items()}
    for name in data.draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=4)):
        shapes[name] = tuple(data.draw(st.lists(st.integers(-2, 70) | st.sampled_from([0, 2**40]), max_size=5)))
    with suppress(InputError):
        profile_of(Path("a.safetensors"), shapes, {}, None, asked)


def test_cards_of_such_encoders_say_what_they_are_made_for() -> None:
    families = {family.id: family for family in all_families()}
    made = {profile.id: profile for profile in all_profiles() if profile.made_for}
    assert set(made) == {
        *("dofa-b-16", "dofa-l-16", "copernicus-fm-b-16", "terramind-b", "terramind-l", "galileo-nano", "croma-b"),
        *("croma-l", "galileo-nano-s2", "panopticon-b-14", "scale-mae-l-16", "clay-v1-b-8", "clay-v1-5-l-8"),
    }
    for name, profile in made.items():
        family = next(family for key, family in families.items() if name.startswith(key))
        known = {one.id: len(one.bands) for one in family.modality}
        assert profile.made_for is not None
        text, asked_m = split_gsd(profile.made_for, name)
        if family.band or family.modality:
            assert text is not None
            asked = [known.get(one, one.count(",") + 1) for one in text.split("+")]
            assert sum(asked) == profile.architecture.bands
            assert [len(group) for group in profile.architecture.band_groups] == (asked if len(asked) > 1 else [])
        assert (gsd_asked(family, asked_m, profile.gsd_m, name) is not None) == family.takes_gsd
        if family.band:
            assert len(bands_asked(family, text, name)) == profile.architecture.bands
        assert profile.architecture.band_attention_heads == family.band_attention_heads
        assert profile.architecture.norm_eps == family.norm_eps
        assert profile.architecture.patch_padding == family.patch_padding
        assert profile.architecture.pool == family.pool


def test_a_plan_keeps_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = header(tmp_path / "dofa.safetensors", {key: widened(shape) for key, shape in shapes_of("dofa").items()})
    assert main(["plan", "--device", "rpi5", "--encoder", f"{name}:B04,B03,B02", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["encoder"], plan["architecture"]["bands"]) == ("dofa.safetensors:B04,B03,B02", 3)
    assert plan["architecture"]["patch_padding"] == 1
    assert main(["encoders", "show", f"{name}:0.49,VV"]) == 0
    assert "takes 2 bands of 32 px" in " ".join(capsys.readouterr().out.split())
    assert main(["encoders", "show", name]) == 1
    assert capsys.readouterr().err.count("\n") == 1
