"""The rule that turns published latencies into figures: it finds what is there, and does not see what it must not."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from edgeslim import cost
from edgeslim.profile import take_profile
from tests.benchmark import benchmark

OPS = tuple((op, 1) for op in cost.ops(take_profile("vit-s-16").architecture))


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark(monkeypatch, "latency_fit", "latency_rows")


def a_row(rule: ModuleType, chip: str, efficiency: float, **kwargs: Any) -> Any:
    """A latency that was published of a board that reaches `efficiency` of its peak."""
    facts: dict[str, Any] = {
        "kind": "ViT",
        "runtime": "a runtime",
        "precision": "fp32",
        "core": "a core",
        "unit": "cpu",
        "silicon": chip,
        "device": chip,
        "model": "a network",
        "measured_ms": 1.0,
        "ops": OPS,
        "peak_flop_s": 1e11,
        "bytes_s": 1e10,
        "op_overhead_s": 1e-5,
        "fixed_s": 1e-3,
        "source": "a test",
    }
    row = rule.Row(chip=chip, **(facts | kwargs))
    return replace(row, measured_ms=sum(row.seconds(efficiency).values()) * 1e3)


def test_it_finds_the_efficiency_that_boards_reach(rule: ModuleType) -> None:
    rows = [a_row(rule, f"chip {i}", 0.3, peak_flop_s=1e10 * (i + 1)) for i in range(6)]
    for row in rows:
        held = rule.hold(row, rows)
        assert held.fit.level == "class"
        assert held.fit.efficiency == pytest.approx(0.3, rel=0.01)
        assert abs(held.error) < 0.01


def test_each_chip_weighs_the_same(rule: ModuleType) -> None:
    lopsided = [a_row(rule, "often published", 0.2, op_overhead_s=0, fixed_s=0, bytes_s=math.inf) for _ in range(9)]
    lopsided.append(a_row(rule, "once", 0.8, op_overhead_s=0, fixed_s=0, bytes_s=math.inf))
    assert rule.efficiency_of(tuple(lopsided)) == pytest.approx(0.4, rel=0.01)


def test_what_its_own_device_published_is_not_seen(rule: ModuleType) -> None:
    shares = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
    rows = [a_row(rule, f"chip {i}", share) for i, share in enumerate(shares)]
    rows += [a_row(rule, f"chip {i}", share, kind="CNN") for i, share in enumerate(shares)]
    # Of its device everything else is wrong by ten times, too.
    wrong = [replace(row, measured_ms=row.measured_ms * 10) if row.chip == "chip 0" else row for row in rows]
    for gap in (False, True):
        elsewhere = [a_row(rule, "another's", 0.1, runtime="another")] if gap else []
        honest, fooled = (rule.hold(own[0], [*own, *elsewhere], gap=gap) for own in (rows, wrong))
        assert (honest.estimate_ms, honest.band) == (fooled.estimate_ms, fooled.band)


def test_across_a_gap_the_band_reaches_both_ends(rule: ModuleType) -> None:
    known = [a_row(rule, f"cnn {i}", 0.4, kind="CNN") for i in range(5)]
    known += [a_row(rule, f"vit {i}", 0.1, runtime="another") for i in range(5)]
    row = a_row(rule, "new", 0.1)
    held = rule.hold(row, [*known, row])
    assert held.fit.level == rule.GAP
    assert held.fit.efficiency == pytest.approx(0.2, rel=0.02)
    assert held.fit.efficiency / (1 + held.band) <= 0.1 * 1.01
    assert held.fit.efficiency * (1 + held.band) >= 0.4 / 1.01


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (5, 5), (9, 9), (10, 10), (19, 18), (99, 90)])
def test_nine_in_ten_of_the_next_are_covered(rule: ModuleType, count: int, expected: int) -> None:
    assert rule.conformal(range(count, 0, -1)) == expected
