"""`edgeslim slim --method healed` and `--method learned`: what they read, write and refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.errors import InputError
from edgeslim.ground.slimming import healed
from edgeslim.manifest import read_manifest
from edgeslim.planning.plan import METHODS, check_method, read_plan
from edgeslim.profile import Profile, take_profile
from tests.ground.slimming.test_calibration_tiles import NEEDED, _refusal, folder

__all__ = ["folder"]


def _heal(tiles: Path, cards: Path, out: Path, *more: str) -> list[str]:
    arguments = ["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(cards), "-o", str(out), "--method", "healed"]
    return [*arguments, "--tiles", str(tiles), "--steps", "3", "--batch", "8", *more]


def test_a_healed_checkpoint_says_how_it_was_made(
    folder: Path,
    tiny_cards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(healed, "VIEWS_WANTED", 50)
    monkeypatch.setattr(healed, "neighbours_kept", lambda found, expected: 0.5 + 0.1 * next(better))
    better = iter(range(100))
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    assert main(_heal(folder, tiny_cards, outs[0], "--seed", "3")) == 0
    captured = capsys.readouterr()
    assert "tiny at width 0.5: head_dim 8 -> 4, ffn_hidden 40 -> 20" in captured.out
    assert "the file holds the encoder alone" in captured.out
    for line in (
        "calibrated block 2 of 2",
        "full encoder: 35 of 35 views",
        "step 3 of 3: loss ",
        "after step 3, taken",
    ):
        assert line in captured.err
    assert (tmp_path / "a.healing").is_dir()
    # The same run again: what the folder holds is taken up, and the file is the same.
    assert main(_heal(folder, tiny_cards, outs[1], "--seed", "3", "--run", str(tmp_path / "a.healing"))) == 0
    assert "resuming after step 3 of 3" in capsys.readouterr().err
    with safe_open(outs[0], framework="pt") as one, safe_open(outs[1], framework="pt") as other:
        metadata = one.metadata()
        assert metadata["method"] == "healed"
        assert (metadata["calibration_tiles"], metadata["calibration_seed"]) == (str(NEEDED), "3")
        assert (metadata["healing_step"], metadata["healing_steps"]) == ("3", "3")
        assert not [key for key in one.keys() if key.startswith("heads.")]  # noqa: SIM118 - not a mapping
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())  # noqa: SIM118
    assert encoder_of(str(outs[0])).method == "healed"


def test_what_healing_does_not_better_is_called_calibrated(
    folder: Path, tiny_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(healed, "VIEWS_WANTED", 50)
    monkeypatch.setattr(healed, "neighbours_kept", lambda found, expected: 0.5)
    assert main(_heal(folder, tiny_cards, tmp_path / "a.safetensors")) == 0
    assert "no state was better than the calibrated weights" in capsys.readouterr().err
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert (file.metadata()["method"], file.metadata()["healing_step"]) == ("calibrated", "0")


def test_refusals_are_one_line_and_write_nothing(
    folder: Path, tiny_cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    plain = ["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(tiny_cards), "-o", str(out)]
    assert "--method healed: found no --tiles" in _refusal(capsys, [*plain, "--method", "healed"], 2)
    line = _refusal(capsys, [*plain, "--steps", "5"], 2)
    assert "--method first: found --steps, expected it for healed only" in line
    line = _refusal(capsys, [*plain, "--method", "calibrated", "--tiles", str(folder), "--run", "x"], 2)
    assert "--method calibrated: found --run" in line
    assert "precision: found 'int4'" in _refusal(capsys, _heal(folder, tiny_cards, out, "--precision", "int4"), 1)
    assert "learning rate: found 2" in _refusal(capsys, _heal(folder, tiny_cards, out, "--learning-rate", "2"), 1)
    assert "device: found 'tpu'" in _refusal(capsys, _heal(folder, tiny_cards, out, "--device", "tpu"), 1)
    if not torch.cuda.is_available():
        assert "--device: found no GPU" in _refusal(capsys, _heal(folder, tiny_cards, out, "--device", "cuda"), 2)
    (folder / "000.png").unlink()
    assert f"found {NEEDED - 1} tiles" in _refusal(capsys, _heal(folder, tiny_cards, out), 1)
    assert not out.exists()
    assert not (tmp_path / "a.healing").exists()


def test_learned_needs_a_card_that_says_so(
    tiny: Profile,
    tiny_cards: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_learned = ["--encoder", "tiny", "--cards", str(tiny_cards), "--method", "learned"]
    for arguments in (["slim", "-w", "0.5", *tiny_learned], ["plan", "--device", "rpi4", *tiny_learned]):
        line = _refusal(capsys, arguments, 1)
        assert "method learned: the card of tiny does not say slimmable = true" in line
    assert list(tmp_path.glob("*.json")) == list(tmp_path.glob("*.safetensors")) == []
    for method in METHODS:
        check_method(method, replace(tiny, slimmable=True))
    with pytest.raises(InputError, match="use first"):
        check_method("learned", tiny)
    tiles = ["--tiles", str(folder), "-w", "0.5", "--method", "learned"]
    assert "expected them for calibrated or healed only" in _refusal(capsys, ["slim", *tiles], 2)


def test_learned_is_first_and_called_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert take_profile("eurosat-rgb").slimmable
    assert main(["plan", "--device", "rpi4", "--method", "learned", "--html", "plan.html"]) == 0
    assert read_plan(Path("plan.json")).method == "learned"
    assert "trained to be slimmed to" in Path("plan.html").read_text(encoding="utf-8")
    assert main(["slim", "-o", "learned.safetensors"]) == 0
    assert main(["slim", "-o", "first.safetensors", "--method", "first"]) == 0
    with safe_open("learned.safetensors", "pt") as one, safe_open("first.safetensors", "pt") as other:
        assert (one.metadata()["method"], other.metadata()["method"]) == ("learned", "first")
        assert set(one.keys()) == set(other.keys())
        assert [key for key in one.keys() if key.startswith("heads.")]  # noqa: SIM118 - not a mapping
        assert all(torch.equal(one.get_tensor(key), other.get_tensor(key)) for key in one.keys())  # noqa: SIM118
    # The file is as nested as the whole was, and says so.
    assert encoder_of("learned.safetensors").slimmable
    assert main(["export", "-o", "planned"]) == 0
    assert main(["export", "--encoder", "learned.safetensors", "-w", "1", "-o", "filed"]) == 0
    assert read_manifest(Path("planned")).method == read_manifest(Path("filed")).method == "learned"
    capsys.readouterr()
