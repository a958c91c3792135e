"""Method "calibrated": the shape of "first" with better weights in it, from tiles without labels and without training.

Block after block, each on the residual stream that the blocks before it, already slimmed, leave:

- q . k of each head is truncated to the rank that weighs most on the tiles (solve.bilinear);
- so are the heads' outputs, whose projection is then refitted by ridge regression (solve.values, solve.refit);
- of the hidden units of the feed-forward network those are kept that explain most, and its second matrix is refitted
  (solve.units, solve.refit). The matrices before them keep the rows of those units.

The biases behind both refitted products take up the means. What is refitted imitates the same block in full on the
slimmed stream, or the residual stream of the full encoder, which mends what earlier blocks lost but smooths away what
cannot be predicted, or what lies between. Where the class token is the feature, it may count as much as all others or
nearly alone. Which is best depends on encoder and width: some ways (WAYS) are gone side by side, and the one is taken
whose features leave held-out tiles more of the neighbours that they have among each other by the full encoder's
features. (The mean square error of the features was tried for that and misleads: on a ViT-S/14 at its narrowest it was
lower where the whole of a loss is mended, and the k-NN score 12 points lower.) "first" goes along as one more way: an
encoder that was trained to be slimmed so is best left as it is.

MoDeGPT (Lin et al., arXiv 2408.09632) truncates the same products in language models; SliceGPT (Ashkboos et al., arXiv
2401.15024) cuts the residual width instead, which edgeslim leaves alone.

In memory are the tokens of all tiles at one depth, (n, N, d) float32, once for the full encoder and once for each way.
What is inside a block is summed to moments, batch by batch. (Of a ViT-B/16 and 256 tiles, 5 x 155 MB.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground import solve
from edgeslim.ground.calibration import HELD_OUT, PATCHES, Calibration
from edgeslim.ground.first import first_of
from edgeslim.ground.moments import Moments
from edgeslim.ground.places import turn
from edgeslim.ground.vit import Block, LayerScale, Mlp, SwiGlu, Vit, attend

LAST_CLASS_SHARE = 0.93
"""Weight of the class token among all tokens in the last block, where others only steady the fit. Of a ViT-S/14 on
EuroSAT, 0.91 to 0.95 of the squared gradient of the features falls on it in the earlier blocks, too."""
WAYS = ((0.0, LAST_CLASS_SHARE), (0.5, 0.5), (1.0, 0.5))
"""Share of what earlier blocks lost that each block mends; and, where the class token is the feature, its weight among
all tokens before the last block."""
FIRST = "first"
"""Name of the way whose weights are those of the method of that name."""
NEIGHBOURS = 3
"""Neighbours of a held-out tile that the choice between the ways looks at. More of them, or neighbours among the fitted
tiles, told whose features are alike at large; those were not the better ones for a classifier."""
_CHECKED = 5
"""Of the tiles, every fifth is one of the held-out ones on which penalties are chosen."""
_BATCH = 16
"""Tiles at once."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration made."""

    encoder: Vit
    """In the shape of "first", in evaluation mode."""
    way: str
    """The one that was taken, in words: what it mends, and the weight of the class token where that is the feature."""
    neighbours: dict[str, float]
    """Way -> share of the held-out tiles' neighbours that its features keep, as `neighbours_kept`."""


def calibrate(encoder: Vit, narrow: Architecture, calibration: Calibration) -> Calibrated:
    """The encoder in the shape `narrow` = encoder.arch.at(width multiplier, depth), with calibrated weights.

    Deterministic for the calibration's seed on one machine. Raises InputError for tiles that cannot calibrate it, and
    where numbers are no longer finite.
    """
    calibration.check(encoder.arch)
    try:
        with torch.no_grad():  # not inference mode: what comes of it may be trained on
            return _Walk(encoder, narrow, calibration).run()
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise InputError(f"calibration: found no solution ({error}); give other tiles, or use method first") from None


@dataclass(slots=True)
class _Way:
    """One way to refit, all of whose blocks so far are slimmed."""

    mend: float | None
    """Share of what earlier blocks lost that is mended; None: the blocks are slimmed already."""
    class_share: float
    """Weight of the class token before the last block, where it is the feature."""
    name: str
    """For people."""
    stream: Tensor
    """(n, N, d) behind the blocks so far."""
    encoder: Vit
    """Of the narrow shape."""


class _Walk:
    """Through the blocks of the full encoder and of every way, side by side. Held-out tiles come first."""

    def __init__(self, encoder: Vit, narrow: Architecture, calibration: Calibration) -> None:
        self.encoder, self.arch, self.narrow, self.say = encoder, encoder.arch, narrow, calibration.say
        places = encoder.places
        self.rotary = None if self.arch.positions != "rope" or places is None else places.unbind(0)
        self.generator = torch.Generator().manual_seed(calibration.seed)
        order = torch.randperm(len(calibration.tiles), generator=self.generator)
        self.held_out, self.checked = len(order) // HELD_OUT, len(order) // _CHECKED
        pieces = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        self.full = torch.cat([encoder.embed(calibration.tiles[some]) for some in pieces])
        by_class = self.arch.pool == "class"
        self.ways = [
            _Way(
                mend,
                share,
                f"mend {mend:g}, class {share:g}" if by_class else f"mend {mend:g}",
                self.full.clone(),
                _uncut(encoder, narrow),
            )
            for mend, share in WAYS
        ]
        first = Vit(narrow).eval()
        first.load_state_dict(first_of(encoder.state_dict(), self.arch, narrow))
        self.ways.append(_Way(None, 0.0, FIRST, self.full.clone(), first))

    def run(self) -> Calibrated:
        """All blocks, then the best way."""
        for number in range(self.narrow.depth):
            self._block(number)
            if not self.full.isfinite().all():
                raise InputError(
                    f"calibration: the full encoder is not finite behind block {number + 1}, expected numbers; are its "
                    "weights whole, and the tiles normalised?"
                )
            self.say(f"calibrated block {number + 1} of {self.narrow.depth}")
        expected = self.encoder.pool(self.encoder.end(self.full))
        kept = {}
        for way in self.ways:
            found = way.encoder.pool(way.encoder.end(way.stream))
            kept[way.name] = neighbours_kept(found[: self.held_out], expected[: self.held_out])
        # What is not finite has no neighbours: topk would name some.
        best = max(self.ways, key=lambda way: (bool(way.stream.isfinite().all()), kept[way.name]))
        shares = ", ".join(f"{share:.0%} by {name}" for name, share in kept.items())
        self.say(f"neighbours kept: {shares}; taken: {best.name}")
        return Calibrated(best.encoder, best.name, kept)

    def _batches(self, first: int = 0, last: int | None = None) -> Iterator[slice]:
        """Slices of the tiles from one on to another."""
        last = len(self.full) if last is None else last
        for start in range(first, last, _BATCH):
            yield slice(start, min(start + _BATCH, last))

    def _fitted_and_checked(self) -> Iterator[tuple[slice, int]]:
        """Slices of the tiles that weights are fitted to, with 0, and of those that penalties are chosen on, with 1."""
        yield from ((some, 0) for some in self._batches(self.held_out))
        yield from ((some, 1) for some in self._batches(0, self.checked))

    def _looked_at(self) -> Tensor:
        """Indices of the tokens that moments are taken of: class token, registers, and some patches, drawn anew."""
        before = self.arch.tokens - self.arch.patches
        picked = torch.randperm(self.arch.patches, generator=self.generator)[:PATCHES].sort().values
        return torch.cat([torch.arange(before), picked + before])

    def _weights(self, count: int, way: _Way, last: bool) -> Tensor:
        """(count,) weights of the looked-at tokens, of sum 1."""
        before = self.arch.tokens - self.arch.patches
        weights = torch.ones(count)
        weights[before:] = self.arch.patches / (count - before)
        if last and self.arch.pool != "class":
            weights[:before] = 0
        weights /= weights.sum()
        if self.arch.pool == "class":
            share = LAST_CLASS_SHARE if last else way.class_share
            weights *= 1 - share
            weights[0] += share
        return weights

    def _block(self, number: int) -> None:
        """One block of the full encoder and of each way: attention, then the feed-forward network."""
        index, last = self._looked_at(), number == self.narrow.depth - 1
        whole = _block_of(self.encoder, number)
        self._pass(self.full, partial(whole.add_attention, places=self.encoder.places))
        for way in self.ways:
            narrow = _block_of(way.encoder, number)
            if way.mend is not None and self.narrow.head_dim < self.arch.head_dim:
                self._attention(whole, narrow, way, index, self._weights(len(index), way, last))
            self._pass(way.stream, partial(narrow.add_attention, places=way.encoder.places))
        self._pass(self.full, whole.add_feed_forward)
        for way in self.ways:
            narrow = _block_of(way.encoder, number)
            if way.mend is not None and self.narrow.ffn_hidden < self.arch.ffn_hidden:
                self._feed_forward(whole, narrow, way, index, self._weights(len(index), way, last))
            self._pass(way.stream, narrow.add_feed_forward)

    def _pass(self, stream: Tensor, half: Callable[[Tensor], Tensor]) -> None:
        """Take all tiles through half a block, in place."""
        for some in self._batches():
            stream[some] = half(stream[some])

    def _attention(self, whole: Block, narrow: Block, way: _Way, index: Tensor, weights: Tensor) -> None:
        """Calibrate the attention of one block. `self.full` is behind it already, `way.stream` is before it."""
        arch, kept = self.arch, self.narrow.head_dim
        heads, dk = arch.attention_heads, arch.head_dim
        if self.rotary is None:
            queries, keys = torch.zeros(2, heads, dk, dk, dtype=torch.float64)
            for some in self._batches(self.held_out):
                q, k, _ = self._qkv(whole, way.stream[some])
                q, k = q[:, :, index], k - k.mean(2, keepdim=True)
                queries += _products(q * weights.sqrt()[:, None])
                keys += _products(k)
            maps_q, maps_k = solve.bilinear(queries, keys, kept)
        else:
            # Any other basis would mix dimensions that are turned at different rates: the first pairs are kept, and
            # their products keep their size.
            maps_k = torch.eye(dk, dtype=torch.float64)[:kept].expand(heads, kept, dk)
            maps_q = maps_k * (kept / dk) ** 0.5
        to_q, to_k = maps_q.float().mT, maps_k.float().mT
        gamma = _gamma(whole.ls1)
        added = (
            self.encoder.places[:, :, index] if arch.positions == "alibi" and self.encoder.places is not None else None
        )
        moments = Moments(), Moments()
        for some, part in self._fitted_and_checked():
            x = way.stream[some]
            q, k, v = self._qkv(whole, x)
            q = q[:, :, index]
            mixed = attend(q @ to_q, k @ to_k, v, added).transpose(1, 2).flatten(2)
            y = whole.ls1(whole.attn.proj(attend(q, k, v, added).transpose(1, 2).flatten(2)))
            y += (way.mend or 0.0) * (self.full[some][:, index] - x[:, index] - y)
            moments[part].add(mixed.flatten(0, 1), y.flatten(0, 1), weights.repeat(len(x)))
        fitted, checked = (part.centred() for part in moments)
        maps_v = solve.values(fitted, heads, kept)
        weight, bias = solve.refit(fitted.of(maps_v), checked.of(maps_v))
        maps = [solve.block_diagonal(maps_q), solve.block_diagonal(maps_k), maps_v]
        layers = {"weight": whole.attn.qkv.weight, "bias": whole.attn.qkv.bias}
        for kind, value in layers.items():
            if value is not None:
                cut = [m @ part for m, part in zip(maps, value.double().chunk(3), strict=True)]
                getattr(narrow.attn.qkv, kind).copy_(torch.cat(cut))
        _write(narrow.attn.proj, weight, bias, gamma)

    def _qkv(self, block: Block, x: Tensor) -> list[Tensor]:
        """(B, N, d) -> q, k and v of the full block, each (B, heads, N, dk), turned where positions are rotary."""
        qkv = block.attn.qkv(block.norm1(x))
        q, k, v = (part.unflatten(2, (self.arch.attention_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        if self.rotary is not None:
            q, k = (turn(part, *self.rotary) for part in (q, k))
        return [q, k, v]

    def _feed_forward(self, whole: Block, narrow: Block, way: _Way, index: Tensor, weights: Tensor) -> None:
        """Calibrate the feed-forward network of one block, as `_attention` does the attention."""
        moments = Moments(), Moments()
        for some, part in self._fitted_and_checked():
            x = way.stream[some][:, index]
            hidden = _hidden(whole.mlp, whole.norm2(x))
            y = whole.ls2(whole.mlp.fc2(hidden))
            y += (way.mend or 0.0) * (self.full[some][:, index] - x - y)
            moments[part].add(hidden.flatten(0, 1), y.flatten(0, 1), weights.repeat(len(x)))
        fitted, checked = (part.centred() for part in moments)
        chosen = solve.units(fitted, self.narrow.ffn_hidden, self.arch.branches)
        weight, bias = solve.refit(fitted.at(chosen), checked.at(chosen))
        for name in ("fc1", "fc3") if self.arch.ffn == "swiglu" else ("fc1",):
            before, after = getattr(whole.mlp, name), getattr(narrow.mlp, name)
            after.weight.copy_(before.weight[chosen])
            after.bias.copy_(before.bias[chosen])
        _write(narrow.mlp.fc2, weight, bias, _gamma(whole.ls2))


def neighbours_kept(found: Tensor, expected: Tensor) -> float:
    """Share of each tile's NEIGHBOURS nearest tiles, in Euclidean distance, that two sets of (n, d) features share.

    What a k-NN classifier, which needs labels, would make of them follows it closely.
    """
    nearest = []
    for features in (found.double(), expected.double()):
        apart = torch.cdist(features, features).fill_diagonal_(torch.inf)
        nearest.append(apart.topk(NEIGHBOURS, largest=False).indices)
    same = nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)
    return float(same.any(2).double().mean())


def _block_of(encoder: Vit, number: int) -> Block:
    return cast(Block, encoder.blocks[number])


def _uncut(encoder: Vit, narrow: Architecture) -> Vit:
    """An encoder of the narrow shape with the weights of whatever is not cut."""
    made = Vit(narrow)
    own = encoder.state_dict()
    state = made.state_dict()
    made.load_state_dict({key: own[key] if own[key].shape == value.shape else value for key, value in state.items()})
    return made.eval()


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
