"""WGS 84: where pixels of a scene lie in longitude and latitude."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine, GCPTransformer
from rasterio.warp import transform as warp_points

from edgeslim.onboard.reading.georeference import Georeference, unwrapped
from edgeslim.onboard.writing.antimeridian import Ring, polygons

F64 = NDArray[np.float64]
_PROJ_ERRORS = (RasterioError, CPLE_BaseError, ValueError)
DIGITS = 7
"""Decimals of a degree: a centimetre, the most that RFC 7946 finds sensible."""
_ROUNDING = 1e-6
"""Degrees beyond a pole that are the pole."""
_EDGE_POINTS = 8
"""Of each side of a footprint: its sides are curves in longitude and latitude."""


def uses_gcps(ground: Georeference) -> bool:
    """Whether ground control points place the scene, not a transform."""
    return bool(ground.gcps) and (not ground.crs or ground.transform == Affine.identity())


def placing_crs(ground: Georeference) -> Any:
    """The CRS into which the scene's pixels can be brought, or None: none is known, or nothing leads there."""
    if uses_gcps(ground):
        return ground.gcps_crs
    return None if ground.transform == Affine.identity() else ground.crs


class Wgs84:
    """From scene pixels (column, row), corner based, to longitude and latitude."""

    def __init__(self, ground: Georeference) -> None:
        self._ground = ground
        self._crs = placing_crs(ground)
        self._target = CRS.from_epsg(4326)

    def at(self, columns: F64, rows: F64) -> tuple[F64, F64]:
        """Longitude in [-180, 180) and latitude, degrees, of n points (n,); NaN where the projection has none."""
        xs, ys = self._placed(columns, rows)
        longitude, latitude = np.full(columns.shape, np.nan), np.full(columns.shape, np.nan)
        if self._crs:
            self._warp(xs, ys, longitude, latitude)
        return (longitude + 180) % 360 - 180, latitude

    def _placed(self, columns: F64, rows: F64) -> tuple[F64, F64]:
        t: Any = self._ground.transform
        if not uses_gcps(self._ground):
            return t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
        try:
            with GCPTransformer(list(unwrapped(self._ground.gcps, self._crs))) as transformer:
                xs, ys = transformer.xy(rows, columns, offset="ul")
        except _PROJ_ERRORS:  # too few points, or all on one line
            return np.full(columns.shape, np.nan), np.full(columns.shape, np.nan)
        return np.asarray(xs, np.float64), np.asarray(ys, np.float64)

    def _warp(self, xs: F64, ys: F64, longitude: F64, latitude: F64) -> None:
        """Fill in what can be; GDAL gives all points or none, so a part that fails is halved."""
        if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
            return
        try:
            found = warp_points(self._crs, self._target, xs, ys)
        except _PROJ_ERRORS:
            if xs.size > 1:
                half = xs.size // 2
                self._warp(xs[:half], ys[:half], longitude[:half], latitude[:half])
                self._warp(xs[half:], ys[half:], longitude[half:], latitude[half:])
            return
        longitude[:], latitude[:] = found[0], found[1]
        lost = ~(np.isfinite(longitude) & (np.abs(latitude) <= 90 + _ROUNDING))
        longitude[lost] = latitude[lost] = np.nan
        np.clip(latitude, -90, 90, out=latitude)

    def footprint(self, width: int, height: int) -> list[Ring]:
        """The outline of `width` x `height` pixels as closed rings; empty where a part of it has no place on Earth."""
        along = np.arange(_EDGE_POINTS) / _EDGE_POINTS
        zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
        columns = np.concatenate([along, one, 1 - along, zero]) * width
        rows = np.concatenate([zero, along, one, 1 - along]) * height
        longitude, latitude = self.at(columns, rows)
        if not np.isfinite(longitude).all():
            return []
        return polygons(list(zip(longitude.tolist(), latitude.tolist(), strict=True)))
