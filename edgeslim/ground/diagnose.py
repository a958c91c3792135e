"""Diagnose: labelled or unlabelled tiles -> what an encoder's features are worth at each width and after each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.diagnosis import Cut, Diagnosis
from edgeslim.errors import InputError
from edgeslim.ground.checkpoint import Checkpoint
from edgeslim.ground.fitting import called_by, fit_linear, neighbours_say
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.head import Asked, radiometry_for, tiles_wanted
from edgeslim.ground.redundancy import (
    effective_dimension,
    explained_variance,
    likeness,
    mean_feature_correlation,
    pixel_statistics,
    spectrum,
    spectrum_slope,
    standardised,
)
from edgeslim.ground.split import Split, folds_of, require_enough, split_tiles
from edgeslim.onboard.labels import Labelled, TileFile
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import Place, TileReader
from edgeslim.onboard.scores import micro_f1
from edgeslim.plan import METHODS
from edgeslim.profile import Profile, Radiometry

F32 = NDArray[np.float32]
LEAST_TILES = 20
"""Fewer say nothing of hundreds of features."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the full encoder's FLOP: the widths that are looked at unless others are asked for, besides the narrowest."""
NEIGHBOURS = 5
_AT_ONCE = 16
_KEPT_SHARES = 64


def usual_widths(arch: Architecture) -> tuple[float, ...]:
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


@dataclass(slots=True)
class _Seen:
    """Features of the tiles that could be read, in their order."""

    files: list[TileFile]
    places: list[Place | None]
    pixels: F32
    widths: list[F32]
    depths: list[F32]
    gsd_m: float | None


def diagnose(
    profile: Profile,
    checkpoint: Checkpoint,
    tiles: Labelled,
    widths: Sequence[float],
    asked: Asked,
    say: Callable[[str], None],
) -> Diagnosis:
    """Look at the features of `tiles` at each of `widths` (1.0 is added) and after each block.

    Scores need at least two classes of enough tiles; without, they are left out, which a warning says. Raises
    InputError for tiles that do not fit the encoder or are too few.
    """
    arch = profile.architecture
    widths = tuple(sorted({*widths, 1.0}))
    wanted = tiles_wanted(profile, asked)
    radiometry = radiometry_for(profile, tiles, wanted, asked, say)
    reader = TileReader(replace(wanted, radiometry=None if profile.radiometry is None else radiometry))
    seen = _look(reader, tiles, checkpoint, radiometry, widths, say)
    notes = reader.warnings()
    if len(seen.files) < LEAST_TILES:
        raise InputError(f"--tiles: found {len(seen.files)} that can be used, expected at least {LEAST_TILES}")
    if len(seen.files) <= arch.dim:
        notes.append(
            f"{len(seen.files)} tiles are no more than the {arch.dim} features: dimensions are bounded by the tiles"
        )
    probe = _Probe.of(seen, tiles, asked, arch.tile_px, notes)

    def cut(name: str, width: float, blocks: int, features: F32, gflop: float) -> Cut:
        values = spectrum(features)
        shares = explained_variance(values)
        knn, linear = (None, None) if probe is None else probe.scores(features)
        return Cut(
            name=name,
            width_multiplier=width,
            blocks=blocks,
            gflop=gflop,
            explained=tuple(round(float(share), 8) for share in shares[:_KEPT_SHARES]),
            slope=spectrum_slope(shares),
            effective_dimension=effective_dimension(values),
            feature_correlation=mean_feature_correlation(features),
            knn=knn,
            linear=linear,
        )

    of_widths = tuple(
        cut(f"width {width:.4g}", width, arch.depth, features, cost.flop(arch.at(width)) / 1e9)
        for width, features in zip(widths, seen.widths, strict=True)
    )
    of_depths = tuple(
        cut(f"block {k}", 1.0, k, features, cost.flop(arch.at(1.0, k)) / 1e9)
        for k, features in enumerate(seen.depths, 1)
    )
    return Diagnosis(
        encoder=profile.id,
        dataset=tiles.source,
        tiles=len(seen.files),
        left_out={reason: len(names) for reason, names in reader.skipped.items()},
        features=arch.dim,
        method=METHODS[0],
        split="" if probe is None else probe.split.how,
        scored_tiles=0 if probe is None else len(probe.split.test),
        metric="" if probe is None else probe.metric,
        pixels=None if probe is None else cut("pixel statistics", 0.0, 0, seen.pixels, 0.0),
        widths=of_widths,
        depths=of_depths,
        cka_widths=_rounded(likeness(seen.widths)),
        cka_depths=_rounded(likeness(seen.depths)),
        warnings=tuple(notes),
    )


def _rounded(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(value), 6) for value in row) for row in matrix)


def _look(
    reader: TileReader,
    tiles: Labelled,
    checkpoint: Checkpoint,
    radiometry: Radiometry,
    widths: Sequence[float],
    say: Callable[[str], None],
) -> _Seen:
    """One pass over the tiles: they are embedded once, and run through the blocks once a width."""
    arch = checkpoint.architecture
    model = FlightModel(checkpoint.build(), (torch.zeros(1, arch.dim), torch.zeros(1)), radiometry).eval()
    encoder = model.encoder
    caught: list[Tensor] = []

    def before(_: nn.Module, values: tuple[Any, ...]) -> None:
        caught[:] = [values[0]]

    def after(_: nn.Module, __: tuple[Any, ...], value: Tensor) -> None:
        caught.append(value)

    hooks = [encoder.blocks[0].register_forward_pre_hook(before)]
    hooks += [block.register_forward_hook(after) for block in encoder.blocks]
    seen = _Seen([], [], np.empty(0, np.float32), [], [], None)
    pixels: list[F32] = []
    by_width: list[list[F32]] = [[] for _ in widths]
    by_depth: list[list[F32]] = [[] for _ in range(arch.depth)]
    sizes: list[float] = []
    with gdal_environment(), torch.inference_mode():
        stream = reader.read(tiles.files)
        while batch := list(islice(stream, _AT_ONCE)):
            values = np.stack([tile.values for tile in batch])
            pixels.append(pixel_statistics(values))
            model(torch.from_numpy(values))
            tokens, *blocks = caught.copy()
            for found, x in zip(by_depth, blocks, strict=True):
                found.append(encoder.pool(encoder.end(x)).numpy())
            for found, width in zip(by_width, widths, strict=True):
                narrow = by_depth[-1][-1] if width == 1.0 else encoder.pool(encoder.encode(tokens, width)).numpy()
                found.append(narrow)
            seen.files += [tile.file for tile in batch]
            seen.places += [tile.place for tile in batch]
            sizes += [tile.gsd_m for tile in batch if tile.gsd_m is not None]
            if len(pixels) % 10 == 0:
                say(f"features of {len(seen.files)} of {len(tiles.files)} tiles at {len(widths)} widths")
    for hook in hooks:
        hook.remove()
    if pixels:
        seen.pixels = standardised(np.concatenate(pixels))
        seen.widths = [np.concatenate(parts) for parts in by_width]
        seen.depths = [np.concatenate(parts) for parts in by_depth]
        seen.gsd_m = float(np.median(sizes)) if sizes else None
    return seen


@dataclass(frozen=True, slots=True)
class _Probe:
    """Scores features by fitting anew on one part of the tiles, and asking of the other."""

    has: NDArray[np.bool_]
    split: Split
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    metric: str

    @classmethod
    def of(cls, seen: _Seen, tiles: Labelled, asked: Asked, tile_px: int, notes: list[str]) -> _Probe | None:
        index = {name: number for number, name in enumerate(tiles.classes)}
        has = np.zeros((len(seen.files), len(index)), np.bool_)
        for row, file in zip(has, seen.files, strict=True):
            row[[index[name] for name in file.classes]] = True
        try:
            require_enough(tiles.classes, has)
            names = [file.name for file in seen.files]
            side_m = None if seen.gsd_m is None else seen.gsd_m * tile_px
            split = split_tiles(names, tiles.classes, has, seen.places, side_m, asked.block_m, asked.seed)
        except InputError as error:
            notes.append(f"nothing is scored: {str(error).removeprefix('--tiles: ')}")
            return None
        multi = bool((has.sum(1) > 1).any())
        return cls(has, split, list(folds_of(split, has, asked.seed)), "micro F1" if multi else "accuracy")

    def scores(self, features: F32) -> tuple[float, float]:
        """Of the five nearest neighbours and of a ridge classifier, on the held-out tiles."""
        multi = self.metric != "accuracy"
        fit, truth = features[self.split.train], self.has[self.split.test]
        has, test = self.has[self.split.train], features[self.split.test]
        near = KNeighborsClassifier(min(NEIGHBOURS, len(fit)), metric="cosine").fit(fit, has.astype(np.int64))
        knn = micro_f1(truth, called_by(neighbours_say(near, test), multi))
        head = fit_linear("ridge", fit, has, self.folds, multi)
        return knn, micro_f1(truth, called_by(head.logits(test), multi))
