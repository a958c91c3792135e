"""`edgeslim diagnose`: its features are the slimmed encoders' own, and its files say what was found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.ground.flight import FlightModel, profile_checkpoint
from edgeslim.ground.heads.head import Asked
from edgeslim.ground.measuring.diagnose import diagnose
from edgeslim.ground.measuring.features import spread_over, usual_widths
from edgeslim.ground.measuring.redundancy import effective_dimension, spectrum
from edgeslim.ground.slimming.slim import slim
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.profile import Profile
from tests.tiles import image_folder, pixels


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), count=20)


def test_rows_are_those_of_the_slimmed_encoders(tiny: Profile, images: Path) -> None:
    checkpoint, _ = profile_checkpoint(tiny)
    found = labelled_tiles(images)
    record = diagnose(tiny, checkpoint, found, (0.25,), Asked(), lambda _: None)
    assert tiny.radiometry is not None
    raw = np.stack([pixels(f.classes[0], int(f.name.split("_")[1].split(".")[0])) for f in found.files])
    values = torch.from_numpy(np.round(raw.astype(np.float64) * tiny.radiometry.image_scale).astype(np.float32))
    none = torch.zeros(1, 24), torch.zeros(1)

    def dimension(width: float, depth: int) -> float:
        model = FlightModel(slim(checkpoint.build(), width, depth), none, tiny.radiometry).eval()
        with torch.inference_mode():
            return effective_dimension(spectrum(model(values)[1].numpy()))

    assert [(cut.width_multiplier, cut.blocks) for cut in record.widths] == [(0.25, 2), (1.0, 2)]
    assert [(cut.width_multiplier, cut.blocks) for cut in record.depths] == [(1.0, 1), (1.0, 2)]
    for cut in (*record.widths, *record.depths):
        expected = dimension(cut.width_multiplier, cut.blocks)
        assert cut.effective_dimension == pytest.approx(expected, rel=1e-3)
        assert cut.gflop == cost.flop(tiny.architecture.at(cut.width_multiplier, cut.blocks)) / 1e9
        assert cut.linear is not None
        assert cut.linear > 0.8  # three plainly different colours
    assert record.cka_widths[1][1] == record.cka_depths[1][1] == 1
    assert record.tiles == 60
    assert record.pixels is not None
    assert record.pixels.linear is not None
    assert record.pixels.linear > 0.8


def test_the_verb_writes_a_page_and_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["diagnose", "tiny", "--tiles", str(images), "--cards", str(tiny_cards), "--json", "--tiles-max", "45"]
    assert main(words) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert json.loads((tmp_path / "diagnosis.json").read_text()) == record
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[3] / "schemas" / "diagnose.schema.json").read_text())
    jsonschema.validate(record, schema)
    assert (record["tiles"], record["features"], record["method"]) == (45, 24, "first")
    page = (tmp_path / "diagnosis.html").read_text()
    assert page.count("<svg") == 6
    assert str(tmp_path) not in page
    assert str(images.parent) not in page
    for cut in (*record["widths"], *record["depths"][:-1]):
        assert f'<td class="n">{cut["effective_dimension"]:.1f}</td>' in page
    # The same again replaces its own files, and nobody else's.
    assert main(words) == 0
    capsys.readouterr()
    (tmp_path / "diagnosis.json").write_text("{}")
    assert main(words) == 1
    assert "no record of a diagnosis, kept it" in capsys.readouterr().err
    assert (tmp_path / "diagnosis.json").read_text() == "{}"


def test_tiles_without_classes_are_looked_at_but_not_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiles = image_folder(tmp_path / "tiles", count=24, classes=("Forest",))
    assert main(["diagnose", "tiny", "--tiles", str(tiles), "--cards", str(tiny_cards), "-w", "0.5"]) == 0
    said = capsys.readouterr()
    assert "warning: nothing is scored: found one class (Forest)" in said.err
    assert "24 tiles are no more than the 24 features" in said.err
    assert "k-NN" not in said.out
    record = json.loads((tmp_path / "diagnosis.json").read_text())
    assert record["pixels"] is None
    assert [cut["linear"] for cut in record["widths"]] == [None, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tiles", "few"], "found 6 that can be used, expected at least 20"),
        (["--tiles", "none"], "found neither a folder nor a zip"),
        (["--tiles", "few", "-w", "1.5"], "width multiplier: found 1.5"),
        (["--tiles", "few", "-o", "page.pdf"], "found suffix '.pdf', expected .html"),
        (["--tiles", "large"], "is 20x20 px, expected 16x16 px"),
    ],
)
def test_what_cannot_be_diagnosed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_cards: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "few", count=2)
    image_folder(tmp_path / "large", count=2, tile_px=20)
    assert main(["diagnose", "tiny", "--cards", str(tiny_cards), *words]) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert {path.name for path in tmp_path.iterdir()} == {"few", "large"}


def test_usual_widths_and_tiles_spread(tiny: Profile, images: Path) -> None:
    widths = usual_widths(tiny.architecture)
    assert widths[0] == 1 / 8
    assert widths[-1] == 1.0
    assert list(widths) == sorted(set(widths))
    files = labelled_tiles(images).files
    assert spread_over(files, 1000) == files
    assert len(set(spread_over(files, 7))) == 7
    assert {file.classes for file in spread_over(files, 6)} == {file.classes for file in files}
