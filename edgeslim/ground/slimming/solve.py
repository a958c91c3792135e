"""Closed forms of calibration: which inner dimensions carry most of what the data show, and the weights behind them.

All of them see moments of activations only (edgeslim.ground.slimming.moments), in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from edgeslim.ground.slimming.moments import Covariance

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties tried, as shares of a regressor's variance."""
_RANK = 1e-10
"""Share of the largest eigenvalue below which a direction counts as absent from the data."""


def roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of a positive semidefinite (..., m, m) and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    floor = values[..., -1:].clamp_min(0) * _RANK
    kept = values > floor
    root = torch.where(kept, values, 0.0).clamp_min(0).sqrt()
    inverse = torch.where(kept & (root > 0), 1 / root.clamp_min(1e-150), 0.0)
    return (vectors * root.unsqueeze(-2)) @ vectors.mT, (vectors * inverse.unsqueeze(-2)) @ vectors.mT


def bilinear(queries: Tensor, keys: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Maps of q and k, both (heads, kept, dk), that keep of q . k what weighs most.

    `queries` (heads, dk, dk) is the second moment of q with its bias, `keys` the covariance of k among the keys of one
    query: the softmax does not see what all keys share, and so not the bias of k. With Q and K their square roots, the
    truncated SVD Q K = U S V' minimises E (q . k - (Tq q) . (Tk k))² over all maps of that rank (Eckart-Young), where
    q and k are taken as independent. The maps include the ratio of the softmax's scales 1 / sqrt(dk), 1 / sqrt(kept).
    """
    root_q, inverse_q = roots(queries)
    root_k, inverse_k = roots(keys)
    u, s, vt = torch.linalg.svd(root_q @ root_k)
    spread = s[..., :kept].sqrt().unsqueeze(-1)
    scale = (kept / queries.shape[-1]) ** 0.5
    return scale * spread * (u[..., :kept].mT @ inverse_q), spread * (vt[..., :kept, :] @ inverse_k)


def block_diagonal(maps: Iterable[Tensor]) -> Tensor:
    """Maps of each head -> one of all heads side by side."""
    joined: Tensor = torch.block_diag(*maps)  # type: ignore[no-untyped-call]
    return joined


def values(moments: Covariance, heads: int, kept: int, sweeps: int = 3) -> Tensor:
    """Map (heads * kept, heads * dk), block-diagonal, of the heads' outputs to the dimensions kept of each.

    Reduced-rank regression of the targets, head after head on what the others leave of them (Izenman, J. Multivariate
    Analysis 5, 1975). The kept dimensions of a head are uncorrelated and of variance 1.
    """
    dk = moments.xx.shape[0] // heads
    each = [slice(h * dk, (h + 1) * dk) for h in range(heads)]
    inverse = [roots(moments.xx[h, h])[1] for h in each]
    scale = moments.xx.diagonal().mean().clamp_min(1e-200)  # heads may all be silent
    joint = torch.linalg.solve(
        moments.xx + RIDGES[1] * scale * torch.eye(len(moments.xx), dtype=torch.float64), moments.yx, left=False
    )
    maps = [torch.zeros(kept, dk, dtype=torch.float64) for _ in each]
    for _ in range(sweeps):
        for number, own in enumerate(each):
            left = moments.yx[:, own] - joint @ moments.xx[:, own] + joint[:, own] @ moments.xx[own, own]
            u, s, vt = torch.linalg.svd(left @ inverse[number], full_matrices=False)
            maps[number] = vt[:kept] @ inverse[number]
            joint[:, own] = (u[:, :kept] * s[:kept]) @ maps[number]
    return block_diagonal(maps)


def unexplained(moments: Covariance, most: int, branches: int = 1) -> list[float]:
    """Variance of the targets that the first 1, 2, ... `most` units leave unexplained, chosen as by `units`."""
    gains = _selected(moments, most, branches)[1]
    total = float(moments.yy.sum())
    return [max(0.0, total - float(explained)) for explained in torch.tensor(gains, dtype=torch.float64).cumsum(0)]


def units(moments: Covariance, kept: int, branches: int = 1) -> Tensor:
    """(kept,) indices of the hidden units by which the targets are explained best, chosen one after the other.

    Orthogonal forward selection (Chen, Billings and Luo, Int. J. Control 50, 1989): a pivoted Cholesky factorisation
    of the units' covariance whose pivot is the unit that explains most of what is left of the targets. Of each branch
    as many are chosen, and they lie side by side as `edgeslim.architecture.Architecture.branches` has them.
    """
    return torch.tensor(_selected(moments, kept, branches)[0]).T.flatten()


def _selected(moments: Covariance, kept: int, branches: int) -> tuple[list[list[int]], list[float]]:
    """Units of each branch as chosen, and what each of all of them explains more, in that order."""
    count = len(moments.xx)
    left_yx, left = moments.yx.clone(), moments.xx.diagonal().clone()
    floor = left * 1e-9
    factor = torch.zeros(kept, count, dtype=torch.float64)
    branch = torch.arange(count) % branches
    room = torch.full((branches,), kept // branches)
    taken = torch.zeros(count, dtype=torch.bool)
    chosen: list[list[int]] = [[] for _ in range(branches)]
    gains = []
    for step in range(kept):
        usable = left > floor
        gain = torch.where(usable, torch.linalg.vector_norm(left_yx, dim=0).square() / left.clamp_min(1e-300), 0.0)
        gain = gain.masked_fill(taken | (room[branch] == 0), -1.0)
        pivot = int(gain.argmax())
        gains.append(max(0.0, float(gain[pivot])))
        taken[pivot] = True
        room[branch[pivot]] -= 1
        chosen[int(branch[pivot])].append(pivot)
        if not usable[pivot]:  # a unit that repeats others explains nothing more
            continue
        row = (moments.xx[pivot] - factor[:step].T @ factor[:step, pivot]) / left[pivot].sqrt()
        # In place and without a copy: of a ViT-B it is 19 MB, and this is done hundreds of times.
        left_yx.addr_(left_yx[:, pivot] / left[pivot].sqrt(), row, alpha=-1)
        left = (left - row.square()).clamp_min(0)
        factor[step] = row
    return chosen, gains


def refit(fit: Covariance, held_out: Covariance, ridges: Sequence[float] = RIDGES) -> tuple[Tensor, Tensor]:
    """Weight (p, m) and bias (p,) of the ridge regression whose penalty is best on what it was not fitted to."""
    variance = fit.xx.diagonal()
    # What does not vary is left to the bias.
    inverse = torch.where(variance > variance.max() * _RANK**2, variance.clamp_min(1e-200).rsqrt(), 0.0)
    correlation = fit.xx * torch.outer(inverse, inverse)
    values_, vectors = torch.linalg.eigh((correlation + correlation.T) / 2)
    rotated = (fit.yx * inverse) @ vectors
    best, best_error = None, float("inf")
    for ridge in ridges:
        weight = (rotated / (values_.clamp_min(0) + ridge)) @ vectors.T * inverse
        bias = fit.y - weight @ fit.x
        error = held_out.error(weight, bias)
        if best is None or error < best_error:
            best, best_error = (weight, bias), error
    if best is None:
        raise ValueError("ridges: found none, expected at least one")
    return best
