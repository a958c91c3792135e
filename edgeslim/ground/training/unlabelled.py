"""Unlabelled: tiles of any number of bands -> what pretraining draws its batches from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgeslim.errors import InputError
from edgeslim.ground.flight import normalised
from edgeslim.ground.labelled import part_of
from edgeslim.ground.training.recipe import Recipe
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import TileReader, Wanted
from edgeslim.profile import Radiometry

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on

PARTS = ("train", "validation")
"""Parts that are read. Tiles of the third, "test", are never seen, so that scores on them mean something."""


@dataclass(frozen=True)
class UnlabelledTiles:
    """Tiles of one part."""

    images: Tensor
    """(n, bands, H, W) raw band values, uint8 where all are such, else float32."""
    radiometry: Radiometry
    """How an encoder takes them."""

    def to(self, device: torch.device) -> UnlabelledTiles:
        """The same on a device."""
        return replace(self, images=self.images.to(device))

    def __len__(self) -> int:
        return len(self.images)

    def normalised(self, chosen: Tensor | slice) -> Tensor:
        """(B, bands, H, W) float32 of the chosen tiles, clipped, each band to mean 0 and deviation 1."""
        return normalised(self.images[chosen].float(), self.radiometry)


@dataclass(frozen=True)
class OfUnlabelled:
    """What objectives without labels have in common (edgeslim.ground.training.train.Objective)."""

    recipe: Recipe
    """Slimmable or not, and what the objective reads of it."""
    train: UnlabelledTiles
    """To learn from."""
    validation: UnlabelledTiles
    """Looked at after an epoch."""

    @property
    def tiles(self) -> int:
        """Number of them to learn from."""
        return len(self.train)

    def to(self, place: torch.device) -> Self:
        """The same on a device."""
        return replace(self, train=self.train.to(place), validation=self.validation.to(place))


def read_unlabelled(
    tiles: Labelled, wanted: Wanted, radiometry: Radiometry, say: Callable[[str], None]
) -> dict[str, UnlabelledTiles]:
    """Read all tiles of PARTS, split by their names (edgeslim.ground.labelled.part_of).

    `radiometry` is what `wanted` says, or, where that says nothing, of the tiles themselves. Those that cannot be read
    are left out and said. Raises InputError where a part is empty, or as TileReader does.
    """
    reader, rows = TileReader(wanted), dict[str, list[np.ndarray]]()
    files = [file for file in tiles.files if part_of(file.name) in PARTS]
    with gdal_environment():
        for tile in reader.read(files):
            values = tile.values
            if wanted.radiometry is None and tile.dtype == "uint8":
                values = values.astype(np.uint8)
            rows.setdefault(part_of(tile.file.name), []).append(values)
    for line in reader.warnings():
        say(f"warning: {line}")
    found = {}
    for part in PARTS:
        if part not in rows:
            raise InputError(
                f"{tiles.source}: found no usable tile in part {part!r} of {len(tiles.files)}, expected some; give more"
            )
        found[part] = UnlabelledTiles(torch.from_numpy(np.stack(rows.pop(part))), radiometry)
    return found
