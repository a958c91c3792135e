"""Method "calibrated" of a ConvNeXt V2: as of a ViT's feed-forward network, with GRN between hidden channels.

Block after block, each on the maps that the blocks before it, already slimmed, leave:

- of the hidden channels those are kept that, behind GRN, explain most of what the block adds (solve.units);
- GRN measures a channel against the mean of those that are left, which are not the mean's usual ones: its scale takes
  up, on average over the tiles, by how much their mean is another;
- the convolution behind is refitted by ridge regression to the narrow block's own hidden channels (solve.refit).

What is refitted imitates and which of several ways is taken is as ground.slimming.calibrated says.

In memory are the maps of all tiles at one depth, (n, C, H, W) float32, once for the full encoder and once for each way,
(of a ConvNeXt V2 Atto and 256 tiles of 224 px, 5 x 128 MB at most), and a number a tile for each hidden channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import Block, ConvNext, Stage
from edgeslim.ground.slimming import solve
from edgeslim.ground.slimming.calibration import HELD_OUT, PATCHES, Calibration
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.moments import Moments
from edgeslim.ground.slimming.refitted import CHECKED, slices, through
from edgeslim.ground.slimming.taken import FIRST, Calibrated, taken

MENDS = (0.0, 0.5, 1.0)
"""Share of what earlier blocks lost that each block mends: one way each."""


@dataclass(slots=True)
class _Way:
    """One way to refit, all of whose blocks so far are slimmed."""

    mend: float | None
    """Share of what earlier blocks lost that is mended; None: the blocks are slimmed already."""
    name: str
    """For people."""
    maps: Tensor
    """(n, C, H, W) behind the blocks so far."""
    encoder: ConvNext
    """Of the narrow shape."""


class Walk:
    """Through the blocks of the full encoder and of every way, side by side. Held-out tiles come first."""

    def __init__(self, encoder: ConvNext, narrow: ConvNextArchitecture, calibration: Calibration) -> None:
        self.encoder, self.narrow, self.say = encoder, narrow, calibration.say
        self.generator = torch.Generator().manual_seed(calibration.seed)
        order = torch.randperm(len(calibration.tiles), generator=self.generator)
        self.held_out, self.checked = len(order) // HELD_OUT, len(order) // CHECKED
        pieces = [calibration.tiles[order[some]] for some in slices(0, len(order))]
        self.full = torch.cat([encoder.embed(tiles) for tiles in pieces])
        first = first_of(encoder.state_dict(), encoder.arch, narrow)
        self.ways = [
            _Way(mend, FIRST if mend is None else f"mend {mend:g}", self.full.clone(), _made(narrow, first))
            for mend in (*MENDS, None)
        ]

    def run(self) -> Calibrated[ConvNext]:
        """All blocks, then the best way."""
        done = 0
        for stage, depth in enumerate(self.narrow.depths):
            down = cast(Stage, self.encoder.stages[stage]).downsample
            self.full = _down(self.full, down)
            for way in self.ways:
                way.maps = _down(way.maps, down)
            for number in range(depth):
                self._block(stage, number)
                done += 1
                if not self.full.isfinite().all():
                    raise InputError(
                        f"calibration: the full encoder is not finite behind block {done}, expected numbers; are its "
                        "weights whole, and the tiles normalised?"
                    )
                self.say(f"calibrated block {done} of {self.narrow.depth}")
        found = {way.name: way.encoder.feature(way.maps[: self.held_out]) for way in self.ways}
        expected = self.encoder.feature(self.full[: self.held_out])
        return taken({way.name: way.encoder for way in self.ways}, found, expected, self.say)

    def _block(self, stage: int, number: int) -> None:
        """One block of the full encoder and of each way."""
        whole = _block_of(self.encoder, stage, number)
        places = self.full.shape[2] * self.full.shape[3]
        index = torch.randperm(places, generator=self.generator)[:PATCHES].sort().values
        through(self.full, whole)
        kept = self.narrow.hidden[stage]
        for way in self.ways:
            narrow = _block_of(way.encoder, stage, number)
            if way.mend is not None and kept < whole.mlp.fc1.out_channels:
                self._fit(whole, narrow, way, way.mend, index)
            through(way.maps, narrow)

    def _fit(self, whole: Block, narrow: Block, way: _Way, mend: float, index: Tensor) -> None:
        """Put a block's weights into the narrow one. `self.full` is behind the block already, `way.maps` before."""
        kept = narrow.mlp.fc1.out_channels
        shown, responses = Moments(), []
        for some in slices(self.held_out, len(self.full)):
            hidden = _hidden(whole, way.maps[some])
            responses.append(torch.linalg.vector_norm(hidden, dim=(2, 3)))
            behind = whole.mlp.grn(hidden)
            _add(shown, behind, self._target(some, way.maps, whole.mlp.fc2(behind), mend), index)
        chosen = solve.units(shown.centred(), kept, 1)
        each = torch.cat(responses).double()
        # A tile of one value may answer with nothing at all: it says nothing of the ratio.
        of_all = each.mean(1)
        answers = of_all > 0
        ratio = (each[:, chosen].mean(1)[answers] / of_all[answers]).mean() if answers.any() else torch.ones(())
        for layer in ("fc1", "grn"):
            before, after = getattr(whole.mlp, layer), getattr(narrow.mlp, layer)
            after.weight.copy_(before.weight[chosen])
            after.bias.copy_(before.bias[chosen])
        narrow.mlp.grn.weight.mul_(ratio)
        moments = (Moments(), Moments())
        for some, part in self._fitted_and_checked():
            target = self._target(some, way.maps, whole.mlp(whole.norm(whole.conv_dw(way.maps[some]))), mend)
            _add(moments[part], narrow.mlp.grn(_hidden(narrow, way.maps[some])), target, index)
        weight, bias = solve.refit(moments[0].centred(), moments[1].centred())
        narrow.mlp.fc2.weight.copy_(weight[..., None, None])
        assert narrow.mlp.fc2.bias is not None
        narrow.mlp.fc2.bias.copy_(bias)

    def _fitted_and_checked(self) -> list[tuple[slice, int]]:
        """Slices of the tiles that weights are fitted to, with 0, and of those that penalties are chosen on, with 1."""
        fitted = [(some, 0) for some in slices(self.held_out, len(self.full))]
        return fitted + [(some, 1) for some in slices(0, self.checked)]

    def _target(self, some: slice, maps: Tensor, y: Tensor, mend: float) -> Tensor:
        """(B, C, H, W) that is to be added to `maps`, where the full block adds `y`."""
        return y + mend * (self.full[some] - maps[some] - y) if mend else y


def _add(moments: Moments, x: Tensor, y: Tensor, index: Tensor) -> None:
    """Rows of the looked-at places of (B, channels, H, W) regressors and targets."""
    rows = [part.flatten(2)[:, :, index].transpose(1, 2).flatten(0, 1) for part in (x, y)]
    moments.add(rows[0], rows[1], torch.ones(len(rows[0])))


def _hidden(block: Block, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, hidden, H, W), what GRN is given."""
    return F.gelu(block.mlp.fc1(block.norm(block.conv_dw(x))))


def _down(maps: Tensor, downsample: torch.nn.Module) -> Tensor:
    return torch.cat([downsample(maps[some]) for some in slices(0, len(maps))])


def _block_of(encoder: ConvNext, stage: int, number: int) -> Block:
    return cast(Block, cast(Stage, encoder.stages[stage]).blocks[number])


def _made(arch: ConvNextArchitecture, state: dict[str, Tensor]) -> ConvNext:
    made = ConvNext(arch)
    made.load_state_dict(state)
    return made.eval()
