"""Quicklook: the scene beside its class map with a legend, as one PNG."""

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
from edgeslim.onboard.writing.font import GLYPH_ROWS, text_mask
from edgeslim.onboard.writing.style import rgb_of
from edgeslim.onboard.writing.summary import Summary
from edgeslim.onboard.writing.thumbnail import EMPTY_RGB, Thumbnail
from edgeslim.profile import ClassLabel
from edgeslim.scene_buffers import PANEL_GAP_PX

U8 = NDArray[np.uint8]
_MARGIN, _LINE, _SWATCH = 24, 26, 16
_AREA_COLUMN = 100
_PAPER, _INK, _FAINT, _FRAME = (255, 255, 255), (32, 36, 40), (120, 126, 132), (160, 166, 172)


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
    return LegendRow(ClassLabel("nodata", "No data, of all pixels", bytes(EMPTY_RGB).hex()), share, None)


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
    across = width if thumbnail.stacked else 2 * width + PANEL_GAP_PX
    inner = max(across, 640)
    left = _MARGIN + (inner - across) // 2
    top = _MARGIN + 2 * _LINE + 10
    panels_bottom = top + _LINE + height + (PANEL_GAP_PX + _LINE + height if thumbnail.stacked else 0)
    columns = 2
    shown = [*sorted(legend, key=lambda r: -r.share), *last]
    lines = -(-len(shown) // columns)
    canvas = _Canvas(panels_bottom + PANEL_GAP_PX + lines * _LINE + _MARGIN, inner + 2 * _MARGIN)
    canvas.label(_MARGIN, _MARGIN, title, _INK, inner + _MARGIN)
    canvas.label(_MARGIN + _LINE, _MARGIN, subtitle, _FAINT, inner + _MARGIN)
    second = (top + _LINE + height + PANEL_GAP_PX, left) if thumbnail.stacked else (top, left + width + PANEL_GAP_PX)
    panels = (thumbnail.scene_panel(), thumbnail.map_panel(classes))
    for (row, column), caption, image in zip(((top, left), second), ("Scene", "Classes"), panels, strict=True):
        canvas.text(row, column, caption, _FAINT)
        canvas.paste(row + _LINE, column, image)
    column_width = (inner - PANEL_GAP_PX) // columns
    for index, entry in enumerate(shown):
        column, row = divmod(index, lines)
        _legend_line(
            canvas,
            panels_bottom + PANEL_GAP_PX + row * _LINE,
            _MARGIN + column * (column_width + PANEL_GAP_PX),
            column_width,
            entry,
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
        with memory.open(driver="PNG", dtype="uint8", count=3, width=width, height=height, zlevel=3) as dataset:
            dataset.write(image.transpose(2, 0, 1))
        memory.seek(0)
        data = memory.read()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
