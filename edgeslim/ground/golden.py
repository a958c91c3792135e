"""Golden tiles: the inputs by which an artifact is proven, here and again on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, shown
from edgeslim.ground.flight import radiometry_of
from edgeslim.ground.labelled import image_files, read_image
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from edgeslim.onboard.reading.tile import TileReader, Wanted
from edgeslim.profile import Profile

COUNT = 16
"""Golden tiles of an artifact."""
PROOF_COUNT = 1024
"""Tiles that an export is proven on, where there are so many."""
CALIBRATION_COUNT = 128
"""Tiles beside them that static int8 takes its ranges from."""


@dataclass(frozen=True, slots=True)
class GoldenTiles:
    """Proof inputs."""

    tiles: NDArray[np.float32]
    """(n, bands, H, W), raw band values, whole numbers."""
    synthetic: bool
    """True where no real pixel is among them."""
    source: str
    """For the manifest: where they come from, without a path of this machine."""
    labels: NDArray[np.int64] | None = None
    """(n,) classes, where the tiles lie in one folder a class of the encoder's head."""

    def __len__(self) -> int:
        return len(self.tiles)

    def at(self, numbers: NDArray[np.intp]) -> GoldenTiles:
        """Some of them."""
        return replace(self, tiles=self.tiles[numbers], labels=None if self.labels is None else self.labels[numbers])


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

    A grey level is `radiometry.image_scale` raw units, and channels go to the bands of their colours. Raises InputError
    where there are too few, of another size, or where the encoder takes a band that an image has not.
    """
    arch, scale = profile.architecture, radiometry_of(profile).image_scale
    files = list(image_files(folder))
    if not files:
        raise InputError(f"--tiles {folder}: found no image, expected .png or .jpg of {arch.tile_px}x{arch.tile_px} px")
    channels = channels_of(profile, folder)
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    tiles = np.empty((len(chosen), arch.bands, arch.tile_px, arch.tile_px), np.float32)
    for tile, (name, opened) in zip(tiles, chosen, strict=True):
        pixels = read_image(folder, name, opened, arch.tile_px)[:, :, channels]
        tile[:] = np.round(pixels.astype(np.float64).transpose(2, 0, 1) * scale)
    return GoldenTiles(
        _smallest(tiles),
        False,
        f"{len(tiles)} tiles of {shown(folder.name)}",
        _labels([name for name, _ in chosen], profile),
    )


def channels_of(profile: Profile, folder: Path) -> list[int]:
    """Which channel of an image, red, green and blue, each band is. Raises InputError for a band that is none."""
    colours = ("red", "green", "blue")
    if other := [band.name for band in profile.bands if band.common_name not in colours]:
        raise InputError(
            f"--tiles {folder}: found images, whose bands are {', '.join(colours)}, expected {other[0]}, too"
        )
    return [colours.index(band.common_name) for band in profile.bands]


def file_tiles(
    profile: Profile, folder: Path, count: int = COUNT, bands: str | None = None, resample: bool = False
) -> GoldenTiles:
    """`count` tiles of a folder or zip, GeoTIFF among them, evenly spaced over their names, read as by `head`.

    Raises InputError where none of them can be used, or one is of another size or has other bands.
    """
    arch, radiometry = profile.architecture, radiometry_of(profile)
    files = labelled_tiles(folder).files
    chosen = [files[round(i)] for i in np.linspace(0, len(files) - 1, min(count, len(files)))]
    wanted = Wanted(arch.tile_px, arch.bands, profile.bands, radiometry, asked_bands=bands, resample=resample)
    reader = TileReader(wanted)
    with gdal_environment():
        found = list(reader.read(chosen))
    reader.warnings()  # raises for units that cannot be
    if not found:
        raise InputError(f"--tiles {folder}: none of {len(chosen)} tiles can be used, expected images")
    tiles = np.rint(np.stack([tile.values for tile in found]))
    names = [tile.file.name for tile in found]
    return GoldenTiles(_smallest(tiles), False, f"{len(tiles)} tiles of {shown(folder.name)}", _labels(names, profile))


def _labels(names: list[str], profile: Profile) -> NDArray[np.int64] | None:
    """Classes by the folders that tiles lie in; None where those are not classes of the head."""
    known = {label.name: index for index, label in enumerate(profile.classes)}
    folders = [PurePosixPath(name).parent.name for name in names]
    return np.array([known[f] for f in folders], np.int64) if folders and set(folders) <= set(known) else None


def _smallest(tiles: NDArray[np.float32]) -> NDArray[Any]:
    """As uint16 where that holds every value: a thousand tiles are many."""
    whole = tiles.min() >= 0 and tiles.max() <= 65535 and (tiles == np.rint(tiles)).all()
    return tiles.astype(np.uint16) if whole else tiles


def scene_tiles(
    profile: Profile, path: Path, accept_gsd: bool, count: int = COUNT, bands: str | None = None, resample: bool = False
) -> GoldenTiles:
    """`count` whole tiles without nodata, spread over a scene, read as they will be on board.

    Raises InputError where the scene disagrees with the encoder or holds no such tile.
    """
    side, options = profile.architecture.tile_px, SceneOptions(bands=bands, accept_gsd=accept_gsd, resample=resample)
    with gdal_environment(), Scene(path, profile, options) as scene:
        if min(scene.width, scene.height) < side:
            raise InputError(f"--tiles {path}: is {scene.width}x{scene.height} px, expected at least {side}x{side}")
        across = math.ceil(math.sqrt(2 * count)) + 6  # some lie on nodata
        tops, lefts = (
            # Many tiles that overlap would prove little more than a few: only the golden ones may.
            np.unique(np.linspace(0, size - side, across if count <= COUNT else min(across, size // side)).astype(int))
            for size in (scene.height, scene.width)
        )
        whole = []
        for top in tops.tolist():
            values, valid = scene.read(top, 0, side, scene.width)
            here = [x for x in lefts.tolist() if valid[:, x : x + side].all()]
            whole += [scene.to_raw(values[:, :, x : x + side]) for x in here]
    if not whole:
        raise InputError(f"--tiles {path}: found no {side}x{side} px tile without nodata, expected at least one")
    chosen = np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)
    tiles = np.stack([whole[i] for i in chosen])
    return GoldenTiles(_smallest(tiles), False, f"{len(chosen)} tiles of {shown(path.name)}")


def golden_tiles(
    profile: Profile,
    source: Path | None,
    accept_gsd: bool = False,
    count: int = COUNT,
    bands: str | None = None,
    resample: bool = False,
) -> GoldenTiles:
    """Tiles of a folder or zip, of a scene, or synthetic ones without a source: `count`, or all there are.

    `bands` says which are the encoder's, in its order; `resample` brings tiles to its size, a scene to its pixel size.
    """
    if source is None:
        return synthetic_tiles(profile, count)
    if not source.exists():
        raise InputError(f"--tiles {source}: found no such file or folder, expected image tiles or a GeoTIFF scene")
    if source.is_dir() or source.suffix.lower() == ".zip":
        plain = next(image_files(source), None) is not None and bands is None and not resample
        return image_tiles(profile, source, count) if plain else file_tiles(profile, source, count, bands, resample)
    return scene_tiles(profile, source, accept_gsd, count, bands, resample)


def hostile_tiles(profile: Profile) -> GoldenTiles:
    """Tiles that a camera, a decoder or the sun may give: constant, saturated, empty, striped, and noise."""
    arch, (low, high) = profile.architecture, radiometry_of(profile).clip
    shape = (arch.bands, arch.tile_px, arch.tile_px)
    stripes = np.where(np.arange(arch.tile_px) % 2, high, low)
    noise = np.random.default_rng(1).uniform(low, high, shape)
    tiles = [np.full(shape, value) for value in (0.0, low, (low + high) / 2, high, 65535.0)]
    tiles += [np.broadcast_to(stripes, shape), np.broadcast_to(stripes[:, None], shape), noise]
    return GoldenTiles(np.rint(np.stack(tiles)).astype(np.float32), True, "constant, saturated, empty, striped, noise")


def proof_tiles(
    profile: Profile, source: Path, accept_gsd: bool = False, bands: str | None = None, resample: bool = False
) -> tuple[GoldenTiles, NDArray[np.float32]]:
    """Tiles to prove an export on, and others to calibrate on; the same where there are too few for both.

    Both are spread evenly: over the sorted names, and so over the classes, of a folder; over the area of a scene.
    """
    found = golden_tiles(profile, source, accept_gsd, PROOF_COUNT + CALIBRATION_COUNT, bands, resample)
    total = len(found)
    if total < 2 * CALIBRATION_COUNT:
        return found, found.tiles[:CALIBRATION_COUNT].astype(np.float32)
    aside = np.linspace(0, total - 1, CALIBRATION_COUNT).round().astype(np.intp)
    rest = np.setdiff1d(np.arange(total), aside)
    proof = replace(found.at(rest), source=found.source.replace(str(total), str(len(rest)), 1))
    return proof, found.tiles[aside].astype(np.float32)
