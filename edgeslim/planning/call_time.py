"""CallTime: how long a call takes, as measured on the board, or as computed and set right by what was measured there.

Both what is computed and what is measured grow with the FLOP of a tile along a line, or nearly: between two measured
widths the time is taken from the line through both, over the computed time; beyond the outermost two, from theirs, but
not further off than by a factor of two from what is in proportion to the computed time. So a width that was timed has
its measurement, one between two timed ones lies between their times, and more work never takes less time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

MEASURED, RESCALED, ESTIMATED = "measured", "rescaled", "estimated"
"""Bases of a time: timed itself; computed, and set right by other widths that were timed; computed."""
INSIDE_BAND = 0.05
"""How far, beside the spread of the measurements, a width between two timed ones may be off: a share of its time.
benchmarks/results/calibrate.md shows how far they were."""
OUTSIDE_BAND = 0.25
"""The same beyond them, or in batches of another size."""
_FURTHEST = 2.0
"""Beyond what was timed a time is at most this factor from what is in proportion to the computed one."""


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
    """Whether in batches of about the size, and as many at a time, as what is to be known."""
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
    bound: str = ""
    """What takes most of it, as computed: "compute", "bandwidth" or "overhead"; empty: not asked."""

    def times(self, factor: float) -> CallTime:
        """So many calls."""
        return CallTime(self.seconds * factor, self.low_s * factor, self.high_s * factor, self.basis, self.bound)


def call_time(modelled_s: float, batch: int, band: float, timed: Sequence[Timed] = (), bound: str = "") -> CallTime:
    """Time of a call of `batch` tiles that is computed to take `modelled_s`, with what was `timed` of its encoder.

    `band` is the runtime's own, for where nothing was: seconds / (1 + band) to seconds * (1 + band).
    """
    if not timed:
        return CallTime(modelled_s, modelled_s / (1 + band), modelled_s * (1 + band), ESTIMATED, bound)
    if (exact := next((row for row in timed if row.same), None)) is not None:
        return CallTime(exact.p50_s * batch, exact.p50_s * batch, exact.p95_s * batch, MEASURED, bound)
    used = sorted(timed, key=lambda row: row.modelled_s)
    tile_s = modelled_s / batch
    seconds = _along(tile_s, used) * batch
    inside = all(row.alike for row in used) and used[0].modelled_s <= tile_s <= used[-1].modelled_s
    from statistics import median  # slow to import, and most boards have no measurement

    spread = median(row.p95_s / row.p50_s for row in used)
    high = spread * (1 + (INSIDE_BAND if inside else OUTSIDE_BAND))
    return CallTime(seconds, seconds / high, seconds * high, RESCALED, bound)


def _along(tile_s: float, used: Sequence[Timed]) -> float:
    """Time of a tile that is computed to take `tile_s`, from rows in the order of what was computed of them."""
    right = min(max(bisect_left([row.modelled_s for row in used], tile_s), 1), len(used) - 1)
    a, b = used[max(right - 1, 0)], used[right]
    outer = a if tile_s < a.modelled_s else b
    proportion = outer.p50_s * tile_s / outer.modelled_s
    if a.modelled_s == b.modelled_s:
        return proportion
    line = a.p50_s + (b.p50_s - a.p50_s) * (tile_s - a.modelled_s) / (b.modelled_s - a.modelled_s)
    if a.modelled_s <= tile_s <= b.modelled_s:
        return line
    near = min(max(line, proportion / _FURTHEST), proportion * _FURTHEST)
    return min(near, outer.p50_s) if outer is a else max(near, outer.p50_s)
