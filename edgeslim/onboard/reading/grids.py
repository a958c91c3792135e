"""Grids: the grid of a scene that is resampled, and how the files of a stack lie on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.transform import Affine

from edgeslim.errors import InputError
from edgeslim.onboard.reading.georeference import Georeference, rescaled, transform_of
from edgeslim.onboard.reading.raster import Raster
from edgeslim.onboard.reading.regrid import AxisMap, axis_map

_SAME_GSD = 0.01
"""Relative difference of ground sample distances below which resampling would only blur."""
MOST_PX = 1 << 24
"""Longest side of a scene, resampled or not: the whole Earth in pixels of 2.4 m."""
_SKEW_PX = 0.05
"""Source pixels by which the corners of parallel grids may drift; transforms are written with few digits."""


def resampled_grid(
    found: Georeference, width: int, height: int, gsd_m: float
) -> tuple[Georeference, int, int, list[str]]:
    """Georeference, width, height and notes of a scene brought to `gsd_m`; its extent stays, to the pixel's edge.

    Raises InputError where the new grid is absurdly large. `found.gsd_xy_m` must be known.
    """
    if found.gsd_xy_m is None or all(abs(v / gsd_m - 1) <= _SAME_GSD for v in found.gsd_xy_m):
        return found, width, height, []
    across, down = found.gsd_xy_m
    new_width, new_height = max(1, round(width * across / gsd_m)), max(1, round(height * down / gsd_m))
    if max(new_width, new_height) > MOST_PX:
        raise InputError(
            f"--resample: found pixels of {across:.3g} × {down:.3g} m, which at {gsd_m:g} m make {new_width:g} × "
            f"{new_height:g} px, expected at most {MOST_PX} a side; check the scene's CRS"
        )
    size = f"{across:.4g} m" if abs(across - down) <= 0.01 * across else f"{across:.4g} × {down:.4g} m"
    note = f"resampled from {size} ({width} × {height} px) to {gsd_m:g} m ({new_width} × {new_height} px)"
    return rescaled(found, (width, height), (new_width, new_height)), new_width, new_height, [note]


def onto(raster: Raster, first: Raster, scene: Georeference, width: int, height: int) -> tuple[AxisMap, AxisMap]:
    """Row and column maps from the scene's grid (width × height px) to a file of its stack, or to its own file.

    Raises InputError where the file cannot be placed on the scene's grid by stretching and shifting alone.
    """
    if raster is first:
        return (
            axis_map(raster.height, raster.height / height, 0.0, height),
            axis_map(raster.width, raster.width / width, 0.0, width),
        )
    turn = _turn(raster, first, scene, (first.width / width, first.height / height))
    drift = max(abs(turn.b) * height, abs(turn.d) * width)
    if turn.a <= 0 or turn.e <= 0 or drift > _SKEW_PX:
        raise InputError(
            f"--stack {raster.path}: found a grid turned against the scene's; warp it onto that grid first"
        )
    down = axis_map(raster.height, turn.e, turn.f + turn.d * width / 2, height)
    across = axis_map(raster.width, turn.a, turn.c + turn.b * height / 2, width)
    shares = [_covered(across, width), _covered(down, height)]
    if min(shares) <= 0:
        raise InputError(f"--stack {raster.path}: found no pixel on the scene's area, expected the same place")
    if shares[0] * shares[1] < 0.98:
        raster.warnings.append(f"covers {shares[0] * shares[1]:.0%} of the scene; the rest is taken as empty")
    return down, across


def _covered(axis: AxisMap, count: int) -> float:
    low, high = axis.offset, axis.offset + axis.scale * count
    return (min(high, axis.size) - max(low, 0)) / (high - low)


def _turn(raster: Raster, first: Raster, scene: Georeference, step: tuple[float, float]) -> Any:
    """Affine from pixels of the scene's grid to pixels of the raster."""
    crs, other = first.dataset.crs or None, raster.dataset.crs or None
    placed = [not transform_of(r.dataset).is_identity for r in (first, raster)]
    if crs != other:
        raise InputError(
            f"--stack {raster.path}: found the CRS {other.to_string() if other else 'none'}, expected the scene's, "
            f"{crs.to_string() if crs else 'none'}; warp it there first"
        )
    if not all(placed):
        if (raster.width, raster.height) == (first.width, first.height) and not any(placed):
            return Affine.scale(*step)
        raise InputError(f"--stack {raster.path}: found no transform to place it by, expected one as in its CRS")
    matrix = np.array(~raster.dataset.transform).reshape(3, 3) @ np.array(scene.transform).reshape(3, 3)
    return Affine(*matrix[:2].ravel())
