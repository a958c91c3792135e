"""Prior: how frequent classes are taken to be where the encoder flies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeslim.profile import ClassLabel


def land_log_odds(classes: Sequence[ClassLabel]) -> NDArray[np.float32] | None:
    """What to add to logits (n, classes) so that classes are as frequent as on land: log(land / training share).

    A tenth of EuroSAT's tiles are rivers, a tenth of the land is not. Bayes' rule under a shifted prior (Saerens et
    al. 2002, doi 10.1162/089976602753284446). None where a class has no shares.
    """
    shares = [(label.land_share, label.trained_share) for label in classes]
    if any(land is None or trained is None for land, trained in shares):
        return None
    pairs = np.array(shares, np.float64)
    odds: NDArray[np.float32] = np.log(pairs[:, 0] / pairs[:, 1]).astype(np.float32)
    return odds
