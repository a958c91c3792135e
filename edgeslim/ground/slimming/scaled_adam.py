"""Adam whose updates are shares of what they change: for weights that differ in size by orders of magnitude.

Of a calibrated encoder the queries' weights may be fifty times smaller than the values' beside them in one matrix, and
one rate for both leaves the ones as they were or destroys the others. So each row of a matrix has a rate in proportion
to its root mean square at the start, as Adafactor has it for each tensor (Shazeer and Stern, arXiv 1804.04235, section
8), and its bias in proportion to what the row makes of inputs of size 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LEAST = 1e-6
"""Size that anything is taken to have at least: what is zero is to learn, too."""
_BETAS = (0.9, 0.999)
_EPSILON = 1e-12
"""Beside the root of the second moment: gradients of a large batch's mean are small."""


def sizes(model: nn.Module) -> list[Tensor]:
    """Of each parameter of `model`, in their order, the size of its rows; broadcast over it, on its device."""
    found: dict[int, Tensor] = {}
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter) and weight.ndim >= 2:
            found[id(bias)] = weight.detach().flatten(1).norm(dim=1).clamp_min(_LEAST)
    for value in model.parameters():
        if id(value) not in found:
            across = tuple(range(1, value.ndim)) if value.ndim >= 2 else (0,)
            size = value.detach().square().mean(across, keepdim=True).sqrt()
            found[id(value)] = size.clamp_min(_LEAST)
    return [found[id(value)] for value in model.parameters()]


class ScaledAdam:
    """The moments of one model's gradients."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list[Tensor](model.parameters())
        self._sizes = sizes(model)
        self._first = [torch.zeros_like(value) for value in self._parameters]
        self._second = [torch.zeros_like(value) for value in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change every parameter by about `rate` times its size, against its gradient."""
        self._steps += 1
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        torch._foreach_lerp_(self._first, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(self._second, _BETAS[1])
        torch._foreach_addcmul_(self._second, gradients, gradients, 1 - _BETAS[1])
        spread = torch._foreach_sqrt(self._second)
        torch._foreach_div_(spread, (1 - _BETAS[1] ** self._steps) ** 0.5)
        torch._foreach_add_(spread, _EPSILON)
        change = torch._foreach_div(self._first, spread)
        torch._foreach_mul_(change, self._sizes)
        torch._foreach_add_(self._parameters, change, alpha=-rate / (1 - _BETAS[0] ** self._steps))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""
        return {"first": self._first, "second": self._second, "sizes": self._sizes, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self._steps = int(state["steps"])
        own = (self._first, self._second, self._sizes)
        for mine, theirs in zip(own, (state["first"], state["second"], state["sizes"]), strict=True):
            for kept, value in zip(mine, theirs, strict=True):
                kept.copy_(value)
