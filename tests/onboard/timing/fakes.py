"""A network whose calls take as long as a test says, on a clock that only they move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeslim.onboard.timing.calls import Golden

TILES = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)


class FakeNetwork:
    """Answers with the tile's own value."""

    def __init__(self, seconds_of_call: Callable[[int], float]) -> None:
        self.now, self.calls = 100.0, 0
        self.seen: list[list[float]] = []
        self._seconds_of_call = seconds_of_call

    def clock(self) -> float:
        return self.now

    def run(self, tiles: np.ndarray) -> np.ndarray:
        self.now += self._seconds_of_call(self.calls)
        self.calls += 1
        self.seen.append(tiles.ravel().tolist())
        return tiles.reshape(len(tiles), 1).copy()

    def golden(self, batch: int) -> Golden:
        return Golden("art", self.run, TILES, batch, tolerance=0.01)
