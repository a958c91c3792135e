"""CallTime: how long a call takes, as measured on the board, or as computed and set right by what was measured there.

A model of a call is off by a factor that changes slowly with the work in a tile. Between two measured widths that
factor is taken from both, linear in the logarithms of factor and computed time; beyond the outermost it stays what it
is there. So a width that was timed has its measurement, and one between two timed ones lies between their times.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

MEASURED, RESCALED, ESTIMATED = "measured", "rescaled", "estimated"
"""Bases of a time: timed itself; computed, and set right by other widths that were timed; computed."""
INSIDE_BAND = 0.05
"""How far, beside the spread of the measurements, a width between two timed ones may be off: a share of its time.
benchmarks/calibrate.py holds it."""
OUTSIDE_BAND = 0.25
"""The same beyond them, or in batches of another size."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One measured call beside what was computed of it."""

    modelled_s: float
    """Computed, of a tile."""
    p50_s: float
    """Measured, of a tile."""
    p95_s: float
    """Measured, of a tile."""
    alike: bool
    """Whether in batches of the size, and as many at a time, as what is to be known."""
    same: bool = False
    """Whether it is exactly what is to be known."""


@dataclass(frozen=True, slots=True)
class CallTime:
    """How long a call takes."""

    seconds: float
    """Expected."""
    low_s: float
    """Lower end of its band."""
    high_s: float
    """Upper end of its band."""
    basis: str
    """One of MEASURED, RESCALED, ESTIMATED."""

    def times(self, factor: float) -> CallTime:
        """So many calls."""
        return CallTime(self.seconds * factor, self.low_s * factor, self.high_s * factor, self.basis)


def call_time(modelled_s: float, batch: int, band: float, timed: Sequence[Timed] = ()) -> CallTime:
    """Time of a call of `batch` tiles that is computed to take `modelled_s`, with what was `timed` of its encoder.

    `band` is the runtime's own, for where nothing was: seconds / (1 + band) to seconds * (1 + band).
    """
    if not timed:
        return CallTime(modelled_s, modelled_s / (1 + band), modelled_s * (1 + band), ESTIMATED)
    if (exact := next((row for row in timed if row.same), None)) is not None:
        return CallTime(exact.p50_s * batch, exact.p50_s * batch, exact.p95_s * batch, MEASURED)
    alike = [row for row in timed if row.alike]
    used = sorted(alike if len(alike) > 1 else timed, key=lambda row: row.modelled_s)
    tile_s = modelled_s / batch
    seconds = tile_s * _factor(tile_s, used) * batch
    inside = len(alike) > 1 and used[0].modelled_s <= tile_s <= used[-1].modelled_s
    spread = max(row.p95_s / row.p50_s for row in used)
    high = spread * (1 + (INSIDE_BAND if inside else OUTSIDE_BAND))
    return CallTime(seconds, seconds / high, seconds * high, RESCALED)


def _factor(tile_s: float, used: Sequence[Timed]) -> float:
    """Measured / computed at a computed time, from rows in its order."""
    at = [math.log(row.modelled_s) for row in used]
    logs = [math.log(row.p50_s / row.modelled_s) for row in used]
    x = math.log(tile_s)
    right = bisect_left(at, x)
    if right == 0:
        return math.exp(logs[0])
    if right == len(at):
        return math.exp(logs[-1])
    span = at[right] - at[right - 1]
    share = (x - at[right - 1]) / span if span else 1.0
    return math.exp(logs[right - 1] + share * (logs[right] - logs[right - 1]))
