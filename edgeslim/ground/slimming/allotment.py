"""Allotment: a budget of FLOP shared out among halves of blocks, each of which loses less the wider it is. No torch.

Greedy by marginal analysis: the step that saves most loss a FLOP comes first (Fox, Operations Research 14, 1966), which
is exact where the savings of each half fall with its width. Where they do not, the lower convex hull of its losses
stands for them, as in rate allocation (Shoham and Gersho, IEEE Trans. ASSP 36, 1988).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from edgeslim.errors import InputError

ALIGNED = 8
"""Largest multiple that sizes keep to; a larger one would leave few sizes to choose from."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What half a block loses at each of the sizes that it may have."""

    sizes: tuple[int, ...]
    """Ascending, a step apart."""
    losses: tuple[float, ...]
    """At each size; of all halves in the same unit."""
    step_flop: int
    """What a step costs."""

    def __post_init__(self) -> None:
        steps = {after - before for before, after in zip(self.sizes, self.sizes[1:], strict=False)}
        if not self.sizes or len(steps) > 1 or min(steps, default=1) < 1:
            raise InputError(f"curve: found sizes {self.sizes}, expected ascending ones, a step apart")
        if len(self.losses) != len(self.sizes) or not all(map(isfinite, self.losses)):
            raise InputError(f"curve: found losses {self.losses}, expected {len(self.sizes)} numbers")
        if self.step_flop < 1:
            raise InputError(f"curve: found {self.step_flop} FLOP a step, expected at least 1")

    def savings(self) -> list[float]:
        """What each step saves by the lower convex hull of the losses; never rising.

        By pooling steps that save more than those before them, as isotonic regression does (Ayer et al., Annals of
        Mathematical Statistics 26, 1955).
        """
        pools: list[tuple[float, int]] = []
        for before, after in zip(self.losses, self.losses[1:], strict=False):
            total, steps = before - after, 1
            while pools and pools[-1][0] / pools[-1][1] < total / steps:
                saved, pooled = pools.pop()
                total, steps = total + saved, steps + pooled
            pools.append((total, steps))
        return [total / steps for total, steps in pools for _ in range(steps)]


def sizes_of(full: int, even: int, step: int) -> tuple[list[int], int]:
    """The sizes that a half may have, a `step` apart, and the one that it is cut to for what is felt of that.

    It is the size at one width for all; where that is the full one, the next smaller.
    """
    sizes = list(range(step, full + 1, step))
    return sizes, min(even, max(sizes[:-1], default=full))


def allot(curves: Sequence[Curve], flop: int) -> list[int]:
    """The size of each half, where all of them may cost so many FLOP more than at their smallest sizes.

    Of steps that save as much, those of the half that is narrower as yet, as a share of its full size, come first, so
    that halves with equal curves stay within a step of each other. The order of steps depends on no budget, and the
    first that is too dear ends them: of a larger budget no half is narrower.
    """
    savings = [curve.savings() for curve in curves]

    def step(which: int, place: int) -> tuple[float, float, int, int]:
        curve = curves[which]
        return -savings[which][place] / curve.step_flop, curve.sizes[place + 1] / curve.sizes[-1], which, place

    heap = [step(which, 0) for which, saved in enumerate(savings) if saved]
    heapq.heapify(heap)
    taken, left = [0] * len(curves), flop
    while heap:
        *_, which, place = heapq.heappop(heap)
        left -= curves[which].step_flop
        if left < 0:
            break
        taken[which] = place + 1
        if place + 1 < len(savings[which]):
            heapq.heappush(heap, step(which, place + 1))
    return [curve.sizes[place] for curve, place in zip(curves, taken, strict=True)]
