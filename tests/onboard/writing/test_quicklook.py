from __future__ import annotations

import numpy as np
import pytest

from edgeslim.grid import plan_axis
from edgeslim.onboard.chunks import ChunkPlan, ChunkReader
from edgeslim.onboard.writing.font import plain, text_mask
from edgeslim.onboard.writing.quicklook import LegendRow, compose
from edgeslim.onboard.writing.thumbnail import EMPTY_RGB, Thumbnail
from tests.onboard.artifacts import LABELS, RGB
from tests.onboard.test_chunks import Pixels


def feed(page: Thumbnail, raw: np.ndarray, valid: np.ndarray, cut: tuple[int, int]) -> None:
    """Give a scene to a thumbnail chunk by chunk."""
    rows, columns = (plan_axis(size, 8, 8) for size in valid.shape)
    plan = ChunkPlan(rows, columns, *cut)
    reader = ChunkReader(Pixels(raw, valid), plan, 0)  # type: ignore[arg-type]
    for number in range(plan.count):
        chunk = reader.read(number)
        page.add_sums(*plan.spans(number), *page.sums_of(chunk))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (50, 60), (900, 1300), (300, 1500)])
def test_any_shape_of_scene_gives_a_page_of_bounded_size(size: tuple[int, int]) -> None:
    page = Thumbnail(size, size, RGB)
    rng = np.random.default_rng(0)
    valid = rng.random(size) > 0.1
    feed(page, rng.uniform(0, 2750, (3, *size)).astype(np.float32), valid, (37, 96))
    for row in range(0, size[0], 37):
        page.add_map(rng.integers(0, 3, (min(37, size[0] - row), size[1])).astype(np.uint8))
    legend = [LegendRow(label, 1 / 3, area) for label, area in zip(LABELS, (None, 1e-5, 12345.0), strict=True)]
    image = compose(page, "a title that is far too long for the page " * 5, "sub", legend, LABELS)
    assert image.dtype == np.uint8
    assert max(image.shape) < 1200


@pytest.mark.parametrize("cut", [(1000, 1000), (64, 128), (7, 8)])
def test_the_scene_panel_is_a_box_mean_however_the_scene_is_cut(cut: tuple[int, int]) -> None:
    page = Thumbnail((1000, 1000), (1000, 1000), RGB)
    raw = np.zeros((3, 1000, 1000), np.float32)
    raw[:, :, 500:] = 2000
    valid = np.ones((1000, 1000), bool)
    valid[:, 700:800] = False
    raw[:, ~valid] = 60000  # what invalid pixels hold must not be seen
    feed(page, raw, valid, cut)
    panel = page.scene_panel()
    middle = panel.shape[1] // 2
    assert panel[:, : middle - 1].max() == 0
    assert panel[:, middle + 1 : middle + 80].min() == 255
    assert (panel[:, int(panel.shape[1] * 0.75)] == EMPTY_RGB).all()


def test_text_is_ascii_and_every_glyph_has_ink() -> None:
    assert plain("Forêt × 2 km²") == "Foret x 2 km2"
    assert plain("森") == "?"
    for code in range(33, 127):
        assert text_mask(chr(code)).any(), chr(code)
    masks = {text_mask(chr(code), 1).tobytes() + bytes(text_mask(chr(code), 1).shape) for code in range(33, 127)}
    assert len(masks) == 94
