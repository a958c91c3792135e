"""STAC schema: what edgeslim writes into stac-item.json beyond, and of, what STAC 1.1.0 asks of every Item.

Written by hand: keys of STAC's extensions are no names that a record could have. The Item's own schema and those of its
extensions are STAC's (`stac_extensions` in the Item lists them); this one needs no network.
"""

from __future__ import annotations

from typing import Any


def _object(about: str, properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": about, "properties": properties, "required": required}


def _text(about: str) -> dict[str, Any]:
    return {"description": about, "type": "string"}


def _numbers(about: str, count: int, kind: str = "number") -> dict[str, Any]:
    return {"description": about, "type": "array", "items": {"type": kind}, "minItems": count, "maxItems": count}


def _hashes(about: str) -> dict[str, Any]:
    return {"description": about, "type": "object", "additionalProperties": {"type": "string"}}


_TIME = {"type": ["string", "null"], "format": "date-time"}
_PROPERTIES = _object(
    "When the scene was taken, where its maps lie, and what made them.",
    {
        "datetime": {"description": "When the scene was taken, RFC 3339; null: it does not say.", **_TIME},
        "start_datetime": _text("Of a range that says nothing, where the scene does not say when it was taken."),
        "end_datetime": _text("Its end."),
        "proj:code": {"description": "EPSG code of the maps; null: they have none.", "type": ["string", "null"]},
        "proj:wkt2": _text("The CRS, where it has no EPSG code."),
        "proj:shape": _numbers("Rows and columns of the maps.", 2, "integer"),
        "proj:transform": _numbers("Affine transform of the maps: pixel to the CRS, row by row.", 6),
        "proj:bbox": _numbers("Of the maps, in the CRS.", 4),
        "processing:software": _hashes("Name -> version of edgeslim and of what computed."),
        "edgeslim:scene": _object(
            "The scene that was classified.",
            {"name": _text("Of its file."), "sha256": _hashes("Every file that was read: name -> hex SHA-256.")},
        ),
        "edgeslim:artifact": _object(
            "The artifact that computed.",
            {
                "name": _text("Encoder and cut."),
                "encoder": _text("Profile card."),
                "width_multiplier": {"description": "Kept fraction of each block's inner widths.", "type": "number"},
                "sha256": _hashes("Of its manifest and of every other file."),
            },
        ),
        "edgeslim:prior": _text("How frequent classes are taken to be: land, or training set."),
    },
    ("start_datetime", "end_datetime", "proj:code", "proj:wkt2", "proj:shape", "proj:transform", "proj:bbox"),
)
_ASSET = _object(
    "One file of the results.",
    {
        "href": _text("Relative to the Item."),
        "title": _text("For people."),
        "type": _text("Media type."),
        "roles": {"description": "As STAC names them.", "type": "array", "items": {"type": "string"}},
        "file:size": {"description": "Bytes.", "type": "integer"},
        "file:checksum": _text("Multihash: 1220, then the hex SHA-256."),
        "data_type": _text("Of a raster's values."),
        "nodata": {"description": "Value of a raster's pixels without a result.", "type": "number"},
        "unit": _text("Of a raster's values."),
        "bands": {"description": "Of a raster, in order.", "type": "array", "items": {"type": "object"}},
        "raster:sampling": _text("What a pixel stands for."),
        "raster:scale": {"description": "By which values are multiplied.", "type": "number"},
        "raster:spatial_resolution": {"description": "Metres a pixel.", "type": "number"},
        "classification:classes": {
            "description": "Values of the class map, nodata last.",
            "type": "array",
            "items": {"type": "object"},
        },
    },
    (
        *("data_type", "nodata", "unit", "bands", "raster:sampling", "raster:scale", "raster:spatial_resolution"),
        "classification:classes",
    ),
)
ITEM = _object(
    "The results of one scene as a STAC 1.1.0 Item.",
    {
        "type": {"description": "Of GeoJSON.", "const": "Feature"},
        "stac_version": {"description": "Of STAC.", "const": "1.1.0"},
        "stac_extensions": {
            "description": "Addresses of the schemas of the extensions in use.",
            "type": "array",
            "items": {"type": "string"},
        },
        "id": _text("Scene and artifact; letters, digits, - and _."),
        "geometry": {
            "description": "Footprint of the scene, WGS 84; null: the scene has no place on Earth.",
            "type": ["object", "null"],
        },
        "bbox": _numbers("Of the footprint: west, south, east, north; left out without one.", 4),
        "properties": _PROPERTIES,
        "links": {"description": "None: the Item stands by itself.", "type": "array"},
        "assets": {
            "description": "The other files beside it.",
            "type": "object",
            "additionalProperties": _ASSET,
        },
    },
    ("bbox",),
)
"""The schema, without its name."""
