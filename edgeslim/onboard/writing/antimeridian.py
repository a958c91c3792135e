"""Antimeridian: rings in longitude and latitude as RFC 7946 wants them: cut at ±180°, counterclockwise, closed."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""(longitude, latitude), degrees."""
Ring = list[Point]
_ROUNDING = 1e-9
"""Degrees by which two ends of one cut may differ."""


def polygons(ring: Sequence[Point]) -> list[Ring]:
    """The closed, counterclockwise rings in [-180, 180] that an open ring of at least three points covers.

    Of two ways from one point to the next the shorter is meant. A ring that winds around a pole holds that pole.
    """
    unwound: Ring = [ring[0]]
    for longitude, latitude in ring[1:]:
        unwound.append((unwound[-1][0] + _turn(longitude - unwound[-1][0]), latitude))
    around = unwound[-1][0] + _turn(ring[0][0] - unwound[-1][0]) - ring[0][0]
    if abs(around) > 180:
        pole = math.copysign(90.0, sum(latitude for _, latitude in ring))
        start = unwound[0]
        unwound += [(start[0] + around, start[1]), (start[0] + around, pole), (start[0], pole)]
    west, east = min(p[0] for p in unwound), max(p[0] for p in unwound)
    found = []
    for strip in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        shift = 360.0 * strip
        part = _clip(_clip(unwound, shift - 180, 1), shift + 180, -1)
        part = [(longitude - shift, latitude) for longitude, latitude in part]
        area = _signed_area(part)
        if abs(area) > 1e-14:
            part = part if area > 0 else part[::-1]
            found.append([*part, part[0]])
    return found


def longitudes(rings: Sequence[Ring]) -> tuple[float, float]:
    """(west, east) of the rings; west > east where they lie on both sides of the antimeridian and touch it."""
    boxes = [(min(p[0] for p in ring), max(p[0] for p in ring)) for ring in rings]
    west, east = min(b[0] for b in boxes), max(b[1] for b in boxes)
    if len(boxes) > 1 and west == -180 and east == 180:
        eastern = [b for b in boxes if b[1] == 180 and b[0] > -180]
        western = [b for b in boxes if b[0] == -180 and b[1] < 180]
        if eastern and western:
            first, last = min(b[0] for b in eastern), max(b[1] for b in western)
            return (first, last) if first - last > _ROUNDING else (west, east)  # all around, as at a pole
    return west, east


def _turn(degrees: float) -> float:
    """The same turn in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def _clip(ring: Sequence[Point], bound: float, side: int) -> Ring:
    """The part of an open ring whose longitude is above (side 1) or below (side -1) a bound (Sutherland, Hodgman)."""
    kept: Ring = []
    for index, (x, y) in enumerate(ring):
        before_x, before_y = ring[index - 1]
        inside, was_inside = side * (x - bound) >= 0, side * (before_x - bound) >= 0
        if inside != was_inside:
            kept.append((bound, before_y + (y - before_y) * (bound - before_x) / (x - before_x)))
        if inside:
            kept.append((x, y))
    return [point for index, point in enumerate(kept) if point != kept[index - 1]]


def _signed_area(ring: Sequence[Point]) -> float:
    x0, y0 = ring[0] if ring else (0.0, 0.0)
    moved = [(x - x0, y - y0) for x, y in ring]
    return sum(moved[i - 1][0] * moved[i][1] - moved[i][0] * moved[i - 1][1] for i in range(len(moved))) / 2
