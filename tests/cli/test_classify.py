from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeslim.cli import main
from tests.onboard.artifacts import make_artifact, make_scene, smooth


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_artifact(tmp_path / "artifact")
    make_scene(tmp_path / "scene.tif", smooth(40, 50))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one line on stderr with which the command line refuses."""
    before = sorted(p.name for p in Path.cwd().iterdir())
    assert main(["classify", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(p.name for p in Path.cwd().iterdir()) == before
    return captured.err


def test_table_and_paths_on_stdout(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "scene.tif", "-o", "out", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "Sea or lake" in captured.out
    assert "km²" in captured.out
    assert captured.out.splitlines()[-2:] == ["map        out/classes.tif", "quicklook  out/quicklook.png"]
    assert captured.err == ""
    assert (work / "out" / "quicklook.png").is_file()


def test_json_is_the_summary(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "scene.tif", "-o", "out", "--json", "--cells", "--stride", "8", "--batch", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((work / "out" / "summary.json").read_text(encoding="utf-8"))
    assert (printed["cells"], printed["stride_px"]) == (True, 8)


def test_without_crs_only_when_asked_and_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_scene(work / "plain.tif", smooth(20, 20), crs=None, transform=None)
    assert "--accept-gsd" in refused(capsys, 1, "plain.tif", "-o", "out")
    assert main(["classify", "plain.tif", "-o", "out", "--accept-gsd"]) == 0
    captured = capsys.readouterr()
    assert "warning: found no CRS" in captured.err
    assert "unknown" in captured.out


def test_wrong_scenes_are_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "text.tif").write_text("hello [bold]", encoding="utf-8")
    whole = (work / "scene.tif").read_bytes()
    (work / "cut.tif").write_bytes(whole[: len(whole) // 2])
    make_scene(work / "one.tif", smooth(20, 20)[:1], descriptions=())
    make_scene(work / "byte.tif", (smooth(20, 20) / 11).astype(np.uint8))
    assert "no such file" in refused(capsys, 1, "none.tif", "-o", "out")
    assert "not a GeoTIFF" in refused(capsys, 1, "text.tif", "-o", "out")
    assert "cut.tif" in refused(capsys, 1, "cut.tif", "-o", "out")
    assert "expected 3 bands" in refused(capsys, 1, "one.tif", "-o", "out")
    assert "--scale" in refused(capsys, 1, "byte.tif", "-o", "out")
    assert "local file" in refused(capsys, 1, "https://example.org/a.tif", "-o", "out")


def test_wrong_flags_are_usage_errors(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--stride" in refused(capsys, 2, "scene.tif", "-o", "out", "--stride", "0")
    assert "--stride" in refused(capsys, 2, "scene.tif", "-o", "out", "--stride", "9")
    assert "--bands" in refused(capsys, 2, "scene.tif", "-o", "out", "--bands", "1,2")
    assert "--scale" in refused(capsys, 2, "scene.tif", "-o", "out", "--scale", "-1")
    assert "--batch" in refused(capsys, 2, "scene.tif", "-o", "out", "--batch", "0")


def test_places_that_cannot_be_written(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "scene.tif", "-o", "out"]) == 0
    capsys.readouterr()
    before = (work / "out" / "classes.tif").read_bytes()
    assert "--overwrite" in refused(capsys, 1, "scene.tif", "-o", "out")
    assert (work / "out" / "classes.tif").read_bytes() == before
    assert "found a file" in refused(capsys, 1, "scene.tif", "-o", "scene.tif")
    assert main(["classify", "scene.tif", "-o", "out", "--overwrite", "--stride", "8"]) == 0


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_a_flipped_byte_in_the_artifact(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = work / "artifact" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert "damaged" in refused(capsys, 5, "scene.tif", "-o", "out")


def test_no_artifact(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "edgeslim export" in refused(capsys, 1, "scene.tif", "-o", "out", "--artifact", "nowhere")
