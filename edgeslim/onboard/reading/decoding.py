"""Decoding: what GDAL allocates to decode the blocks of a raster, and what its cache must keep, in closed form.

From GDAL's own sources: GTiffDataset::LoadBlockBuf holds one block of every band where they are interleaved by pixel,
libtiff beside it the block as stored, and some codecs a decoded copy; each band's block then lives in the block cache
(GDALRasterBlock) until it is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import Interleaving

from edgeslim.onboard.reading.gdal import CACHE_BYTES
from edgeslim.onboard.reading.header import Header
from edgeslim.scene_buffers import GDAL_FILE_BYTES

_NO_CACHE_BYTES = 1 << 16
_COPYING_CODECS = ("lerc", "webp", "jxl", "jpeg2000")
"""Codecs that decode into a block of their own first."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the blocks of an open raster are decoded."""

    size_px: tuple[int, int]
    """Rows and columns of the raster."""
    block_px: tuple[int, int]
    """Rows and columns that are decoded at once, never more than the raster has."""
    sequential: bool
    """True: GDAL walks along a strip of many rows, and starts anew to go back."""
    handles: int
    """Open files that it takes to walk along every band at once."""
    aligned: bool
    """Whether a read of whole blocks decodes just these: masks and the sources of a VRT have blocks of their own."""
    working_bytes: int
    """While a block is decoded, beside the cache."""
    held_bytes: int
    """Of them, what stays allocated from the first block on."""
    block_bytes: int
    """Decoded for one block of the bands in use."""
    kept_bytes: int
    """In the cache, of one block."""
    band_block_bytes: int
    """Of one band's block: the least that the cache holds, whatever its limit."""
    least_cache_bytes: int
    """Limit of the cache while reads are aligned."""

    def cache_bytes(self, row: int, column: int, rows: int, columns: int) -> int:
        """What GDAL's cache must hold so that reads of this size, row by row, decode nothing twice."""
        (height, width), (high, wide) = self.size_px, self.block_px
        even_rows = self.aligned and row % high == 0 and ((row + rows) % high == 0 or row + rows >= height)
        even_columns = self.aligned and column % wide == 0
        even_columns = even_columns and ((column + columns) % wide == 0 or column + columns >= width)
        if even_rows and even_columns:
            return self.least_cache_bytes
        down = min(-(-height // high), -(-rows // high) + (0 if even_rows else 1))
        across = -(-width // wide)
        if even_rows:
            across = min(across, -(-columns // wide) + 1)
        return self.least_cache_bytes + down * across * self.kept_bytes


def decoding_of(
    dataset: Any, bands: Sequence[int], masks: int, header: Header | None, sources: Sequence[Header]
) -> Decoding:
    """Of an open rasterio dataset of which `bands` and so many mask bands are read.

    `header` is its own, `sources` those of the files behind a VRT.
    """
    # A VRT tells of blocks of its own, but decodes those of its sources.
    shapes = [dataset.block_shapes[b - 1] for b in bands] + [(h.block_rows, h.block_columns) for h in sources]
    high, wide = max(s[0] for s in shapes), max(s[1] for s in shapes)
    codec = str(dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")).lower()
    virtual = dataset.driver == "VRT"
    interleaved = dataset.count > 1 and dataset.interleaving == Interleaving.pixel
    sequential = header is not None and header.block_rows > high and bool(codec) and not virtual
    band_block = high * wide * max(np.dtype(dataset.dtypes[b - 1]).itemsize for b in bands)
    whole = max([band_block * (dataset.count if interleaved else 1), *(h.block_bytes for h in sources)])
    decoded = whole if header is None or sequential else max(whole, header.block_bytes)
    packed = max([h.packed_bytes for h in (header, *sources) if h is not None] or [0]) or decoded
    copies = int(interleaved or bool(sources)) + sum(name in codec for name in _COPYING_CODECS)
    working = GDAL_FILE_BYTES * (1 + bool(masks)) + copies * decoded
    if codec or virtual:  # uncompressed blocks go straight to where they are wanted
        working += packed
    handles = len(bands) if sequential and not interleaved else 1
    # With room for a block of every band, GDAL would also copy the bands that nobody asked for.
    idle = interleaved and dataset.count > len(bands)
    return Decoding(
        size_px=(dataset.height, dataset.width),
        block_px=(min(high, dataset.height), min(wide, dataset.width)),
        sequential=sequential,
        handles=handles,
        aligned=not virtual and not masks,
        working_bytes=working * handles,
        held_bytes=whole if interleaved and not virtual else 0,
        block_bytes=max(1, whole if interleaved else whole * len(bands)),
        kept_bytes=max(whole, band_block * len(bands)) + masks * min(high, dataset.height) * min(wide, dataset.width),
        band_block_bytes=band_block,
        least_cache_bytes=min(_NO_CACHE_BYTES, whole - 1) if idle else CACHE_BYTES,
    )
