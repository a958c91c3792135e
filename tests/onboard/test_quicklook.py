from __future__ import annotations

import numpy as np
import pytest

from edgeslim.onboard.blend import Settled
from edgeslim.onboard.font import plain, text_mask
from edgeslim.onboard.quicklook import LegendRow, Thumbnail, compose
from tests.onboard.artifacts import LABELS, RGB


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (50, 60), (900, 1300), (300, 1500)])
def test_any_shape_of_scene_gives_a_page_of_bounded_size(size: tuple[int, int]) -> None:
    page = Thumbnail(size, size, RGB)
    height, width = size
    rng = np.random.default_rng(0)
    row = 0
    while row < height:
        count = min(37, height - row)
        raw = rng.uniform(0, 2750, (3, count, width)).astype(np.float32)
        valid = rng.random((count, width)) > 0.1
        page.add_scene(Settled(row, np.zeros((3, count, width), np.float32), valid, raw * valid, valid))
        page.add_map(rng.integers(0, 3, (count, width)).astype(np.uint8))
        row += count
    legend = [LegendRow(label, 1 / 3, area) for label, area in zip(LABELS, (None, 1e-5, 12345.0), strict=True)]
    image = compose(page, "a title that is far too long for the page " * 5, "sub", legend, LABELS)
    assert image.dtype == np.uint8
    assert max(image.shape) < 1200


def test_the_scene_panel_is_a_box_mean() -> None:
    page = Thumbnail((1000, 1000), (1000, 1000), RGB)
    raw = np.zeros((3, 1000, 1000), np.float32)
    raw[:, :, 500:] = 2000
    valid = np.ones((1000, 1000), bool)
    page.add_scene(Settled(0, np.zeros((1, 1000, 1000), np.float32), valid, raw, valid))
    panel = page.scene_panel()
    assert panel[:, : panel.shape[1] // 2 - 1].max() == 0
    assert panel[:, panel.shape[1] // 2 + 1 :].min() == 255


def test_text_is_ascii_and_every_glyph_has_ink() -> None:
    assert plain("Forêt × 2 km²") == "Foret x 2 km2"
    assert plain("森") == "?"
    for code in range(33, 127):
        assert text_mask(chr(code)).any(), chr(code)
    masks = {text_mask(chr(code), 1).tobytes() + bytes(text_mask(chr(code), 1).shape) for code in range(33, 127)}
    assert len(masks) == 94
