"""Chunks give every window the pixels that lie under it, however the scene is cut and wherever reading begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.grid import plan_axis
from edgeslim.onboard.chunks import ChunkPlan, ChunkReader


class Pixels:
    """What a ChunkReader needs of a Scene; counts how often each pixel is read."""

    def __init__(self, values: np.ndarray, valid: np.ndarray | None) -> None:
        self._values, self._valid = values, valid
        self.bands, self.dtype, self.always_valid = tuple(range(len(values))), str(values.dtype), valid is None
        self.reads = np.zeros(values.shape[1:], int)

    def read(self, row: int, column: int, rows: int, columns: int, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        here = np.s_[row : row + rows, column : column + columns]
        self.reads[here] += 1
        valid = np.broadcast_to(np.True_, (rows, columns)) if self._valid is None else self._valid[here].copy()
        out[:] = self._values[:, here[0], here[1]]
        return out, valid

    def to_raw(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(values.shape, np.float32) if out is None else out
        out[:] = values
        return out


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, Any]:
    tile = draw(st.integers(1, 12))
    return {
        "stride": draw(st.integers(1, tile)),
        "tile": tile,
        "size": (draw(st.integers(1, 50)), draw(st.integers(1, 50))),
        "cut": (draw(st.integers(1, 30)), draw(st.sampled_from([8, 16, 24, 56]))),
        "holes": draw(st.sampled_from([None, 0.0, 0.3])),
        "first": draw(st.floats(0, 0.999)),
    }


@settings(deadline=None, max_examples=200)
@given(cuts())
def test_windows_see_their_pixels_and_pixels_are_read_once(cut: dict[str, Any]) -> None:
    (height, width), tile = cut["size"], cut["tile"]
    rng = np.random.default_rng(height * 53 + width)
    values = rng.integers(0, 60000, (2, height, width)).astype(np.uint16)
    valid = None if cut["holes"] is None else rng.random((height, width)) >= cut["holes"]
    rows, columns = (plan_axis(size, tile, cut["stride"]) for size in cut["size"])
    plan = ChunkPlan(rows, columns, *cut["cut"])
    first = int(cut["first"] * plan.count)
    scene = Pixels(values, valid)
    reader = ChunkReader(scene, plan, first)  # type: ignore[arg-type]
    seen = np.zeros((len(rows.windows), len(columns.windows)), int)
    for number in range(first, plan.count):
        chunk = reader.read(number)
        new = np.s_[chunk.rows.start : chunk.rows.stop, chunk.columns.start : chunk.columns.stop]
        found = chunk.new_valid
        np.testing.assert_array_equal(
            np.ones_like(values[0][new], bool) if found is None else found,
            (valid if valid is not None else values[0] >= 0)[new],
        )
        numbers = np.flatnonzero(chunk.taken)
        tiles = chunk.tiles(numbers, np.full((len(numbers) + 1, 2, tile, tile), np.nan, np.float32))
        at = iter(tiles)
        for i in range(chunk.rows.first, chunk.rows.last):
            for j in range(chunk.columns.first, chunk.columns.last):
                seen[i, j] += 1
                y, x = rows.windows[i], columns.windows[j]
                part = values[:, y.start : y.stop, x.start : x.stop].astype(np.float64)
                under = np.ones(part.shape[1:], bool) if valid is None else valid[y.start : y.stop, x.start : x.stop]
                assert chunk.taken[i - chunk.rows.first, j - chunk.columns.first] == (under.mean() >= 0.5)
                if under.mean() < 0.5:
                    continue
                for plane in part:
                    plane[~under] = plane[under].mean()
                pad = ((0, 0), (0, tile - part.shape[1]), (0, tile - part.shape[2]))
                np.testing.assert_allclose(next(at), np.pad(part, pad, mode="reflect"), rtol=1e-6)
        assert next(at, None) is None
    done = [plan.spans(number) for number in range(first)]
    for row, column in done:
        seen[row.first : row.last, column.first : column.last] += 1
    assert (seen == 1).all()
    if first == 0:
        assert (scene.reads == 1).all()


@pytest.mark.parametrize("cut", [(0, 8), (4, 0), (4, 12)])
def test_impossible_cuts_are_refused(cut: tuple[int, int]) -> None:
    axis = plan_axis(20, 4, 2)
    with pytest.raises(InputError, match="in eights"):
        ChunkPlan(axis, axis, *cut)
