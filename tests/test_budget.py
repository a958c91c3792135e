"""What may be asked of a plan, and what is refused in one line."""

import pytest

from edgeslim.budget import KINDS, Ask, Budget, Limit
from edgeslim.errors import UsageError

NUMBERS = {**{kind.flag: name for name, kind in KINDS.items()}, "--uplink-kb-day": "uplink_kb_day"}
BESIDE = {"uplink_days": {"uplink_kb_day": 100.0}}


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


def test_days_without_a_rate() -> None:
    assert "--uplink-days: found 3 without --uplink-kb-day, expected both" in refused(uplink_days=3.0)


def test_every_kind_is_a_field_of_a_budget() -> None:
    limit = Limit(1.0, "asked")
    every = Budget(**dict.fromkeys(KINDS, limit))
    assert [name for name, _ in every.limits()] == list(KINDS)
