"""Blended rows and cells against a slow reference that knows nothing of strides, lines or chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.grid import plan_axis
from edgeslim.onboard.blend import Blender, CellRows
from edgeslim.onboard.writing.maps import NODATA, PROBABILITY_ONE, MapRows
from tests.onboard.artifacts import slow_axis

CLASSES = 4


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[int, int, int], int, float, float]:
    tile = draw(st.integers(1, 12))
    stride = draw(st.integers(1, tile))
    rows, columns = (draw(st.integers(1, 45)) for _ in range(2))
    shares = st.sampled_from([0.0, 0.1, 0.6, 1.0])
    return (rows, tile, stride), (columns, tile, stride), draw(st.integers(0, 99)), draw(shares), draw(shares)


@settings(deadline=None, max_examples=150)
@given(grids(), st.integers(1, 50))
def test_rows_and_cells_are_those_of_the_slow_reference(
    grid: tuple[tuple[int, int, int], tuple[int, int, int], int, float, float], band: int
) -> None:
    rows, columns = plan_axis(*grid[0]), plan_axis(*grid[1])
    rng = np.random.default_rng(grid[2])
    chances = rng.dirichlet(np.ones(CLASSES), (len(rows.windows), len(columns.windows))).astype(np.float32)
    taken = rng.random(chances.shape[:2]) >= grid[3]
    valid = rng.random((rows.size, columns.size)) >= grid[4]
    chances[~taken] = np.nan  # must not be looked at

    pixels: list[MapRows] = []
    cells: list[CellRows] = []
    blender = Blender(rows, columns, CLASSES, pixels.append, cells.append, probabilities=True)
    for number in range(rows.spans(band)):
        span = rows.span(number, band)
        part = valid[span.start : span.stop]
        blender.add_valid(part.shape[0], None if part.all() else np.packbits(part, axis=1))
        for index in range(span.first, span.last):
            blender.add_windows(index, chances[index], taken[index])

    total, weight = np.zeros((CLASSES, *valid.shape)), np.zeros(valid.shape)
    for i, (_, ys, wy) in enumerate(slow_axis(*grid[0])):
        for j, (_, xs, wx) in enumerate(slow_axis(*grid[1])):
            if taken[i, j]:
                outer = np.outer(wy, wx)
                total[np.ix_(range(CLASSES), ys, xs)] += chances[i, j][:, None, None] * outer
                weight[np.ix_(ys, xs)] += outer
    known = (weight > 0) & valid
    expected = total / np.where(weight > 0, weight, 1)

    assert [p.row for p in pixels] == list(np.cumsum([0, *(p.classes.shape[0] for p in pixels[:-1])]))
    best = np.concatenate([p.classes for p in pixels])
    percent = np.concatenate([p.confidence for p in pixels])
    every = np.concatenate([p.probabilities for p in pixels if p.probabilities is not None], axis=1)
    assert best.shape == valid.shape
    np.testing.assert_array_equal(best == NODATA, ~known)
    np.testing.assert_array_equal(percent == NODATA, ~known)
    np.testing.assert_array_equal((every == NODATA).any(axis=0), ~known)
    top = expected.max(axis=0)
    chosen = np.take_along_axis(expected, np.where(known, best, 0)[None].astype(np.int64), axis=0)[0]
    np.testing.assert_allclose(chosen[known], top[known], atol=1e-5)  # equal but for ties in rounding
    assert (np.abs(percent[known] - top[known] * 100) <= 0.501).all()
    assert (np.abs(every[:, known] - expected[:, known] * PROBABILITY_ONE) <= 0.51).all()

    assert [c.row for c in cells] == list(range(rows.cells))
    stride = rows.stride_px
    for cell in cells:
        for column in range(columns.cells):
            here = np.s_[cell.row * stride : (cell.row + 1) * stride, column * stride : (column + 1) * stride]
            seen = known[here]
            np.testing.assert_allclose(cell.known[column], seen.mean(), atol=1e-6)
            mean = expected[(slice(None), *here)][:, seen].mean(axis=1) if seen.any() else np.zeros(CLASSES)
            np.testing.assert_allclose(cell.probabilities[:, column], mean, atol=1e-5)
