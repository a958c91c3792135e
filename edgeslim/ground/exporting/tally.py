"""Tally: a proof in progress, which knows as soon as its end is certain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgeslim.parity import Ceiling, Parity, compare

F32 = NDArray[np.float32]


class Tally:
    """Counts, from the least sure tile on, how far logits are from their reference, and how many may still differ.

    The largest difference never shrinks and a tile that differs never agrees again. So what is beyond the ceiling even
    if all tiles to come are equal stays beyond it, whatever their order: `missed` after some tiles refuses exactly what
    `Parity.missed` of all of them refuses.
    """

    def __init__(self, ceiling: Ceiling, of: int, logits_range: float) -> None:
        """`of` tiles are to come, and the reference's logits of all of them span `logits_range`."""
        self._ceiling, self._of, self._range = ceiling, of, logits_range
        self._tiles = self._differing = 0
        self._max_abs = 0.0

    def add(self, found: F32, expected: F32) -> None:
        """Count more tiles: logits (n, classes) of both sides. Raises ParityError when the shapes differ."""
        parity = compare(found, expected, logits_range=self._range)
        self._tiles += parity.tiles
        self._differing += int((found.argmax(1) != expected.argmax(1)).sum())
        self._max_abs = float(np.maximum(self._max_abs, parity.max_abs))  # NaN stays

    @property
    def best(self) -> Parity:
        """Parity of all tiles if those to come were equal to their reference."""
        return Parity(
            tiles=self._of,
            max_abs=self._max_abs,
            mean_abs=math.nan,
            argmax_agreement=(self._of - self._differing) / self._of,
            logits_range=self._range,
        )

    def missed(self) -> str | None:
        """What is beyond the ceiling whatever is to come, and on how many tiles that stands; None: nothing yet."""
        best, ceiling = self.best, self._ceiling
        if best.missed(ceiling) is None:
            return None
        all_run = self._tiles == self._of
        ran = f"{self._of} tiles" if all_run else f"the {self._tiles} least sure of {self._of} tiles"
        if not math.isfinite(best.max_abs):
            return f"logits that are not finite, in {ran}"
        if ceiling.relative is not None and not best.relative <= ceiling.relative:
            return (
                f"logits differ by up to {best.max_abs:.3g}, {best.relative:.2g} of their range, over {ran}, expected "
                f"at most {ceiling.relative:g} of it"
            )
        may = max(n for n in range(self._differing) if (self._of - n) / self._of >= ceiling.agreement)
        some = f"{self._of}" if all_run else f"the {self._tiles} least sure"
        return (
            f"{self._differing} of {some} tiles have another class (logits differ by up to {best.relative:.2g} of "
            f"their range), at most {may} {'' if all_run else f'of {self._of} '}may"
        )
