"""Axis: from values to places on a chart, with ticks at round numbers; and labels that do not collide."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale."""

    low: float
    """Value at `start`."""
    high: float
    """Value at `end`; more than `low`."""
    start: float
    """Place of `low`, px."""
    end: float
    """Place of `high`, px; before `start` on an axis that points up."""

    def at(self, value: float) -> float:
        """Place of a value, px."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """At most so many multiples of 1, 2 or 5 times a power of ten within the scale."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        for step in (factor * power for factor in (1, 2, 5, 10, 20, 50)):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first < most:
                break
        return [round(number * step, 12) for number in range(first, last + 1)]


def axis_for(values: list[float], start: float, end: float, *, zero: bool = False) -> Axis:
    """A scale that holds all of `values` with room around them; from 0 on where that costs little (or `zero`)."""
    low, high = min(values), max(values)
    if zero or 0 <= low < 0.4 * high:
        low, room = 0.0, 0.06 * high
        return Axis(low, high + (room or 1.0), start, end)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room, high + room, start, end)


@dataclass(slots=True)
class Labels:
    """Texts that were placed, so that the next one finds a free place."""

    left: float
    """Of the room for them, px."""
    top: float
    """Of the room, px."""
    right: float
    """Of the room, px."""
    bottom: float
    """Of the room, px."""
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Left, top, right, bottom of what is there."""

    def block(self, x: float, y: float, radius: float) -> None:
        """Keep texts off a mark."""
        self.taken.append((x - radius, y - radius, x + radius, y + radius))

    def place(
        self, x: float, y: float, text: str, *, always: bool = False, px: float = 11, away: float = 9
    ) -> tuple[float, float, str] | None:
        """The best place beside a point for the baseline of a text, and its anchor.

        None: there is none that is free; with `always` it is then the one that covers the least.
        """
        wide, found = len(text) * px * 0.57, []
        for anchor, dx, dy in (
            ("start", away, px * 0.35),
            ("end", -away, px * 0.35),
            ("start", away * 0.6, -away * 0.8),
            ("end", -away * 0.6, -away * 0.8),
            ("start", away * 0.6, away * 0.8 + px * 0.7),
            ("end", -away * 0.6, away * 0.8 + px * 0.7),
            ("middle", 0, -away),
            ("middle", 0, away + px * 0.8),
            ("middle", 0, -2.2 * away),
            ("middle", 0, 2.2 * away + px * 0.8),
        ):
            left = x + dx - {"start": 0, "end": wide, "middle": wide / 2}[anchor]
            box = (left, y + dy - px * 0.8, left + wide, y + dy + px * 0.2)
            if box[0] >= self.left and box[1] >= self.top and box[2] <= self.right and box[3] <= self.bottom:
                found.append((sum(_overlap(box, other) for other in self.taken), (x + dx, y + dy, anchor), box))
        if not found:
            return None
        covered, place, box = min(found, key=lambda one: one[0])
        if covered and not always:
            return None
        self.taken.append(box)
        return place


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
