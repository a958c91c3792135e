"""STAC: the results of one scene as an Item (STAC 1.1), so that catalogues find and understand them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeslim.manifest import sha256_of
from edgeslim.onboard.writing.antimeridian import longitudes
from edgeslim.onboard.writing.cells import geometry_of
from edgeslim.onboard.writing.maps import NODATA, PROBABILITY_ONE, MapPlan
from edgeslim.onboard.writing.summary import Summary
from edgeslim.onboard.writing.wgs84 import DIGITS, Wgs84, placing_crs, uses_gcps

STAC_VERSION = "1.1.0"
SCHEMAS = "https://stac-extensions.github.io/{}/schema.json"
"""Of an extension and its version: "file/v2.1.0"."""
_EXTENSIONS = ("classification/v2.0.0", "file/v2.1.0", "processing/v1.2.0", "raster/v2.0.0")
_PROJECTION = "projection/v2.0.0"
UNKNOWN_TIME = ("1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z")
"""Of what does not say when it was taken or holds: STAC wants a range then, and this one says nothing."""
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_MEDIA = {
    ".tif": (_COG, ["data"]),
    ".geojson": ("application/geo+json", ["data"]),
    ".parquet": ("application/vnd.apache.parquet", ["data"]),
    ".fgb": ("application/vnd.flatgeobuf", ["data"]),
    ".png": ("image/png", ["overview"]),
    ".json": ("application/json", ["metadata"]),
    ".qml": ("application/xml", ["style"]),
}
"""Ending -> media type and STAC roles."""


def stac_item(folder: Path, plan: MapPlan, summary: Summary, titles: Mapping[str, str]) -> dict[str, Any]:
    """The Item of the files `titles` (name -> title) in `folder`. Raises InputError if one cannot be read."""
    rings = Wgs84(plan.georeference).footprint(plan.scene_width, plan.scene_height)
    projection = _projection(plan)
    extensions = sorted([*_EXTENSIONS, *([_PROJECTION] if projection else [])])
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [SCHEMAS.format(name) for name in extensions],
        "id": safe_name(f"{Path(summary.scene['path']).stem}_{plan.artifact}"),
        "geometry": geometry_of(rings) if rings else None,
    }
    if rings:
        west, east = longitudes(rings)
        south, north = (f(p[1] for ring in rings for p in ring) for f in (min, max))
        item["bbox"] = [round(v, DIGITS) + 0.0 for v in (west, south, east, north)]
    item["properties"] = {**_time(summary.scene.get("acquired")), **projection, **_processing(summary)}
    item["links"] = []
    item["assets"] = {
        Path(name).stem + ("_style" if name.endswith(".qml") else ""): _asset(folder, name, title, plan)
        for name, title in titles.items()
    }
    return item


def _time(acquired: str | None) -> dict[str, Any]:
    if acquired:
        return {"datetime": acquired}
    return {"datetime": None, "start_datetime": UNKNOWN_TIME[0], "end_datetime": UNKNOWN_TIME[1]}


def _processing(summary: Summary) -> dict[str, Any]:
    scene, artifact = summary.scene, summary.artifact
    return {
        "processing:software": {"edgeslim": summary.edgeslim, **summary.versions},
        "edgeslim:scene": {"name": Path(scene["path"]).name, "sha256": scene.get("files", {})},
        "edgeslim:artifact": {
            k: artifact[k] for k in ("name", "encoder", "width_multiplier", "sha256") if k in artifact
        },
        "edgeslim:prior": summary.prior,
    }


def _projection(plan: MapPlan) -> dict[str, Any]:
    """Where the maps lie in the scene's own CRS; empty where only ground control points or nothing place them."""
    ground, step, t = plan.georeference, plan.step, plan.georeference.transform
    if uses_gcps(ground) or not placing_crs(ground):
        return {}
    a, b, c, d, e, f = t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f
    epsg = ground.crs.to_epsg()
    corners = [(x, y) for x in (0, plan.width) for y in (0, plan.height)]
    xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
    return {
        "proj:code": f"EPSG:{epsg}" if epsg else None,
        **({} if epsg else {"proj:wkt2": ground.crs.to_wkt(version="WKT2_2019")}),
        "proj:shape": [plan.height, plan.width],
        "proj:transform": [a, b, c, d, e, f],
        "proj:bbox": [min(xs), min(ys), max(xs), max(ys)],
    }


def _asset(folder: Path, name: str, title: str, plan: MapPlan) -> dict[str, Any]:
    media, roles = _MEDIA[Path(name).suffix]
    path = folder / name
    asset: dict[str, Any] = {"href": f"./{name}", "title": title, "type": media, "roles": roles}
    if media == _COG:
        asset |= {"data_type": "uint8", "nodata": NODATA, "raster:sampling": "area", **_bands(Path(name).stem, plan)}
        if plan.georeference.gsd_m is not None:
            asset["raster:spatial_resolution"] = round(plan.georeference.gsd_m * plan.step, 6)
    # Multihash: 12 = SHA-256, 20 = 32 bytes
    return asset | {"file:size": path.stat().st_size, "file:checksum": "1220" + sha256_of(path)}


def _bands(stem: str, plan: MapPlan) -> dict[str, Any]:
    if stem == "confidence":
        return {"unit": "%", "bands": [{"name": "confidence"}]}
    if stem == "probabilities":
        names = [{"name": label.name, "description": label.title} for label in plan.classes]
        return {"raster:scale": 1 / PROBABILITY_ONE, "bands": names}
    classes = [
        {"value": i, "name": safe_name(label.name), "title": label.title, "color_hint": label.color.lstrip("#").upper()}
        for i, label in enumerate(plan.classes)
    ]
    nodata = {"value": NODATA, "name": "nodata", "title": "No data", "nodata": True}
    return {"classification:classes": [*classes, nodata], "bands": [{"name": "class"}]}


def safe_name(text: str) -> str:
    """Letters, digits, - and _ only, as STAC wants them in names of classes, and in an id."""
    return re.sub(r"[^0-9A-Za-z_-]+", "-", text).strip("-") or "unnamed"
