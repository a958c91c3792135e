"""Splits keep neighbours together, give both parts every class they can, and say what they did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.ground.heads.split import Split, blocks_of, folds_of, split_tiles
from edgeslim.ground.labelled import part_of
from edgeslim.onboard.reading.tile import Place

CLASSES = ("a", "b")


def flags(labels: list[int] | np.ndarray) -> np.ndarray:
    return np.arange(2) == np.asarray(labels)[:, None]


def split(labels: np.ndarray, places: list[Place | None], block_m: float | None = None, seed: int = 0) -> Split:
    names = [f"{CLASSES[label]}/{number}.png" for number, label in enumerate(labels)]
    return split_tiles(names, CLASSES, flags(labels), places, 100.0, block_m, seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(200, 3000))
def test_no_block_is_on_both_sides(seed: int, block_m: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(80) % 2
    places: list[Place | None] = [Place("EPSG:32630", *xy) for xy in random.uniform(0, 6000, (80, 2)).tolist()]
    found = split(labels, places, block_m, seed)
    assert found.blocks is not None
    assert sorted([*found.train, *found.test]) == list(range(80))
    assert not set(found.blocks[found.train]) & set(found.blocks[found.test])
    inside = found.blocks[found.train]
    for fit, check in folds_of(found, flags(labels), seed):
        assert not set(inside[fit]) & set(inside[check])
    again = split(labels, places, block_m, seed)
    assert (again.train == found.train).all()


def test_blocks_are_squares_of_one_reference_system() -> None:
    places = [Place("A", 10, 10), Place("A", 99, 0), Place("A", -1, 10), Place("B", 10, 10), Place("A", 100, 10)]
    found = blocks_of(places, 100)
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 4


def test_without_coordinates_the_name_decides_where_it_can() -> None:
    labels = np.arange(400) % 2
    found = split(labels, [None] * 400)
    assert found.how.startswith("by the hash of FOLDER/FILE")
    assert [part_of(f"{CLASSES[labels[number]]}/{number}.png") for number in found.test] == ["test"] * len(found.test)
    few = split(np.arange(12) % 2, [None] * 12)
    assert few.how == "stratified, a fifth held out, seed 0; tiles have no coordinates"
    assert len(few.test) in (2, 3)
    assert {0, 1} == set((np.arange(12) % 2)[few.train])


def test_folds_check_every_training_tile_once() -> None:
    labels = np.array([0] * 40 + [1] * 5)
    found = split(labels, [None] * 45)
    checked = np.concatenate([check for _, check in folds_of(found, flags(labels), 0)])
    assert sorted(checked) == list(range(len(found.train)))


def test_what_cannot_be_split_is_refused() -> None:
    here = Place("A", 0, 0)
    with pytest.raises(InputError, match=r"found one class \(a\), expected at least 2"):
        split_tiles(["x"] * 9, ("a",), np.ones((9, 1), np.bool_), [None] * 9, None, None, 0)
    with pytest.raises(InputError, match="too few tiles of b 3; expected at least 5"):
        split(np.array([0] * 9 + [1] * 3), [None] * 12)
    with pytest.raises(InputError, match=r"all lie in one block of 1,000 m.*--block-m less"):
        split(np.arange(20) % 2, [here] * 20)
    with pytest.raises(InputError, match="found 1 of 20 tiles without coordinates"):
        split(np.arange(20) % 2, [here] * 19 + [None], 500)
    with pytest.raises(InputError, match=r"no tile of [ab] in any training block of 1,000 m"):
        split(np.array([0] * 20 + [1] * 5), [*[here] * 20, *[Place("A", 0, 9000)] * 5])
