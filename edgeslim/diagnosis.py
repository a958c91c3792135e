"""Diagnosis: how much of an encoder's features is redundant, at each width and after each block. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cut:
    """The features of one width, or after one block."""

    name: str
    """For people: "width 0.25", "block 6"."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    blocks: int
    """That were run; the last LayerNorm follows them."""
    gflop: float
    """A tile, encoder without head, 1 MAC = 2 FLOP."""
    explained: tuple[float, ...]
    """Share of the variance that each principal component explains, largest first, at most 64 of them."""
    slope: float | None
    """Of the logarithm of these shares against that of their rank, up to 95 % of the variance; None: too few ranks."""
    effective_dimension: float
    """(sum of eigenvalues)^2 / sum of squared eigenvalues of the covariance: 1 to the number of features."""
    feature_correlation: float
    """Mean absolute correlation of two different features, 0 to 1."""
    knn: float | None
    """Score of the five nearest neighbours by cosine, held-out tiles; None: not probed."""
    linear: float | None
    """Score of a ridge classifier fitted anew on these features, held-out tiles; None: not probed."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found about an encoder on one set of tiles."""

    encoder: str
    """Profile card, or name of the checkpoint."""
    dataset: str
    """Name of the folder or zip."""
    tiles: int
    """That were looked at."""
    left_out: dict[str, int]
    """Why tiles could not be used -> how many."""
    features: int
    """d, the same at every width."""
    method: str
    """How widths were slimmed."""
    split: str
    """How tiles to fit and to score on came apart; empty: nothing was probed."""
    scored_tiles: int
    """Held out; 0: nothing was probed."""
    metric: str
    """Of the scores: "accuracy", or "micro F1" where tiles have several classes; empty: nothing was probed."""
    pixels: Cut | None
    """The same of mean, deviation and quantiles of each band, without any network; None: not probed."""
    widths: tuple[Cut, ...]
    """Ascending; the last is the full encoder."""
    depths: tuple[Cut, ...]
    """After each block at full width; the last is the full encoder."""
    cka_widths: tuple[tuple[float, ...], ...]
    """Likeness of the features of two widths (debiased linear CKA): 1 for the same up to rotation and scale, about 0
    for unrelated ones."""
    cka_depths: tuple[tuple[float, ...], ...]
    """The same between blocks."""
    warnings: tuple[str, ...]
    """What a person should know."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": 1, **asdict(self)}
