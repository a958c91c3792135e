"""Calibration tiles: a folder, zip or scene -> what an encoder is calibrated with, as it reaches its first layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.ground.flight import normalised, radiometry_of
from edgeslim.ground.golden import channels_of, golden_tiles
from edgeslim.ground.labelled import UnreadableImage, image_files, read_image
from edgeslim.ground.slimming.calibration import Calibration, tiles_needed
from edgeslim.profile import Profile

MOST = {"calibrated": 256, "healed": 1024}
"""Tiles that are read for a method unless asked otherwise, or as many as are needed."""


def read_calibration(
    profile: Profile,
    source: Path,
    count: int | None = None,
    seed: int = 0,
    accept_gsd: bool = False,
    *,
    method: str = "calibrated",
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Up to `count` tiles of a folder or zip of images, or of a GeoTIFF scene, spread evenly, clipped and normalised.

    Without a `count` MOST of the `method`. Images that cannot be read are left out, counted, and said. Raises
    InputError where the source is missing, has tiles of another size or number of bands, or too few; tiles are never
    resized.
    """
    arch, radiometry = profile.architecture, radiometry_of(profile)
    needed = tiles_needed(arch)
    if count is not None and count < needed:
        raise InputError(f"--tiles-max: found {count}, expected at least the {needed} that {profile.id} needs")
    wanted = max(MOST[method], needed) if count is None else count
    if source.is_dir() or source.suffix.lower() == ".zip":
        raw = _images(profile, source, wanted, say)
    else:
        raw = golden_tiles(profile, source, accept_gsd, wanted).tiles
    if len(raw) < needed:
        raise InputError(f"--tiles {source}: found {len(raw)} tiles, expected at least {needed}; give more of them")
    tiles = torch.from_numpy(np.ascontiguousarray(raw, np.float32))
    return Calibration(normalised(tiles, radiometry), seed, say)


def _images(profile: Profile, source: Path, count: int, say: Callable[[str], None]) -> NDArray[np.float32]:
    arch, scale = profile.architecture, radiometry_of(profile).image_scale
    if arch.bands != 3:
        raise InputError(
            f"--tiles {source}: images have 3 bands, expected the {arch.bands} of {profile.id}; give a GeoTIFF scene"
        )
    files = list(image_files(source))
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    channels = channels_of(profile, source) if profile.bands else [0, 1, 2]
    tiles, unreadable = [], []
    for name, opened in chosen:
        try:
            pixels = read_image(source, name, opened, arch.tile_px)[:, :, channels]
            tiles.append(np.round(pixels.transpose(2, 0, 1) * scale))
        except UnreadableImage:
            unreadable.append(name)
    if unreadable:
        say(f"warning: {len(unreadable)} of {len(chosen)} images cannot be read and are left out ({unreadable[0]}, …)")
    shape = (0, arch.bands, arch.tile_px, arch.tile_px)
    return np.stack(tiles).astype(np.float32) if tiles else np.empty(shape, np.float32)
