"""`edgeslim encoders`, and encoders that are given by a file."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import profile_of
from edgeslim.shelf import card_paths


def typed(line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(line.split()) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.parametrize("columns", [80, 140])
def test_the_list_says_what_is_known_of_every_card(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text, _ = typed("encoders list", capsys)
    assert all(path.stem in text for path in card_paths("profiles"))
    assert all(len(line) <= columns for line in text.splitlines())
    assert "…" not in text
    found = {one["id"]: one for one in json.loads(typed("encoders list --json", capsys)[0])["encoders"]}
    assert found["eurosat-rgb"]["weights"] == "ship with edgeslim"
    assert found["vit-s-16"]["scores"] == []
    assert found["vit-b-16"]["parameters"] == pytest.approx(86e6, rel=0.01)


def test_a_card_is_shown_with_what_it_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = typed("encoders show dofa-b-16", capsys)
    assert "12 blocks, dim 768, 12 heads of 64, MLP 3072, patches of 16 px, 197 tokens, pool mean" in " ".join(
        text.split()
    )
    assert "What it keeps" in text
    out, err = typed("encoders show dofa-b-61", capsys, 2)
    assert (out, "dofa-b-16" in err) == ("", True)


def test_hubs_for_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = json.loads(typed("encoders hubs --json", capsys)[0])["checkpoints"]
    assert not any(one["fetched"] for one in before)
    assert [one["name"] for one in before if one["fetched"] is None] == ["timm:NAME"]
    text = typed("encoders hubs", capsys)[0]
    assert all(one["name"] in text for one in before)
    first = next(one for one in before if one["name"].startswith("torchgeo:"))
    hub, name = first["name"].split(":")
    folder = tmp_path / "edgeslim" / "hubs" / hub
    folder.mkdir(parents=True)
    (folder / f"{name}{Path(first['url']).suffix}").write_bytes(b"")
    after = json.loads(typed("encoders hubs --json", capsys)[0])["checkpoints"]
    assert [one["name"] for one in after if one["fetched"]] == [first["name"]]


@pytest.mark.parametrize("tail", ["", ".pth", ".pth:rgb"])
def test_a_name_that_is_too_long_for_a_file(tail: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = typed(f"plan --device rpi4 --encoder {'a' * 300}{tail}", capsys, 1 if tail else 2)
    assert err.count("\n") == 1


def test_families_say_what_confirms_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(typed("encoders families", capsys)[0].split())
    assert "family timm: timm's VisionTransformer" in text
    assert "asked for s2l2a (B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12); s2l1c (" in text
    assert "VV, VH, or a wavelength/width in micrometres from 0.4 to 2.5" in text
    assert "code fold galileo: its positions are computed from group, date, month and place" in text
    assert "heads of 64, 80 in that of dimension 1280, unless a card says otherwise" in text
    mine = tmp_path / "families"
    mine.mkdir()
    card = (card_paths("families")[0].parent / "hf-vit.toml").read_text(encoding="utf-8")
    lines = [line for line in card.replace('id = "hf-vit"', 'id = "mine"').splitlines() if "confirmed" not in line]
    (mine / "mine.toml").write_text("\n".join(lines), encoding="utf-8")
    text = " ".join(typed(f"encoders families --cards {tmp_path}", capsys)[0].split())
    assert "confirmed no: nothing holds it against the original yet" in text


def header(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """A safetensors file that has nothing but its header: names and shapes are all that a plan reads."""
    text = json.dumps({key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in shapes.items()})
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    return path.name


def shapes_of(arch: Architecture) -> dict[str, tuple[int, ...]]:
    d, a, h = arch.dim, arch.attention_dim, arch.ffn_hidden
    found = {"cls_token": (1, 1, d), "pos_embed": (1, arch.patches + 1, d), "norm.weight": (d,), "norm.bias": (d,)}
    found |= {
        "patch_embed.proj.weight": (d, arch.bands, arch.patch_size, arch.patch_size),
        "patch_embed.proj.bias": (d,),
    }
    for block in range(arch.depth):
        layers = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * a, d), "attn.proj": (d, a)}
        layers |= {"mlp.fc1": (h, d), "mlp.fc2": (d, h)}
        for name, shape in layers.items():
            found |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    return found


def test_a_plan_of_a_checkpoint_without_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = Architecture(12, 384, 6, 64, 1536, 16, 224, 13)
    name = header(tmp_path / "moco.safetensors", {f"module.base_encoder.{k}": v for k, v in shapes_of(arch).items()})
    out, err = typed(f"plan --device rpi5 --encoder {name} --json", capsys)
    assert json.loads(out)["architecture"] == arch.to_dict()
    assert err.startswith(
        "moco.safetensors: timm's VisionTransformer (timm), 150 tensors; 6 heads of 64 are taken for "
    )
    assert "12 blocks, dim 384, 6 heads of 64" in " ".join(typed(f"encoders show {name}", capsys)[0].split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole safetensors file"),
        (struct.pack("<Q", 1 << 60), "not a whole safetensors file"),
        (struct.pack("<Q", 9) + b'{"a": [1]', "not a whole safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "found 0 tensors of no family"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_line(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(content)
    out, err = typed("plan --device rpi5 --encoder a.safetensors", capsys, 1)
    assert out == ""
    assert err.startswith("error: a.safetensors: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_shapes_that_make_no_encoder_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    header(tmp_path / "a.safetensors", shapes_of(Architecture(2, 32, 2, 16, 64, 8, 16, 3)))
    _, err = typed("plan --device rpi5 --encoder a.safetensors", capsys, 1)
    assert err.startswith(
        "error: a.safetensors: head_dim: found 64, expected one that divides the 32 dimensions of q; a"
    )
    assert "family card of your own says it" in err


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_shapes_are_planned_or_refused_in_a_line(data: st.DataObject) -> None:
    shapes = shapes_of(Architecture(2, 32, 2, 16, 64, 8, 16, 3))
    for name in data.draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=4)):
        sizes = st.lists(st.integers(-2, 70) | st.sampled_from([0, 2**40]), max_size=5)
        shapes[name] = tuple(data.draw(sizes))
    with suppress(InputError):
        profile_of(Path("a.safetensors"), shapes, {})
