"""Sensor bands: what the names of a sensor's bands stand for. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from edgeslim.profile import Band

_KNOWN = {
    band.name: band
    for band in (
        # ESA, Sentinel-2 MSI, centre wavelengths; common names of STAC's eo extension.
        Band("B01", "coastal", 0.443),
        Band("B02", "blue", 0.49),
        Band("B03", "green", 0.56),
        Band("B04", "red", 0.665),
        Band("B05", "rededge071", 0.705),
        Band("B06", "rededge075", 0.74),
        Band("B07", "rededge078", 0.783),
        Band("B08", "nir", 0.842),
        Band("B8A", "nir08", 0.865),
        Band("B09", "nir09", 0.945),
        Band("B10", "cirrus", 1.375),
        Band("B11", "swir16", 1.61),
        Band("B12", "swir22", 2.19),
        Band("VV", "vv"),
        Band("VH", "vh"),
    )
}


def sensor_bands(names: Sequence[str]) -> tuple[Band, ...]:
    """Sentinel-2's and Sentinel-1's bands of these names, in this order; empty where one of them is none."""
    found = [_KNOWN.get(name) for name in names]
    return tuple(band for band in found if band is not None) if all(found) else ()
