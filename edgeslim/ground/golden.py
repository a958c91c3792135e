"""Golden tiles: the inputs by which an artifact is proven, here and again on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.ground.flight import radiometry_of
from edgeslim.ground.labelled import image_files, read_image
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from edgeslim.profile import Profile

COUNT = 16
"""Golden tiles of an artifact."""


@dataclass(frozen=True, slots=True)
class GoldenTiles:
    """Proof inputs."""

    tiles: NDArray[np.float32]
    """(n, bands, H, W), raw band values, whole numbers."""
    synthetic: bool
    """True where no real pixel is among them."""
    source: str
    """For the manifest: where they come from, without a path of this machine."""


def synthetic_tiles(profile: Profile, count: int = COUNT, seed: int = 0) -> GoldenTiles:
    """Seeded textures over the radiometric range: sums of waves of random direction, wavelength and colour, with noise.

    Two hostile ones are among them: all at the low end of the clip, and all above its high end.
    """
    arch, radiometry = profile.architecture, radiometry_of(profile)
    random = np.random.default_rng(seed)
    low, high = radiometry.clip
    y, x = np.mgrid[: arch.tile_px, : arch.tile_px] / arch.tile_px
    tiles = np.empty((count, arch.bands, arch.tile_px, arch.tile_px))
    for tile in tiles:
        tile[:] = random.uniform(low, high / 2, (arch.bands, 1, 1))
        for _ in range(6):
            angle, cycles, phase = random.uniform(0, 2 * np.pi), random.uniform(0.5, 16), random.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            tile += wave * random.uniform(0, (high - low) / 8, (arch.bands, 1, 1))
        tile += random.normal(0, (high - low) / 50, tile.shape)
    tiles[0], tiles[-1] = low, high * 2
    values = np.round(np.clip(tiles, low, high * 2)).astype(np.float32)
    return GoldenTiles(values, True, f"seeded textures, seed {seed}")


def image_tiles(profile: Profile, folder: Path, count: int = COUNT) -> GoldenTiles:
    """`count` 8-bit image tiles of a folder or zip, evenly spaced over its sorted names, as raw band values.

    A grey level is `radiometry.image_scale` raw units. Raises InputError where there are too few or of another size.
    """
    arch, scale = profile.architecture, radiometry_of(profile).image_scale
    files = list(image_files(folder))
    if not files:
        raise InputError(f"--tiles {folder}: found no image, expected .png or .jpg of {arch.tile_px}x{arch.tile_px} px")
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    tiles = [
        np.round(read_image(folder, name, opened, arch.tile_px).astype(np.float64).transpose(2, 0, 1) * scale)
        for name, opened in chosen
    ]
    return GoldenTiles(np.stack(tiles).astype(np.float32), False, f"{len(tiles)} tiles of {folder.name}")


def scene_tiles(profile: Profile, path: Path, accept_gsd: bool, count: int = COUNT) -> GoldenTiles:
    """`count` whole tiles without nodata, spread over a scene, read as they will be on board.

    Raises InputError where the scene disagrees with the encoder or holds no such tile.
    """
    side = profile.architecture.tile_px
    with gdal_environment(), Scene(path, profile, SceneOptions(accept_gsd=accept_gsd)) as scene:
        if min(scene.width, scene.height) < side:
            raise InputError(f"--tiles {path}: is {scene.width}x{scene.height} px, expected at least {side}x{side}")
        tops = np.unique(np.linspace(0, scene.height - side, 12).astype(int))
        lefts = np.unique(np.linspace(0, scene.width - side, 12).astype(int))
        whole = []
        for top in tops.tolist():
            values, valid = scene.read(top, 0, side, scene.width)
            here = [x for x in lefts.tolist() if valid[:, x : x + side].all()]
            whole += [scene.to_raw(values[:, :, x : x + side]) for x in here]
    if not whole:
        raise InputError(f"--tiles {path}: found no {side}x{side} px tile without nodata, expected at least one")
    chosen = np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)
    return GoldenTiles(np.stack([whole[i] for i in chosen]), False, f"{len(chosen)} tiles of {path.name}")


def golden_tiles(profile: Profile, source: Path | None, accept_gsd: bool = False) -> GoldenTiles:
    """Golden tiles of a folder or zip of images, of a scene, or synthetic ones without a source."""
    if source is None:
        return synthetic_tiles(profile)
    if not source.exists():
        raise InputError(f"--tiles {source}: found no such file or folder, expected image tiles or a GeoTIFF scene")
    if source.is_dir() or source.suffix.lower() == ".zip":
        return image_tiles(profile, source)
    return scene_tiles(profile, source, accept_gsd)
