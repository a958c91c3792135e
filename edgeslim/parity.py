"""Parity: how far two outputs are apart, as a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import ParityError


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences of one set of logits from its reference."""

    tiles: int
    """Tiles compared."""
    max_abs: float
    """Largest absolute difference of a logit; NaN where either side is not finite."""
    mean_abs: float
    """Mean absolute difference."""
    argmax_agreement: float
    """Share of tiles with the same class."""

    def to_dict(self) -> dict[str, float | int]:
        """Plain types, for the manifest."""
        return asdict(self)

    def require(self, tolerance: float, what: str) -> None:
        """Raise ParityError unless every difference is finite and at most `tolerance`."""
        if not self.max_abs <= tolerance:
            raise ParityError(
                f"{what}: logits differ by up to {self.max_abs:.3g} over {self.tiles} tiles "
                f"({self.argmax_agreement:.1%} same class), expected at most {tolerance:g}; do not fly this artifact"
            )


def compare(found: NDArray[np.floating], expected: NDArray[np.floating]) -> Parity:
    """Compare logits (tiles, classes) with their reference.

    Raises ParityError when the shapes differ or there is nothing to compare.
    """
    if found.shape != expected.shape or found.ndim != 2 or not found.size:
        raise ParityError(f"logits: found shape {found.shape}, expected {expected.shape}, (tiles, classes)")
    with np.errstate(invalid="ignore"):  # infinite on both sides: NaN, which no tolerance accepts
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return Parity(
        tiles=found.shape[0],
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        argmax_agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
    )
