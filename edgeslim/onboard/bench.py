"""Bench: how long the artifact takes on this machine."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from edgeslim.onboard.runtime import Runtime

_LEAST_S = 0.5
_LEAST_RUNS = 5


def ms_per_tile(runtime: Runtime, tiles: NDArray[np.float32]) -> float:
    """Median time of a tile, ms, given all of `tiles` (n, bands, H, W) at once, after two calls to warm up."""
    for _ in range(2):
        runtime.run(tiles)
    times: list[float] = []
    end = time.perf_counter() + _LEAST_S
    while len(times) < _LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(tiles)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3 / len(tiles)
