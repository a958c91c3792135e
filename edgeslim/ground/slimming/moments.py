"""Moments: weighted means and covariances of activations, summed batch by batch so that no activation is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Moments:
    """Weighted first and second moments of regressors x (m) and targets y (p), float64.

    Rows are shifted by the first batch's mean before their products are summed, so that a channel with a large mean
    loses no digits. The products themselves are float64, too: of float32 ones, the error of a fit to regressors that
    are nearly collinear came out below nought.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._shift: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows: x (n, m), y (n, p), weights (n,), at least 0."""
        x, y, weights = x.double(), y.double(), weights.double()
        total = weights.sum()
        if self._shift is None:
            self._shift = (weights @ x / total, weights @ y / total)
        x, y = x - self._shift[0], y - self._shift[1]
        weighted = x * weights.unsqueeze(1)
        added = [weighted.sum(0), weights @ y, weighted.T @ x, y.T @ weighted, weights @ y.square()]
        self._weight += float(total)
        self._sums = [before + part for before, part in zip(self._sums, added, strict=True)] if self._sums else added

    def centred(self) -> Covariance:
        """Means and covariances of all rows so far. Raises ValueError where there are none."""
        if self._shift is None or not self._weight:
            raise ValueError("no rows were added")
        x, y, xx, yx, yy = (total / self._weight for total in self._sums)
        return Covariance(
            x + self._shift[0],
            y + self._shift[1],
            xx - torch.outer(x, x),
            yx - torch.outer(y, x),
            yy - y.square(),
        )


@dataclass(frozen=True, slots=True)
class Covariance:
    """Means and covariances of regressors and targets, float64."""

    x: Tensor
    """(m,) mean of the regressors."""
    y: Tensor
    """(p,) mean of the targets."""
    xx: Tensor
    """(m, m)."""
    yx: Tensor
    """(p, m)."""
    yy: Tensor
    """(p,) variances of the targets."""

    def of(self, transform: Tensor) -> Covariance:
        """Of the regressors T x, with T (k, m)."""
        return Covariance(transform @ self.x, self.y, transform @ self.xx @ transform.T, self.yx @ transform.T, self.yy)

    def at(self, chosen: Tensor) -> Covariance:
        """Of some of the regressors, by their indices."""
        return Covariance(self.x[chosen], self.y, self.xx[chosen][:, chosen], self.yx[:, chosen], self.yy)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Mean square of y - W x - b, summed over the targets."""
        offset = self.y - weight @ self.x - bias
        explained = 2 * (weight * self.yx).sum() - (weight @ self.xx * weight).sum()
        return float(self.yy.sum() - explained + offset.square().sum())
