"""What a scene's numbers become, and what that takes beside the tiles."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edgeslim.onboard.reading.radiometry import SceneScale, ToRaw
from edgeslim.profile import Radiometry

BANDS, TILES, SIDE = 12, 16, 96
SCALE = SceneScale(tuple(2e-4 * (1 + band) for band in range(BANDS)), (-0.1,) * BANDS, "flag")
RAW = Radiometry(("L1C",), 1e-4, 0.0, (0.0, 1.0), (0.0,) * BANDS, (1.0,) * BANDS, 1.0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "int32", "uint32", "int64", "float64"])
def test_values_are_scaled_in_the_precision_that_they_need_and_little_memory(dtype: str) -> None:
    values = (np.random.default_rng(0).random((TILES, BANDS, SIDE, SIDE)) * 120).astype(dtype)
    gain, bias = np.array(SCALE.scale) / 1e-4, np.array(SCALE.offset) / 1e-4
    wide = np.dtype(dtype).itemsize > 2 and dtype != "float32"
    exact = np.float64 if wide else np.float32
    expected = (values.astype(exact) * gain.astype(exact)[:, None, None] + bias.astype(exact)[:, None, None]).astype(
        "f4"
    )
    out = np.empty(values.shape, np.float32)
    to_raw = ToRaw(SCALE, RAW)
    tracemalloc.start()
    to_raw(values, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(out, expected.astype(np.float32))
    tile_bytes = BANDS * SIDE**2 * 4
    assert peak <= (2 * tile_bytes if wide else 1 << 17)  # as edgeslim/run_memory.py foretells; numpy's buffers
