"""`edgeslim classify FOLDER -o OUT`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgeslim.cli import main
from edgeslim.cli.folder import result_folders, scenes_in
from edgeslim.errors import InputError
from tests.cli.runs import call, events, finish, start, until
from tests.onboard.artifacts import make_artifact, make_scene, smooth


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_artifact(tmp_path / "artifact")
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.tif", "b.TIF")):
        make_scene(tmp_path / "in" / name, smooth(20, 30, seed=number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(out: str) -> list[str]:
    return [row["state"] for row in json.loads(out)["scenes"]]


def test_every_scene_into_its_folder_and_bad_ones_in_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "in" / "bad.tif").write_text("hello", encoding="utf-8")
    make_scene(work / "in" / "one.tif", smooth(20, 20)[:1], descriptions=())
    assert main(["classify", "in", "-o", "out"]) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"(error: [^\n]*bad\.tif[^\n]*\n)(error: [^\n]*one\.tif[^\n]*expected 3 bands[^\n]*\n)", captured.err
    )
    lines = captured.out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["a.tif", "done"],
        ["b.TIF", "done"],
        ["bad.tif", "failed"],
        ["one.tif", "failed"],
    ]
    assert lines[-1] == "4 scenes: 2 done, 2 failed"
    assert sorted(p.name for p in (work / "out").iterdir()) == ["a", "b"]
    assert main(["classify", "in/a.tif", "-o", "alone"]) == 0
    for name in ("classes.tif", "summary.json"):
        assert (work / "out/a" / name).read_bytes() == (work / "alone" / name).read_bytes()


def test_run_again_it_does_what_is_left(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "in", "-o", "out", "--json"]) == 0
    assert states(capsys.readouterr().out) == ["done", "done"]
    before = (work / "out/a/run.json").read_bytes()
    make_scene(work / "in/c.tif", smooth(20, 20))
    assert main(["classify", "in", "-o", "out", "--json"]) == 0
    assert states(capsys.readouterr().out) == ["kept", "kept", "done"]
    assert (work / "out/a/run.json").read_bytes() == before
    make_scene(work / "in/a.tif", smooth(20, 30, seed=9))
    assert main(["classify", "in", "-o", "out", "--json"]) == 1
    captured = capsys.readouterr()
    assert states(captured.out) == ["failed", "kept", "kept"]
    assert "--overwrite" in captured.err
    assert main(["classify", "in", "-o", "out", "--json", "--overwrite"]) == 0
    assert states(capsys.readouterr().out) == ["done"] * 3
    assert (work / "out/a/run.json").read_bytes() != before


def test_stopped_and_gone_on_with(work: Path) -> None:
    """SIGTERM in the first of two scenes; the same command finishes both to the same bytes."""
    for name, height in (("a.tif", 1600), ("b.TIF", 100)):  # long: the signal must come before its end
        make_scene(work / "in" / name, smooth(height, 200), tiled=True, blockxsize=64, blockysize=64)
    command = ["classify", "in", "--stride", "1", "--threads", "1", "--vector", "none", "--json", "-o"]
    assert call([*command, "whole"], work)[0] == 0
    process = start([*command, "out"], work)
    journal = work / "out/a/unfinished/journal"
    until(lambda: journal.is_file() and journal.stat().st_size > 10_000, process)
    process.terminate()
    code, out, err = finish(process)
    assert (code, states(out)) == (0, ["stopped", "stopped"])
    assert err == "stopped (SIGTERM) with 2 of 2 scenes left; the same command goes on\n"
    code, out, err = call([*command, "out", "--progress", "json"], work)
    assert (code, states(out)) == (0, ["done", "done"])
    assert [e["resumed_bands"] > 0 for e in events(err) if e["event"] == "start"] == [True, False]
    for name in ("a/classes.tif", "a/summary.json", "b/classes.tif"):
        assert (work / "out" / name).read_bytes() == (work / "whole" / name).read_bytes()


def test_a_damaged_artifact_is_said_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = work / "artifact/model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    assert main(["classify", "in", "-o", "out"]) == 5
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "damaged" in captured.err
    assert not (work / "out").exists()


def test_flags_go_on_to_every_scene(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.tif", "b.TIF"):
        make_scene(work / "in" / name, (smooth(20, 30) / 11).astype(np.uint8), crs=None, transform=None)
    flags = ["--accept-gsd", "--scale", "0.0011", "--offset", "-0.01", "--bands", "1,2,3", "--stride", "8", "--cells"]
    assert main(["classify", "in", "-o", "out", *flags]) == 0
    capsys.readouterr()
    summary = json.loads((work / "out/b/summary.json").read_text(encoding="utf-8"))
    assert (summary["stride_px"], summary["cells"]) == (8, True)
    assert (summary["radiometry"]["scale"][0], summary["radiometry"]["offset"][0]) == (0.0011, -0.01)


def test_which_files_and_which_folders(tmp_path: Path) -> None:
    for name in ("b.tif", "a.vrt", "a.tiff", ".c.tif", "d.tif.part", "e.tif.aux.xml", "B.TIF"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "f.tif").mkdir()
    found = scenes_in(tmp_path)
    assert [p.name for p in found] == ["B.TIF", "a.tiff", "a.vrt", "b.tif"]
    assert [p.name for p in result_folders(found, Path("o"))] == ["B.TIF", "a.tiff", "a.vrt", "b.tif"]
    assert [p.name for p in result_folders(found[:1], Path("o"))] == ["B"]


def test_a_folder_without_scenes_or_with_a_stack(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "empty").mkdir()
    with pytest.raises(InputError, match="found no raster"):
        scenes_in(work / "empty")
    assert main(["classify", "in", "-o", "out", "--stack", "x.tif"]) == 2
    assert "--stack" in capsys.readouterr().err
