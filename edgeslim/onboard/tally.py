"""Tally: pixels and ground area by class, counted as rows are finished."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeslim.onboard.writing.maps import NODATA, MapRows

_PIECE = 1 << 17
"""Pixels counted at once: numpy makes eight bytes of each."""


class Tally:
    """Counts of one map."""

    def __init__(self, classes: int, pixel_m2: Callable[[float], float | None]) -> None:
        """`pixel_m2` gives the ground area of a map pixel at a row of the map, None where it is unknown."""
        self._pixel_m2 = pixel_m2
        self.pixels = np.zeros(classes, np.int64)
        """By class."""
        self.area_m2 = np.zeros(classes)
        """By class; 0 where the ground area is unknown."""
        self.nodata = 0
        """Pixels without a class."""
        self._percent = 0

    def add(self, rows: MapRows) -> None:
        """Count the next rows. They are few, and the area of a pixel changes slowly: its middle row stands for it."""
        height = rows.classes.shape[0]
        same = rows.classes.strides[0] == 0  # a view of one row
        classes, confidence = (a[:1] if same else a for a in (rows.classes, rows.confidence))
        flat = classes.reshape(-1)
        counts = np.zeros(NODATA + 1, np.int64)
        for start in range(0, flat.size, _PIECE):
            counts += np.bincount(flat[start : start + _PIECE], minlength=NODATA + 1)
        counts *= height if same else 1
        known = counts[: self.pixels.size]
        self.pixels += known
        self.nodata += int(counts[NODATA])
        total = int(confidence.sum(dtype=np.int64)) * (height if same else 1)
        self._percent += total - NODATA * int(counts[NODATA])
        area = self._pixel_m2(rows.row + height / 2)
        if area is not None:
            self.area_m2 += known * area

    @property
    def mean_confidence(self) -> float | None:
        """Mean probability of the winning class, 0 ... 1; None where nothing was classified."""
        known = int(self.pixels.sum())
        return self._percent / known / 100 if known else None
