"""`edgeslim evaluate`: what it prints is what plain numpy counts, and one line for each thing that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeslim.cli import main
from edgeslim.onboard.scores import calibration_error
from edgeslim.profile import ClassLabel
from tests.onboard.artifacts import LABELS, TILE_PX, make_artifact, reference_logits
from tests.tiles import write

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = [label.name for label in LABELS]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    make_artifact(tmp_path / "artifact", synthetic=False)
    return tmp_path


def tile(random: np.random.Generator) -> np.ndarray:
    return (random.integers(100, 2500, (3, 1, 1)) + random.integers(0, 50, (3, TILE_PX, TILE_PX))).astype(np.uint16)


@pytest.fixture
def tiles(here: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder of GeoTIFFs, their labels (three of four are the network's own answer), and its logits."""
    random = np.random.default_rng(4)
    values = np.stack([tile(random) for _ in range(60)])
    logits = reference_logits(values)
    labels = np.where(np.arange(60) % 4, logits.argmax(1), (logits.argmax(1) + 1) % 3)
    for number, (one, label) in enumerate(zip(values, labels, strict=True)):
        write(here / "tiles" / NAMES[label] / f"{number:02}.tif", one, "GTiff", photometric="RGB")
    return here / "tiles", labels, logits


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 1) -> str:
    assert main(["evaluate", *arguments]) == code
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert captured.out == ""
    return line


def test_the_record_is_what_numpy_counts(
    tiles: tuple[Path, np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels, logits = tiles
    assert main(["evaluate", "--tiles", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    answers = logits.argmax(1)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["accuracy"] == (labels == answers).mean() == 0.75
    assert found["right"] == 45
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, answers), 1)
    assert found["confusion"] == expected.tolist()
    assert found["calibration_error"] == pytest.approx(calibration_error(chances.max(1), labels == answers), abs=1e-4)
    assert found["mean_confidence"] == pytest.approx(chances.max(1).mean(), abs=1e-5)
    for number, row in enumerate(found["classes"]):
        assert row["recall"] == pytest.approx(expected[number, number] / expected[number].sum())
        assert row["precision"] == pytest.approx(expected[number, number] / expected[:, number].sum())
    low, high = found["accuracy_interval"]
    assert low < 0.75 < high
    assert found["prior"] == "training set"


def test_the_table_is_the_golden_one(
    tiles: tuple[Path, np.ndarray, np.ndarray], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiles[0] / "SeaLake" / "torn.tif").write_bytes(b"II*\0torn")
    assert main(["evaluate", "artifact", "--tiles", str(tiles[0]), "--picture", "confusion.svg"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: left out 1 tile: cannot be read (SeaLake/torn.tif)\n"
    version = captured.out.split("onnxruntime ")[1].split()[0]
    assert captured.out.replace(version, "VERSION") == (GOLDEN / "evaluate.txt").read_text(encoding="utf-8")
    assert (here / "confusion.svg").read_text(encoding="utf-8").count('class="count') == 9


def test_the_land_prior_flies_unless_it_is_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = ((0.9, 0.05), (0.05, 0.05), (0.05, 0.9))
    labels = tuple(
        ClassLabel(one.name, one.title, one.color, *share) for one, share in zip(LABELS, shares, strict=True)
    )
    make_artifact(here / "prior", labels=labels)
    value = np.full((3, TILE_PX, TILE_PX), 600, np.uint16)
    logits = reference_logits(value[None].astype(np.float64))[0]
    weighed = logits + np.log([share[1] / share[0] for share in shares])
    assert logits.argmax() != weighed.argmax()
    for number in range(2):
        write(here / "tiles" / NAMES[weighed.argmax()] / f"{number}.tif", value, "GTiff", photometric="RGB")
    for flag, right in (([], 2), (["--training-prior"], 0)):
        assert main(["evaluate", "prior", "--tiles", "tiles", "--json", *flag]) == 0
        assert json.loads(capsys.readouterr().out)["right"] == right


def test_one_of_several_classes_is_enough(
    tiles: tuple[Path, np.ndarray, np.ndarray], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, labels, logits = tiles
    rows = [f"{NAMES[label]}/{number:02}.tif,{NAMES[label]}" for number, label in enumerate(labels)]
    rows += [f"{NAMES[labels[n]]}/{n:02}.tif,{NAMES[logits[n].argmax()]}" for n in range(60) if n % 8 == 0]
    (here / "labels.csv").write_text("file,class\n" + "\n".join(rows) + "\n")
    assert main(["evaluate", "--tiles", str(folder), "--labels", "labels.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["right"] == 45 + 8


def test_wrong_things_are_told_in_one_line(
    tiles: tuple[Path, np.ndarray, np.ndarray], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tiles[0])
    assert "--tiles: found none" in fails(capsys, [], 2)
    assert "found no manifest.json" in fails(capsys, ["gone", "--tiles", folder])
    assert "found neither a folder nor a zip" in fails(capsys, ["--tiles", "gone"])
    assert "--threads: found 0" in fails(capsys, ["--tiles", folder, "--threads", "0"], 2)
    (here / "mine.svg").write_text("mine")
    assert "found a file that is no confusion matrix" in fails(capsys, ["--tiles", folder, "--picture", "mine.svg"])
    assert (here / "mine.svg").read_text() == "mine"
    make_artifact(here / "bad", wrong_logit=0.1)
    assert "do not fly this artifact" in fails(capsys, ["bad", "--tiles", folder], 4)
    (tiles[0] / "SeaLake").rename(tiles[0] / "Sea")
    line = fails(capsys, ["--tiles", folder])
    assert "found class 'Sea', which tiny w1.0 does not know; expected one of SeaLake" in line
