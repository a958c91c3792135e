"""Search: the cuts of an encoder, in every way to run it, held against a budget: all of them, or those that matter.

The order of cuts is that of their FLOP, then of their width (edgeslim.cuts). Of one depth a narrower width is estimated
to need less of everything, and so are fewer blocks of one width (tests/planning/test_laws.py, test_depth_laws.py). Of
two depths the smaller cut may need more memory, or be slower: many small products take longer than a few large ones.

A cut is preferred where its inner sizes are multiples that the hardware likes. One whose sizes are not is preferred all
the same where a smaller cut that is aligned takes as long: nothing would be gained by passing it over for that one, and
a plan is never slower than a larger one that fits. No budget has a part in it, so a looser one never gives a plan of
lower rank: preferred or not, then by the order of cuts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby

from edgeslim import cost
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.cuts import Cut
from edgeslim.device import Device
from edgeslim.device_card import PowerMode
from edgeslim.errors import UsageError
from edgeslim.planning.budget import Ask, Budget, Miss, budget_of, short_text
from edgeslim.planning.estimate import Conditions, Estimate, estimate
from edgeslim.planning.ways import Way
from edgeslim.profile import Profile

Pair = tuple[Estimate, tuple[Miss, ...]]
"""A cut, and what it misses."""


def cuts_of(profile: Profile, ask: Ask) -> tuple[Cut, ...]:
    """What may be chosen, largest first: every width step, and the cuts in depth whose score was measured.

    Where `ask` names a depth, every width step of that one alone. Raises UsageError for one that the encoder lacks.
    """
    full, asked = profile.architecture, ask.depth
    if asked is not None and not full.fewest_blocks <= asked <= full.depth:
        raise UsageError(
            f"--depth: found {asked}, expected {full.fewest_blocks} to the {full.depth} blocks of {profile.id}, or all"
        )
    widths = sorted(full.width_steps(), reverse=True)
    if asked is not None:
        return tuple(Cut(width, None if asked == full.depth else asked) for width in widths)
    scores = profile.scores_on(ask.score_on)
    measured = {Cut(s.width_multiplier, s.depth) for s in scores if s.depth not in (None, full.depth)}
    if not measured:
        return tuple(map(Cut, widths))
    return _ordered(full, frozenset(measured | set(map(Cut, widths))))


@lru_cache(16)
def _ordered(full: AnyArchitecture, cuts: frozenset[Cut]) -> tuple[Cut, ...]:
    return tuple(sorted(cuts, key=lambda cut: (-cost.flop(full.at(*cut)), -cut.width_multiplier)))


@dataclass(frozen=True, slots=True)
class Held:
    """Cuts in one way, held against the budget."""

    way: Way
    budget: Budget
    steps: tuple[Pair, ...]
    """Largest first."""
    preferred: frozenset[Cut]
    """Of those that fit."""

    @property
    def fitting(self) -> list[Estimate]:
        """Largest first."""
        return [found for found, misses in self.steps if not misses]

    def rank(self, found: Estimate) -> tuple[bool, tuple[float, float]]:
        """Of one that fits: the highest is chosen where the most of the encoder is wanted."""
        return found.cut in self.preferred, found.size

    @property
    def outcome(self) -> str:
        """What became of this way, for people."""
        if fitting := self.fitting:
            return f"fits {max(fitting, key=self.rank).cut} at most"
        return f"nothing fits, {', '.join(map(short_text, nearest(self.steps)[1]))} at the nearest"


def try_ways(
    profile: Profile, device: Device, mode: PowerMode, ways: Iterable[Way], ask: Ask, every: bool
) -> list[Held]:
    """Hold every cut in every way against the budget; nothing is better than all of the encoder in an earlier way.

    Without `every` only the cuts that matter, and of a way none that is smaller than the largest preferred one that
    fits in an earlier way. Raises UsageError as `cuts_of`.
    """
    conditions = replace(ask.conditions, power_w=None if mode.power_w is None else mode.power_w.value)
    cuts = cuts_of(profile, ask)
    timed = any(row.encoder == profile.id for row in device.measurement)
    largest_asked = ask.objective == "widest"
    tried, enough = [], len(cuts)
    for way in ways:
        one = _OneWay(profile, device, way, budget_of(ask, device, way.runtime, way.precision), conditions, cuts, timed)
        # Of rows that were timed, a smaller one may have been slower.
        steps = [one.held(cut) for cut in cuts] if every or timed else one.that_matter(enough, largest_asked)
        preferred = [found.cut for found, misses in steps if not misses and one.prefers(found.cut)]
        tried.append(Held(way, one.budget, tuple(steps), frozenset(preferred)))
        if largest_asked and preferred:
            enough = min(enough, one.places[preferred[0]])
        # Where rows were timed another way may be faster.
        if enough == 0 and not timed:
            break
    return tried


@dataclass(slots=True)
class _OneWay:
    """Estimates of the cuts in one way, each made once, when it is first asked for."""

    profile: Profile
    device: Device
    way: Way
    budget: Budget
    conditions: Conditions
    cuts: Sequence[Cut]
    """Largest first."""
    timed: bool
    """Whether some of them were timed on the device."""
    known: dict[Cut, Pair] = field(default_factory=dict)
    places: dict[Cut, int] = field(init=False)
    """Of each cut in `cuts`."""
    depths: list[list[Cut]] = field(init=False)
    """The cuts of each depth, widest first."""

    def __post_init__(self) -> None:
        self.places = {cut: place for place, cut in enumerate(self.cuts)}
        by_depth = sorted(self.cuts, key=lambda cut: (cut.depth or 0, self.places[cut]))
        self.depths = [list(alike) for _, alike in groupby(by_depth, key=lambda cut: cut.depth)]

    def held(self, cut: Cut) -> Pair:
        """A cut, and what it misses."""
        if cut not in self.known:
            way = self.way
            found = estimate(
                self.profile, cut.width_multiplier, self.device, way.runtime, way.precision, way.target,
                self.conditions, cut.depth,
            )  # fmt: skip
            self.known[cut] = found, self.budget.missed_by(found)
        return self.known[cut]

    def prefers(self, cut: Cut) -> bool:
        """Whether a cut is preferred; see the module's docstring."""
        if self._aligned(cut):
            return True
        place, takes = self.places[cut], self.held(cut)[0].latency_high_ms
        for widths in self.depths:
            smaller = (other for other in widths if self.places[other] > place and self._aligned(other))
            for other in smaller:
                if self.held(other)[0].latency_high_ms >= takes:
                    return True
                if not self.timed:  # of one depth the widest takes the longest
                    break
        return False

    def _aligned(self, cut: Cut) -> bool:
        multiples, arch = self.device.multiples, self.profile.architecture.at(*cut)
        return arch.is_aligned(multiples.head_dim.value, multiples.ffn_hidden.value)

    def that_matter(self, enough: int, largest_asked: bool) -> list[Pair]:
        """The cuts among which the chosen one and the nearest miss are, largest first, up to place `enough`."""
        if all(map(self._misses_all, self.depths)):
            nearest_each = [self.held(self._nearest_of(widths)) for widths in self.depths]
            return sorted(nearest_each, key=lambda pair: self.places[pair[0].cut])
        candidates = [
            cut
            for widths in self.depths
            for cut in widths[bisect_left(widths, True, key=lambda cut: not self._too_large(cut)) :]
        ]
        steps: list[Pair] = []
        for cut in sorted(candidates, key=self.places.__getitem__):
            if self.places[cut] > enough:
                break
            steps.append(self.held(cut))
            if largest_asked and not steps[-1][1] and self.prefers(cut):
                break
        if all(misses for _, misses in steps):
            return [self.held(cut) for cut in self.cuts if self.places[cut] <= enough]
        return steps

    def _too_large(self, cut: Cut) -> bool:
        return any(miss.budget != "min_score" for miss in self.held(cut)[1])

    def _misses_all(self, widths: list[Cut]) -> bool:
        """Whether even the narrowest misses a budget that it is too large for, and none but such."""
        misses = self.held(widths[-1])[1]
        return bool(misses) and all(miss.budget != "min_score" for miss in misses)

    def _nearest_of(self, widths: list[Cut]) -> Cut:
        """Of one depth: of those that miss by as much, such as by the watts of the board, the widest is the nearest."""
        least = furthest(self.held(widths[-1])[1])
        if len(widths) < 2 or furthest(self.held(widths[-2])[1]) > least:
            return widths[-1]
        return widths[bisect_left(widths, True, key=lambda cut: furthest(self.held(cut)[1]) <= least)]


def nearest(steps: Iterable[Pair]) -> Pair:
    """The cut whose largest miss is the smallest."""
    return min(steps, key=lambda pair: furthest(pair[1]))


def furthest(misses: Iterable[Miss]) -> float:
    """The largest of what is missed; 0 where nothing is."""
    return max((math.inf if miss.over is None else miss.over for miss in misses), default=0.0)
