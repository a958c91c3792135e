from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.onboard import engine as engines
from tests.onboard.artifacts import make_artifact
from tests.onboard.lying_onnxruntime import Behaviour, module
from tests.onboard.test_engine import ORIN, artifact_for
from tests.report.test_schema import hold


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    does = Behaviour()
    monkeypatch.setitem(sys.modules, "onnxruntime", module(does))
    monkeypatch.setattr(engines, "this_machine", lambda: ORIN)
    return does


def test_on_a_board(board: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = artifact_for(tmp_path / "artifact", plan={"batch": 6})
    assert main(["build", str(folder), "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "machine       TensorRT 10.3.0, onnxruntime 1.20.0, Orin (sm_87)" in captured.out
    assert "1 to 6, fp32, built in" in captured.out
    assert "ran on        TensorrtExecutionProvider: 1 nodes" in captured.out
    assert "agree with torch within 0.0001" in captured.out
    assert captured.err.startswith("building for TensorRT 10.3.0")
    assert "SYNTHETIC" in captured.err
    assert main(["check", str(folder), "--threads", "1"]) == 0


def test_json_is_the_record(board: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = artifact_for(tmp_path / "artifact")
    assert main(["build", str(folder), "--threads", "1", "--batch", "2", "--batch", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    hold("build", printed)
    place = Path(printed.pop("folder"))
    assert printed == json.loads((place / "engine.json").read_text(encoding="utf-8"))
    assert printed["largest_batch"] == 3


def test_logits_that_disagree_on_the_board(
    board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.onboard.lying_onnxruntime.reference_logits", lambda tiles: 0 * tiles[:, :, 0, 0])
    assert main(["build", str(artifact_for(tmp_path / "artifact")), "--threads", "1"]) == 4
    assert "do not fly" in capsys.readouterr().err


def test_here_it_ends_with_one_clear_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built for a GPU")
    assert main(["build", str(artifact_for(tmp_path / "artifact"))]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "expected TensorrtExecutionProvider, CUDAExecutionProvider; install a build for this GPU" in captured.err


def test_what_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(tmp_path)]) == 1
    assert "edgeslim export" in capsys.readouterr().err
    plain = str(make_artifact(tmp_path / "artifact"))
    assert main(["build", plain]) == 1
    assert "found an artifact for the CPU, which needs no engine" in capsys.readouterr().err
    assert main(["build", plain, "--batch", "0"]) == 2
    assert main(["build", plain, "--batch", "2000"]) == 2
    assert main(["build", plain, "--threads", "0"]) == 2
