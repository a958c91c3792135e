"""Split: which labelled tiles a head is fitted on, and which it is scored on. Neighbours are kept together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from edgeslim.errors import InputError
from edgeslim.ground.labelled import part_of
from edgeslim.onboard.reading.tile import Place

LEAST_TILES = 5
"""Of a class."""
TEST_SHARE = 5
"""One tile, or block, in so many is scored on where the name rule does not decide."""
BLOCK_TILES = 10
"""Sides of a tile along a side of a block, unless another size is asked for."""
FOLDS = 5
"""Of cross-validation inside the training part."""
_BY_NAME_TEST, _BY_NAME_TRAIN = 2, 4
"""Tiles of each class that both parts must have for the name rule to decide."""


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of tiles, and how they came apart."""

    train: NDArray[np.intp]
    """To fit on, ascending."""
    test: NDArray[np.intp]
    """To score on, ascending."""
    blocks: NDArray[np.int64] | None
    """(n,) block that each tile lies in; None: tiles have no coordinates, or not all of them."""
    how: str
    """For people."""


def rarest(has: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the rarest class of each tile, from (n, classes) flags: what a split is stratified by."""
    counts = has.sum(0)
    found: NDArray[np.int64] = np.where(has, counts, np.iinfo(np.int64).max).argmin(1).astype(np.int64)
    return found


def blocks_of(places: Sequence[Place], block_m: float) -> NDArray[np.int64]:
    """(n,) number of the square of `block_m` metres that each tile's centre lies in, from 0."""
    corners = [(place.crs, int(place.x_m // block_m), int(place.y_m // block_m)) for place in places]
    number = {corner: index for index, corner in enumerate(sorted(set(corners)))}
    return np.array([number[corner] for corner in corners], np.int64)


def split_tiles(
    names: Sequence[str],
    classes: Sequence[str],
    has: NDArray[np.bool_],
    places: Sequence[Place | None],
    tile_m: float | None,
    block_m: float | None,
    seed: int,
    *,
    by_name: bool = True,
) -> Split:
    """Split (n,) tiles whose classes `has` (n, classes) tells.

    By spatial blocks of `block_m` metres (default: BLOCK_TILES sides of a tile, `tile_m` each) where every tile has
    coordinates; else by `part_of` their names, the same for every seed, where that gives every class to both parts,
    unless `by_name` is False; else stratified, by `seed`.
    Raises InputError for too few classes, tiles or blocks, or for a class that no training block has.
    """
    require_enough(classes, has)
    label = rarest(has)
    known = [place for place in places if place is not None]
    if block_m is not None and len(known) < len(places):
        raise InputError(
            f"--block-m {block_m:g}: found {len(places) - len(known)} of {len(places)} tiles without coordinates, "
            "expected GeoTIFFs that lie somewhere; leave it out to split otherwise"
        )
    if len(known) == len(places) and (side_m := block_m or (BLOCK_TILES * tile_m if tile_m else None)):
        blocks = blocks_of(known, side_m)
        train, test = _by_blocks(label, blocks, side_m, seed)
        _require_trained(classes, has, train, side_m)
        many = f"{len(set(blocks[test].tolist()))} of {int(blocks.max()) + 1}"
        return Split(train, test, blocks, f"spatial blocks of {side_m:,.10g} m, {many} held out, seed {seed}")
    parts = np.array([part_of(name) for name in names])
    train, test = np.flatnonzero(parts != "test"), np.flatnonzero(parts == "test")
    if by_name and (has[test].sum(0) >= _BY_NAME_TEST).all() and (has[train].sum(0) >= _BY_NAME_TRAIN).all():
        return Split(train, test, None, "by the hash of FOLDER/FILE, about 15 % held out; tiles have no coordinates")
    folds = StratifiedKFold(TEST_SHARE, shuffle=True, random_state=seed)
    train, test = next(iter(folds.split(label, _merge_rare(label, TEST_SHARE))))
    _require_trained(classes, has, train, None)
    return Split(train, test, None, f"stratified, a fifth held out, seed {seed}; tiles have no coordinates")


def require_enough(classes: Sequence[str], has: NDArray[np.bool_]) -> None:
    """Raise InputError unless there are two classes of LEAST_TILES tiles each."""
    if len(classes) < 2:
        raise InputError(f"--tiles: found one class ({', '.join(classes)}), expected at least 2 to tell apart")
    counts = has.sum(0)
    if few := [f"{name} {count}" for name, count in zip(classes, counts, strict=True) if count < LEAST_TILES]:
        raise InputError(
            f"--tiles: found too few tiles of {', '.join(few[:5])}{', …' if len(few) > 5 else ''}; expected at least "
            f"{LEAST_TILES} of each class; add some, or leave the class out"
        )


def folds_of(split: Split, has: NDArray[np.bool_], seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(fit, check) numbers into `split.train`, for cross-validation; blocks stay whole."""
    label = rarest(has)[split.train]
    if split.blocks is not None and (many := len(set(split.blocks[split.train].tolist()))) > 1:
        grouped = StratifiedGroupKFold(min(FOLDS, many), shuffle=True, random_state=seed)
        with _quiet():
            yield from list(grouped.split(label, label, split.blocks[split.train]))
        return
    yield from StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(label, _merge_rare(label, FOLDS))


def _by_blocks(
    label: NDArray[np.int64], blocks: NDArray[np.int64], side_m: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    many = int(blocks.max()) + 1
    if many < 2:
        raise InputError(f"--tiles: all lie in one block of {side_m:,.10g} m, expected at least 2; give --block-m less")
    folds = StratifiedGroupKFold(min(TEST_SHARE, many), shuffle=True, random_state=seed)
    with _quiet():
        train, test = next(iter(folds.split(label, label, blocks)))
    return train, test


@contextmanager
def _quiet() -> Iterator[None]:
    """scikit-learn warns of classes with fewer tiles than folds; what follows from that is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _merge_rare(label: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Labels with those of fewer than `folds` tiles made one: a stratified split wants as many of each."""
    counts = np.bincount(label)
    rare = counts[label] < folds
    return np.where(rare, counts.argmax() if rare.sum() < folds else -1, label)


def _require_trained(
    classes: Sequence[str], has: NDArray[np.bool_], train: NDArray[np.intp], side_m: float | None
) -> None:
    lost = [name for name, count in zip(classes, has[train].sum(0), strict=True) if not count]
    if lost:
        where = "the training part" if side_m is None else f"any training block of {side_m:,.10g} m"
        raise InputError(
            f"--tiles: found no tile of {', '.join(lost)} in {where}, expected some of each class; "
            "give --block-m less, another --seed, or tiles from more places"
        )
