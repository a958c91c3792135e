"""Runtime: tiles in, logits out, behind one small surface that every class beside it has.

A runtime computes each call on `threads` threads and takes calls from `callers` threads at the same time: a flight runs
one batch on each core, which is faster than one batch on all of them and gives the same answers for any number of
cores.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError

F32 = NDArray[np.float32]
TILE_TYPES = ("float32", "uint8", "uint16", "int16")
"""Types of raw band values that every runtime takes; float32 holds each of them exactly."""


class Runtime(Protocol):
    """What every runtime can do."""

    @property
    def version(self) -> str:
        """Name and version of the library that computes."""

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """Logits (n, classes) of raw band values (n, bands, height, width), of one of TILE_TYPES.

        Raises InputError if the network fails.
        """

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """Logits (n, classes), and the features (n, d) that the head was given; no columns where it has no output."""


def as_float32(tiles: NDArray[np.generic]) -> F32:
    """Tiles as the network takes them, copied only where they must be. Raises InputError for another type."""
    if tiles.dtype == np.float32:  # the name of a type takes longer to make than a batch to hand over
        return np.ascontiguousarray(tiles, np.float32)
    if tiles.dtype.name not in TILE_TYPES:
        raise InputError(f"tiles: found {tiles.dtype.name}, expected one of {', '.join(TILE_TYPES)}; convert them")
    return np.ascontiguousarray(tiles, np.float32)
