"""Together: one training run by several processes, which `torchrun` starts and which give what one would have given.

Every process draws the same random numbers and changes the same whole batch; of what comes out it takes its own share
of the tiles. Gradients of the shares are averaged, which is the gradient of the batch. What looks across tiles looks
across all of them: BatchNorm's moments are summed over the processes, keys of a contrast are gathered. One process is
the case in which nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgeslim.errors import UsageError

LONGEST_WAIT = timedelta(hours=2)
"""For the others: one process alone fits heads and writes files."""


def size() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the run that `torchrun` started, if it did; gives the device of this process.

    "cpu" talks by gloo, "cuda" by NCCL, each process with the GPU of its LOCAL_RANK.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=LONGEST_WAIT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def check_batch(batch: int) -> None:
    """Raise UsageError unless the processes can share `batch` tiles evenly."""
    if batch % size():
        raise UsageError(f"--batch: found {batch} for {size()} processes, expected a multiple of {size()}")


def share(whole: Tensor) -> Tensor:
    """This process's rows of a tensor of the whole batch, (B, ...) -> (B / size, ...)."""
    if size() == 1:
        return whole
    rows = len(whole) // size()
    return whole[rank() * rows : (rank() + 1) * rows]


def gathered(own: Tensor) -> Tensor:
    """Rows of all processes in the order of the batch, (B / size, ...) -> (B, ...), without gradients."""
    own = own.detach().contiguous()
    if size() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


def average_gradients(model: nn.Module) -> None:
    """Replace gradients of a process's share by their mean over the processes, the same bits in each."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def averaged(value: Tensor) -> Tensor:
    """Mean over the processes of a value that each has of its own share."""
    if size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / size()


class _Sum(torch.autograd.Function):
    """Sum over the processes; every one of them uses it, so that its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _summed(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) of each channel of (B, C, H, W) `values` over all processes, each (C,)."""
    count = values.numel() // values.shape[1] * size()
    mean = _summed(values.sum((0, 2, 3))) / count
    variance = _summed((values - mean.view(1, -1, 1, 1)).square().sum((0, 2, 3))) / count
    return mean, variance


def standardise(values: Tensor, eps: float = 1e-5) -> Tensor:
    """(B, C, H, W) by channel to mean 0 and deviation 1 over the batch of all processes."""
    if size() == 1:
        return nn.functional.batch_norm(values, None, None, training=True, eps=eps)
    mean, variance = (m.view(1, -1, 1, 1) for m in moments(values))
    return (values - mean) * torch.rsqrt(variance + eps)


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose moments are those of the whole batch, on any device (torch's SyncBatchNorm wants a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        mean, variance = moments(x.float())
        count = x.numel() // x.shape[1] * size()
        with torch.no_grad():
            if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
                raise TypeError("expected a BatchNorm that keeps its moments")
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum or 0.0)
        gain = self.weight * torch.rsqrt(variance + self.eps)
        return ((x - mean.view(1, -1, 1, 1)) * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(model: nn.Module) -> None:
    """Put SharedBatchNorm, of the same weights, in the place of every BatchNorm2d, if there are several processes."""
    if size() == 1:
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SharedBatchNorm):
                shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared.to(child.weight.device))
