"""Fit: what share of the peak a runtime reaches, and what a product costs beside it, from what was timed.

A call is modelled as edgeslim/planning/durations.py does, where nothing waits for memory:

    t = fixed + n · overhead + Σ FLOP / (peak · relative efficiency) · 1 / e

with n matrix products and efficiencies of the op classes in a given proportion. `overhead` and 1 / e are the two that
make the sum of squared relative errors least, neither of them negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeslim import cost
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.measurement import Measurement
from edgeslim.units import GIGA


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was found."""

    efficiency: float
    """Share of the peak that products of relative efficiency 1 reach; more than 1 where the peak was put too low."""
    op_overhead_us: float
    """Time of a product that no FLOP explains."""
    worst: float
    """Largest factor between a timed call and the same call modelled so, at least 1."""


def fit(
    timed: Sequence[tuple[AnyArchitecture, int, Measurement]],
    peak_gflop_s: float,
    relative: dict[str, float],
    fixed_ms: float,
) -> Fitted:
    """From (architecture at its width, classes, what was timed of it), all of one runtime and precision."""
    terms, calls = [], []
    for arch, classes, row in timed:
        ops = cost.ops(arch, classes, row.batch)
        seconds = sum(op.flop / relative[op.op_class] for op in ops) / (peak_gflop_s * GIGA / row.workers)
        terms.append((len(ops), seconds))
        calls.append(row.p50_ms * row.batch / 1e3)
    measured = np.array(calls)
    spent = np.maximum(measured - fixed_ms / 1e3, measured / 2)
    scaled = np.array(terms) / spent[:, None]
    overhead, inverse = np.linalg.lstsq(scaled, np.ones(len(spent)), rcond=None)[0] if len(spent) > 1 else (-1.0, 0.0)
    if overhead < 0 or inverse <= 0:
        only = scaled[:, 1]
        overhead, inverse = 0.0, float(only.sum() / (only * only).sum())
    ratios = measured / (np.array(terms) @ (overhead, inverse) + (measured - spent))
    return Fitted(1 / float(inverse), float(overhead) * 1e6, float(np.maximum(ratios, 1 / ratios).max()))
