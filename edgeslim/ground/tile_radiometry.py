"""Tile radiometry: of an encoder whose card says nothing, raw values are the tiles' own, normalised by themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import TileReader, Wanted
from edgeslim.profile import Band, Radiometry


def radiometry_of_tiles(tiles: Labelled, wanted: Wanted, say: Callable[[str], None]) -> Radiometry:
    """Of an encoder whose card says nothing: raw values are those of the tiles, normalised by their own statistics.

    What one unit is stands in `--scale`, in the tiles' tags, or is what such numbers usually are, which is said.
    Raises InputError where none can be read, where their types differ, or where a band has one value in all of them.
    """
    reader = TileReader(wanted)
    count, total, squares = 0, np.zeros(wanted.band_count), np.zeros(wanted.band_count)
    low, high = np.inf, -np.inf
    with gdal_environment():
        for tile in reader.read(tiles.files):
            values = tile.values.astype(np.float64)
            count += values[0].size
            total += values.sum((1, 2))
            squares += np.square(values).sum((1, 2))
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not count:
        reasons = "; ".join(f"{len(names)}: {reason}" for reason, names in reader.skipped.items())
        raise InputError(f"--tiles: none of {len(tiles.files)} tiles can be used ({reasons}); expected images")
    if wanted.offset is not None and wanted.scale is None:
        raise UsageError(
            f"--offset: found {wanted.offset:g} without --scale, expected both: the encoder's card says none"
        )
    if len(reader.dtypes) > 1:
        (one, first), (other, second) = list(reader.dtypes.items())[:2]
        raise InputError(f"--tiles: found {one} ({first}) and {other} ({second}), expected one type; convert them")
    dtype = np.dtype(next(iter(reader.dtypes)))
    if wanted.scale is not None:
        scale, offset, basis = wanted.scale, wanted.offset or 0.0, "by --scale"
    elif reader.tags is not None:
        (scale, offset), basis = reader.tags, "by the tiles' own tags"
    else:
        scale = 1.0 if dtype.kind == "f" else 1 / 255 if dtype.itemsize == 1 else 1e-4
        offset, basis = 0.0, "taken for granted: say otherwise with --scale"
    if dtype == np.uint8:
        low, high = 0.0, 255.0
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not (std > 0).all():
        raise InputError(f"--tiles: band {int((std <= 0).argmax()) + 1} has one value in all tiles; choose --bands")
    say(
        f"the encoder's card names no radiometry: {dtype} values are normalised by the mean and deviation of these "
        f"tiles, clipped to {low:g} … {high:g}; one unit is reflectance {scale:.4g} ({basis})"
    )
    return Radiometry(
        levels=("as the tiles",),
        scale=scale,
        offset=offset,
        clip=(low, high),
        mean=tuple(round(float(v), 6) for v in mean),
        std=tuple(round(float(v), 6) for v in std),
        image_scale=1.0,
    )


def own_bands(arch: AnyArchitecture) -> tuple[Band, ...]:
    """Of an encoder whose card names none: red, green and blue where there are three, else numbers."""
    if arch.bands == 3:
        return tuple(Band(name, name) for name in ("red", "green", "blue"))
    return tuple(Band(f"band {number}", f"band {number}") for number in range(1, arch.bands + 1))
