"""Uneven, of a ConvNeXt V2: of each block, what it loses with its hidden channels, and how much of it is felt.

As ground.slimming.uneven has it of a ViT's feed-forward network: the loss falls with what the channels that are chosen
first leave unexplained, behind GRN; and it is the features' change where this block alone is cut, to the channels that
it has at one width for all.

In memory are the maps of all tiles at one depth, (n, C, H, W) float32, once, and a number a tile for each hidden
channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import cast

import torch
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.ground.convnext import Block, ConvNext, Stage
from edgeslim.ground.slimming import solve
from edgeslim.ground.slimming.allotment import ALIGNED, Curve, sizes_of
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.felt import felt, felt_tiles, scaled
from edgeslim.ground.slimming.refitted import embedded, slices, through
from edgeslim.ground.slimming.refitted_convnext import SeenMaps, channels_of, down, fit_block, looked_at


class Curves:
    """Through the blocks of the full encoder, of each of which a curve is made."""

    def __init__(self, encoder: ConvNext, even: ConvNextArchitecture, calibration: Calibration) -> None:
        self.encoder, self.even, self.say = encoder, even, calibration.say
        self.full = encoder.arch.at(1.0, even.depth)
        self.generator = torch.Generator().manual_seed(calibration.seed)
        self.maps, self.held_out, self.checked = embedded(encoder, calibration, self.generator)
        stages = zip(map(_stage, encoder.stages), even.depths, strict=False)
        self.modules = [part for stage, depth in stages for part in (stage.downsample, *list(stage.blocks)[:depth])]
        self.felt = felt_tiles(self.held_out, len(self.maps))
        self.features = self._features(self.modules)

    def run(self) -> list[Curve]:
        """One a block."""
        curves = list[Curve]()
        for at, module in enumerate(self.modules):
            if not isinstance(module, Block):
                self.maps = down(self.maps, module)
                continue
            curves.append(self._curve(module, self.modules[at + 1 :], len(curves)))
            through(self.maps, module)
            self.say(f"looked at block {len(curves)} of {self.even.depth}")
        return curves

    def _curve(self, whole: Block, behind: Sequence[nn.Module], number: int) -> Curve:
        """Of a block, the maps before which are at hand, and what comes behind it."""
        full, even = self.full.inner_sizes[number], self.even.inner_sizes[number]
        step = gcd(full, even, ALIGNED)
        sizes, at = sizes_of(full, even, step)
        # What is wanted is what the full block makes of it.
        seen = SeenMaps(self.maps, self.maps, 0.0, looked_at(self.maps, self.generator), self.held_out, self.checked)
        channels = channels_of(whole, seen)
        left = solve.unexplained(channels.shown, full)
        losses = [left[size - 1] for size in sizes]
        narrow = Block(self.maps.shape[1], at, whole.mlp.grn.eps)
        narrow.conv_dw, narrow.norm = whole.conv_dw, whole.norm
        fit_block(whole, narrow, seen, channels)
        reaching = felt(self.features, self._features([narrow, *behind]))
        return Curve(tuple(sizes), tuple(scaled(losses, losses[sizes.index(at)], reaching)), self._flop(number, step))

    def _features(self, modules: Sequence[nn.Module]) -> Tensor:
        """(B, d) features of the tiles that are looked at, from their maps on through all of `modules`."""
        maps, found = self.maps[self.felt], []
        for some in slices(0, len(maps)):
            x = maps[some]
            for module in modules:
                x = module(x)
            found.append(self.encoder.feature(x))
        return torch.cat(found)

    def _flop(self, number: int, step: int) -> int:
        """What a step of a block's hidden channels costs."""
        sizes = list(self.full.inner_sizes)
        if sizes[number] == step:
            return 1
        sizes[number] -= step
        return cost.flop(self.full) - cost.flop(self.full.sized(sizes))


def _stage(module: nn.Module) -> Stage:
    return cast(Stage, module)
