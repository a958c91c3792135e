"""What may be asked of a plan, and what is refused in one line."""

import pytest

from edgeslim.errors import UsageError
from edgeslim.planning.budget import KINDS, Ask, Budget, Limit
from edgeslim.planning.durations import Scene

NUMBERS = {**{kind.flag: name for name, kind in KINDS.items()}, "--uplink-kb-day": "uplink_kb_day"}
BESIDE: dict[str, dict[str, object]] = {
    "uplink_days": {"uplink_kb_day": 100.0},
    "deadline_s": {"scene": Scene(100, 100)},
    "energy_j": {"scene": Scene(100, 100)},
}


def refused(**asked: object) -> str:
    with pytest.raises(UsageError) as error:
        Ask(**asked)  # type: ignore[arg-type]
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert "found" in str(error.value)
    assert "expected" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("flag", NUMBERS)
def test_a_number_that_is_no_budget(flag: str, value: float) -> None:
    name = NUMBERS[flag]
    message = refused(**{name: value, **BESIDE.get(name, {})})
    assert message == f"{flag}: found {value:g}, expected a number of more than 0"


@pytest.mark.parametrize("flag", NUMBERS)
def test_a_budget_that_nothing_is_a_finite_multiple_of(flag: str) -> None:
    name = NUMBERS[flag]
    message = refused(**{name: 5e-324, **BESIDE.get(name, {})})
    assert message == f"{flag}: found 4.94066e-324, expected a number of at least 1e-99"
    Ask(**{name: 1e-99, **BESIDE.get(name, {})})  # type: ignore[arg-type]


def test_days_without_a_rate() -> None:
    assert "--uplink-days: found 3 without --uplink-kb-day, expected both" in refused(uplink_days=3.0)


def test_a_deadline_without_a_scene() -> None:
    assert "--deadline-s: found 60 without --scene, expected both" in refused(deadline_s=60.0)


def test_an_energy_without_a_scene() -> None:
    assert "--energy-j: found 60 without --scene, expected both" in refused(energy_j=60.0)


@pytest.mark.parametrize("sides", [(0, 5), (5, 0), (-1, 5), (1 << 31, 5)])
def test_a_scene_that_is_none(sides: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"--scene: found a side of .* px, expected 1 to 2147483647"):
        Scene(*sides)


def test_a_score_is_a_share() -> None:
    assert refused(min_score=1.01) == "--min-score: found 1.01, expected a share of at most 1"


def test_an_unknown_objective() -> None:
    assert refused(objective="best") == "--objective: found 'best', expected one of widest, score"


@pytest.mark.parametrize("batch", [0, -1, 1025])
def test_a_batch_that_no_runtime_takes(batch: int) -> None:
    assert refused(batch=batch) == f"--batch: found {batch}, expected a whole number from 1 to 1024"


def test_every_kind_is_a_field_of_a_budget() -> None:
    limit = Limit(1.0, "asked")
    every = Budget(**dict.fromkeys(KINDS, limit))
    assert [name for name, _ in every.limits()] == list(KINDS)
