"""The ground's verbs from the command line: what they write, and one line for what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.manifest import read_manifest
from edgeslim.planning.plan import read_plan
from tests.ground.conftest import TINY
from tests.pages import PAGES
from tests.report.test_schema import hold


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    assert main(arguments) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_plan_slim_export_check(here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert main(["plan", "--device", "raspberry-pi-5-8gb", "--encoder", "tiny", *cards, "--gflop", "0.0003"]) == 0
    plan = read_plan(here / "plan.json")
    assert plan.width_multiplier < 1
    capsys.readouterr()
    assert main(["slim", *cards, "--json"]) == 0
    slimmed = json.loads(capsys.readouterr().out)
    hold("slim", slimmed)
    assert slimmed["parameters"] < slimmed["full_parameters"]
    assert (slimmed["method"], slimmed["width_multiplier"]) == ("first", plan.width_multiplier)
    assert (here / slimmed["checkpoint"]).is_file()
    assert main(["export", *cards]) == 0
    out = capsys.readouterr().out
    assert "SYNTHETIC" in out
    assert out.rstrip().endswith("artifact")
    manifest = read_manifest(here / "artifact")
    assert manifest.architecture == TINY.at(plan.width_multiplier)
    assert manifest.plan["device"] == "raspberry-pi-5-8gb"
    with safe_open(here / "slimmed.safetensors", framework="pt") as file:
        count = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118 - not a mapping
        assert json.loads(file.metadata()["architecture"]) == manifest.architecture.to_dict()
    assert count == manifest.total_parameters == cost.parameters(manifest.architecture, classes=3)
    assert main(["check"]) == 0
    assert "synthetic" in capsys.readouterr().out.lower()
    assert sorted(p.name for p in here.iterdir()) == ["artifact", "plan.json", "slimmed.safetensors"]


def test_the_readme_shows_what_slim_prints_after_its_first_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_plan = re.search(r"^    \$ edgeslim (plan .*)$", PAGES["README.md"], re.MULTILINE)
    slim = re.search(r"^    \$ edgeslim (slim)\n((?:    .*\n)*)", PAGES["docs/encoders.md"], re.MULTILINE)
    assert first_plan is not None
    assert slim is not None
    assert main(first_plan[1].split()) == 0
    capsys.readouterr()
    assert main([slim[1]]) == 0
    assert capsys.readouterr().out == "".join(line[4:] for line in slim[2].splitlines(keepends=True))


def test_slim_writes_what_export_would_fly(here: Path, tiny_cards: Path) -> None:
    arguments = ["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(tiny_cards), "-o", "half.safetensors"]
    assert main(arguments) == 0
    with (
        safe_open(here / "half.safetensors", framework="pt") as half,
        safe_open(tiny_cards / "profiles" / "tiny.safetensors", framework="pt") as whole,
    ):
        qkv = whole.get_tensor("encoder.blocks.1.attn.qkv.weight").reshape(3, 3, 8, 24)[:, :, :4].reshape(36, 24)
        assert torch.equal(half.get_tensor("encoder.blocks.1.attn.qkv.weight"), qkv)
        assert torch.equal(half.get_tensor("heads.04.weight"), whole.get_tensor("heads.04.weight"))


def test_certificates_as_json(here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--encoder", "tiny", "-w", "0.5", "--cards", str(tiny_cards), "--json"]
    assert main([*words, "--precision", "fp32", "--precision", "fp16"]) == 0
    found = json.loads(capsys.readouterr().out)
    hold("export", found)
    hold("export", found[0])  # as it stands alone where one is asked
    assert [one["manifest"]["precision"] for one in found] == ["fp32", "fp16"]


def test_a_research_licence_is_accepted_by_a_flag(
    here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = here / "mine"
    shutil.copytree(tiny_cards, cards)
    card = cards / "profiles" / "tiny.toml"
    card.write_text(card.read_text().replace('licence = "Apache-2.0"', 'licence = "CC-BY-NC-4.0"'))
    arguments = ["export", "--encoder", "tiny", "-w", "0.5", "--cards", str(cards)]
    line = _fails(capsys, arguments, 1)
    assert "'CC-BY-NC-4.0', research-only" in line
    assert "--accept-licence" in line
    assert [p.name for p in here.iterdir()] == ["mine"]
    assert main([*arguments, "--accept-licence"]) == 0
    assert read_manifest(here / "artifact").licence_accepted


def test_refusals_are_one_line_and_write_nothing(
    here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert "plan.json: cannot be read" in _fails(capsys, ["export", *cards], 1)
    line = _fails(capsys, ["export", "--encoder", "tinny", "-w", "0.5", *cards], 2)
    assert "unknown encoder 'tinny': expected one of tiny" in line
    words = ["export", "--encoder", "tiny", "-w", "0.5", "-o", "art", "--bundle", "art/a.tar.xz"]
    assert "--bundle art/a.tar.xz: lies in -o art, which holds the artifact alone" in _fails(capsys, words, 2)
    for out in ("a.tar.xz", "a.tar.xz/art"):
        words = ["export", "--encoder", "tiny", "-w", "0.5", "-o", out, "--bundle", "a.tar.xz"]
        assert f"--bundle a.tar.xz: found the folder of -o {out}, expected a file's name" in _fails(capsys, words, 2)
    assert "expected 0 < w <= 1" in _fails(capsys, ["export", "--encoder", "tiny", "-w", "1.5", *cards], 1)
    line = _fails(capsys, ["export", "--encoder", "vit-b-16", "-w", "0.5", *cards], 1)
    assert "ships no weights, expected --checkpoint FILE" in line
    line = _fails(capsys, ["slim", "--encoder", "tiny", "-w", "0.5", "--checkpoint", "none.pth", *cards], 1)
    assert "none.pth: found no such file" in line
    line = _fails(capsys, ["slim", "--encoder", "tiny", "-w", "0.5", "-o", "a.pth", *cards], 1)
    assert "expected .safetensors" in line
    assert "needs --width-multiplier" in _fails(capsys, ["slim", "--encoder", "tiny", *cards], 2)
    line = _fails(capsys, ["export", "--encoder", "tiny", "-w", "0.5", "--tiles", "none", *cards], 1)
    assert "--tiles none: found no such file or folder" in line
    assert "found neither a folder nor a zip" in _fails(
        capsys, ["train", "none.zip", "-o", str(tiny_cards / "run"), "--encoder", "tiny", *cards], 1
    )
    beneath = str(tiny_cards / "profiles" / "tiny.toml" / "out")
    for verb in (["demo"], ["train", "none.zip"]):
        assert "cannot be made a folder" in _fails(capsys, [*verb, "-o", beneath], 1)
    assert "--precision: found 'fp8'" in _fails(capsys, ["train", "none.zip", "--precision", "fp8"], 2)
    assert list(here.iterdir()) == []
    (here / "slimmed.safetensors").write_text("mine")
    assert "add --overwrite" in _fails(capsys, ["slim", "--encoder", "tiny", "-w", "0.5", *cards], 1)
    assert (here / "slimmed.safetensors").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["plan", "--help"], ["plan", "--device", "jetson-orin", "-o", "plan.json"]])
def test_planning_loads_neither_torch_nor_rasterio(here: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from edgeslim.cli import main; assert main(sys.argv[1:]) == 0; "
        "loaded = {'torch', 'rasterio', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
