"""Georeference: how large a pixel is on the ground, in metres, from a scene's own tags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform as warp_points

from edgeslim.errors import InputError
from edgeslim.onboard.reading.gdal import GDAL_ERRORS

GSD_TOLERANCE = 0.25
"""Largest relative difference from the encoder's ground sample distance that passes unasked."""
_KNOTS = 17
"""Rows at which the pixel area is computed; between them it is interpolated."""
_SEMI_MAJOR_M = 6378137.0
_ECCENTRICITY_2 = 6.69437999014e-3


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a scene lies and how large its pixels are."""

    crs: Any
    """rasterio CRS of the transform, or None."""
    transform: Any
    """Affine from pixels to `crs`."""
    gcps: tuple[Any, ...]
    """Ground control points; empty where the transform holds."""
    gcps_crs: Any
    """CRS of the ground control points, or None."""
    gsd_m: float | None
    """Ground sample distance at the scene's centre, metres a pixel; None: unknown."""
    gsd_xy_m: tuple[float, float] | None
    """The same along a row and along a column."""
    knots: NDArray[np.float64]
    """Rows (k,) at which `areas_m2` holds."""
    areas_m2: NDArray[np.float64] | None
    """Ground area of a pixel at those rows, square metres; None: unknown."""

    @property
    def name(self) -> str:
        """The CRS for people: an authority code, a name, or "none"."""
        crs = self.crs or self.gcps_crs
        if not crs:
            return "none"
        epsg = crs.to_epsg()
        return f"EPSG:{epsg}" if epsg else " ".join(str(crs.to_wkt()).split('"')[1:2]) or "unnamed"

    def pixel_area_m2(self, row: float) -> float | None:
        """Ground area of a pixel of that row, square metres; None: unknown."""
        return None if self.areas_m2 is None else float(np.interp(row, self.knots, self.areas_m2))


def georeference_of(dataset: Any) -> Georeference:
    """Read it from an open rasterio dataset. Raises nothing: what cannot be known is None."""
    gcps, gcps_crs = dataset.gcps
    return _measure(
        dataset.crs or None, dataset.transform, tuple(gcps), gcps_crs or None, dataset.width, dataset.height
    )


def rescaled(found: Georeference, old: tuple[int, int], new: tuple[int, int]) -> Georeference:
    """The same place under pixels of another size; `old` and `new` are (width, height)."""
    across, down = old[0] / new[0], old[1] / new[1]
    gcps = tuple(GroundControlPoint(g.row / down, g.col / across, g.x, g.y, g.z, g.id, g.info) for g in found.gcps)
    return _measure(found.crs, found.transform @ Affine.scale(across, down), gcps, found.gcps_crs, *new)


def _measure(crs: Any, transform: Any, gcps: tuple[Any, ...], gcps_crs: Any, width: int, height: int) -> Georeference:
    ground_crs, ground_transform = crs, transform
    if not crs and gcps and gcps_crs:
        ground_crs, ground_transform = gcps_crs, from_gcps(gcps)
    knots = np.linspace(0, height, _KNOTS)
    sizes = _pixel_sizes(ground_crs, ground_transform, width / 2, knots) if ground_crs else None
    if sizes is None:
        return Georeference(crs, transform, gcps, gcps_crs, None, None, knots, None)
    along_row, along_column = sizes[0, _KNOTS // 2], sizes[1, _KNOTS // 2]
    return Georeference(
        crs,
        transform,
        gcps,
        gcps_crs,
        math.sqrt(along_row * along_column),
        (float(along_row), float(along_column)),
        knots,
        sizes[2],
    )


def _pixel_sizes(crs: Any, transform: Any, column: float, rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(3, k): length along a row, along a column, m, and area, m², of the pixel at each row; None: unknown."""
    offsets = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    columns = np.concatenate([np.full(rows.size, column + dc) for dc, _ in offsets])
    lines = np.concatenate([rows + dr for _, dr in offsets])
    with np.errstate(all="ignore"):  # a damaged transform may be as large as a float gets
        xs = transform.a * columns + transform.b * lines + transform.c
        ys = transform.d * columns + transform.e * lines + transform.f
    flat = None
    if not crs.is_geographic:
        try:
            unit_m = float(crs.linear_units_factor[1])
            flat = _lengths(xs * unit_m, ys * unit_m)
        except (*GDAL_ERRORS, ValueError):
            flat = None
    try:
        longitude, latitude = (np.asarray(v, np.float64) for v in warp_points(crs, "EPSG:4326", xs, ys))
    except (*GDAL_ERRORS, ValueError):  # a local system, say, from which nothing leads to longitude and latitude
        return flat
    # A pixel is small: on the ellipsoid it is a parallelogram in the local radii of curvature.
    phi = np.radians(np.tile(latitude[: rows.size], 3))
    with np.errstate(all="ignore"):
        root = np.sqrt(1 - _ECCENTRICITY_2 * np.sin(phi) ** 2)
        turned = np.tile(longitude[: rows.size], 3)
        east = np.radians((longitude - turned + 180) % 360 - 180) * np.cos(phi) * _SEMI_MAJOR_M / root
        north = np.radians(latitude) * _SEMI_MAJOR_M * (1 - _ECCENTRICITY_2) / root**3
        geodesic = _lengths(east, north)
    if not np.isfinite(geodesic).all() or not (geodesic > 0).all():
        return flat
    # Map metres are what people count with (100 m² for a 10 m UTM pixel), unless the projection stretches them.
    if flat is not None and np.allclose(flat[2], geodesic[2], rtol=0.02):
        return flat
    return geodesic


def _lengths(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.float64]:
    (x0, x1, x2), (y0, y1, y2) = np.split(xs, 3), np.split(ys, 3)
    ax, ay, bx, by = x1 - x0, y1 - y0, x2 - x0, y2 - y0
    return np.stack([np.hypot(ax, ay), np.hypot(bx, by), np.abs(ax * by - ay * bx)])


def check_gsd(
    where: str, found: Georeference, expected_m: float | None, accepted: bool, resample: bool = False
) -> list[str]:
    """Warnings to show where `--accept-gsd` was given.

    Raises InputError where the ground sample distance is unknown, or more than a quarter off, and neither accepted nor
    mended by resampling (which only helps where it is known).
    """
    if expected_m is None:
        return []
    if found.gsd_xy_m is None:
        said = "no CRS" if not found.crs else "a CRS without metres"
        fact = f"found {said}, so the ground sample distance is unknown"
    elif all(abs(v / expected_m - 1) <= GSD_TOLERANCE for v in found.gsd_xy_m) or resample:
        return []
    else:
        x, y = found.gsd_xy_m
        size = f"{x:.3g} m" if abs(x - y) <= 0.01 * x else f"{x:.3g} × {y:.3g} m"
        fact = f"found a ground sample distance of {size}"
    if not accepted:
        mend = "" if found.gsd_xy_m is None else "resample it on the fly with --resample, or "
        raise InputError(
            f"{where}: {fact}, expected {expected_m:g} m ± {GSD_TOLERANCE:.0%}; {mend}accept worse results with "
            "--accept-gsd"
        )
    return [f"{fact}, expected {expected_m:g} m: processed pixel for pixel as --accept-gsd asked"]
