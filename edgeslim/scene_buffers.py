"""Scene buffers: bytes that reading a scene and writing its results take, in closed form. No numpy.

What edgeslim/onboard reads and writes with, so that a plan foretells the same figures without a scene at hand. Sizes
are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

RESULT_BLOCK = 256
"""Side of a block of a result raster, px. 512 would double the rows that wait in memory, for files no smaller."""
_HALVING = 4
"""Bytes of intermediate arrays a pixel, of edgeslim/onboard/writing/overview.py where nodata is among the pixels."""
_RESULTS_BYTES = 6 << 19
"""zlib's tables, a block before and after it, buffers of files, GDAL's first tags."""
_CELL_BYTES = 2000
"""Text and coordinates of a cell of the row being written."""
_PAGE_BYTES = (10 << 19, 45)
"""What the quicklook takes: code of GDAL's PNG driver and the like; bytes a pixel of a panel."""
_VECTOR_BYTES = {"geoparquet": 100 << 20, "flatgeobuf": 130 << 20}
"""The libraries of the extra `vector`: pyarrow 26, pyogrio 0.13."""

PANEL_GAP_PX = 24
"""Between two panels of a page."""
STACKED_FROM = 2.0
"""Scenes wider than this many times their height stand above their map instead of beside it."""
_PANEL_SIDE, _PANEL_TALL = 444, 560
_PANEL_SAMPLES = 2
"""Pixels a box of a panel looks at each way, where it has that many."""

GDAL_CACHE_BYTES = 1 << 20
"""Limit of GDAL's block cache while reads are aligned with blocks."""
GDAL_FILE_BYTES = 5 << 20
"""GDAL's and libtiff's small change for an open file."""
GDAL_OPENED_BYTES = 1 << 20
"""Of it, what the first file has taken once a block was decoded: 1.4 to 5.6 MiB were seen of eight codecs, by how the
page cache holds the libraries."""

_CHUNK_BYTES = 4 << 20
"""New pixels of a chunk that is not cut down: enough to keep workers busy, little beside the libraries."""
_ROWS_BYTES = 8 << 20
"""The same where blocks are as wide as the scene: each chunk copies a tile's rows from the one above."""
_LEAST_PX = (16, 64)
"""Rows and columns below which chunks are not cut."""


@dataclass(frozen=True, slots=True)
class SceneForm:
    """How a scene is stored, as far as its memory asks."""

    block_px: tuple[int, int] = (512, 512)
    """Rows and columns of a block."""
    value_bytes: int = 2
    """One value as it is read."""
    masked: bool = True
    """Whether some pixels may be invalid."""


USUAL_FORM = SceneForm()
"""What a plan assumes: uint16 with a nodata value, in blocks of 512 px, all bands of a pixel together, compressed: what
GDAL's COG driver writes."""


def block_bytes(form: SceneForm, bands: int) -> int:
    """One block of all bands, decoded."""
    return form.block_px[0] * form.block_px[1] * form.value_bytes * bands


def block_reading_bytes(form: SceneForm, bands: int, chunk_px: tuple[int, int]) -> int:
    """What decoding takes beside the chunk, of a scene of that form.

    The block as stored (which compression may not have made smaller) and as decoded, GDAL's cache and its small change,
    and the validity of the chunk's pixels.
    """
    block = block_bytes(form, bands)
    valid = chunk_px[0] * chunk_px[1] if form.masked else 0
    return GDAL_FILE_BYTES + GDAL_CACHE_BYTES + (2 if bands > 1 else 1) * block + valid


def chunk_sizes(
    size_px: tuple[int, int], block_px: tuple[int, int], pixel_bytes: int, tile_px: int
) -> Iterator[tuple[int, int]]:
    """Heights and widths of chunks, px, largest first: whole blocks, then parts of them, which decode blocks again."""
    (scene_height, scene_width) = size_px
    block_height, block_width = min(block_px[0], scene_height), min(block_px[1], scene_width)
    height, width, whole = block_height, _eight(block_width), _eight(block_width)
    # Many blocks a chunk where they are small: rows first, to a tile's height, then columns.
    while height < min(scene_height, tile_px) and (height + block_height) * width * pixel_bytes <= _ROWS_BYTES:
        height += block_height
    while width < scene_width and height * (width + whole) * pixel_bytes <= _CHUNK_BYTES:
        width += whole
    yield height, width
    while width > whole:
        width = max(whole, _eight(width // 2))
        yield height, width
    while height > _LEAST_PX[0] or width > _LEAST_PX[1]:
        if height > _LEAST_PX[0]:
            height = max(_LEAST_PX[0], height // 2)
        else:
            width = max(_LEAST_PX[1], _eight(width // 2))
        yield height, width


def _eight(pixels: int) -> int:
    return -(-pixels // 8) * 8


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of a result raster and its overviews, halved until one block holds it all.

    A raster one pixel wide has none: readers tell the factor of an overview by its width.
    """
    sizes = [(height, width)]
    while max(height, width) > RESULT_BLOCK and width > 1:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def halved_rows(bands: int) -> int:
    """Rows that are halved at once: few, because that takes many small arrays; an even number."""
    return max(2, 8 // bands * 2)


def cog_bytes(bands: int, height: int, width: int) -> int:
    """Memory that a `CogWriter` holds while rows come, bytes: rows that wait, and places of finished blocks."""
    sizes = level_sizes(height, width)
    waiting = sum(min(RESULT_BLOCK, h) * w for h, w in sizes)
    return bands * (waiting + 12 * sum(-(-h // RESULT_BLOCK) * -(-w // RESULT_BLOCK) for h, w in sizes))


def halving_bytes(bands: int, width: int) -> int:
    """Peak of the arrays that halve one piece of rows, bytes."""
    return _HALVING * bands * halved_rows(bands) * width


def appending_bytes(
    size_px: tuple[int, int], cells_across: int, classes: int, probabilities: bool = False, vector: str | None = None
) -> int:
    """Peak memory of `Results` while rows of maps of that size come, bytes; it does not grow with their number."""
    layers = [1, 1, *([classes] if probabilities else [])]
    rows = sum(cog_bytes(bands, *size_px) for bands in layers) + halving_bytes(layers[-1], size_px[1])
    cells = _CELL_BYTES * cells_across if vector != "none" else 0
    return rows + cells + _RESULTS_BYTES + _VECTOR_BYTES.get(vector or "", 0)


def finishing_bytes(size_px: tuple[int, int], vector: str | None = None) -> int:
    """The same while the page of a scene of that size is drawn, when the buffers of the rows are gone."""
    height, width = panel_size(*size_px)
    return _PAGE_BYTES[0] + _PAGE_BYTES[1] * height * width + _VECTOR_BYTES.get(vector or "", 0)


def panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the panels of a page, of a scene of `height` x `width` pixels."""
    stacked = width > STACKED_FROM * height
    limit = (_PANEL_SIDE, 2 * _PANEL_SIDE + PANEL_GAP_PX) if stacked else (_PANEL_TALL, _PANEL_SIDE)
    factor = min(limit[0] / height, limit[1] / width)
    return max(8, round(height * factor)), max(8, round(width * factor))


def panel_step(height: int, width: int) -> int:
    """Every which pixel of a scene, each way, is looked at for its panel."""
    panel = panel_size(height, width)
    boxes = (size // min(side, size) for size, side in zip((height, width), panel, strict=True))
    return max(1, min(boxes) // _PANEL_SAMPLES)


def panel_bytes(size_px: tuple[int, int], chunk_px: tuple[int, int], bands: int) -> int:
    """What a chunk's part of the panel takes: its pixels as float32 in all bands and in three, and how many there are.

    Of a scene that is not much larger than its panel that is every pixel.
    """
    step = panel_step(*size_px)
    pixels = -(-min(chunk_px[0], size_px[0]) // step) * -(-min(chunk_px[1], size_px[1]) // step)
    return pixels * (bands + 3 + 1) * 4
