"""Fitting: heads on features, by scikit-learn: how strongly to regularise, and how sure the answers may be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from edgeslim.onboard.scores import micro_f1

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
STRENGTHS = tuple(float(f"{10.0**power:.0e}") for power in range(0, -7, -1))
"""Weight of the squared coefficients beside the mean loss of a tile, strongest first; tried by cross-validation."""
NEIGHBOURS = (25, 15, 9, 5, 3, 1)
"""Numbers of neighbours tried, the smoothest first."""
MOST_CHECKED = 4000
"""Tiles that cross-validation fits on at most: a strength is a mean over tiles and holds for more."""
_STEPS = 2000
"""Of L-BFGS at most."""
_TOLERANCE = 1e-5
"""Largest slope at which it ends."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear head: logits = features @ weight.T + bias."""

    weight: F64
    """(classes, d), temperature included."""
    bias: F64
    """(classes,), temperature included."""
    strength: float
    """One of STRENGTHS."""
    temperature: float
    """By which weight and bias were divided."""
    converged: bool
    """Whether the optimiser came to its end."""
    checked: float
    """Accuracy, or micro F1, of the tiles that cross-validation held out, at this strength."""

    def logits(self, features: F32) -> F64:
        """(n, classes) of (n, d) features."""
        found: F64 = np.asarray(features, np.float64) @ self.weight.T + self.bias
        return found


def called_by(logits: NDArray[np.floating], multi_label: bool) -> NDArray[np.bool_]:
    """(n, classes) flags: the largest logit's class; of a multi-label head every class more likely than not."""
    if multi_label:
        return np.asarray(logits > 0)
    return np.asarray(np.arange(logits.shape[1]) == logits.argmax(1)[:, None])


def confidence_of(logits: NDArray[np.floating], multi_label: bool) -> F64:
    """(n,) probability of the likeliest class."""
    chances = expit(logits) if multi_label else softmax(np.asarray(logits, np.float64), axis=1)
    return np.asarray(chances.max(1), np.float64)


def fit_linear(kind: str, features: F32, has: NDArray[np.bool_], folds: Sequence[Fold], multi_label: bool) -> Linear:
    """A "logistic" or "ridge" head on (n, d) features of tiles whose classes `has` (n, classes) tells.

    Features are standardised, which weight and bias undo. The strength is the strongest of those with the best score
    (accuracy, or micro F1) over the checked tiles of all `folds`, and the temperature the one at which the logits of
    those tiles, none of which their head was fitted on, are likeliest (Guo et al. 2017, arXiv 1706.04599).
    """
    mean, scale = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-6 * np.abs(mean) + 1e-12, scale, np.inf)  # a constant one tells nothing
    inputs = (features - mean) / scale
    # Half the time in single precision, and enough to choose by; least squares would warn of its rounding.
    tried = inputs.astype(np.float32) if kind == "logistic" else inputs
    checked: dict[float, list[F64]] = {strength: [] for strength in STRENGTHS}
    truth: list[NDArray[np.bool_]] = []
    for fit, check in folds:
        fit = fit[:: max(1, -(-len(fit) // MOST_CHECKED))]
        truth.append(has[check])
        for strength, (weight, bias, _) in zip(
            STRENGTHS, _path(kind, tried[fit], has[fit], STRENGTHS, multi_label), strict=True
        ):
            checked[strength].append(inputs[check] @ weight.T + bias)
    known = np.concatenate(truth)
    outcome = {strength: np.concatenate(parts) for strength, parts in checked.items()}
    strength = max(STRENGTHS, key=lambda one: micro_f1(known, called_by(outcome[one], multi_label)))
    divisor = temperature(outcome[strength], known, multi_label)
    weight, bias, converged = _path(kind, inputs, has, (strength,), multi_label)[0]
    weight, bias = weight / scale / divisor, bias / divisor
    checked_score = micro_f1(known, called_by(outcome[strength], multi_label))
    return Linear(weight, bias - weight @ mean, strength, divisor, converged, checked_score)


def _path(
    kind: str, inputs: F64, has: NDArray[np.bool_], strengths: Sequence[float], multi_label: bool
) -> list[tuple[F64, F64, bool]]:
    """Weight, bias and whether it converged, for each strength; each starts where the one before ended."""
    if kind == "ridge":
        target = np.where(has, 1.0, -1.0)
        found = []
        for strength in strengths:
            ridge = Ridge(alpha=strength * len(inputs)).fit(inputs, target)
            found.append((np.asarray(ridge.coef_, np.float64), np.asarray(ridge.intercept_, np.float64), True))
        return found
    if not multi_label:
        return _logistic(inputs, has.argmax(1), has.shape[1], strengths)
    each = [_logistic(inputs, column.astype(np.int64), 2, strengths) for column in has.T]
    return [
        (
            # Of two classes the logits are ±z / 2; one class's own logit is their difference.
            np.concatenate([one[i][0][1:] - one[i][0][:1] for one in each]),
            np.concatenate([one[i][1][1:] - one[i][1][:1] for one in each]),
            all(one[i][2] for one in each),
        )
        for i in range(len(strengths))
    ]


def _logistic(
    inputs: F64, labels: NDArray[np.int64], classes: int, strengths: Sequence[float]
) -> list[tuple[F64, F64, bool]]:
    """Multinomial logistic regression; a class that no tile here has gets logits below all others."""
    present = np.unique(labels)
    weight, bias = np.zeros((classes, inputs.shape[1])), np.full(classes, -1e3)
    if len(present) < 2:
        bias[present] = 0.0
        return [(weight, bias, True)] * len(strengths)
    model, found = LogisticRegression(max_iter=_STEPS, tol=_TOLERANCE, warm_start=True), []
    for strength in strengths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=1 / (strength * len(inputs))).fit(inputs, labels)
        coef, intercept = model.coef_, model.intercept_
        if len(present) == 2:  # scikit-learn keeps the second class's row alone
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        weight, bias = np.zeros((classes, inputs.shape[1])), np.full(classes, -1e3)
        weight[present], bias[present] = coef, intercept
        found.append((weight, bias, not any(issubclass(w.category, ConvergenceWarning) for w in caught)))
    return found


def temperature(logits: F64, has: NDArray[np.bool_], multi_label: bool = False) -> float:
    """What to divide (n, classes) logits by so that the classes that tiles have are likeliest, 0.01 to 100."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        if multi_label:
            return float(np.mean(np.logaddexp(0, np.where(has, -scaled, scaled))))
        return float(-log_softmax(scaled, axis=1)[has].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def fit_neighbours(features: F32, has: NDArray[np.bool_], folds: Sequence[Fold]) -> tuple[KNeighborsClassifier, int]:
    """Nearest neighbours by cosine distance on (n, d) features, and their number, chosen over `folds`."""
    target, folds = has.astype(np.int64), list(folds)
    known = np.concatenate([has[check] for _, check in folds])

    def score(count: int) -> float:
        parts = []
        for fit, check in folds:
            model = KNeighborsClassifier(min(count, len(fit)), metric="cosine").fit(features[fit], target[fit])
            parts.append(neighbours_say(model, features[check]))
        return micro_f1(known, called_by(np.concatenate(parts), bool((has.sum(1) > 1).any())))

    best = max((count for count in NEIGHBOURS if count < len(features)), key=score)
    return KNeighborsClassifier(best, metric="cosine").fit(features, target), best


def nearest_five(features: F32, has: NDArray[np.bool_]) -> KNeighborsClassifier:
    """The probe of arXiv 2601.22841: five nearest neighbours, here by cosine distance on (n, d) features."""
    return KNeighborsClassifier(min(5, len(features)), metric="cosine").fit(features, has.astype(np.int64))


def neighbours_say(model: KNeighborsClassifier, features: F32) -> F64:
    """(n, classes): share of the neighbours that have each class, less a half."""
    chances = model.predict_proba(features)
    shares = [
        c[:, list(k).index(1)] if 1 in k else np.zeros(len(c)) for c, k in zip(chances, model.classes_, strict=True)
    ]
    return np.stack(shares, axis=1) - 0.5
