"""GDAL: the one environment in which rasters are opened, what it raises, and what it only mutters."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import set_gdal_config
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError

from edgeslim.scene_buffers import GDAL_CACHE_BYTES

MIB = 1 << 20
CACHE_BYTES = GDAL_CACHE_BYTES
"""GDAL's block cache while reads are aligned to blocks: nothing is read twice, so nothing needs keeping."""
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises; its own tree does not cover GDAL's."""
_OPTIONS = {
    "GDAL_CACHEMAX": CACHE_BYTES,  # rasterio hands this on as bytes
    "CPL_LOG": os.devnull,  # what GDAL says in threads that rasterio does not know of
    # What a VRT may point at: no network, no Python, no raw bytes of files elsewhere.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "SIBLING_OR_CHILD_OF_VRT_PATH",
    # A user's own environment must not turn damage into zeros.
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "GDAL_ONE_BIG_READ": "NO",  # which fills a raw file that ends early with zeros, and tells nobody
    "GDAL_NUM_THREADS": "1",  # what is said in other threads is not heard
    # An 8-bit JPEG block may claim progressive scans without end.
    "LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER": "100",
}
_NO_NETWORK = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".edgeslim-reads-no-network",  # no remote name ends like this
    # Overviews and masks may be whatever a side file names. GDAL heeds this once a process, when it is first used.
    "GDAL_SKIP": "HTTP,WMS,WMTS,WCS,EEDA,EEDAI,PLMOSAIC,DAAS,STACTA,STACIT",
}
_DAMAGE = re.compile(r"JPEGLib|Fax\d?[A-Z]|premature|corrupt|bogus|truncat|not enough data|decod", re.IGNORECASE)


@contextmanager
def gdal_environment(allow_network: bool = False) -> Iterator[None]:
    """GDAL with a tiny cache and no network unless asked for; a raster without CRS is no event here."""
    options = _OPTIONS if allow_network else {**_OPTIONS, **_NO_NETWORK}
    with rasterio.Env(**options), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)  # alpha and nodata both count here
        yield


def set_cache_bytes(count: int) -> None:
    """Resize GDAL's block cache, which every open raster of the process shares."""
    set_gdal_config("GDAL_CACHEMAX", count)


class DamageLog(logging.Handler):
    """GDAL's warnings while blocks are decoded that mean damage.

    A JPEG block that is cut short is grey to its end and no error to libtiff: only a warning tells.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: str | None = None
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("rasterio")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first one of this thread: others write rasters meanwhile."""
        message = record.getMessage()
        if self.found is None and record.thread == self._thread and _DAMAGE.search(message):
            self.found = message

    def __enter__(self) -> DamageLog:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
