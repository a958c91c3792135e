"""Refitted, of a ConvNeXt V2: a block with fewer hidden channels, fitted to what tiles show, GRN between them.

What is inside a block is summed to moments, batch by batch, so that no map is kept; of each hidden channel a number a
tile is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.ground.convnext import Block
from edgeslim.ground.slimming import solve
from edgeslim.ground.slimming.calibration import PATCHES
from edgeslim.ground.slimming.moments import Covariance, Moments
from edgeslim.ground.slimming.refitted import slices


@dataclass(frozen=True, slots=True)
class SeenMaps:
    """What a block is fitted to. Held-out tiles come first, and the first of these choose between penalties."""

    maps: Tensor
    """(n, C, H, W) before the block."""
    wanted: Tensor
    """(n, C, H, W) behind the block of the full encoder."""
    mend: float
    """Share of `wanted` that is imitated, beside what the full block makes of `maps`."""
    index: Tensor
    """Of the places that are looked at."""
    held_out: int
    """Tiles that nothing is fitted to."""
    checked: int
    """Of these, those that penalties are chosen on."""

    def fitted(self) -> Iterator[slice]:
        """Slices of the tiles that weights are fitted to."""
        return slices(self.held_out, len(self.maps))

    def fitted_and_checked(self) -> Iterator[tuple[slice, int]]:
        """The same, with 0, and slices of those that penalties are chosen on, with 1."""
        yield from ((some, 0) for some in self.fitted())
        yield from ((some, 1) for some in slices(0, self.checked))

    def add(self, moments: Moments, some: slice, x: Tensor, y: Tensor) -> None:
        """Rows of the looked-at places of (B, hidden, H, W) regressors, where the full block adds `y` (B, C, H, W)."""
        if self.mend:
            y = y + self.mend * (self.wanted[some] - self.maps[some] - y)
        rows = [part.flatten(2)[:, :, self.index].transpose(1, 2).flatten(0, 1) for part in (x, y)]
        moments.add(rows[0], rows[1], torch.ones(len(rows[0])))


def looked_at(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Indices of the places of (n, C, H, W) maps that moments are taken of, drawn anew."""
    return torch.randperm(maps.shape[2] * maps.shape[3], generator=generator)[:PATCHES].sort().values


@dataclass(frozen=True, slots=True)
class Channels:
    """What the tiles that weights are fitted to show of a block's hidden channels."""

    shown: Covariance
    """Behind GRN, and of what the block is to add."""
    responses: Tensor
    """(tiles, hidden) norms over the map, as GRN measures them."""

    def chosen(self, kept: int) -> Tensor:
        """(kept,) indices of the channels that explain most."""
        return solve.units(self.shown, kept, 1)

    def ratio(self, chosen: Tensor) -> Tensor:
        """Mean response of the chosen channels, as a share of all channels', on average over the tiles."""
        each = self.responses.double()
        # A tile of one value may answer with nothing at all: it says nothing of the ratio.
        of_all = each.mean(1)
        answers = of_all > 0
        return (each[:, chosen].mean(1)[answers] / of_all[answers]).mean() if answers.any() else torch.ones(())


def channels_of(whole: Block, seen: SeenMaps) -> Channels:
    """Of the full block."""
    shown, responses = Moments(), []
    for some in seen.fitted():
        hidden = _hidden(whole, seen.maps[some])
        responses.append(torch.linalg.vector_norm(hidden, dim=(2, 3)))
        behind = whole.mlp.grn(hidden)
        seen.add(shown, some, behind, whole.mlp.fc2(behind))
    return Channels(shown.centred(), torch.cat(responses))


def fit_block(whole: Block, narrow: Block, seen: SeenMaps, channels: Channels) -> None:
    """Put a block's weights into the narrow one, which has its depthwise convolution and norm already."""
    chosen = channels.chosen(narrow.mlp.fc1.out_channels)
    for layer in ("fc1", "grn"):
        before, after = getattr(whole.mlp, layer), getattr(narrow.mlp, layer)
        after.weight.copy_(before.weight[chosen])
        after.bias.copy_(before.bias[chosen])
    narrow.mlp.grn.weight.mul_(channels.ratio(chosen))
    moments = (Moments(), Moments())
    for some, part in seen.fitted_and_checked():
        maps = seen.maps[some]
        added = whole.mlp(whole.norm(whole.conv_dw(maps)))
        seen.add(moments[part], some, narrow.mlp.grn(_hidden(narrow, maps)), added)
    weight, bias = solve.refit(moments[0].centred(), moments[1].centred())
    narrow.mlp.fc2.weight.copy_(weight[..., None, None])
    assert narrow.mlp.fc2.bias is not None
    narrow.mlp.fc2.bias.copy_(bias)


def down(maps: Tensor, downsample: nn.Module) -> Tensor:
    """(n, C, H, W) maps behind a stage -> those before the next one's blocks."""
    return torch.cat([downsample(maps[some]) for some in slices(0, len(maps))])


def _hidden(block: Block, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, hidden, H, W), what GRN is given."""
    return F.gelu(block.mlp.fc1(block.norm(block.conv_dw(x))))
