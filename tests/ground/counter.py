"""An audited counter: FLOP of every matrix product that a module runs, from the operands of the very kernels.

It sits below autograd, where each operator arrives with its tensors, real ones or meta, and knows nothing of modules or
of the closed forms. An operator that is on neither list here is an error, so none is left out unseen: a counter that
passes over what it does not know reports attention on the CPU as nothing. 1 MAC = 2 FLOP; additions of a bias are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def _matrices(a: Tensor, b: Tensor) -> int:
    """(..., n, k) x (..., k, m)."""
    return 2 * a.numel() * b.shape[-1]


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any, **_: Any) -> int:
    # A weight is (out, in / groups, kernel...), of a transposed one (in, out / groups, kernel...): one filter is what
    # meets each value on the side that it stands on.
    transposed = rest[4]
    return 2 * (x if transposed else out).numel() * weight[0].numel()


def _attention(_: Any, q: Tensor, k: Tensor, v: Tensor, *__: Any, **___: Any) -> int:
    """Both products: (..., n, k) x (..., k, m), then (..., n, m) x (..., m, v)."""
    return 2 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


PRODUCTS: dict[Any, Callable[..., int]] = {
    aten.mm: lambda _, a, b, **__: _matrices(a, b),
    aten.bmm: lambda _, a, b, **__: _matrices(a, b),
    aten.addmm: lambda _, __, a, b, **___: _matrices(a, b),
    aten.baddbmm: lambda _, __, a, b, **___: _matrices(a, b),
    aten.mv: lambda _, a, b: 2 * a.numel(),
    aten.addmv: lambda _, __, a, b, **___: 2 * a.numel(),
    aten.dot: lambda _, a, b: 2 * a.numel(),
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
}
"""Operator -> FLOP from its result and its operands."""

_FREE = """
_log_softmax _safe_softmax _softmax _to_copy _unsafe_view abs add add_ addcmul alias arange as_strided cat clamp clone
constant_pad_nd copy_ detach div empty empty_like eq erf exp expand fill_ full full_like gelu index_select lift_fresh
linalg_vector_norm masked_fill mean mul mul_ native_batch_norm native_group_norm native_layer_norm neg
_native_batch_norm_legit_no_training ones ones_like permute pow reciprocal relu rsqrt scalar_tensor select sigmoid silu
slice split split_with_sizes sqrt squeeze stack sub sum t tanh transpose unbind unsqueeze upsample_bicubic2d var_mean
view zeros zeros_like
"""
FREE = frozenset(_FREE.split())
"""Operators without a product of matrices, by name."""


class ProductCounter(TorchDispatchMode):
    """Adds up `flop`, and `by_operator`, of what runs inside `with`."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operator: Counter[str] = Counter()

    @property
    def flop(self) -> int:
        """FLOP of all products."""
        return sum(self.by_operator.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        if packet not in PRODUCTS:
            with self:  # linear, matmul, einsum, SDPA: told apart into operators that are kernels
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if packet in PRODUCTS:
            self.by_operator[packet.__name__] += PRODUCTS[packet](out, *args, **kwargs)
        elif func.namespace not in ("aten", "prim") or packet.__name__ not in FREE | {"device"}:
            raise NotImplementedError(f"{func}: say in counter.py whether this operator is a matrix product")
        return out


def count_flop(module: nn.Module, *inputs: Tensor) -> int:
    """FLOP of the products of one forward pass, without gradients."""
    with torch.no_grad(), ProductCounter() as counter:
        module(*inputs)
    return counter.flop
