"""Georeference: how large a pixel is on the ground, in metres, from a scene's own tags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rasterio.warp import transform as warp_points

from edgeslim.errors import InputError
from edgeslim.onboard.reading.gdal import GDAL_ERRORS

GSD_TOLERANCE = 0.25
"""Largest relative difference from the encoder's ground sample distance that passes unasked."""
_KNOTS = 17
"""Rows at which the pixel area is computed; between them it is interpolated."""
_FARTHEST = 1e12
"""Units of any CRS: no place on Earth, nor the size of a pixel, is more."""
_FINEST = 1e-12
"""Units of any CRS: no pixel is less."""
_PIXEL_M = (1e-6, 4.1e7)
"""Metres of a pixel that are believed: up to the girth of the Earth."""
_SEMI_MAJOR_M = 6378137.0
_ECCENTRICITY_2 = 6.69437999014e-3


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a scene lies and how large its pixels are."""

    crs: Any
    """rasterio CRS of the transform, or None."""
    transform: Any
    """Affine from pixels to `crs`; the identity where the file has none, or one that places nothing."""
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
    size = dataset.width, dataset.height
    return _measure(dataset.crs or None, transform_of(dataset), tuple(gcps), gcps_crs or None, *size)


def transform_of(dataset: Any) -> Any:
    """Affine from pixels to the CRS of an open rasterio dataset; the identity, which means none, for a useless one."""
    found = dataset.transform
    return found if _places(found) else Affine.identity()


def _places(t: Any) -> bool:
    """Whether a transform keeps pixels apart and in reach: damaged or unset ones are NaN, flat, or beyond the Earth."""
    if not all(abs(value) <= _FARTHEST for value in t[:6]):  # a NaN is not less than anything
        return False
    along_row, along_column = math.hypot(t.a, t.d), math.hypot(t.b, t.e)
    if min(along_row, along_column) < _FINEST:
        return False
    return bool(abs(t.a * t.e - t.b * t.d) > 1e-9 * along_row * along_column)


def unwrapped(gcps: tuple[Any, ...], crs: Any) -> tuple[Any, ...]:
    """Ground control points whose longitudes do not jump where they cross the antimeridian; others as they are."""
    if not crs or not crs.is_geographic:
        return gcps
    full = 2 * math.pi / float(crs.units_factor[1])  # 360 degrees, 400 grads
    xs = np.array([g.x for g in gcps])
    near = (xs - xs[0] + full / 2) % full - full / 2 + xs[0]
    if not np.isfinite(xs).all() or np.ptp(xs) <= full / 2 or np.ptp(near) >= np.ptp(xs):
        return gcps
    return tuple(
        GroundControlPoint(g.row, g.col, float(x), g.y, g.z, g.id, g.info) for g, x in zip(gcps, near, strict=True)
    )


def _fitted(gcps: tuple[Any, ...], crs: Any) -> Any:
    """Affine through ground control points, by least squares; the identity where they determine none."""
    points = np.array([(g.col, g.row, g.x, g.y) for g in unwrapped(gcps, crs)], np.float64)
    if not np.isfinite(points).all():
        return Affine.identity()
    middle = points.mean(axis=0)
    reach = np.abs(points - middle).max(axis=0)
    if not (reach > 0).all():  # all in one row, column or place
        return Affine.identity()
    unit = (points - middle) / reach
    solved, _, rank, _ = np.linalg.lstsq(unit[:, :2], unit[:, 2:], rcond=1e-6)
    if rank < 2:  # all on one line
        return Affine.identity()
    (a, d), (b, e) = (solved * reach[2:] / reach[:2, None]).tolist()
    column, row, x, y = middle.tolist()
    found = Affine(a, b, x - a * column - b * row, d, e, y - d * column - e * row)
    return found if _places(found) else Affine.identity()


def rescaled(found: Georeference, old: tuple[int, int], new: tuple[int, int]) -> Georeference:
    """The same place under pixels of another size; `old` and `new` are (width, height)."""
    across, down = old[0] / new[0], old[1] / new[1]
    gcps = tuple(GroundControlPoint(g.row / down, g.col / across, g.x, g.y, g.z, g.id, g.info) for g in found.gcps)
    none = found.transform == Affine.identity()
    transform = found.transform if none else found.transform @ Affine.scale(across, down)
    return _measure(found.crs, transform, gcps, found.gcps_crs, *new)


def _measure(crs: Any, transform: Any, gcps: tuple[Any, ...], gcps_crs: Any, width: int, height: int) -> Georeference:
    ground_crs, ground_transform = crs, transform
    if gcps and (not crs or transform == Affine.identity()):
        ground_crs, ground_transform = gcps_crs, _fitted(gcps, gcps_crs)
    knots = np.linspace(0, height, _KNOTS)
    placed = ground_crs and ground_transform != Affine.identity()
    sizes = _pixel_sizes(ground_crs, ground_transform, width / 2, knots) if placed else None
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
    xs = transform.a * columns + transform.b * lines + transform.c
    ys = transform.d * columns + transform.e * lines + transform.f
    flat = None
    if not crs.is_geographic:
        try:
            unit_m = float(crs.units_factor[1])  # of a local system, too
            flat = _believed(_lengths(xs * unit_m, ys * unit_m))
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
        geodesic = _believed(_lengths(east, north))
    if geodesic is None:
        return flat
    # Map metres are what people count with (100 m² for a 10 m UTM pixel), unless the projection stretches them.
    if flat is not None and np.allclose(flat[2], geodesic[2], rtol=0.02):
        return flat
    return geodesic


def _believed(sizes: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Lengths and areas (3, k) of pixels, or None where they are none of this Earth; at a pole they may be nothing."""
    least, most = _PIXEL_M
    possible = (sizes >= 0).all() and (sizes[:2] <= most).all()  # a NaN is not
    return sizes if possible and (sizes[:2, _KNOTS // 2] >= least).all() and sizes[2, _KNOTS // 2] > 0 else None


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
        said = "no CRS" if not (found.crs or found.gcps_crs) else "a CRS without metres"
        if (found.crs or found.gcps_crs) and found.transform == Affine.identity():
            said = "nothing that places its pixels in its CRS"
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
