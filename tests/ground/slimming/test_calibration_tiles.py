"""`edgeslim slim --method calibrated`: what it reads, writes and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.ground.flight import FlightModel, profile_checkpoint
from edgeslim.ground.slimming.calibration import tiles_needed
from edgeslim.ground.slimming.calibration_tiles import read_calibration
from edgeslim.planning.plan import read_plan
from edgeslim.profile import Band, Profile
from tests.ground.conftest import TINY
from tests.tiles import write

NEEDED = tiles_needed(TINY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of the tiny encoder's size, as many as it needs."""
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    random = np.random.default_rng(0)
    for number in range(NEEDED):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tiles / f"{number:03d}.png")
    return tiles


def _slim(folder: Path, cards: Path, out: Path, *more: str) -> list[str]:
    arguments = ["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(cards), "-o", str(out)]
    return [*arguments, "--method", "calibrated", "--tiles", str(folder), *more]


def _refusal(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_the_file_says_how_it_was_made(
    folder: Path, tiny_cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for out in outs:
        assert main(_slim(folder, tiny_cards, out, "--seed", "3")) == 0
    captured = capsys.readouterr()
    assert "head_dim 8 -> 4, ffn_hidden 40 -> 20" in captured.out
    assert "heads were fitted to the features of first: the file holds the encoder alone" in captured.out
    assert "calibrated block 2 of 2" in captured.err
    with safe_open(outs[0], framework="pt") as one, safe_open(outs[1], framework="pt") as other:
        assert one.metadata()["method"] == "calibrated"
        assert (one.metadata()["calibration_tiles"], one.metadata()["calibration_seed"]) == (str(NEEDED), "3")
        assert not [key for key in one.keys() if key.startswith("heads.")]  # noqa: SIM118 - not a mapping
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())  # noqa: SIM118


def test_tiles_reach_the_encoder_as_in_flight(folder: Path, tiny: Profile) -> None:
    found = read_calibration(tiny, folder)
    assert found.tiles.shape == (NEEDED, 3, 16, 16)
    assert tiny.radiometry is not None
    checkpoint = profile_checkpoint(tiny)[0]
    model = FlightModel(checkpoint.build(), checkpoint.head(8), tiny.radiometry)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]).transpose(0, 3, 1, 2)
    raw = torch.from_numpy(np.round(pixels * tiny.radiometry.image_scale)).float()
    with torch.no_grad():
        torch.testing.assert_close(model.encoder(found.tiles), model(raw)[1])


def test_colours_go_to_their_bands(folder: Path, tiny: Profile) -> None:
    blue_first = replace(tiny, bands=tiny.bands[::-1])
    found, turned = (read_calibration(profile, folder).tiles for profile in (tiny, blue_first))
    assert tiny.radiometry is not None
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (tiny.radiometry.mean, tiny.radiometry.std))
    raw, other = found.numpy() * std + mean, turned.numpy() * std + mean
    np.testing.assert_allclose(raw[:, ::-1], other, rtol=1e-5, atol=1e-2)
    with pytest.raises(InputError, match="found images, whose bands are red, green, blue, expected B08"):
        read_calibration(replace(tiny, bands=(*tiny.bands[:2], Band("B08", "nir"))), folder)


def test_unreadable_images_are_counted_and_left_out(
    folder: Path, tiny_cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        (folder / f"broken{number}.png").write_bytes(b"no image")
    assert main(_slim(folder, tiny_cards, tmp_path / "a.safetensors")) == 0
    assert f"warning: 2 of {NEEDED + 2} images cannot be read" in capsys.readouterr().err
    (folder / "000.png").write_bytes(b"no image")
    line = _refusal(capsys, _slim(folder, tiny_cards, tmp_path / "b.safetensors"), 1)
    assert f"found {NEEDED - 1} tiles, expected at least {NEEDED}" in line
    assert not (tmp_path / "b.safetensors").exists()


def test_sixteen_bits_are_not_cut_to_eight(folder: Path, tiny: Profile) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (3, 16, 16), dtype=np.uint16)
    write(folder / "000.png", deep, "PNG")
    with pytest.raises(InputError, match=r"tiles/000.png has 16 bits, expected 8; store it as GeoTIFF"):
        read_calibration(tiny, folder)


@pytest.mark.parametrize(
    ("mode", "said"), [("L", "grey levels"), ("P", "a palette"), ("1", "black and white"), ("LA", "grey levels")]
)
def test_no_colours_are_made_of_images_without_them(folder: Path, tiny: Profile, mode: str, said: str) -> None:
    path = folder / "000.png"
    colours = Image.open(path).convert("RGB")
    colours.convert("RGBA").save(path)
    assert read_calibration(tiny, folder).tiles.shape[1] == 3
    colours.convert(mode).save(path)
    with pytest.raises(InputError, match=f"tiles/000.png holds {said}, expected red, green and blue; convert or"):
        read_calibration(tiny, folder)


def test_refusals_are_one_line_and_write_nothing(
    folder: Path, tiny: Profile, tiny_cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    plain = ["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(tiny_cards), "-o", str(out)]
    assert "--method: found 'best', expected one of first, calibrated" in _refusal(
        capsys, [*plain, "--method", "best"], 2
    )
    assert "--method calibrated: found no --tiles" in _refusal(capsys, [*plain, "--method", "calibrated"], 2)
    assert "expected them for calibrated or healed only" in _refusal(capsys, [*plain, "--tiles", str(folder)], 2)
    line = _refusal(capsys, _slim(folder, tiny_cards, out, "--tiles-max", "3"), 1)
    assert f"--tiles-max: found 3, expected at least the {NEEDED}" in line
    assert "found no such file" in _refusal(capsys, _slim(tmp_path / "none", tiny_cards, out), 1)
    Image.new("RGB", (20, 16)).save(folder / "wide.png")
    assert "wide.png is 20x16 px, expected 16x16" in _refusal(capsys, _slim(folder, tiny_cards, out), 1)
    (folder / "wide.png").unlink()
    grey = Image.new("RGB", (16, 16), (90, 90, 90))
    for path in folder.iterdir():
        grey.save(path)
    assert f"found 1 that differ among {NEEDED}" in _refusal(capsys, _slim(folder, tiny_cards, out), 1)
    assert not out.exists()
    four = Profile(
        **{name: getattr(tiny, name) for name in tiny.__dataclass_fields__ if name not in ("architecture", "bands")},
        architecture=type(TINY)(**{**TINY.to_dict(), "bands": 4, "stem_channels": (4, 8)}),
        bands=(),
    )
    with pytest.raises(InputError, match="images have 3 bands, expected the 4 of tiny"):
        read_calibration(four, folder)


def test_a_plan_decides_the_method(
    folder: Path,
    tiny_cards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cards = ["--cards", str(tiny_cards)]
    plan = ["plan", "--encoder", "tiny", "--gflop", "0.0003", *cards]
    assert "--method: found best" in _refusal(capsys, [*plan, "--method", "best"], 2).replace("'", "")
    assert "--method: found without --device" in _refusal(capsys, [*plan, "--method", "calibrated"], 2)
    on_board = [*plan, "--device", "raspberry-pi-5-8gb", "--method", "calibrated", "--html", "plan.html"]
    assert main(on_board) == 0
    assert read_plan(Path("plan.json")).method == "calibrated"
    assert "scores are those of first" in Path("plan.html").read_text(encoding="utf-8")
    assert "found no --tiles" in _refusal(capsys, ["slim", *cards], 2)
    assert main(["slim", *cards, "--tiles", str(folder)]) == 0
    with safe_open("slimmed.safetensors", framework="pt") as file:
        assert file.metadata()["method"] == "calibrated"
    line = _refusal(capsys, ["export", *cards], 2)
    assert "plan.json: found method 'calibrated', whose heads are yet to be fitted" in line
    text = Path("plan.json").read_text(encoding="utf-8")
    Path("plan.json").write_text(text.replace('"method": "calibrated"', '"method": "best"'), encoding="utf-8")
    assert "method: found" in _refusal(capsys, ["slim", *cards], 1)
