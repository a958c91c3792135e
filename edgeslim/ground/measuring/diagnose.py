"""Diagnose: labelled or unlabelled tiles -> what an encoder's features are worth at each width and after each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim import cost
from edgeslim.diagnosis import Cut, Diagnosis
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.heads.fitting import called_by, fit_linear, nearest_five, neighbours_say
from edgeslim.ground.heads.head import Asked
from edgeslim.ground.heads.split import Split, folds_of, require_enough, split_tiles
from edgeslim.ground.measuring.features import Seen, look_at
from edgeslim.ground.measuring.redundancy import (
    effective_dimension,
    explained_variance,
    likeness,
    mean_feature_correlation,
    spectrum,
    spectrum_slope,
    standardised,
)
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.scores import micro_f1
from edgeslim.planning.plan import METHODS
from edgeslim.profile import Profile

F32 = NDArray[np.float32]
LEAST_TILES = 20
"""Fewer say nothing of hundreds of features."""
_KEPT_SHARES = 64


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
    seen = look_at(profile, checkpoint, tiles, widths, asked, say)
    notes = list(seen.notes)
    if len(seen.files) < LEAST_TILES:
        raise InputError(f"--tiles: found {len(seen.files)} that can be used, expected at least {LEAST_TILES}")
    if len(seen.files) <= arch.dim:
        notes.append(
            f"{len(seen.files)} tiles are no more than the {arch.dim} features: dimensions are bounded by the tiles"
        )
    by_width = [seen.features[width, arch.depth] for width in widths]
    depths = range(arch.fewest_blocks, arch.depth + 1)
    by_depth = [seen.features[1.0, blocks] for blocks in depths]
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
        for width, features in zip(widths, by_width, strict=True)
    )
    of_depths = tuple(
        cut(f"block {k}", 1.0, k, features, cost.flop(arch.at(1.0, k)) / 1e9)
        for k, features in zip(depths, by_depth, strict=True)
    )
    return Diagnosis(
        encoder=profile.id,
        dataset=tiles.source,
        tiles=len(seen.files),
        left_out=seen.left_out,
        features=arch.dim,
        method=METHODS[0],
        split="" if probe is None else probe.split.how,
        scored_tiles=0 if probe is None else len(probe.split.test),
        metric="" if probe is None else probe.metric,
        pixels=None if probe is None else cut("pixel statistics", 0.0, 0, standardised(seen.pixels), 0.0),
        widths=of_widths,
        depths=of_depths,
        cka_widths=_rounded(likeness(by_width)),
        cka_depths=_rounded(likeness(by_depth)),
        warnings=tuple(notes),
    )


def _rounded(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(value), 6) for value in row) for row in matrix)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Scores features by fitting anew on one part of the tiles, and asking of the other."""

    has: NDArray[np.bool_]
    split: Split
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    metric: str

    @classmethod
    def of(cls, seen: Seen, tiles: Labelled, asked: Asked, tile_px: int, notes: list[str]) -> _Probe | None:
        has = seen.has(tiles.classes)
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
        knn = micro_f1(truth, called_by(neighbours_say(nearest_five(fit, has), test), multi))
        head = fit_linear("ridge", fit, has, self.folds, multi)
        return knn, micro_f1(truth, called_by(head.logits(test), multi))
