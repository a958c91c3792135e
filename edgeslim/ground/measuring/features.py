"""Features: one pass over a person's tiles -> what every width and every block makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.convnext import Stage
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.heads.head import Asked, tiles_wanted
from edgeslim.ground.measuring.redundancy import pixel_statistics
from edgeslim.ground.tile_radiometry import radiometry_of_tiles
from edgeslim.ground.vit import Vit
from edgeslim.onboard.labels import Labelled, TileFile
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import Place, TileReader
from edgeslim.profile import Profile

F32 = NDArray[np.float32]
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the full encoder's FLOP: the widths that are looked at unless others are asked for, besides the narrowest."""
_AT_ONCE = 16


def usual_widths(arch: AnyArchitecture) -> tuple[float, ...]:
    """The narrowest step and those nearest to SHARES of the full FLOP, ascending."""
    steps = arch.width_steps()
    full = cost.flop(arch)
    spent = np.array([cost.flop(arch.at(step)) / full for step in steps])
    chosen = {steps[0], *(steps[int(np.abs(spent - share).argmin())] for share in SHARES)}
    return tuple(sorted(chosen))


def spread_over(files: Sequence[TileFile], most: int) -> tuple[TileFile, ...]:
    """At most so many tiles, evenly spaced in the order of their names, which is that of their classes."""
    if len(files) <= most:
        return tuple(files)
    return tuple(files[int(i)] for i in np.linspace(0, len(files) - 1, most).round())


@dataclass(frozen=True, slots=True)
class Seen:
    """The tiles that could be read, in their order, and what was made of them."""

    files: tuple[TileFile, ...]
    """n of them."""
    places: tuple[Place | None, ...]
    """Where each lies."""
    gsd_m: float | None
    """Median metres a pixel; None: no tile says."""
    pixels: F32
    """(n, 7 bands) statistics without a network."""
    features: dict[tuple[float, int], F32]
    """Width multiplier and number of blocks -> (n, d) features, through the last LayerNorm; method "first". Of a
    ConvNeXt V2 behind blocks of the last stage, whose channels that LayerNorm is for."""
    left_out: dict[str, int]
    """Why tiles could not be used -> how many."""
    notes: tuple[str, ...]
    """What a person should know of the tiles."""

    def has(self, classes: Sequence[str]) -> NDArray[np.bool_]:
        """(n, classes): which of `classes` each tile has."""
        index = {name: number for number, name in enumerate(classes)}
        flags = np.zeros((len(self.files), len(index)), np.bool_)
        for row, file in zip(flags, self.files, strict=True):
            row[[index[name] for name in file.classes]] = True
        return flags


def look_at(
    profile: Profile,
    checkpoint: Checkpoint,
    tiles: Labelled,
    widths: Sequence[float],
    asked: Asked,
    say: Callable[[str], None],
) -> Seen:
    """Features of all `tiles` that can be read, at each of `widths` and behind each block that may be the last.

    Tiles are embedded once and run through the blocks once a width. Raises InputError for tiles that do not fit the
    encoder.
    """
    arch = checkpoint.architecture
    wanted = tiles_wanted(profile, asked)
    radiometry = profile.radiometry or radiometry_of_tiles(tiles, wanted, say)
    reader = TileReader(replace(wanted, radiometry=profile.radiometry))
    model = FlightModel(checkpoint.build(), (torch.zeros(1, arch.dim), torch.zeros(1)), radiometry).eval()
    encoder, caught = model.encoder, list[Tensor]()

    def before(_: nn.Module, values: tuple[Any, ...]) -> None:
        caught[:] = [values[0]]

    def after(_: nn.Module, __: tuple[Any, ...], value: Tensor) -> None:
        caught.append(value)

    stages = [encoder.blocks] if isinstance(encoder, Vit) else [cast(Stage, stage).blocks for stage in encoder.stages]
    hooks = [stages[0][0].register_forward_pre_hook(before)]
    hooks += [block.register_forward_hook(after) for block in stages[-1]]
    files, places, sizes = list[TileFile](), list[Place | None](), list[float]()
    pixels, parts = list[F32](), dict[tuple[float, int], list[F32]]()
    with gdal_environment(), torch.inference_mode():
        stream = reader.read(tiles.files)
        while batch := list(islice(stream, _AT_ONCE)):
            values = np.stack([tile.values for tile in batch])
            pixels.append(pixel_statistics(values))
            model(torch.from_numpy(values))
            tokens, *whole = caught.copy()
            for width in widths:
                if width == 1.0:
                    behind = whole
                else:
                    encoder.encode(tokens, width)
                    behind = caught[1:]
                for blocks, x in enumerate(behind, arch.fewest_blocks):
                    parts.setdefault((width, blocks), []).append(encoder.feature(x).numpy())
            files += [tile.file for tile in batch]
            places += [tile.place for tile in batch]
            sizes += [tile.gsd_m for tile in batch if tile.gsd_m is not None]
            if len(pixels) % 10 == 0:
                say(f"features of {len(files)} of {len(tiles.files)} tiles at {len(widths)} widths")
    for hook in hooks:
        hook.remove()
    return Seen(
        files=tuple(files),
        places=tuple(places),
        gsd_m=float(np.median(sizes)) if sizes else None,
        pixels=np.concatenate(pixels) if pixels else np.empty((0, 0), np.float32),
        features={key: np.concatenate(found) for key, found in parts.items()},
        left_out={reason: len(names) for reason, names in reader.skipped.items()},
        notes=tuple(reader.warnings()),
    )
