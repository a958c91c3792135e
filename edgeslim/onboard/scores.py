"""Scores: how often classes were right, between which bounds that lies, and whether confidence means what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
CONFIDENCE = 0.95
"""Of every interval."""
BINS = 15
"""Of confidence, in the expected calibration error, as in the paper that brought it into use."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """What was seen of one class."""

    name: str
    """As in the training set."""
    tiles: int
    """That have this class."""
    answers: int
    """Tiles that were called it."""
    right: int
    """Tiles that have it and were called it."""
    recall: float | None
    """right / tiles; None: no tile has it."""
    recall_interval: tuple[float, float] | None
    """95 % interval of recall (Wilson)."""
    precision: float | None
    """right / answers; None: no tile was called it."""


def wilson_interval(share: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of a share that was seen in `count` trials, to four digits (Wilson, JASA 22, 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, round(middle - half, 4)), min(1.0, round(middle + half, 4))  # at the ends, rounding passes them


def confusion_of(labels: I64, answers: I64, classes: int) -> I64:
    """(rows, columns) counts of (n,) labels by (n,) answers, both numbers of classes below `classes`."""
    counts = np.bincount(labels * classes + answers, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_scores(names: tuple[str, ...], has: NDArray[np.bool_], called: NDArray[np.bool_]) -> tuple[ClassScore, ...]:
    """Recall and precision of each class, from (n, classes) flags: which classes tiles have, which they were called."""
    found = []
    for name, truth, answer in zip(names, has.T, called.T, strict=True):
        tiles, answers, right = int(truth.sum()), int(answer.sum()), int((truth & answer).sum())
        recall = right / tiles if tiles else None
        found.append(
            ClassScore(
                name,
                tiles,
                answers,
                right,
                recall,
                None if recall is None else wilson_interval(recall, tiles),
                right / answers if answers else None,
            )
        )
    return tuple(found)


def micro_f1(has: NDArray[np.bool_], called: NDArray[np.bool_]) -> float:
    """2 right / (tiles + answers) over all tiles and classes, both flags (n, classes); 1 where nothing was to find."""
    total = int(has.sum()) + int(called.sum())
    return 2 * int((has & called).sum()) / total if total else 1.0


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error of (n,) confidences, 0 ... 1: mean distance of confidence and accuracy, by bin.

    `bins` bins of equal width, weighed by their tiles (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    """
    if not len(confidence):
        return 0.0
    place = np.minimum((np.asarray(confidence, np.float64) * bins).astype(np.int64), bins - 1)
    surer = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    return float(np.abs(surer - hits).sum() / len(confidence))
