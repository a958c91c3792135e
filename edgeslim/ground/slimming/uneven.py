"""Uneven: inner sizes for each block of a calibrated encoder, within the FLOP that one width for all of them takes.

Blocks are not alike: some lose little when they are cut, and what others lose reaches the features. Calibration tiles,
without labels, say which, along the stream of the full encoder (of a ConvNeXt V2 as uneven_convnext says):

- how the loss of half a block, attention or feed-forward network, falls with its size: what the refitted attention
  misses at some sizes, with straight lines between them, and what the hidden units that are chosen first leave
  unexplained (refitted);
- how much of it reaches the features: their change where this half alone is cut, to the size that it has at one width
  for all, as a share of their variance.

The product of the two, shared out by `allotment`, gives each half its size: a multiple of what the size at one width
is a multiple of, up to ALIGNED. That losses add up is an approximation, so the uneven encoder is calibrated, and so is
the even one; taken is the uneven one only where its features leave held-out tiles more of their neighbours, by MARGIN.

In memory are the tokens of all tiles at one depth, (n, N, d) float32, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture, ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.encoder import AnyEncoder
from edgeslim.ground.slimming import solve, uneven_convnext
from edgeslim.ground.slimming.allotment import ALIGNED, Curve, allot, sizes_of
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.felt import felt, felt_tiles, scaled
from edgeslim.ground.slimming.refitted import (
    Seen,
    block_of,
    embedded,
    fit_attention,
    looked_at,
    queries_and_keys,
    slices,
    through,
    token_weights,
    units_of,
)
from edgeslim.ground.slimming.taken import Calibrated
from edgeslim.ground.vit import Block, Vit

MARGIN = 0.02
"""By which the uneven encoder must keep more of the held-out tiles' neighbours, as a share of all: less is noise."""
_TRIED = 6
"""Sizes of an attention that are tried, at most, besides that at one width."""
_CLASS_SHARE = 0.5
"""Weight of the class token before the last block, where it is the feature."""


def calibrate_uneven(encoder: AnyEncoder, even: AnyArchitecture, calibration: Calibration) -> Calibrated[Any]:
    """The encoder calibrated, within the FLOP of the shape `even` = encoder.arch.at(width multiplier, depth).

    Its blocks have sizes of their own where that pays, and those of `even` where not. Deterministic for the
    calibration's seed on one machine. Raises InputError as `calibrate` does.
    """
    one = calibrate(encoder, even, calibration)
    shape = allotted(encoder, even, calibration)
    if shape == even:
        calibration.say("uneven: every block is best at the same width, which is kept")
        return one
    other = calibrate(encoder, shape, calibration)
    taken = other if pays(other, one) else one
    calibration.say(
        f"neighbours kept: {kept(other):.0%} by uneven widths, {kept(one):.0%} by one width; "
        + ("taken: uneven" if taken is other else f"uneven does not pay by more than {MARGIN:.0%}: one width is kept")
    )
    return taken


def pays(uneven: Calibrated[Any], even: Calibrated[Any]) -> bool:
    """Whether uneven widths keep more of the held-out tiles' neighbours, by more than MARGIN."""
    return kept(uneven) - kept(even) > MARGIN


def kept(made: Calibrated[Any]) -> float:
    """Share of the held-out tiles' neighbours by the way that was taken."""
    return made.neighbours[made.way]


def allotted(encoder: AnyEncoder, even: AnyArchitecture, calibration: Calibration) -> AnyArchitecture:
    """The encoder's shape with inner sizes for each block, of no more FLOP than `even`; `even` itself at full width.

    Raises InputError for tiles that cannot calibrate it, and where numbers are no longer finite.
    """
    calibration.check(encoder.arch)
    full = encoder.arch.at(1.0, even.depth)
    if even == full:
        return even
    try:
        with torch.no_grad():
            curves = _curves_of(encoder, even, calibration)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise InputError(f"calibration: found no solution ({error}); give other tiles, or use method first") from None
    return shape_of(full, even, curves)


def _curves_of(encoder: AnyEncoder, even: AnyArchitecture, calibration: Calibration) -> list[Curve]:
    if isinstance(encoder, ConvNext) and isinstance(even, ConvNextArchitecture):
        return uneven_convnext.Curves(encoder, even, calibration).run()
    assert isinstance(encoder, Vit)
    assert isinstance(even, Architecture)
    return _Curves(encoder, even, calibration).run()


def shape_of(full: AnyArchitecture, even: AnyArchitecture, curves: list[Curve]) -> AnyArchitecture:
    """The shape with the sizes that `allot` gives.

    For two curves a block of a ViT, its attention's and its network's; for one a block of a ConvNeXt V2.
    """

    def shape(sizes: list[int]) -> AnyArchitecture:
        if isinstance(full, ConvNextArchitecture):
            return full.sized(sizes)
        return full.sized(list(zip(sizes[::2], sizes[1::2], strict=True)))

    smallest = shape([curve.sizes[0] for curve in curves])
    return shape(allot(curves, cost.flop(even) - cost.flop(smallest)))


def steps_of(full: Architecture, even: Architecture) -> tuple[tuple[int, int], ...]:
    """(head_dim, ffn_hidden) of each block: what its sizes are multiples of."""
    found = []
    for (dk, dh), (kept_dk, kept_dh) in zip(full.inner_sizes, even.inner_sizes, strict=True):
        branches = full.branches
        hidden = branches * gcd(kept_dh // branches, dh // branches, ALIGNED)
        found.append((gcd(kept_dk, dk, ALIGNED), hidden))
    return tuple(found)


class _Curves:
    """Through the blocks of the full encoder, of each of whose halves a curve is made."""

    def __init__(self, encoder: Vit, even: Architecture, calibration: Calibration) -> None:
        self.encoder, self.arch, self.even, self.say = encoder, encoder.arch, even, calibration.say
        self.full = encoder.arch.at(1.0, even.depth)
        self.steps = steps_of(self.full, even)
        self.generator = torch.Generator().manual_seed(calibration.seed)
        self.stream, self.held_out, self.checked = embedded(encoder, calibration, self.generator)
        self.felt = felt_tiles(self.held_out, len(self.stream))
        self.features = self._features(self.stream[self.felt], 0)

    def run(self) -> list[Curve]:
        """Two a block, attention and feed-forward network."""
        curves = []
        for number in range(self.even.depth):
            curves += self._block(number)
            self.say(f"looked at block {number + 1} of {self.even.depth}")
        return curves

    def _features(self, x: Tensor, number: int) -> Tensor:
        """(B, N, d) tokens before a block -> (B, d) features behind all blocks that are kept."""
        found = []
        for some in slices(0, len(x)):
            tokens = x[some]
            for later in range(number, self.even.depth):
                tokens = block_of(self.encoder, later)(tokens, places=self.encoder.places)
            found.append(self.encoder.feature(tokens))
        return torch.cat(found)

    def _block(self, number: int) -> list[Curve]:
        whole, places = block_of(self.encoder, number), self.encoder.places
        index = looked_at(self.arch, self.generator)
        weights = token_weights(self.arch, len(index), _CLASS_SHARE, number == self.even.depth - 1)
        seen = Seen(
            self.arch, places, self.stream, self.stream, 0.0, index, weights, self.held_out, self.checked
        )  # what is wanted is what the full half makes of it
        first = self._attention(number, whole, seen)
        through(self.stream, partial(whole.add_attention, places=places))
        second = self._feed_forward(number, whole, seen)
        through(self.stream, whole.add_feed_forward)
        return [first, second]

    def _attention(self, number: int, whole: Block, seen: Seen) -> Curve:
        full, even, step = self.full.inner_sizes[number][0], self.even.inner_sizes[number][0], self.steps[number][0]
        sizes, at = sizes_of(full, even, step)
        tried = sorted({at, *(sizes[place] for place in _spread(len(sizes) - 1, _TRIED))})
        errors, reaching = {full: 0.0}, 0.0
        of_qk = queries_and_keys(whole, seen)
        narrow = Block(self.arch.sized([(at, self.arch.ffn_hidden)]))
        narrow.load_state_dict(whole.state_dict() | {k: v for k, v in narrow.state_dict().items() if "attn" in k})
        for size in tried:
            if size < full:
                fitted = fit_attention(whole, seen, of_qk, size)
                errors[size] = fitted.error
                if size == at:
                    fitted.write(whole, narrow)
                    reaching = self._reaching(number, partial(narrow, places=self.encoder.places))
        losses = _between(sizes, errors)
        return self._curve(number, sizes, scaled(losses, losses[sizes.index(at)], reaching), attention=True)

    def _feed_forward(self, number: int, whole: Block, seen: Seen) -> Curve:
        full, even, step = self.full.inner_sizes[number][1], self.even.inner_sizes[number][1], self.steps[number][1]
        sizes, at = sizes_of(full, even, step)
        units = units_of(whole, seen)
        narrow = Block(self.arch.sized([(self.arch.head_dim, at)]))
        units.fit(at).write(whole, narrow)
        narrow.norm2, narrow.ls2 = whole.norm2, whole.ls2
        left = solve.unexplained(units.fitted, full, self.arch.branches)
        losses = [left[size - 1] for size in sizes]
        reaching = self._reaching(number, narrow.add_feed_forward)
        return self._curve(number, sizes, scaled(losses, losses[sizes.index(at)], reaching), attention=False)

    def _reaching(self, number: int, cut: Callable[[Tensor], Tensor]) -> float:
        """What is felt of it where `cut` is the rest of a block, half of it cut."""
        x = self.stream[self.felt].clone()
        through(x, cut)
        return felt(self.features, self._features(x, number + 1))

    def _curve(self, number: int, sizes: list[int], losses: list[float], *, attention: bool) -> Curve:
        one = self.full.sized([self.full.inner_sizes[number]])
        dk, dh = one.inner_sizes[0]
        step = self.steps[number][0 if attention else 1]
        less = one.sized([(dk - step, dh) if attention else (dk, dh - step)]) if len(sizes) > 1 else None
        step_flop = 1 if less is None else cost.flop(one) - cost.flop(less)
        return Curve(tuple(sizes), tuple(losses), step_flop)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the places 0 to count - 1, closer where they are low: sizes double rather than add up."""
    if count <= most:
        return list(range(count))
    return sorted({round(count ** (place / (most - 1))) - 1 for place in range(most)})


def _between(sizes: list[int], known: dict[int, float]) -> list[float]:
    """Values at all sizes, on straight lines between those that are known; the first and the last are."""
    found, places = [], sorted(known)
    for size in sizes:
        above = next(place for place in places if place >= size)
        below = max((place for place in places if place <= size), default=above)
        share = (size - below) / (above - below) if above > below else 0.0
        found.append(known[below] + share * (known[above] - known[below]))
    return found
