"""Calibration: the unlabelled tiles that an encoder is calibrated with, and whether they can do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError

HELD_OUT = 2
"""Every second tile is held out: which of several ways is taken is decided on those."""
PATCHES = 64
"""Patch tokens of a tile that moments are taken of, at most: neighbours are much alike."""
FEWEST = 40
"""Tiles below which even the smallest encoder is not calibrated."""
_ROWS_A_REGRESSOR = 4
"""Tokens that moments see for each hidden unit whose weights are fitted to them."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What an encoder is calibrated with."""

    tiles: Tensor
    """(n, bands, H, W) float32, normalised."""
    seed: int = 0
    """Of which tiles are held out and which tokens are looked at; nothing else is random."""
    say: Callable[[str], None] = lambda _: None
    """Takes lines of progress."""

    def check(self, arch: AnyArchitecture) -> None:
        """Raise InputError where these tiles cannot calibrate `arch`: shape, number, NaN, or all alike."""
        found, expected = tuple(self.tiles.shape[1:]), (arch.bands, arch.tile_px, arch.tile_px)
        if self.tiles.ndim != 4 or found != expected:
            raise InputError(f"calibration tiles: found {found}, expected (bands, height, width) {expected}")
        if len(self.tiles) < (needed := tiles_needed(arch)):
            units = arch.ffn_hidden if isinstance(arch, Architecture) else max(arch.hidden)
            raise InputError(
                f"calibration tiles: found {len(self.tiles)}, expected at least {needed} for {units} hidden "
                "units; give more tiles, or --method first, which needs none"
            )
        if bad := [number for number, tile in enumerate(self.tiles) if not torch.isfinite(tile).all()]:
            raise InputError(
                f"calibration tiles: {len(bad)} of {len(self.tiles)} hold NaN or infinity, the first is number "
                f"{bad[0] + 1}; leave them out, or fill them as your scenes will be"
            )
        distinct = len({sha256(tile.contiguous().numpy().data).digest() for tile in self.tiles})
        if distinct < needed:
            raise InputError(
                f"calibration tiles: found {distinct} that differ among {len(self.tiles)}, expected at least {needed}; "
                "give tiles of what the encoder will see"
            )


def tiles_needed(arch: AnyArchitecture) -> int:
    """Tiles without which there are fewer than four looked-at tokens, or places, for each hidden unit of a block."""
    if isinstance(arch, Architecture):
        each = [(max(arch.ffn_hidden, arch.attention_dim), arch.patches)]
    else:
        each = [(hidden, side**2) for hidden, side in zip(arch.hidden, arch.sides, strict=True)]
    return max(FEWEST, *(-(-_ROWS_A_REGRESSOR * units // min(PATCHES, places)) for units, places in each))
