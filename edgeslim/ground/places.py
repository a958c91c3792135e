"""Places: where the patches of a tile are, for encoders that say so in attention and not in their tokens.

What is made here depends on the architecture alone: no checkpoint has it, all blocks share it, and it is a constant of
what flies (cost.constants).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import Architecture

ROPE_BASE = 100
"""Of the periods of the rotary positions, in every release of DINOv3."""


def alibi(arch: Architecture) -> Tensor:
    """(1, heads, P, P) that is added to attention's scores: minus the distance of two patches, steepest in head 1."""
    side = math.isqrt(arch.patches)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    steepness = 2 ** (-8 * torch.arange(1, arch.attention_heads + 1) / arch.attention_heads)
    # Element by element: a distance by matrix products would be rounded otherwise.
    distances = (places[:, None] - places).square().sum(-1).sqrt()
    return -distances * steepness.view(1, -1, 1, 1)


def rotation(arch: Architecture) -> Tensor:
    """(2, N, head_dim) cosines and sines by which q and k of each token are turned; tokens without a place are not.

    Dimensions 4j and 4j + 1 of a head are a pair that is turned by the row of the patch's centre, 4j + 2 and 4j + 3 one
    that is by its column, both from -1 to 1, times 2 pi / 100^(4j / rope_dim): the first dimensions are pairs of both.
    """
    side, quarter = math.isqrt(arch.patches), arch.rope_dim // 4
    centres = 2 * (torch.arange(side) + 0.5) / side - 1
    rates = 1 / ROPE_BASE ** (torch.arange(quarter) * 4 / arch.rope_dim)
    places = torch.cartesian_prod(centres, centres)
    angles = (2 * math.pi * places[:, None, :] * rates[:, None]).repeat_interleave(2, -1).flatten(1)
    angles = F.pad(angles[:, : arch.head_dim], (0, 0, arch.tokens - arch.patches, 0))
    return torch.stack([angles.cos(), angles.sin()])


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Each pair (a, b) of the last dimension of (..., N, k) -> (a cos - b sin, b cos + a sin)."""
    exchanged = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosines + exchanged * sines
