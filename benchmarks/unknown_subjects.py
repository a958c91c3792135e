"""Subjects of benchmarks/unknown.py: encoders, EuroSAT's tiles, other sensors' pixels, and tiles that show nothing."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image
from scipy.ndimage import zoom
from torch.nn import functional as F

from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint
from edgeslim.ground.flight import FlightModel, profile_checkpoint
from edgeslim.ground.labelled import part_of
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.onboard.known import pixel_statistics
from edgeslim.profile import Radiometry, take_profile

SIDE = 64
LEVEL = 255 / 2750
"""Of EuroSAT's images: levels a raw unit of reflectance x 10000."""


@dataclass(frozen=True)
class Encoder:
    """One that gives features."""

    name: str
    widths: tuple[float, ...]
    train: int
    """Tiles a class to fit on."""
    test: int
    """Tiles a class to judge by."""
    others: int
    """Tiles of each other kind."""


ENCODERS = (Encoder("eurosat-rgb", (1.0, 0.25, 0.03125), 600, 150, 200), Encoder("ViT-S/14", (0.25,), 60, 20, 50))


def eurosat(path: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(n, 3, 64, 64) levels, (n,) labels and class names of `count` tiles a class of one part."""
    tiles, labels = [], []
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})
        for number, label in enumerate(classes):
            mine = [n for n in names if n.split("/")[-2] == label and part_of("/".join(n.split("/")[-2:])) == part]
            for name in mine[:count]:
                image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
                tiles.append(np.asarray(image, np.float32).transpose(2, 0, 1))
                labels.append(number)
    return np.stack(tiles), np.array(labels), classes


def windows(path: Path, bands: list[int], levels: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """(n, 3, 64, 64) levels of whole windows of a scene, in random order."""
    with rasterio.open(path) as scene:
        pixels = scene.read(bands).astype(np.float32)
    found = []
    for top in range(0, pixels.shape[1] - SIDE + 1, SIDE):
        for left in range(0, pixels.shape[2] - SIDE + 1, SIDE):
            tile = pixels[:, top : top + SIDE, left : left + SIDE]
            if (tile == 0).all(0).mean() <= 0.05:
                found.append(levels(tile))
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return np.clip(np.stack([found[i] for i in order]), 0, 255)


def sensors(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Other sensors' tiles. What is no reflectance counts as grey levels, as somebody's quick export would have it."""
    toa = 2e-5  # of Landsat 8 Level-1, by its metadata; the sun's height is left out
    return {
        "Sentinel-2 10 m, surface reflectance": windows(
            folder / "s2_t30typ_20181023_10m_b2b3b4b8.tif", [3, 2, 1], lambda t: t * LEVEL, count
        ),
        "Landsat 8 150 m, top of atmosphere": windows(
            folder / "landsat8_LC81070352015122LGN00_b2b3b4_150m_1100.tif",
            [3, 2, 1],
            lambda t: (t * toa - 0.1) * 1e4 * LEVEL,
            count,
        ),
        "Landsat 300 m, 8 bit": windows(folder / "rasterio_RGB.byte.tif", [1, 2, 3], lambda t: t, count),
        "Landsat 30 m, 16 bit": windows(folder / "landsat_riocolor_rgb16.tif", [1, 2, 3], lambda t: t / 257, count),
        "NAIP 5 m, 8 bit": windows(folder / "naip_m_4709963_se_14_1_20200831_5m.tif", [1, 2, 3], lambda t: t, count),
        "aerial 10 cm, 8 bit": windows(folder / "aerial_10cm_2048_jpeg.tif", [1, 2, 3], lambda t: t, count),
        "drone 2 cm, 8 bit": windows(folder / "drone_ortho_deepness_2cm_rgba.tif", [1, 2, 3], lambda t: t, count),
    }


def nothing(count: int) -> dict[str, np.ndarray]:
    """Black, saturated, and white as of cloud: the last with soft relief and noise, as no cloudy tile is at hand."""
    random = np.random.default_rng(1)
    shape = (count, 3, SIDE, SIDE)
    black = random.uniform(0, 3, (count, 1, 1, 1)) + np.abs(random.normal(0, 0.5, shape))
    saturated = 255 - np.abs(random.normal(0, 1, shape)) * random.uniform(0, 1, (count, 1, 1, 1))
    relief = np.stack([zoom(random.normal(0, 1, (8, 8)), SIDE / 8, order=3) for _ in range(count)])[:, None]
    cloud = random.uniform(185, 250, (count, 1, 1, 1)) + relief * random.uniform(1, 25, (count, 1, 1, 1))
    cloud = cloud + random.normal(0, 2, shape) + random.uniform(-4, 4, (count, 3, 1, 1))
    found = {"black": black, "saturated": saturated, "white as of cloud (made)": cloud}
    return {name: np.clip(values, 0, 255).astype(np.float32) for name, values in found.items()}


@dataclass(frozen=True)
class Eye:
    """An encoder at one width: levels in, raw values and features out."""

    model: FlightModel
    scale: float
    side: int
    radiometry: Radiometry

    def see(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) and pixel statistics (n, 9) of levels (n, 3, 64, 64), as they are in flight."""
        features, pixels = [], []
        with torch.inference_mode():
            for start in range(0, len(levels), 32):
                # Images have whole levels.
                tiles = torch.from_numpy((np.rint(levels[start : start + 32]) * self.scale).astype(np.float32))
                if self.side != SIDE:
                    tiles = F.interpolate(tiles, (self.side, self.side), mode="bilinear")
                features.append(self.model(tiles)[1].numpy())
                pixels.append(pixel_statistics(tiles.numpy(), self.radiometry.clip))
        return np.concatenate(features), np.concatenate(pixels)


def eye(encoder: Encoder, width: float, shared: Path, train: np.ndarray) -> Eye:
    """`train` are levels that an encoder without radiometry is normalised by."""
    if encoder.name == "eurosat-rgb":
        profile = take_profile(encoder.name)
        full, _ = profile_checkpoint(profile)
        assert profile.radiometry is not None
        return _eye(full, width, profile.radiometry, profile.radiometry.image_scale)
    path = shared / "weights" / "vit_s14_imgfocus_fp16.safetensors"
    profile, _ = profile_of(path, *read_header(path))
    arch = replace(profile.architecture, tile_px=224)
    mean, std = train.mean((0, 2, 3), dtype=np.float64), train.std((0, 2, 3), dtype=np.float64)
    own = Radiometry(("L1C",), 1 / 255, 0.0, (0.0, 255.0), tuple(map(float, mean)), tuple(map(float, std)), 1.0)
    return _eye(read_checkpoint(path, arch), width, own, 1.0)


def _eye(full: Checkpoint, width: float, radiometry: Radiometry, scale: float) -> Eye:
    slimmed = slimmed_checkpoint(full, width)
    none = torch.zeros(1, slimmed.architecture.dim), torch.zeros(1)
    model = FlightModel(slimmed.build(), none, radiometry).eval()
    return Eye(model, scale, slimmed.architecture.tile_px, radiometry)
