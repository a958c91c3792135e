"""Parity: how far two outputs are apart, as a record; how far they may be; what an artifact was proven to be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgeslim.errors import InputError, ParityError
from edgeslim.units import ARITHMETIC

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENOUGH_TILES = 1000
"""Real tiles from which a share of them says something about a scene."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How far an artifact may be from the network that it was made of."""

    relative: float | None
    """Largest absolute difference of a logit, as a share of the logits' range; None: judged by the classes alone."""
    agreement: float
    """Least share of tiles with the same class."""

    def __post_init__(self) -> None:
        if self.relative is not None and not 0 < self.relative < float("inf"):
            raise InputError(f"relative: found {self.relative:g}, expected more than 0")
        if not 0 <= self.agreement <= 1:
            raise InputError(f"agreement: found {self.agreement:g}, expected 0 to 1")

    def tightened(self, relative: float | None, agreement: float | None) -> Ceiling:
        """With values that may only be stricter. Raises InputError where they are not."""
        if relative is not None and self.relative is not None and relative > self.relative:
            raise InputError(
                f"relative: found {relative:g}, expected at most {self.relative:g}, edgeslim's own ceiling"
            )
        if agreement is not None and agreement < self.agreement:
            raise InputError(f"agreement: found {agreement:g}, expected at least {self.agreement:g}, edgeslim's own")
        return Ceiling(
            self.relative if relative is None else relative, self.agreement if agreement is None else agreement
        )


CEILINGS = {
    "fp32": Ceiling(1e-4, 0.0),
    "fp16": Ceiling(1e-2, 0.999),
    "int8-dynamic": Ceiling(None, 0.99),
    "int8-static": Ceiling(None, 0.99),
}
"""Precision -> what no card and no flag may loosen."""
assert set(CEILINGS) == set(ARITHMETIC)


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
    logits_range: float
    """Largest less smallest logit of the reference; the measure of what a difference means."""
    feature_cosine: float | None = None
    """Least cosine of a tile's feature with its reference; None: not compared."""

    def __post_init__(self) -> None:
        if self.tiles < 1:
            raise InputError(f"tiles: found {self.tiles}, expected at least 1")
        for name in ("max_abs", "mean_abs", "logits_range"):
            if getattr(self, name) < 0:  # NaN says that something was not finite
                raise InputError(f"{name}: found {getattr(self, name):g}, expected at least 0")
        if not 0 <= self.argmax_agreement <= 1:
            raise InputError(f"argmax_agreement: found {self.argmax_agreement:g}, expected 0 to 1")

    @property
    def relative(self) -> float:
        """Largest difference as a share of the range."""
        return self.max_abs / self.logits_range if self.logits_range > 0 else (self.max_abs and float("inf"))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the manifest."""
        return asdict(self)

    def require(self, tolerance: float, what: str) -> None:
        """Raise ParityError unless every difference is finite and at most `tolerance`."""
        if not self.max_abs <= tolerance:
            raise ParityError(
                f"{what}: logits differ by up to {self.max_abs:.3g} over {self.tiles} tiles "
                f"({self.argmax_agreement:.1%} same class), expected at most {tolerance:g}; do not fly this artifact"
            )

    def missed(self, ceiling: Ceiling) -> str | None:
        """What is beyond the ceiling, in words; None: nothing. What is not finite is beyond any."""
        if not math.isfinite(self.max_abs):
            return "logits that are not finite"
        if ceiling.relative is not None and not self.relative <= ceiling.relative:
            return (
                f"logits differ by up to {self.max_abs:.3g}, {self.relative:.2g} of their range, over {self.tiles} "
                f"tiles ({self.argmax_agreement:.1%} same class), expected at most {ceiling.relative:g} of it"
            )
        if not self.argmax_agreement >= ceiling.agreement:
            return (
                f"{self.argmax_agreement:.2%} of {self.tiles} tiles have the same class (logits differ by up to "
                f"{self.relative:.2g} of their range), expected at least {ceiling.agreement:.2%}"
            )
        return None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was proven of an artifact when it was made, by the runtime that flies it."""

    verdict: str
    """"proven on 1024 real tiles", or "numerics only" where no real tile was given."""
    source: str
    """Where the tiles come from."""
    reference: str
    """What computed the reference: "torch 2.13.0, fp32"."""
    runtime: str
    """What computed the artifact's answers: library, version and machine."""
    ceiling: Ceiling
    """What was allowed."""
    batches: dict[str, Parity]
    """Batch size -> parity on those tiles."""
    hostile: Parity
    """Parity on constant, saturated and empty tiles, and on noise."""
    kept: tuple[str, ...] = ()
    """Layers that were left in fp32 because int8 would have cost too much there."""
    score: tuple[float, float] | None = None
    """Accuracy of the reference and of the artifact, where the tiles have labels of its classes."""

    def __post_init__(self) -> None:
        for share in self.score or ():
            if not 0 <= share <= 1:
                raise InputError(f"score: found {share:g}, expected 0 to 1")


def compare(
    found: NDArray[np.floating],
    expected: NDArray[np.floating],
    features: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    logits_range: float | None = None,
) -> Parity:
    """Compare logits (tiles, classes), and features (tiles, d) found and expected, with their reference.

    `logits_range` stands in for that of the reference where its tiles are no ordinary ones.
    Raises ParityError when the shapes differ or there is nothing to compare.
    """
    import numpy as np  # here: a plan reads ceilings, and starts without it

    if found.shape != expected.shape or found.ndim != 2 or not found.size:
        raise ParityError(f"logits: found shape {found.shape}, expected {expected.shape}, (tiles, classes)")
    cosine = None
    if features is not None:
        if features[0].shape != features[1].shape:
            raise ParityError(f"features: found shape {features[0].shape}, expected {features[1].shape}, (tiles, d)")
        cosine = _least_cosine(*features)
    with np.errstate(invalid="ignore"):  # infinite on both sides: NaN, which no tolerance accepts
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return Parity(
        tiles=found.shape[0],
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        argmax_agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        logits_range=float(np.ptp(expected)) if logits_range is None else logits_range,
        feature_cosine=cosine,
    )


def _least_cosine(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    import numpy as np

    a, b = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.where(norms > 0, (a * b).sum(axis=1) / norms, (a == b).all(axis=1))
    return float(cosines.min())
