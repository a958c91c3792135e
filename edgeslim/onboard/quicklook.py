"""Quicklook: the scene beside its class map with a legend, as one PNG, gathered while the rows stream by."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from edgeslim.errors import InputError
from edgeslim.onboard.blend import Settled
from edgeslim.onboard.font import GLYPH_ROWS, text_mask
from edgeslim.onboard.maps import NODATA
from edgeslim.onboard.style import rgb_of
from edgeslim.onboard.summary import Summary
from edgeslim.profile import Band, ClassLabel

U8 = NDArray[np.uint8]
_MARGIN, _GAP, _LINE, _SWATCH = 24, 24, 26, 16
_PANEL_SIDE, _PANEL_TALL = 444, 560
_AREA_COLUMN = 100
_STACK_FROM = 2.0
"""Scenes wider than this many times their height stand above their map instead of beside it."""
_PAPER, _INK, _FAINT, _EMPTY, _FRAME = (255, 255, 255), (32, 36, 40), (120, 126, 132), (228, 230, 232), (160, 166, 172)


@dataclass(frozen=True, slots=True)
class LegendRow:
    """One line of the legend."""

    label: ClassLabel
    """Class."""
    share: float
    """Of the classified pixels, 0 ... 1."""
    area_km2: float | None
    """On the ground; None: unknown."""


def nodata_row(share: float) -> LegendRow:
    """The legend's line for what has no class; `share` of all pixels, 0 ... 1."""
    return LegendRow(ClassLabel("nodata", "No data, of all pixels", bytes(_EMPTY).hex()), share, None)


class Thumbnail:
    """Box means of the scene and samples of the class map, in bounded memory."""

    def __init__(self, size: tuple[int, int], map_size: tuple[int, int], bands: Sequence[Band]) -> None:
        """`size` and `map_size` are (height, width) of the scene and of the class raster."""
        height, width = size
        self.stacked = width > _STACK_FROM * height
        limit = (_PANEL_SIDE, 2 * _PANEL_SIDE + _GAP) if self.stacked else (_PANEL_TALL, _PANEL_SIDE)
        factor = min(limit[0] / height, limit[1] / width)
        self.panel = (max(8, round(height * factor)), max(8, round(width * factor)))
        names = [b.common_name for b in bands]
        colour = all(c in names for c in ("red", "green", "blue"))
        self._channels = [names.index(c) for c in ("red", "green", "blue")] if colour else [0, 0, 0]
        self._size = size
        small = (min(self.panel[0], height), min(self.panel[1], width))
        self._edges = -(-np.arange(small[1]) * width // small[1])
        self._sum = np.zeros((3, *small), np.float64)
        self._count = np.zeros(small, np.int64)
        small_map = tuple(min(p, m) for p, m in zip(self.panel, map_size, strict=True))
        self._map_rows, self._map_columns = (
            ((np.arange(s) + 0.5) * m / s).astype(int) for s, m in zip(small_map, map_size, strict=True)
        )
        self._map = np.full(small_map, NODATA, np.uint8)
        self._map_row = 0

    def add_scene(self, settled: Settled) -> None:
        """Take part in the next finished rows of the scene."""
        count = settled.valid.shape[0]
        boxes = (settled.row + np.arange(count)) * self._sum.shape[1] // self._size[0]
        planes = np.add.reduceat(settled.raw[self._channels], self._edges, axis=2)  # invalid pixels are 0
        counts = np.add.reduceat(settled.valid.astype(np.int64), self._edges, axis=1)
        for row, box in enumerate(boxes):
            self._sum[:, box] += planes[:, row]
            self._count[box] += counts[row]

    def add_map(self, classes: U8) -> None:
        """Take part in the next finished rows (n, width) of the class raster."""
        first, last = np.searchsorted(self._map_rows, [self._map_row, self._map_row + classes.shape[0]])
        picked = classes[self._map_rows[first:last] - self._map_row]
        self._map[first:last] = picked[:, self._map_columns]
        self._map_row += classes.shape[0]

    def scene_panel(self) -> U8:
        """(height, width, 3): true colour, one stretch for all channels so that hues stay."""
        known = self._count > 0
        mean = self._sum / np.maximum(self._count, 1)
        image = np.broadcast_to(np.array(_EMPTY, np.uint8), (*known.shape, 3)).copy()
        if known.any():
            low, high = np.percentile(mean[:, known], [1, 98.5])
            grey = np.clip((mean - low) / max(high - low, 1e-9), 0, 1) ** 0.8 * 255
            image[known] = grey.transpose(1, 2, 0)[known].astype(np.uint8)
        return _enlarge(image, self.panel)

    def map_panel(self, classes: Sequence[ClassLabel]) -> U8:
        """(height, width, 3): the class map in its colours."""
        colours = np.empty((256, 3), np.uint8)
        colours[:] = _EMPTY
        for index, label in enumerate(classes):
            colours[index] = rgb_of(label.color)
        return _enlarge(colours[self._map], self.panel)


def _enlarge(image: U8, size: tuple[int, int]) -> U8:
    rows, columns = (np.arange(s) * i // s for s, i in zip(size, image.shape, strict=False))
    enlarged: U8 = image[rows][:, columns]
    return enlarged


class _Canvas:
    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = _PAPER

    def text(self, row: int, column: int, text: str, ink: tuple[int, int, int] = _INK, right: int | None = None) -> int:
        """Draw from `column`, or ending at `right`. Returns the first column inked."""
        mask = text_mask(text)
        if right is not None:
            column = max(column, right - mask.shape[1])
        area = self.pixels[row : row + mask.shape[0], column : column + mask.shape[1]]
        area[mask[: area.shape[0], : area.shape[1]]] = ink
        return column

    def label(self, row: int, column: int, text: str, ink: tuple[int, int, int], limit: int) -> None:
        """Draw from `column` to at most `limit`; what does not fit is cut with dots."""
        kept = text
        while text_mask(text).shape[1] > limit - column and kept:
            kept = kept[:-1]
            text = kept.rstrip() + "..."
        self.text(row, column, text, ink)

    def paste(self, row: int, column: int, image: U8) -> None:
        """Draw an image with a thin frame."""
        height, width = image.shape[:2]
        self.pixels[row - 1 : row + height + 1, column - 1 : column + width + 1] = _FRAME
        self.pixels[row : row + height, column : column + width] = image


def compose(
    thumbnail: Thumbnail,
    title: str,
    subtitle: str,
    legend: Sequence[LegendRow],
    classes: Sequence[ClassLabel],
    last: Sequence[LegendRow] = (),
) -> U8:
    """The whole page, (height, width, 3). The legend is ordered by share; `last` closes it."""
    height, width = thumbnail.panel
    across = width if thumbnail.stacked else 2 * width + _GAP
    inner = max(across, 640)
    left = _MARGIN + (inner - across) // 2
    top = _MARGIN + 2 * _LINE + 10
    panels_bottom = top + _LINE + height + (_GAP + _LINE + height if thumbnail.stacked else 0)
    columns = 2
    shown = [*sorted(legend, key=lambda r: -r.share), *last]
    lines = -(-len(shown) // columns)
    canvas = _Canvas(panels_bottom + _GAP + lines * _LINE + _MARGIN, inner + 2 * _MARGIN)
    canvas.label(_MARGIN, _MARGIN, title, _INK, inner + _MARGIN)
    canvas.label(_MARGIN + _LINE, _MARGIN, subtitle, _FAINT, inner + _MARGIN)
    second = (top + _LINE + height + _GAP, left) if thumbnail.stacked else (top, left + width + _GAP)
    panels = (thumbnail.scene_panel(), thumbnail.map_panel(classes))
    for (row, column), caption, image in zip(((top, left), second), ("Scene", "Classes"), panels, strict=True):
        canvas.text(row, column, caption, _FAINT)
        canvas.paste(row + _LINE, column, image)
    column_width = (inner - _GAP) // columns
    for index, entry in enumerate(shown):
        column, row = divmod(index, lines)
        _legend_line(
            canvas, panels_bottom + _GAP + row * _LINE, _MARGIN + column * (column_width + _GAP), column_width, entry
        )
    return canvas.pixels


def _legend_line(canvas: _Canvas, row: int, column: int, width: int, entry: LegendRow) -> None:
    swatch = np.empty((_SWATCH, _SWATCH, 3), np.uint8)
    swatch[:] = rgb_of(entry.label.color)
    canvas.paste(row, column + 1, swatch)
    ink = _INK if entry.share > 0 else _FAINT
    at = row + (_SWATCH - 2 * GLYPH_ROWS) // 2
    start = column + _SWATCH + 10
    if entry.area_km2 is not None and entry.share > 0:
        canvas.text(at, start, _area(entry.area_km2), _FAINT, right=column + width)
    share = canvas.text(at, start, f"{entry.share:.1%}", ink, right=column + width - _AREA_COLUMN)
    canvas.label(at, start, entry.label.title, ink, share - 8)


def _area(km2: float) -> str:
    if km2 < 0.01:
        return f"{km2 * 1e6:.3g} m2"
    if km2 >= 10_000:
        return f"{km2 / 1000:.3g}k km2"
    return f"{km2:.0f} km2" if km2 >= 100 else f"{km2:.1f} km2" if km2 >= 1 else f"{km2:.2f} km2"


def draw(thumbnail: Thumbnail, summary: Summary, classes: Sequence[ClassLabel]) -> U8:
    """The whole page, (height, width, 3), of a finished run."""
    scene = summary.scene
    size = f"{scene['width']} x {scene['height']} px"
    place = "no CRS" if scene["crs"] == "none" else f"{scene['crs']}, {scene['gsd_m'] or 0:.3g} m a pixel"
    legend = [LegendRow(label, c.share, c.area_km2) for label, c in zip(classes, summary.classes, strict=True)]
    empty = summary.nodata_pixels / (summary.nodata_pixels + sum(c.pixels for c in summary.classes))
    titles = Path(scene["path"]).name, f"{summary.artifact['name']}   {size}, {place}"
    return compose(thumbnail, *titles, legend, classes, [nodata_row(empty)] if empty else [])


def write_png(path: Path, image: U8) -> None:
    """Write (height, width, 3) as PNG. Raises InputError if the disk does not take it."""
    height, width = image.shape[:2]
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(driver="PNG", dtype="uint8", count=3, width=width, height=height) as dataset:
            dataset.write(image.transpose(2, 0, 1))
        memory.seek(0)
        data = memory.read()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
