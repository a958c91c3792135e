"""The two figures of a runtime, found again in calls that were computed from them."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.measurement import Measurement
from edgeslim.onboard.calibrating.fit import fit
from edgeslim.profile import take_profile

EMBEDDED = take_profile("eurosat-rgb")
RELATIVE = {"gemm": 1.0, "attention": 0.66, "conv": 0.9}
PEAK, FIXED_MS = 100.0, 0.1


def calls(efficiency: float, overhead_us: float, noise: float = 0.0) -> list[tuple[object, int, Measurement]]:
    """Three widths in two ways, as the model says; every other one is slower by `noise`, a share."""
    found = []
    for number, (width, (batch, workers)) in enumerate(product((1.0, 0.5, 0.25), ((1, 1), (4, 2)))):
        arch = EMBEDDED.architecture.at(width)
        ops = cost.ops(arch, 10, batch)
        work = sum(op.flop / (PEAK * 1e9 / workers * efficiency * RELATIVE[op.op_class]) for op in ops)
        seconds = (FIXED_MS / 1e3 + len(ops) * overhead_us / 1e6 + work) * (1 + noise * (number % 2))
        ms = seconds / batch * 1e3
        row = Measurement("eurosat-rgb", width, 1, "r", "fp32", "m", batch, workers, ms, ms, "a test")
        found.append((arch, 10, row))
    return found


@given(st.floats(0.02, 3.0), st.floats(0.0, 100.0))
def test_what_made_the_calls_is_found_again(efficiency: float, overhead_us: float) -> None:
    found = fit(calls(efficiency, overhead_us), PEAK, RELATIVE, FIXED_MS)  # type: ignore[arg-type]
    assert found.efficiency == pytest.approx(efficiency, rel=1e-3)
    assert found.op_overhead_us == pytest.approx(overhead_us, rel=1e-3, abs=0.05)
    assert found.worst == pytest.approx(1, abs=1e-3)


@given(st.floats(0.02, 3.0), st.floats(0.0, 100.0), st.floats(-0.3, 0.3))
def test_nothing_is_negative_and_the_worst_is_told(efficiency: float, overhead_us: float, noise: float) -> None:
    found = fit(calls(efficiency, overhead_us, noise), PEAK, RELATIVE, FIXED_MS)  # type: ignore[arg-type]
    assert found.efficiency > 0
    assert found.op_overhead_us >= 0
    assert 1 <= found.worst < 2


def test_one_row_gives_the_share_alone() -> None:
    found = fit(calls(0.5, 0.0)[:1], PEAK, RELATIVE, FIXED_MS)  # type: ignore[arg-type]
    assert (found.efficiency, found.op_overhead_us) == (pytest.approx(0.5), 0.0)
