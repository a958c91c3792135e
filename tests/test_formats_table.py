"""Results of benchmarks/formats.py: a run of one encoder leaves the others as they were measured, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmark import BENCHMARKS, benchmark

COMMITTED = BENCHMARKS / "results" / "formats"


@pytest.fixture
def formats_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark(monkeypatch, "formats_table", "onboard_process")


@pytest.fixture
def committed() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(COMMITTED.with_suffix(".json").read_text(encoding="utf-8"))
    return record


def test_the_committed_table_is_what_its_figures_say(formats_table: ModuleType, committed: dict[str, Any]) -> None:
    assert formats_table.table(committed) == COMMITTED.with_suffix(".md").read_text(encoding="utf-8")


def test_a_run_of_one_encoder_keeps_the_rows_of_the_others(
    formats_table: ModuleType, committed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "formats"
    out.with_suffix(".json").write_text(json.dumps(committed))
    old = committed["cases"][-1]
    run = old["run"] | {"command": "python benchmarks/formats.py --subjects vit-s14", "date": "2031-01-02"}
    row = {"artifact": "torch", "ms_1": 9.5, "to_torch_1": 1.0, "of_peak_1": 0.5}
    new = old | {"run": run, "rows": [row], "refused": {}, "not_made": ["onnx-fp32"], "verdict": "proven on 7 tiles"}
    text = formats_table.write({"cases": [new], "timmx": None}, out)
    kept = json.loads(out.with_suffix(".json").read_text())
    assert kept["cases"] == [*committed["cases"][:-1], new]
    assert kept["timmx"] == committed["timmx"]
    runs = {json.dumps(part["run"]): None for part in (*kept["cases"], kept["timmx"])}
    number = list(runs).index(json.dumps(run)) + 1
    assert f"Run {number}: `python benchmarks/formats.py --subjects vit-s14`, 2031-01-02." in text
    assert f"proven on 7 tiles (run {number})" in text
    assert f"GFLOP a tile, {committed['cases'][0]['verdict']} (run 1)" in text
    assert text == out.with_suffix(".md").read_text()
    fresh = formats_table.write({"cases": [new], "timmx": None}, tmp_path / "fresh")
    assert "Run 1" not in fresh  # one run needs no number
    assert "Not made: onnx-fp32." in fresh


def test_what_was_refused_before_stays_refused_until_it_is_made(
    formats_table: ModuleType, committed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "formats"
    old = next(case for case in committed["cases"] if {"onnx-int8-static", "onnx-int8-dynamic"} <= {*case["refused"]})
    out.with_suffix(".json").write_text(json.dumps({"cases": [old], "timmx": None}))
    run = old["run"] | {"command": "python benchmarks/formats.py", "date": "2031-01-02"}
    new = old | {"run": run, "refused": {}, "not_made": ["onnx-fp32", "onnx-int8-static"]}
    for _ in range(2):
        text = formats_table.write({"cases": [new], "timmx": None}, out)
        (case,) = json.loads(out.with_suffix(".json").read_text())["cases"]
        assert case["not_made"] == ["onnx-fp32"]
        assert case["refused"] == {"onnx-int8-static": {"run": old["run"]} | old["refused"]["onnx-int8-static"]}
        assert "| onnx-int8-static (run 2) | 0 layers in fp32: batch 1: " in text
        assert "Run 1: `python benchmarks/formats.py`, 2031-01-02." in text


def test_a_refusal_joins_the_rows_that_were_timed(
    formats_table: ModuleType, committed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "formats"
    first, second = committed["cases"][:2]
    torch_and_fp32 = first["rows"][:2]
    case = first | {"rows": torch_and_fp32, "refused": {"onnx-fp16": {}}, "not_made": ["openvino-fp16", "tflite-fp16"]}
    out.with_suffix(".json").write_text(json.dumps({"cases": [case, second], "timmx": None}))
    note = {"tiles": 1000, "why": "stage 3, prove: onnx-fp16 against torch at batch 1: no", "trials": []}
    key = case["encoder"], case["width_multiplier"]
    found = {"onnx-fp16": note, "openvino-fp16": note, "onnx-fp32": note}
    formats_table.with_refusals({key: found}, out)
    # What was timed is not refused by a later run that did not time it.
    del found["onnx-fp32"]
    then = case | {"refused": found, "not_made": ["tflite-fp16"]}
    assert json.loads(out.with_suffix(".json").read_text())["cases"] == [then, second]
    assert "| onnx-fp16 | batch 1: no |  |" in out.with_suffix(".md").read_text()
    formats_table.with_refusals({key: {"onnx-fp16": note}}, tmp_path / "none")
    assert [path.stem for path in tmp_path.iterdir()] == ["formats", "formats"]


def test_refusals_are_one_line_each(formats_table: ModuleType, committed: dict[str, Any]) -> None:
    said = "batch 1: 11 of the 20 least sure tiles have another class (…)"
    why = f"stage 3, prove: onnx-int8-static against torch at {said}"
    case = committed["cases"][0] | {
        "refused": {
            "onnx-int8-static": {"tiles": 1000, "why": "…", "trials": [[0, why], [1, "…"], [2, "on hostile tiles"]]},
            "onnx-fp16": {"tiles": 1000, "why": f"{why}; do not fly this artifact", "trials": []},
        }
    }
    lines = formats_table.table({"cases": [case], "timmx": None}).splitlines()
    assert f"| onnx-int8-static | 0 layers in fp32: {said} | 2 layers in fp32: on hostile tiles |" in lines
    assert f"| onnx-fp16 | {why.removeprefix('stage 3, prove: ')} |  |" in lines


@pytest.mark.parametrize(
    "line", ["<class 'AssertionError'>: Input height\n (224)", "error: <class 'a.B'>: Input  height (224)"]
)
def test_what_a_tool_says_is_told_in_words(formats_table: ModuleType, line: str) -> None:
    assert formats_table.said_plainly(line) == "Input height (224)"
