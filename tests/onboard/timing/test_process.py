"""A case in a process of its own: what it says, how it fails, and that its memory is its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeslim.errors import InputError, ParityError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, sha256_of
from edgeslim.onboard.timing.case import Case
from edgeslim.onboard.timing.measuring import Order
from edgeslim.onboard.timing.process import measure_apart
from tests.onboard.artifacts import make_artifact

SHORT = Case(batch=2, workers=2, threads=1, seconds=0.01, least_calls=40)


def order(folder: Path, case: Case = SHORT) -> Order:
    return Order(str(folder), sha256_of(folder / MANIFEST_NAME), case, os.getpid())


def heard(asked: Order, stop: bool = False) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {}
    measure_apart(asked, lambda kind, data: said.update({kind: data}), lambda: stop)
    return said


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a module in onnxruntime's place, in processes that are started from now on."""
    folder = tmp_path / "instead"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))


def test_a_case_is_measured(artifact: Path) -> None:
    said = heard(order(artifact))
    timing = said["timing"]
    assert (timing["batch"], timing["workers"], timing["threads"]) == (2, 2, 1)
    assert timing["calls"] >= 40
    assert 0 < timing["p50_ms"] <= timing["p95_ms"]
    assert min(timing["tiles_per_s"], timing["open_ms"], timing["first_ms"], timing["peak_mib"]) > 0
    assert said["opened"]["runtime"].startswith("onnxruntime ")
    assert "SYNTHETIC" in said["opened"]["warnings"][0]


def test_the_peak_is_the_cases_own(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", tile_px=64)
    peaks = [
        heard(order(folder, Case(batch, 1, 1, 0.01)))["timing"]["peak_mib"] for batch in (1024, 1)
    ]  # 48 MiB of tiles; what came first must not be in what comes next
    assert peaks[0] - peaks[1] > 40


def test_golden_tiles_are_proven_before_anything_is_timed(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", wrong_logit=0.5)
    with pytest.raises(ParityError, match="do not fly this artifact"):
        heard(order(folder))


def test_damage_is_no_time(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UntrustedResult, match=r"model\.onnx: damaged"):
        heard(order(folder))


def test_another_artifact_meanwhile_is_no_time(artifact: Path) -> None:
    with pytest.raises(UntrustedResult, match="became another artifact"):
        heard(Order(str(artifact), "0" * 64, SHORT, os.getpid()))


def test_a_missing_runtime_names_the_pip_line(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "raise ImportError")
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install 'edgeslim\[onnx\]'"):
        heard(order(artifact))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "most likely for want of memory"),
        ("import os; os.abort()", "signal 6 at batch 2"),
        ("import os; os.write(2, b'no such instruction\\n'); os._exit(3)", r"exit code 3 .*\(no such instruction\)"),
    ],
)
def test_a_crash_is_one_line(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    stand_in(tmp_path, monkeypatch, code)
    with pytest.raises(InputError, match=said) as caught:
        heard(order(artifact))
    assert "\n" not in str(caught.value)


def test_what_a_library_writes_is_not_taken_for_news(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "print('[1]'); print('{}'); print('{\"a\": 1}'); print('\\xff'); raise ImportError")
    with pytest.raises(InputError, match="not installed"):
        heard(order(artifact))


def test_a_stop_before_there_is_anything_says_nothing(artifact: Path) -> None:
    assert set(heard(order(artifact, Case(1, 1, 1, 1e6, window_s=10.0)), stop=True)) <= {"opened"}


def test_no_process_can_be_started(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(InputError, match="no process can be started"):
        heard(order(artifact))
