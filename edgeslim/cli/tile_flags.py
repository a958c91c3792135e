"""Flags that say what a person's own tiles are: declared once for `head`, `evaluate`, `diagnose` and `measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeslim.errors import UsageError

LARGEST_SEED = (1 << 31) - 1
"""scikit-learn takes 32 bits, and splits count on from it."""
TILES = "The tiles"
"""Their panel in the help."""
TilesMax = Annotated[
    int, typer.Option(min=20, help="Tiles that are used at most, evenly spaced.", rich_help_panel=TILES)
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="CSV with columns file,class instead of folders; a file on several lines has several classes.",
        rich_help_panel=TILES,
    ),
]
TileBands = Annotated[
    str | None,
    typer.Option("--bands", help="Bands of the tiles in the encoder's order, numbers or names.", rich_help_panel=TILES),
]
TileScale = Annotated[
    float | None,
    typer.Option("--scale", help="Reflectance of one unit of the tiles, e.g. 0.0001.", rich_help_panel=TILES),
]
TileOffset = Annotated[
    float | None,
    typer.Option("--offset", help="Reflectance at value 0 of the tiles, e.g. -0.1.", rich_help_panel=TILES),
]
ResampleTiles = Annotated[
    bool,
    typer.Option("--resample", help="Bring tiles of another size to the encoder's, bilinearly.", rich_help_panel=TILES),
]
TilePx = Annotated[
    int | None, typer.Option(help="Side of a tile, px, other than the encoder's: its positions are resampled.")
]


def require_units(scale: float | None, offset: float | None) -> None:
    """Raise UsageError unless --scale is above 0 and --offset a number, where they are given."""
    if scale is not None and not 0 < scale < float("inf"):
        raise UsageError(f"--scale: found {scale:g}, expected a number above 0")
    if offset is not None and not abs(offset) < float("inf"):
        raise UsageError(f"--offset: found {offset:g}, expected a number")
