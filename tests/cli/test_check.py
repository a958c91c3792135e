from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.manifest import read_manifest
from tests.onboard.artifacts import make_artifact
from tests.onboard.uplink.updates import seal


def test_table_and_loud_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(make_artifact(tmp_path / "artifact")), "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "SYNTHETIC" in captured.out
    assert "SYNTHETIC" in captured.err
    assert "100.0%" in captured.out


def test_real_tiles_give_no_warning_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(make_artifact(tmp_path / "artifact", synthetic=False)), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert (report["synthetic"], sorted(report["batches"])) == (False, ["1", "5"])


def test_what_an_artifact_says_of_itself_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_artifact(tmp_path / "artifact", synthetic=False)
    golden = replace(read_manifest(folder).golden, source="5 tiles of \udce4\n")
    seal(folder, golden=golden, name="tiny\udce4\n")
    assert main(["check", str(folder)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert r"tiny\udce4\n agrees with torch" in last
    assert r"(5 tiles of \udce4\n)" in last


def test_disagreement_exits_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(make_artifact(tmp_path / "artifact", wrong_logit=0.5))]) == 4
    assert "do not fly" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_damage_exits_five(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = make_artifact(tmp_path / "artifact") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert main(["check", str(path.parent)]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["check {}", "build {}", "evaluate {} --tiles t", "apply {}"])
@pytest.mark.parametrize("threads", ["0", "1025"])
def test_no_runtime_is_asked_for_threads_by_the_thousand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, threads: str
) -> None:
    assert main([*(word.format(tmp_path) for word in verb.split()), "--threads", threads]) == 2
    assert capsys.readouterr().err == f"error: --threads: found {threads}, expected a whole number from 1 to 1024\n"


@pytest.mark.parametrize("verb", ["check {}", "bench {}", "diff {} b", "diff a b -o {}"])
def test_a_path_that_nothing_can_be_asked_of_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format("x" * 256) for word in verb.split()]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "File name too long" in said


def test_nothing_there_and_wrong_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 1
    assert "edgeslim export" in capsys.readouterr().err
    assert main(["check", str(make_artifact(tmp_path / "artifact")), "--threads", "0"]) == 2
