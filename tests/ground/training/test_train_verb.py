"""`edgeslim train` as a person runs it: killed and resumed, by torchrun, on tiles of any bands, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import load_file

from edgeslim.cli import main
from tests.ground.conftest import CARD

ROOT = Path(__file__).parents[3]
COLOURS = {"Forest": (30, 70, 60), "River": (40, 60, 110), "Highway": (150, 140, 130)}
TINY_RUN = ["--epochs", "3", "--batch", "32", "--warmup-epochs", "1", "--threads", "1"]
CONVNEXT = """[architecture]
depths = [1, 2]
dims = [8, 12]
hidden = [32, 48]
tile_px = 16
bands = 3
stem_stride = 4

"""
ADDED = {
    "supervised": ["--teacher-epochs", "0", "--calm-epochs", "0"],
    "contrastive": ["--random-widths", "2"],
    "mae": ["--random-widths", "2"],
}


@pytest.fixture(autouse=True)
def _threads() -> object:
    """`--threads` holds for the process: give back what was."""
    before = torch.get_num_threads()
    yield None
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiles"
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(60):
            pixels = np.clip(random.normal(colour, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{i}.png")
    return folder


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders without weights: "plain" of three bands, "bands4" of four and of no known radiometry, "conv"."""
    folder = tmp_path_factory.mktemp("cards")
    shelf = folder / "profiles"
    shelf.mkdir()
    lines = [line for line in CARD.splitlines() if not line.startswith(("checkpoint", "stem_channels"))]
    plain = "\n".join(lines).replace('id = "tiny"', 'id = "plain"')
    (shelf / "plain.toml").write_text(plain)
    bare = plain[: plain.index("[[band]]")].replace("bands = 3", "bands = 4").replace('"plain"', '"bands4"')
    (shelf / "bands4.toml").write_text(bare)
    rest = plain[plain.index("[[band]]") :]
    (shelf / "conv.toml").write_text(plain[: plain.index("[architecture]")].replace("plain", "conv") + CONVNEXT + rest)
    return folder


def _words(tiles: Path, cards: Path, objective: str, out: Path) -> list[str]:
    named = ["--encoder", "plain", "--cards", str(cards), "--objective", objective, "-o", str(out)]
    return ["train", str(tiles), *named, *TINY_RUN, *ADDED[objective]]


def _weights(out: Path) -> bytes:
    (path,) = out.glob("*.safetensors")
    found = load_file(path)
    return b"".join(found[name].numpy().tobytes() for name in sorted(found))


@pytest.mark.parametrize("objective", ["supervised", "contrastive", "mae"])
def test_a_killed_run_resumes_to_the_same_bits(tiles: Path, cards: Path, objective: str, tmp_path: Path) -> None:
    words = _words(tiles, cards, objective, tmp_path / "killed")
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgeslim", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1/3"):
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    assert main(words) == 0
    assert main(_words(tiles, cards, objective, tmp_path / "whole")) == 0
    assert _weights(tmp_path / "killed") == _weights(tmp_path / "whole")


def test_torchrun_trains_what_one_process_trains(tiles: Path, cards: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgeslim"]
    words = _words(tiles, cards, "contrastive", tmp_path / "two")
    done = subprocess.run([*start, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "two" / "plain-contrastive.safetensors"
    assert done.stdout.splitlines() == [str(made), str(made.with_suffix(".json"))]
    assert main(_words(tiles, cards, "contrastive", tmp_path / "one")) == 0
    record, alone = (json.loads((tmp_path / name / "plain-contrastive.json").read_text()) for name in ("two", "one"))
    assert (record["processes"], alone["processes"]) == (2, 1)
    assert record["loss"] == pytest.approx(alone["loss"], rel=1e-3)


def test_a_pretrained_encoder_is_one_for_every_verb(
    tiles: Path, cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(tiles, cards, "mae", tmp_path)) == 0
    encoder = str(tmp_path / "plain-mae.safetensors")
    record = json.loads((tmp_path / "plain-mae.json").read_text())
    assert record["command"].startswith("edgeslim train tiles --objective mae --random-widths 2 --encoder plain")
    assert str(tmp_path) not in json.dumps(record)
    assert len(record["loss"]) == 3
    assert record["loss"][-1] < record["loss"][0]
    assert main(["plan", "--encoder", encoder, "--device", "raspberry-pi-5", "-o", str(tmp_path / "plan.json")]) == 0
    slimmed = str(tmp_path / "half.safetensors")
    assert main(["slim", "--encoder", encoder, "-w", "0.5", "-o", slimmed]) == 0
    head = str(tmp_path / "head.safetensors")
    assert main(["head", encoder, "--tiles", str(tiles), "-w", "0.5", "-o", head]) == 0
    measured = ["measure", encoder, "--tiles", str(tiles), "--seeds", "1", "-w", "0.5", "-o", str(tmp_path / "m.toml")]
    assert main(measured) == 0
    capsys.readouterr()


def test_a_convnext_is_trained_with_labels_and_without(
    tiles: Path, cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--encoder", "conv", "--cards", str(cards), *TINY_RUN]
    out = tmp_path / "profiles"
    assert main(["train", str(tiles), *chosen, "-o", str(out), "--teacher-epochs", "1", "--calm-epochs", "1"]) == 0
    # Of the narrowest stage's 32 hidden channels those that come in eights, at which the next stage's 48 do, too.
    assert sorted(n for n in load_file(out / "conv.safetensors") if n.endswith("weight") and n.startswith("heads")) == [
        "heads.16.weight",
        "heads.32.weight",
    ]
    said = (out / "conv.md").read_text()
    assert "A ConvNeXt V2 of 1/2 blocks, dims 8/12, hidden channels 32/48" in said
    assert "each of 2 widths is" in said
    assert "AdamW, batch 32" in said
    flown = ["--cards", str(tmp_path), "-o", str(tmp_path / "artifact")]
    assert main(["plan", "--encoder", "conv", "--device", "rpi5", *flown[:2], "-o", str(tmp_path / "plan.json")]) == 0
    assert main(["export", "--encoder", "conv", "-w", "0.5", "--tiles", str(tiles), *flown]) == 0

    assert main(["train", str(tiles), *chosen, "-o", str(tmp_path / "c"), "--objective", "contrastive"]) == 0
    record = json.loads((tmp_path / "c" / "conv-contrastive.json").read_text())
    assert (len(record["loss"]), record["recipe"]["optimizer"]) == (3, "adamw")
    encoder = str(tmp_path / "c" / "conv-contrastive.safetensors")
    assert main(["slim", "--encoder", encoder, "-w", "0.5", "-o", str(tmp_path / "half.safetensors")]) == 0
    capsys.readouterr()


def test_tiles_of_four_bands_in_no_folder_and_without_radiometry(
    cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = tmp_path / "flat"
    scenes.mkdir()
    random = np.random.default_rng(1)
    options = {"driver": "GTiff", "width": 16, "height": 16, "count": 4, "dtype": "uint16", "crs": "EPSG:32630"}
    for i in range(70):
        values = random.normal(1000, 300, (4, 16, 16)).clip(1, 4000).astype(np.uint16)
        with rasterio.open(scenes / f"{i}.tif", "w", transform=from_origin(160 * i, 0, 10, 10), **options) as file:
            file.write(values)
    (scenes / "torn.tif").write_bytes(b"II*\0")
    words = ["train", str(scenes), "--encoder", "bands4", "--cards", str(cards), "--objective", "contrastive"]
    assert main([*words, *TINY_RUN, "--regular", "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "uint16 values are normalised by the mean and deviation of these tiles" in said
    record = json.loads((tmp_path / "run" / "bands4-contrastive.json").read_text())
    assert record["tiles"]["train"] + record["tiles"]["validation"] < 70
    assert record["recipe"]["slimmable"] is False
    weights = load_file(tmp_path / "run" / "bands4-contrastive.safetensors")
    assert weights["encoder.patch_embed.proj.weight"].shape[1] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--objective", "jigsaw"], "--objective: found 'jigsaw', expected supervised, contrastive or mae"),
        (["--objective", "mae", "--teacher-epochs", "3"], "--teacher-epochs: found with --objective mae"),
        (["--scale", "0.1"], "--scale: found with --objective supervised"),
        (["--regular", "--random-widths", "3"], "--random-widths: found with --regular"),
        (["--objective", "mae", "--batch", "5000"], "--batch: found 5000, expected at most the"),
        (["--objective", "mae", "--encoder", "eurosat-rgb"], "found patches that overlap"),
        (["--objective", "mae", "--encoder", "conv"], "--objective mae: found a ConvNeXt V2, expected a vision trans"),
        (["--optimizer", "muon", "--encoder", "conv"], "--optimizer: found muon for 'conv', a ConvNeXt V2, expected"),
    ],
)
def test_what_makes_no_sense_is_said(
    tiles: Path, cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    chosen = [] if "--encoder" in words else ["--encoder", "plain"]
    assert main(["train", str(tiles), "--cards", str(cards), "-o", str(tmp_path), *chosen, *words]) in (1, 2)
    assert said in capsys.readouterr().err


def test_a_run_does_not_go_on_by_another_recipe(
    tiles: Path, cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(tiles, cards, "mae", tmp_path)
    assert main([*words, "--epochs", "1"]) == 0
    assert main([*words, "--epochs", "1", "--seed", "4"]) == 1
    assert "was begun with seed 0, found 4" in capsys.readouterr().err
