"""Results of benchmarks/families.py: every case is in the table, and in every format as near as the aim is."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from edgeslim.target import FORMATS
from tests.benchmark import BENCHMARKS, benchmark
from tests.ground.checkpoints.family_cases import CASES, NEAR

COMMITTED = BENCHMARKS / "results" / "families"
HALF_NEAR = 1e-2


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark(monkeypatch, "families", "onboard_process")


@pytest.fixture
def committed() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(COMMITTED.with_suffix(".json").read_text(encoding="utf-8"))
    return record


def test_the_committed_table_is_what_its_figures_say(families: ModuleType, committed: dict[str, Any]) -> None:
    assert families.page(committed) == COMMITTED.with_suffix(".md").read_text(encoding="utf-8")


def test_every_case_is_equal_in_every_format(committed: dict[str, Any]) -> None:
    assert [row["case"] for row in committed["rows"]] == [name.replace("_", " ") for name in CASES]
    for row in committed["rows"]:
        assert set(FORMATS) <= set(row["formats"])
        for name, shares in row["formats"].items():
            assert float(shares["fp32"]) <= NEAR, (row["case"], name)
            assert float(shares["fp16"]) <= HALF_NEAR, (row["case"], name)


def test_what_failed_is_said_in_its_cell(families: ModuleType, committed: dict[str, Any]) -> None:
    first, second = committed["rows"][:2]
    failed = first | {"formats": first["formats"] | {"tflite": {"fp32": "0.5: ValueError: no", "fp16": "0.5: none"}}}
    failed["own"] = "0.000001"
    text = families.page(committed | {"rows": [failed, second]})
    assert "| 0.5: ValueError: no |" in text
    assert f"| {second['formats']['tflite']['fp32']}, 1 failed |" in text
    assert f"| {first['parameters']}, counted 0.000001 |" in text
