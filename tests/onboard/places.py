"""Georeferences of every sort, and plans on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

from edgeslim.onboard.reading.georeference import Georeference
from edgeslim.onboard.writing.maps import MapPlan
from edgeslim.profile import ClassLabel
from tests.onboard.artifacts import LABELS, UTM


def ground(
    crs: str | None = "EPSG:32630", transform: Affine = UTM, gcps: Sequence[GroundControlPoint] = ()
) -> Georeference:
    """A georeference with a ground sample distance of 10 m where it has a CRS."""
    known = crs is not None
    placed = CRS.from_user_input(crs) if crs else None
    return Georeference(
        None if gcps else placed,
        Affine.identity() if gcps else transform,
        tuple(gcps),
        placed if gcps else None,
        10.0 if known else None,
        (10.0, 10.0) if known else None,
        np.array([0.0, 1.0]),
        np.full(2, 100.0) if known else None,
    )


def gcp_grid(height: int, width: int) -> list[GroundControlPoint]:
    """3 x 3 points of a scene turned by some degrees, in longitude and latitude."""
    return [
        GroundControlPoint(r, c, 10 + c * 1e-4 + r * 2e-5, 50 - r * 1e-4 + c * 1e-5, 0.0, f"{r}-{c}")
        for r in (0, height / 2, height)
        for c in (0, width / 2, width)
    ]


def plan(
    height: int,
    width: int,
    place: Georeference | None = None,
    *,
    step: int = 1,
    cell_px: int = 8,
    classes: tuple[ClassLabel, ...] = LABELS,
) -> MapPlan:
    """A plan whose maps have `height` x `width` pixels of `step` scene pixels each."""
    return MapPlan(width, height, step, place or ground(), classes, "tiny w1.0", cell_px, height * step, width * step)


PLACES = {
    "utm": ground(),
    "rotated": ground(transform=UTM * Affine.rotation(30)),
    "south-up": ground(transform=Affine(10, 0, 600000, 0, 10, 4700000)),
    "geographic": ground("EPSG:4326", Affine(1e-4, 0, -3, 0, -1e-4, 43)),
    "gcps": ground("EPSG:4326", gcps=gcp_grid(300, 300)),
    "no transform": ground(transform=Affine.identity()),
    "nowhere": ground(None, Affine.identity()),
    "no CRS": ground(None),
}
