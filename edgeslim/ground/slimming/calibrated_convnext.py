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

from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import Block, ConvNext, Stage
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.refitted import embedded, through
from edgeslim.ground.slimming.refitted_convnext import SeenMaps, channels_of, down, fit_block, looked_at
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
        self.full, self.held_out, self.checked = embedded(encoder, calibration, self.generator)
        first = first_of(encoder.state_dict(), encoder.arch, narrow)
        self.ways = [
            _Way(mend, FIRST if mend is None else f"mend {mend:g}", self.full.clone(), _made(narrow, first))
            for mend in (*MENDS, None)
        ]

    def run(self) -> Calibrated[ConvNext]:
        """All blocks, then the best way."""
        done = 0
        for stage, depth in enumerate(self.narrow.depths):
            downsample = cast(Stage, self.encoder.stages[stage]).downsample
            self.full = down(self.full, downsample)
            for way in self.ways:
                way.maps = down(way.maps, downsample)
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
        index = looked_at(self.full, self.generator)
        through(self.full, whole)
        kept = self.narrow.stage_sizes[stage][number]
        for way in self.ways:
            narrow = _block_of(way.encoder, stage, number)
            if way.mend is not None and kept < whole.mlp.fc1.out_channels:
                seen = SeenMaps(way.maps, self.full, way.mend, index, self.held_out, self.checked)
                fit_block(whole, narrow, seen, channels_of(whole, seen))
            through(way.maps, narrow)


def _block_of(encoder: ConvNext, stage: int, number: int) -> Block:
    return cast(Block, cast(Stage, encoder.stages[stage]).blocks[number])


def _made(arch: ConvNextArchitecture, state: dict[str, Tensor]) -> ConvNext:
    made = ConvNext(arch)
    made.load_state_dict(state)
    return made.eval()
