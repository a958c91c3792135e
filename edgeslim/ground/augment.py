"""What a training tile may look like: turned, zoomed, under another atmosphere, mixed with another tile.

Values are in the training scale: 0 ... 255 for DN 0 ... 2750 of Sentinel-2 (DN = reflectance x 10000).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DN_PER_LEVEL = 2750 / 255
"""Sentinel-2 DN of one grey level of a EuroSAT JPEG."""
PATH_RADIANCE_DN = (600.0, 290.0, 190.0)
"""Top-of-atmosphere minus surface reflectance over dense vegetation, DN, in blue, green, red: about the gap between
EuroSAT Forest (810, 683, 414) and a Level-2A scene's (230, 409, 252)."""


def radiometry(tiles: Tensor, generator: torch.Generator, band_jitter: float, share: float = 0.65) -> Tensor:
    """Random offset and gain by band on `share` of the tiles, so that L1C and L2A both look familiar.

    `tiles` is (B, 3, H, W) in red, green, blue order, 0 ... 255. Two of three times a whole path radiance is taken
    away, else none, give or take a tenth of it; each band's share varies by `band_jitter`, then a common gain and a
    band's own are applied. What lies between the two levels is no product, and there dark woods are water-coloured.
    """
    batch = tiles.shape[0]
    blue_green_red = torch.tensor(PATH_RADIANCE_DN) / DN_PER_LEVEL
    path = blue_green_red.flip(0).view(1, 3, 1, 1)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator) * (high - low) + low

    surface = (torch.rand(batch, 1, 1, 1, generator=generator) < 2 / 3).to(tiles.dtype)
    spread = 0.1 * torch.randn(batch, 1, 1, 1, generator=generator)
    strength = (surface + spread) * uniform(1 - band_jitter, 1 + band_jitter, 3, 1, 1)
    gain = uniform(0.85, 1.25, 1, 1, 1) * uniform(1 - band_jitter / 4, 1 + band_jitter / 4, 3, 1, 1)
    changed = (tiles - strength * path) * gain
    chosen = (torch.rand(batch, 1, 1, 1, generator=generator) < share).to(tiles.dtype)
    return (tiles + chosen * (changed - tiles)).clamp(0, 255)


def surface_reflectance(tiles: Tensor) -> Tensor:
    """The fixed counterpart of `radiometry` for scoring: a whole path radiance taken away from (B, 3, H, W) RGB."""
    path = (torch.tensor(PATH_RADIANCE_DN) / DN_PER_LEVEL).flip(0).view(1, 3, 1, 1)
    return (tiles - path).clamp(0, 255)


def geometry(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Flips and quarter turns for every tile; zoom, rotation and shift by resampling for about half of the batches."""
    batch = tiles.shape[0]

    def chosen() -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator) < 0.5

    tiles = torch.where(chosen(), tiles.flip(3), tiles)
    tiles = torch.where(chosen(), tiles.flip(2), tiles)
    tiles = torch.where(chosen(), tiles.transpose(2, 3), tiles)
    if torch.rand((), generator=generator) < 0.5:
        angle = (torch.rand(batch, generator=generator) - 0.5) * (math.pi / 3)
        zoom = torch.exp((torch.rand(batch, generator=generator) - 0.5) * 0.5)
        shift = (torch.rand(batch, 2, generator=generator) - 0.5) * 0.3
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        affine = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        grid = F.affine_grid(affine, list(tiles.shape), align_corners=False)
        tiles = F.grid_sample(tiles, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return tiles


def noise(tiles: Tensor, generator: torch.Generator, most: float = 2.0) -> Tensor:
    """Gaussian noise of a random deviation up to `most` levels a tile: a scene is not a JPEG."""
    deviation = torch.rand(tiles.shape[0], 1, 1, 1, generator=generator) * most
    return (tiles + torch.randn(tiles.shape, generator=generator) * deviation).clamp(0, 255)


def mixup(tiles: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weighted mean of two tiles and of their targets (arXiv 1710.09412)."""
    order = torch.randperm(tiles.shape[0], generator=generator)
    share = 0.5 + 0.5 * float(torch.rand((), generator=generator))
    return tiles * share + tiles[order] * (1 - share), targets * share + targets[order] * (1 - share)


def cutmix(tiles: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of another tile, the same for the whole batch (arXiv 1905.04899)."""
    order = torch.randperm(tiles.shape[0], generator=generator)
    share = 0.5 + 0.5 * float(torch.rand((), generator=generator))
    height, width = tiles.shape[2:]
    cut_h, cut_w = (round(side * math.sqrt(1 - share)) for side in (height, width))
    top = int(torch.randint(height - cut_h + 1, (), generator=generator))
    left = int(torch.randint(width - cut_w + 1, (), generator=generator))
    mixed = tiles.clone()
    mixed[:, :, top : top + cut_h, left : left + cut_w] = tiles[order, :, top : top + cut_h, left : left + cut_w]
    share = 1 - cut_h * cut_w / (height * width)
    return mixed, targets * share + targets[order] * (1 - share)


def patchwork(tiles: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two to four tiles joined along irregular borders, each tile of the batch along its own; targets by area.

    A scene's windows straddle fields, woods and villages; EuroSAT's tiles were picked to show one class. Without such
    joins a network takes any dark wood between fields for a river.
    """
    batch = tiles.shape[0]
    for _ in range(int(torch.randint(1, 3, (), generator=generator))):
        order = torch.randperm(batch, generator=generator)
        cells = int(torch.randint(2, 6, (), generator=generator))
        coarse = torch.rand(batch, 1, cells, cells, generator=generator)
        relief = F.interpolate(coarse, size=tiles.shape[2:], mode="bicubic", align_corners=False)
        level = torch.rand(batch, 1, generator=generator) * 0.5
        threshold = relief.flatten(1).sort(1).values.gather(1, (level * (relief[0].numel() - 1)).long())
        other = relief < threshold.view(batch, 1, 1, 1)
        share = 1 - other.float().mean((1, 2, 3)).view(batch, 1)
        tiles, targets = (torch.where(other, tiles[order], tiles), targets * share + targets[order] * (1 - share))
    return tiles, targets


def mosaic(tiles: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four tiles around a random point, half of the times at half their scale: a country of small fields.

    In EuroSAT nearly every varied tile is a river or a highway, so that variety itself passes for one.
    """
    side = tiles.shape[-1]
    sources = tiles
    if torch.rand((), generator=generator) < 0.5:
        small = F.avg_pool2d(tiles, 2)
        sources = torch.cat([small, small.flip(3)], 3)
        sources = torch.cat([sources, sources.flip(2)], 2)
    row, column = torch.randint(side // 4, side - side // 4 + 1, (2,), generator=generator).tolist()
    joined, shares = sources.clone(), torch.zeros_like(targets)
    for rows in (slice(0, row), slice(row, side)):
        for columns in (slice(0, column), slice(column, side)):
            order = torch.randperm(tiles.shape[0], generator=generator)
            joined[:, :, rows, columns] = sources[order, :, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start) / side**2
            shares = shares + targets[order] * area
    return joined, shares


def mix(
    tiles: Tensor, targets: Tensor, generator: torch.Generator, shares: tuple[float, float, float, float]
) -> tuple[Tensor, Tensor, bool]:
    """Mix a batch by at most one of `mixup`, `cutmix`, `patchwork` and `mosaic`, by their `shares` of the batches.

    `tiles` (B, C, H, W), `targets` (B, classes) probabilities; the last value says whether anything was mixed.
    """
    draw = float(torch.rand((), generator=generator))
    for way, share in zip((mixup, cutmix, patchwork, mosaic), shares, strict=True):
        if draw < share:
            return *way(tiles, targets, generator), True
        draw -= share
    return tiles, targets, False
