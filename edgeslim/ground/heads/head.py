"""Head: labelled tiles -> a head on the features of one width, and how it does on tiles that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.heads.fitting import (
    Fold,
    called_by,
    confidence_of,
    fit_linear,
    fit_neighbours,
    neighbours_say,
)
from edgeslim.ground.heads.known import UNKNOWN_SHARE, beyond, known_of
from edgeslim.ground.heads.split import Split, folds_of, rarest, require_enough, split_tiles
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.ground.tile_radiometry import own_bands, radiometry_of_tiles
from edgeslim.head_card import LINEAR, HeadCard
from edgeslim.onboard.known import pixel_statistics
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import Place, TileReader, Wanted
from edgeslim.onboard.scores import (
    ClassScore,
    calibration_error,
    class_scores,
    confusion_of,
    micro_f1,
    wilson_interval,
)
from edgeslim.profile import ClassLabel, Profile, Radiometry

F32 = NDArray[np.float32]
AT_ONCE = 32
"""Tiles that the encoder is given at once."""
RESAMPLED = 2000
"""Draws of the bootstrap."""
COLORS = (
    *("E8C547", "1E6B33", "57A7DB", "C9503B", "8E5AA8", "9BC24B", "E58E2E", "2F5FA8", "B58A63", "6E6E78"),
    *("D98CB3", "45B39D", "7D3C1E", "A6A032", "3D3D8F", "F2A0A0", "187A8C", "C0C0C8", "5B7553", "F4D9A0"),
)
"""Of classes whose card says none, in turn."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What `edgeslim head` was asked for."""

    kind: str = "logistic"
    """One of fitting.KINDS."""
    block_m: float | None = None
    """Side of a spatial block, metres; None: as the tiles' own size makes it."""
    seed: int = 0
    """Of split, folds and bootstrap."""
    bands: str | None = None
    """Bands of the tiles in the encoder's order."""
    scale: float | None = None
    """Reflectance of one unit of the tiles."""
    offset: float | None = None
    """Reflectance at 0."""
    gsd_m: float | None = None
    """Metres a pixel of the tiles' files; None: their own coordinates, or the encoder's."""
    resample: bool = False
    """Bring tiles of another size to the encoder's."""
    unknown_share: float = UNKNOWN_SHARE
    """Of tiles like those that it is fitted on, that may be called unknown; 0: none ever is."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head and what is to be said of it."""

    card: HeadCard
    """What it is."""
    tensors: dict[str, Tensor]
    """Of the head file."""
    classes: tuple[ClassScore, ...]
    """On the held-out tiles."""
    confusion: NDArray[np.int64] | None
    """(classes, classes): label by answer, of the held-out tiles; None: multi-label."""


@dataclass(slots=True)
class _Read:
    """What was read of the tiles, in the order of their names."""

    names: list[str]
    has: NDArray[np.bool_]
    places: list[Place | None]
    features: F32
    pixels: F32
    gsd_m: float | None
    file_px: float


def fit_head(
    profile: Profile,
    checkpoint: Checkpoint,
    digest: str,
    width_multiplier: float,
    tiles: Labelled,
    asked: Asked,
    say: Callable[[str], None],
    depth: int | None = None,
) -> Fitted:
    """Fit a head on `tiles` to the features of an encoder slimmed to a width, and score it on those held out.

    With `depth` to those behind its first blocks, through the last LayerNorm.

    The head that was scored is the head that is returned. `say` is told what was taken for granted and left out.
    Raises InputError for tiles, classes or coordinates that cannot do.
    """
    index = {name: number for number, name in enumerate(tiles.classes)}
    flags = np.zeros((len(tiles.files), len(index)), np.bool_)
    for row, file in zip(flags, tiles.files, strict=True):
        row[[index[name] for name in file.classes]] = True
    require_enough(tiles.classes, flags)
    arch = profile.architecture
    wanted = tiles_wanted(profile, asked)
    radiometry = profile.radiometry or radiometry_of_tiles(tiles, wanted, say)
    own = profile.radiometry is None
    reader = TileReader(replace(wanted, radiometry=None if own else radiometry))
    found = _read_all(reader, tiles, flags, _encoder(checkpoint, width_multiplier, depth, radiometry), say)
    for note in reader.warnings():
        say(f"warning: {note}")
    require_enough(tiles.classes, found.has)
    gsd_m = _gsd_of(asked, found, profile)
    split = split_tiles(
        found.names, tiles.classes, found.has, found.places,
        None if gsd_m is None else gsd_m * arch.tile_px, asked.block_m, asked.seed,
    )  # fmt: skip
    say(f"{len(split.train)} tiles to fit on, {len(split.test)} to score on: {split.how}")
    multi = bool((found.has.sum(1) > 1).any())
    folds = list(folds_of(split, found.has, asked.seed))
    tensors, logits, strength, temperature = _fit(asked, found, split, folds, multi, say)
    limits = _limits(asked, found, split, folds)
    truth = found.has[split.test]
    called = called_by(logits, multi)
    score, interval, basis = _score(truth, called, split, asked.seed, multi)
    right = np.take_along_axis(truth, logits.argmax(1)[:, None], axis=1)[:, 0]
    surer = np.clip(logits.max(1) + 0.5, 0, 1) if asked.kind == "knn" else confidence_of(logits, multi)
    card = HeadCard(
        encoder=profile.id,
        checkpoint_sha256=digest,
        architecture=arch,
        width_multiplier=width_multiplier,
        kind=asked.kind,
        multi_label=multi,
        classes=_labels(profile, tiles.classes, found.has[split.train]),
        land_share_source=profile.land_share_source,
        bands=profile.bands or own_bands(arch),
        gsd_m=gsd_m,
        radiometry=radiometry,
        strength=strength,
        temperature=temperature,
        dataset=tiles.source,
        split=split.how,
        fitted_tiles=len(split.train),
        scored_tiles=len(split.test),
        metric="micro F1" if multi else "accuracy",
        score=score,
        interval=interval,
        interval_basis=basis,
        calibration_error=calibration_error(surer, right),
        unknown_share=asked.unknown_share if limits else None,
        rejected_share=_rejected(limits, found, split) if limits else None,
        depth=depth,
    )
    tensors |= {name: torch.from_numpy(array) for name, array in limits.items()}
    confusion = None if multi else confusion_of(truth.argmax(1), logits.argmax(1), truth.shape[1])
    return Fitted(card, tensors, class_scores(tiles.classes, truth, called), confusion)


def _fit(
    asked: Asked, found: _Read, split: Split, folds: list[Fold], multi: bool, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], NDArray[np.float64], float, float]:
    """Tensors of the head, logits of the held-out tiles (n, classes), strength and temperature."""
    features, has = found.features[split.train], found.has[split.train]
    if asked.kind == "knn":
        model, count = fit_neighbours(features, has, folds)
        tensors = {"bank": torch.from_numpy(features), "has": torch.from_numpy(has)}
        return tensors, neighbours_say(model, found.features[split.test]), float(count), 1.0
    head = fit_linear(asked.kind, features, has, folds, multi)
    if not head.converged:
        say(f"warning: the fit was stopped before its end at strength {head.strength:g}; its score stands all the same")
    tensors = {"weight": torch.from_numpy(head.weight).float(), "bias": torch.from_numpy(head.bias).float()}
    return tensors, head.logits(found.features[split.test]), head.strength, head.temperature


def _limits(asked: Asked, found: _Read, split: Split, folds: list[Fold]) -> dict[str, F32]:
    """Arrays of edgeslim.onboard.known.Distances; empty where no tile is to be called unknown."""
    if asked.unknown_share == 0 or asked.kind not in LINEAR:
        return {}
    label, train = rarest(found.has)[split.train], split.train
    return known_of(found.features[train], found.pixels[train], label, found.has.shape[1], folds, asked.unknown_share)


def _rejected(limits: dict[str, F32], found: _Read, split: Split) -> float:
    """Share of the held-out tiles that are beyond the limits."""
    return float(beyond(limits, found.features[split.test], found.pixels[split.test]).mean())


def _encoder(checkpoint: Checkpoint, width_multiplier: float, depth: int | None, radiometry: Radiometry) -> FlightModel:
    """The module that flies, but for its head: its features are what the head gets in flight."""
    slimmed = slimmed_checkpoint(checkpoint, width_multiplier, depth=depth)
    none = torch.zeros(1, slimmed.architecture.dim), torch.zeros(1)
    return FlightModel(slimmed.build(), none, radiometry).eval()


def _read_all(
    reader: TileReader, tiles: Labelled, flags: NDArray[np.bool_], model: FlightModel, say: Callable[[str], None]
) -> _Read:
    numbers = {id(file): number for number, file in enumerate(tiles.files)}
    names: list[str] = []
    places: list[Place | None] = []
    rows: list[int] = []
    sizes: list[float] = []
    sides: list[int] = []
    features: list[F32] = []
    pixels: list[F32] = []
    clip = float(model.clip_low), float(model.clip_high)
    with gdal_environment(), torch.inference_mode():
        stream = reader.read(tiles.files)
        while batch := list(islice(stream, AT_ONCE)):
            values = np.stack([tile.values for tile in batch])
            features.append(model(torch.from_numpy(values))[1].numpy())
            pixels.append(pixel_statistics(values, clip))
            for tile in batch:
                names.append(tile.file.name)
                places.append(tile.place)
                rows.append(numbers[id(tile.file)])
                sizes += [] if tile.gsd_m is None else [tile.gsd_m]
                sides.append(tile.file_px)
            if len(features) % 50 == 0:
                say(f"features of {len(names)} of {len(tiles.files)} tiles")
    if not names:
        reasons = "; ".join(f"{len(names)}: {reason}" for reason, names in reader.skipped.items())
        raise InputError(f"--tiles: none of {len(tiles.files)} tiles can be used ({reasons}); expected images")
    gsd_m = float(np.median(sizes)) if sizes else None
    return _Read(
        names, flags[rows], places, np.concatenate(features), np.concatenate(pixels), gsd_m, float(np.median(sides))
    )


def _gsd_of(asked: Asked, found: _Read, profile: Profile) -> float | None:
    """Metres a pixel of what the encoder is given: less than the files' where they were brought to a larger tile."""
    shrink = found.file_px / profile.architecture.tile_px
    if asked.gsd_m is not None:
        return asked.gsd_m * shrink
    # What the card says holds for tiles as they come.
    return found.gsd_m or (profile.gsd_m if shrink == 1 else None)


def tiles_wanted(profile: Profile, asked: Asked) -> Wanted:
    """What a tile has to be for an encoder, in raw values of its own."""
    arch = profile.architecture
    return Wanted(arch.tile_px, arch.bands, profile.bands, None, asked.bands, asked.scale, asked.offset, asked.resample)


def _labels(profile: Profile, classes: tuple[str, ...], has: NDArray[np.bool_]) -> tuple[ClassLabel, ...]:
    """Classes with title and colour: the card's where it has one of that name. Land shares only if it has them all."""
    known = {label.name: label for label in profile.classes}
    taken = {known[name].color for name in classes if name in known}
    free = [color for color in COLORS if color not in taken] or list(COLORS)
    same = set(known) == set(classes)
    found = []
    for name, count in zip(classes, has.sum(0), strict=True):
        share = round(float(count / has.sum()), 6)
        if name in known:
            land = known[name].land_share if same else None
            found.append(replace(known[name], trained_share=share, land_share=land))
        else:
            found.append(ClassLabel(name, name, free[len(found) % len(free)], share))
    return tuple(found)


def _score(
    has: NDArray[np.bool_], called: NDArray[np.bool_], split: Split, seed: int, multi: bool
) -> tuple[float, tuple[float, float], str]:
    """Score of the held-out tiles, its 95 % interval, and how that was found."""
    if split.blocks is None and not multi:
        right = float((has & called).any(1).mean())
        return right, wilson_interval(right, len(has)), "Wilson"
    score = micro_f1(has, called)
    groups = (
        np.arange(len(has)) if split.blocks is None else np.unique(split.blocks[split.test], return_inverse=True)[1]
    )
    many = int(groups.max()) + 1
    # Of each block what the score is made of: right, and tiles and answers.
    sums = [np.bincount(groups, weights=v.sum(1), minlength=many) for v in (has & called, has, called)]
    drawn = np.random.default_rng(seed).integers(0, many, (RESAMPLED, many))
    right, truth, answers = (values[drawn].sum(1) for values in sums)
    low, high = np.percentile(2 * right / np.maximum(truth + answers, 1), (2.5, 97.5))
    what = "tiles" if split.blocks is None else "blocks"
    return score, (min(round(float(low), 4), score), max(round(float(high), 4), score)), f"bootstrap over {many} {what}"
