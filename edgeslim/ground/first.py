"""Method "first" (arXiv 2601.22841): of each head and of each feed-forward network the first channels.

Each head keeps its first floor(s * dk) dimensions of q, k and v and those columns of the output projection; each FFN
keeps its first floor(s * dh) hidden units. Residual width, number of heads, LayerNorm, patch and position embedding,
depth and the bias of the output projections stay. Attention is scaled by 1 / sqrt(dk'). A depth keeps the first blocks
besides, and the last LayerNorm behind them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgeslim.architecture import Architecture


def slim_state(
    state: Mapping[str, Tensor], arch: Architecture, width_multiplier: float, depth: int | None = None
) -> dict[str, Tensor]:
    """Slice the state dict of a `Vit(arch)` to `width_multiplier`, 0 < s <= 1, and to its first `depth` blocks.

    Tensors are contiguous copies where something is cut, and the very same tensors where nothing is. Raises InputError
    for a width or a depth outside the range.
    """
    return first_of(state, arch, arch.at(width_multiplier, depth))


def first_of(state: Mapping[str, Tensor], arch: Architecture, slim: Architecture) -> dict[str, Tensor]:
    """Slice the state dict of a `Vit(arch)` to the inner sizes and the depth of `slim`, as `slim_state`."""
    heads = arch.attention_heads
    each = list(zip(arch.inner_sizes, slim.inner_sizes, strict=False))  # of the kept blocks
    sliced = {}
    for key, tensor in state.items():
        if not key.startswith("blocks."):
            sliced[key] = tensor
            continue
        if (number := int(key.split(".")[1])) >= slim.depth:
            continue
        (dk, full_hidden), (kept, hidden) = each[number]
        if kept < dk and key.endswith(("attn.qkv.weight", "attn.qkv.bias")):
            tensor = tensor.view(3, heads, dk, *tensor.shape[1:])[:, :, :kept].flatten(0, 2).contiguous()
        elif kept < dk and key.endswith("attn.proj.weight"):
            tensor = tensor.view(-1, heads, dk)[:, :, :kept].flatten(1).contiguous()
        elif hidden < full_hidden and ".mlp.fc2.weight" in key:
            tensor = tensor[:, :hidden].contiguous()
        elif hidden < full_hidden and (".mlp.fc1." in key or ".mlp.fc3." in key):
            tensor = tensor[:hidden].contiguous()
        sliced[key] = tensor
    return sliced
