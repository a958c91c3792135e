"""Refitted: half a block, attention or feed-forward network, with fewer inner dimensions, fitted to what tiles show.

What is inside a block is summed to moments, batch by batch, so that no activation is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.ground.encoder import AnyEncoder
from edgeslim.ground.places import turn
from edgeslim.ground.slimming import solve
from edgeslim.ground.slimming.calibration import HELD_OUT, PATCHES, Calibration
from edgeslim.ground.slimming.moments import Covariance, Moments
from edgeslim.ground.vit import Block, LayerScale, Mlp, SwiGlu, Vit, attend

BATCH = 16
"""Tiles at once."""
LAST_CLASS_SHARE = 0.93
"""Weight of the class token among all tokens in the last block, where others only steady the fit. Of a ViT-S/14 on
EuroSAT, 0.91 to 0.95 of the squared gradient of the features falls on it in the earlier blocks, too."""
CHECKED = 5
"""Of the tiles, every fifth is one of the held-out ones on which penalties are chosen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What half a block is fitted to. Held-out tiles come first, and the first of these choose between penalties."""

    arch: Architecture
    """Of the full encoder."""
    places: Tensor | None
    """Of its patches, as Attention takes them."""
    stream: Tensor
    """(n, N, d) before the half."""
    wanted: Tensor
    """(n, N, d) behind the half of the full encoder."""
    mend: float
    """Share of `wanted` that is imitated, beside what the full half makes of `stream`."""
    index: Tensor
    """Of the tokens that are looked at."""
    weights: Tensor
    """Of these, with sum 1."""
    held_out: int
    """Tiles that nothing is fitted to."""
    checked: int
    """Of these, those that penalties are chosen on."""

    def fitted(self) -> Iterator[slice]:
        """Slices of the tiles that weights are fitted to."""
        return slices(self.held_out, len(self.stream))

    def fitted_and_checked(self) -> Iterator[tuple[slice, int]]:
        """The same, with 0, and slices of those that penalties are chosen on, with 1."""
        yield from ((some, 0) for some in self.fitted())
        yield from ((some, 1) for some in slices(0, self.checked))

    def target(self, some: slice, y: Tensor) -> Tensor:
        """(B, len(index), d) that is to be added to the stream, where the full half adds `y`."""
        if not self.mend:
            return y
        return y + self.mend * (self.wanted[some][:, self.index] - self.stream[some][:, self.index] - y)


def embedded(encoder: AnyEncoder, calibration: Calibration, generator: torch.Generator) -> tuple[Tensor, int, int]:
    """(n, N, d) tokens, or (n, d, h, w) maps, before the first block, of the tiles in an order that is drawn.

    And how many of them, the first ones, are held out; and of these, how many choose between penalties.
    """
    order = torch.randperm(len(calibration.tiles), generator=generator)
    pieces = [order[some] for some in slices(0, len(order))]
    stream = torch.cat([encoder.embed(calibration.tiles[some]) for some in pieces])
    return stream, len(order) // HELD_OUT, len(order) // CHECKED


def looked_at(arch: Architecture, generator: torch.Generator) -> Tensor:
    """Indices of the tokens that moments are taken of: class token, registers, and some patches, drawn anew."""
    before = arch.tokens - arch.patches
    picked = torch.randperm(arch.patches, generator=generator)[:PATCHES].sort().values
    return torch.cat([torch.arange(before), picked + before])


def token_weights(arch: Architecture, count: int, class_share: float, last: bool) -> Tensor:
    """(count,) weights of the looked-at tokens, of sum 1, in the `last` block or before it.

    `class_share` is the weight of the class token before the last block, where it is the feature.
    """
    before = arch.tokens - arch.patches
    weights = torch.ones(count)
    weights[before:] = arch.patches / (count - before)
    if last and arch.pool != "class":
        weights[:before] = 0
    weights /= weights.sum()
    if arch.pool == "class":
        share = LAST_CLASS_SHARE if last else class_share
        weights *= 1 - share
        weights[0] += share
    return weights


def block_of(encoder: Vit, number: int) -> Block:
    """One of its blocks."""
    return cast(Block, encoder.blocks[number])


def through(stream: Tensor, half: Callable[[Tensor], Tensor]) -> None:
    """Take (n, N, d) tokens, or (n, d, h, w) maps, through what leaves their shape, in place."""
    for some in slices(0, len(stream)):
        stream[some] = half(stream[some])


def slices(first: int, last: int) -> Iterator[slice]:
    """Slices of at most BATCH tiles, from one on to another."""
    for start in range(first, last, BATCH):
        yield slice(start, min(start + BATCH, last))


@dataclass(frozen=True, slots=True)
class QueriesAndKeys:
    """Second moments by which q . k is truncated, (heads, dk, dk) each, as `solve.bilinear` takes them."""

    queries: Tensor
    """Of q with its bias."""
    keys: Tensor
    """Of k among the keys of one query."""


def queries_and_keys(whole: Block, seen: Seen) -> QueriesAndKeys:
    """Of the full attention, on the tiles that weights are fitted to."""
    heads, dk = whole.attn.attention_heads, whole.attn.head_dim
    queries, keys = torch.zeros(2, heads, dk, dk, dtype=torch.float64)
    for some in seen.fitted():
        q, k, _ = _qkv(whole, seen.stream[some], heads)
        q, k = q[:, :, seen.index], k - k.mean(2, keepdim=True)
        queries += _products(q * seen.weights.sqrt()[:, None])
        keys += _products(k)
    return QueriesAndKeys(queries, keys)


@dataclass(frozen=True, slots=True)
class NarrowAttention:
    """An attention whose heads are narrower."""

    maps: tuple[Tensor, Tensor, Tensor]
    """Of all heads' q, k and v to what is kept of them, (heads * kept, heads * dk) each."""
    weight: Tensor
    """(d, heads * kept), behind LayerScale."""
    bias: Tensor
    """(d,), behind LayerScale."""
    error: float
    """Mean square of what is missed on the tiles that penalties are chosen on, summed over channels."""

    def write(self, whole: Block, narrow: Block) -> None:
        """Into a block of the narrow shape."""
        layers = {"weight": whole.attn.qkv.weight, "bias": whole.attn.qkv.bias}
        for kind, value in layers.items():
            if value is not None:
                cut = [m @ part for m, part in zip(self.maps, value.double().chunk(3), strict=True)]
                getattr(narrow.attn.qkv, kind).copy_(torch.cat(cut))
        _write(narrow.attn.proj, self.weight, self.bias, _gamma(whole.ls1))


def fit_attention(whole: Block, seen: Seen, of_qk: QueriesAndKeys, kept: int) -> NarrowAttention:
    """The attention of a block with `kept` dimensions a head."""
    heads, dk = whole.attn.attention_heads, whole.attn.head_dim
    turned, bias = (seen.places, None) if seen.arch.positions == "rope" else (None, seen.places)
    turned = None if turned is None else turned[..., :dk]
    bias = None if bias is None else bias[:, :, seen.index]
    if turned is None:
        maps_q, maps_k = solve.bilinear(of_qk.queries, of_qk.keys, kept)
    else:  # only whole pairs can be turned: no other basis of q and k; but their products keep their size
        maps_k = torch.eye(dk, dtype=torch.float64)[:kept].expand(heads, -1, -1)
        maps_q = maps_k * (kept / dk) ** 0.5
    to_q, to_k = maps_q.float().mT, maps_k.float().mT
    moments = Moments(), Moments()
    for some, part in seen.fitted_and_checked():
        q, k, v = _qkv(whole, seen.stream[some], heads, turned)
        q = q[:, :, seen.index]
        mixed = attend(q @ to_q, k @ to_k, v, bias).transpose(1, 2).flatten(2)
        y = whole.ls1(whole.attn.proj(attend(q, k, v, bias).transpose(1, 2).flatten(2)))
        y = seen.target(some, y)
        moments[part].add(mixed.flatten(0, 1), y.flatten(0, 1), seen.weights.repeat(len(y)))
    fitted, checked = (part.centred() for part in moments)
    maps_v = solve.values(fitted, heads, kept)
    fitted, checked = fitted.of(maps_v), checked.of(maps_v)
    weight, behind = solve.refit(fitted, checked)
    maps = solve.block_diagonal(maps_q), solve.block_diagonal(maps_k), maps_v
    return NarrowAttention(maps, weight, behind, checked.error(weight, behind))


@dataclass(frozen=True, slots=True)
class NarrowFeedForward:
    """A feed-forward network with fewer hidden units."""

    chosen: Tensor
    """(kept,) indices of the units."""
    weight: Tensor
    """(d, kept), behind LayerScale."""
    bias: Tensor
    """(d,), behind LayerScale."""

    def write(self, whole: Block, narrow: Block) -> None:
        """Into a block of the narrow shape."""
        for name in ("fc1", "fc3") if isinstance(whole.mlp, SwiGlu) else ("fc1",):
            before, after = getattr(whole.mlp, name), getattr(narrow.mlp, name)
            after.weight.copy_(before.weight[self.chosen])
            after.bias.copy_(before.bias[self.chosen])
        _write(narrow.mlp.fc2, self.weight, self.bias, _gamma(whole.ls2))


@dataclass(frozen=True, slots=True)
class Units:
    """Moments of the hidden units of a feed-forward network and of what it is to add to the stream."""

    fitted: Covariance
    """On the tiles that weights are fitted to."""
    checked: Covariance
    """On those that penalties are chosen on."""
    branches: int
    """Of the architecture."""

    def fit(self, kept: int) -> NarrowFeedForward:
        """The network with the `kept` units that explain most."""
        chosen = solve.units(self.fitted, kept, self.branches)
        return NarrowFeedForward(chosen, *solve.refit(self.fitted.at(chosen), self.checked.at(chosen)))


def units_of(whole: Block, seen: Seen) -> Units:
    """Of the full feed-forward network of a block."""
    moments = Moments(), Moments()
    for some, part in seen.fitted_and_checked():
        x = seen.stream[some][:, seen.index]
        hidden = _hidden(whole.mlp, whole.norm2(x))
        y = seen.target(some, whole.ls2(whole.mlp.fc2(hidden)))
        moments[part].add(hidden.flatten(0, 1), y.flatten(0, 1), seen.weights.repeat(len(x)))
    fitted, checked = (part.centred() for part in moments)
    return Units(fitted, checked, seen.arch.branches)


def _qkv(block: Block, x: Tensor, heads: int, turned: Tensor | None = None) -> list[Tensor]:
    """(B, N, d) -> q, k and v of the full block, each (B, heads, N, dk); q and k `turned` by a `rotation`."""
    qkv = block.attn.qkv(block.norm1(x))
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    return [q, k, v] if turned is None else [turn(q, *turned), turn(k, *turned), v]


def _products(x: Tensor) -> Tensor:
    """(B, heads, N, dk) -> (heads, dk, dk), the sum of x x' over tiles and tokens, float64."""
    flat = x.double().transpose(0, 1).flatten(1, 2)
    return flat.mT @ flat


def _hidden(mlp: Mlp | SwiGlu, x: Tensor) -> Tensor:
    """(B, N, d) -> (B, N, dh), what fc2 is given."""
    first: Tensor = mlp.fc1(x)
    if isinstance(mlp, Mlp):
        return mlp.activation(first)
    gated: Tensor = F.silu(first) * mlp.fc3(x)
    return gated


def _gamma(scale: nn.Module) -> Tensor | None:
    return scale.gamma.double() if isinstance(scale, LayerScale) else None


def _write(layer: nn.Linear, weight: Tensor, bias: Tensor, gamma: Tensor | None) -> None:
    """Weight and bias of a branch's output into the layer before its LayerScale, where there is one."""
    if gamma is not None:
        # A channel that LayerScale silences stays silent, whatever stands before it.
        inverse = torch.where(gamma == 0, 0.0, 1 / gamma)
        weight, bias = weight * inverse[:, None], bias * inverse
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
