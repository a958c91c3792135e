"""What a training tile may look like: turned, zoomed, under another atmosphere, mixed with another tile.

Values are in the training scale: 0 ... 255 for DN 0 ... 2750 of Sentinel-2 (DN = reflectance x 10000). Random tensors
come from `chance.device`, on the device of the tiles; what decides the course of a step comes from `chance.host`, so
that a GPU is never waited for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

DN_PER_LEVEL = 2750 / 255
"""Sentinel-2 DN of one grey level of a EuroSAT JPEG."""
PATH_RADIANCE_DN = (600.0, 290.0, 190.0)
"""Top-of-atmosphere minus surface reflectance over dense vegetation, DN, in blue, green, red: about the gap between
EuroSAT Forest (810, 683, 414) and a Level-2A scene's (230, 409, 252)."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Where a training run's random numbers come from."""

    host: torch.Generator
    """On the CPU: decisions."""
    device: torch.Generator
    """On the device of the tiles: tensors. On the CPU the same generator as `host`."""

    @classmethod
    def seeded(cls, seed: int, device: torch.device | None = None) -> Chance:
        """Both from one seed, for tiles on `device` (None: the CPU)."""
        host = torch.Generator().manual_seed(seed)
        if device is None or device.type == "cpu":
            return cls(host, host)
        return cls(host, torch.Generator(device).manual_seed(seed))

    def decide(self) -> float:
        """A number from 0 to 1 that the CPU needs to know."""
        return float(torch.rand((), generator=self.host))

    def whole(self, low: int, high: int) -> int:
        """A whole number of `low` to `high` - 1 that the CPU needs to know."""
        return int(torch.randint(low, high, (), generator=self.host))

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers from 0 to 1 on the device."""
        return torch.rand(shape, generator=self.device, device=self.device.device)

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers on the device."""
        return torch.randn(shape, generator=self.device, device=self.device.device)

    def order(self, count: int) -> Tensor:
        """A permutation on the device."""
        return torch.randperm(count, generator=self.device, device=self.device.device)


def radiometry(tiles: Tensor, chance: Chance, band_jitter: float, share: float = 0.65) -> Tensor:
    """Random offset and gain by band on `share` of the tiles, so that L1C and L2A both look familiar.

    `tiles` is (B, 3, H, W) in red, green, blue order, 0 ... 255. Two of three times a whole path radiance is taken
    away, else none, give or take a tenth of it; each band's share varies by `band_jitter`, then a common gain and a
    band's own are applied. What lies between the two levels is no product, and there dark woods are water-coloured.
    """
    batch = tiles.shape[0]
    path = _path_radiance(tiles)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return chance.rand(batch, *shape) * (high - low) + low

    surface = (chance.rand(batch, 1, 1, 1) < 2 / 3).to(tiles.dtype)
    spread = 0.1 * chance.randn(batch, 1, 1, 1)
    strength = (surface + spread) * uniform(1 - band_jitter, 1 + band_jitter, 3, 1, 1)
    gain = uniform(0.85, 1.25, 1, 1, 1) * uniform(1 - band_jitter / 4, 1 + band_jitter / 4, 3, 1, 1)
    changed = (tiles - strength * path) * gain
    chosen = (chance.rand(batch, 1, 1, 1) < share).to(tiles.dtype)
    return (tiles + chosen * (changed - tiles)).clamp(0, 255)


def surface_reflectance(tiles: Tensor) -> Tensor:
    """The fixed counterpart of `radiometry` for scoring: a whole path radiance taken away from (B, 3, H, W) RGB."""
    return (tiles - _path_radiance(tiles)).clamp(0, 255)


def _path_radiance(tiles: Tensor) -> Tensor:
    """(1, 3, 1, 1) levels of red, green and blue, on the device of the tiles."""
    return (torch.tensor(PATH_RADIANCE_DN, device=tiles.device) / DN_PER_LEVEL).flip(0).view(1, 3, 1, 1)


def dihedral(tiles: Tensor, chance: Chance) -> Tensor:
    """One of the eight flips and quarter turns for every square tile: from above none is upright."""

    def chosen() -> Tensor:
        return chance.rand(tiles.shape[0], 1, 1, 1) < 0.5

    tiles = torch.where(chosen(), tiles.flip(3), tiles)
    tiles = torch.where(chosen(), tiles.flip(2), tiles)
    return torch.where(chosen(), tiles.transpose(2, 3), tiles)


def geometry(tiles: Tensor, chance: Chance) -> Tensor:
    """Flips and quarter turns for every tile; zoom, rotation and shift by resampling for about half of the batches."""
    batch = tiles.shape[0]
    tiles = dihedral(tiles, chance)
    if chance.decide() < 0.5:
        angle = (chance.rand(batch) - 0.5) * (math.pi / 3)
        zoom = torch.exp((chance.rand(batch) - 0.5) * 0.5)
        shift = (chance.rand(batch, 2) - 0.5) * 0.3
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        affine = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        grid = F.affine_grid(affine, list(tiles.shape), align_corners=False)
        tiles = F.grid_sample(tiles, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return tiles


def noise(tiles: Tensor, chance: Chance, most: float = 2.0) -> Tensor:
    """Gaussian noise of a random deviation up to `most` levels a tile: a scene is not a JPEG."""
    deviation = chance.rand(tiles.shape[0], 1, 1, 1) * most
    return (tiles + chance.randn(*tiles.shape) * deviation).clamp(0, 255)


def mixup(tiles: Tensor, targets: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Weighted mean of two tiles and of their targets (arXiv 1710.09412)."""
    order = chance.order(tiles.shape[0])
    share = 0.5 + 0.5 * chance.decide()
    return tiles * share + tiles[order] * (1 - share), targets * share + targets[order] * (1 - share)


def cutmix(tiles: Tensor, targets: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """A rectangle of another tile, the same for the whole batch (arXiv 1905.04899)."""
    order = chance.order(tiles.shape[0])
    share = 0.5 + 0.5 * chance.decide()
    height, width = tiles.shape[2:]
    cut_h, cut_w = (round(side * math.sqrt(1 - share)) for side in (height, width))
    top = chance.whole(0, height - cut_h + 1)
    left = chance.whole(0, width - cut_w + 1)
    mixed = tiles.clone()
    mixed[:, :, top : top + cut_h, left : left + cut_w] = tiles[order, :, top : top + cut_h, left : left + cut_w]
    share = 1 - cut_h * cut_w / (height * width)
    return mixed, targets * share + targets[order] * (1 - share)


def patchwork(tiles: Tensor, targets: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Two to four tiles joined along irregular borders, each tile of the batch along its own; targets by area.

    A scene's windows straddle fields, woods and villages; EuroSAT's tiles were picked to show one class. Without such
    joins a network takes any dark wood between fields for a river.
    """
    batch = tiles.shape[0]
    for _ in range(chance.whole(1, 3)):
        order = chance.order(batch)
        cells = chance.whole(2, 6)
        coarse = chance.rand(batch, 1, cells, cells)
        relief = F.interpolate(coarse, size=tiles.shape[2:], mode="bicubic", align_corners=False)
        level = chance.rand(batch, 1) * 0.5
        threshold = relief.flatten(1).sort(1).values.gather(1, (level * (relief[0].numel() - 1)).long())
        other = relief < threshold.view(batch, 1, 1, 1)
        share = 1 - other.float().mean((1, 2, 3)).view(batch, 1)
        tiles, targets = (torch.where(other, tiles[order], tiles), targets * share + targets[order] * (1 - share))
    return tiles, targets


def mosaic(tiles: Tensor, targets: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """Four tiles around a random point, half of the times at half their scale: a country of small fields.

    In EuroSAT nearly every varied tile is a river or a highway, so that variety itself passes for one.
    """
    side = tiles.shape[-1]
    sources = tiles
    if chance.decide() < 0.5:
        small = F.avg_pool2d(tiles, 2)
        sources = torch.cat([small, small.flip(3)], 3)
        sources = torch.cat([sources, sources.flip(2)], 2)
    row, column = (chance.whole(side // 4, side - side // 4 + 1) for _ in range(2))
    joined, shares = sources.clone(), torch.zeros_like(targets)
    for rows in (slice(0, row), slice(row, side)):
        for columns in (slice(0, column), slice(column, side)):
            order = chance.order(tiles.shape[0])
            joined[:, :, rows, columns] = sources[order, :, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start) / side**2
            shares = shares + targets[order] * area
    return joined, shares


def mix(
    tiles: Tensor, targets: Tensor, chance: Chance, shares: tuple[float, float, float, float]
) -> tuple[Tensor, Tensor, bool]:
    """Mix a batch by at most one of `mixup`, `cutmix`, `patchwork` and `mosaic`, by their `shares` of the batches.

    `tiles` (B, C, H, W), `targets` (B, classes) probabilities; the last value says whether anything was mixed.
    """
    draw = chance.decide()
    for way, share in zip((mixup, cutmix, patchwork, mosaic), shares, strict=True):
        if draw < share:
            return *way(tiles, targets, chance), True
        draw -= share
    return tiles, targets, False
