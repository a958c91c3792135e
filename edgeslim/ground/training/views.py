"""Views: two looks at one tile that a contrast is to recognise as the same place.

Tiles are normalised, mean 0 and deviation 1 of each band, and of any number of bands. What a view may change is what
tells nothing of the place: its orientation, which part of the tile is seen and how large (to a quarter of its area),
illumination and atmosphere (a common gain and offset, little of a band's own: ratios of bands are what land cover is
told by), one lost band, noise of the sensor. Colours are not taken away, as views of photographs do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.ground.training.augment import Chance, dihedral

LEAST_AREA = 0.25
"""Of a tile, that a view shows."""
DROPPED = 0.1
"""Share of the views that lack a band, where there is more than one."""


def crop(tiles: Tensor, chance: Chance) -> Tensor:
    """A part of LEAST_AREA to all of each (B, C, H, W) tile, sides 3 : 4 to 4 : 3, resampled to the tile's size."""
    batch = len(tiles)
    area = LEAST_AREA + (1 - LEAST_AREA) * chance.rand(batch)
    ratio = torch.exp((chance.rand(batch) * 2 - 1) * math.log(4 / 3) / 2)
    scale = torch.stack([area.sqrt() * ratio, area.sqrt() / ratio], 1).clamp(max=1.0)
    shift = (chance.rand(batch, 2) * 2 - 1) * (1 - scale)
    affine = torch.zeros(batch, 2, 3, device=tiles.device)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale[:, 0], scale[:, 1], shift
    grid = F.affine_grid(affine, list(tiles.shape), align_corners=False)
    return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def illumination(tiles: Tensor, chance: Chance) -> Tensor:
    """Gain and offset of each (B, C, H, W) tile, mostly common to its bands, then noise of the sensor."""
    batch, bands = tiles.shape[:2]
    gain = torch.exp(0.2 * chance.randn(batch, 1, 1, 1) + 0.05 * chance.randn(batch, bands, 1, 1))
    offset = 0.3 * chance.randn(batch, 1, 1, 1) + 0.1 * chance.randn(batch, bands, 1, 1)
    noise = 0.05 * chance.rand(batch, 1, 1, 1) * chance.randn(*tiles.shape)
    return tiles * gain + offset + noise


def drop_band(tiles: Tensor, chance: Chance) -> Tensor:
    """One band of DROPPED of the (B, C, H, W) tiles set to its mean, 0; never the only one."""
    batch, bands = tiles.shape[:2]
    if bands == 1:
        return tiles
    lost = F.one_hot((chance.rand(batch) * bands).long().clamp(max=bands - 1), bands).bool()
    lost &= chance.rand(batch, 1) < DROPPED
    return tiles.masked_fill(lost.view(batch, bands, 1, 1), 0.0)


def view(tiles: Tensor, chance: Chance) -> Tensor:
    """One view of each of (B, C, H, W) normalised square tiles."""
    return drop_band(illumination(crop(dihedral(tiles, chance), chance), chance), chance)
