"""Method "first" (arXiv 2601.22841): of each head and of each feed-forward network the first channels.

Each head keeps its first floor(s * dk) dimensions of q, k and v and those columns of the output projection; each FFN
keeps its first floor(s * dh) hidden units. Residual width, number of heads, LayerNorm, patch and position embedding,
depth and the bias of the output projections stay. Attention is scaled by 1 / sqrt(dk'). A depth keeps the first blocks
besides, and the last LayerNorm behind them. Of a ConvNeXt V2 each block keeps its first floor(s * 4d) hidden channels,
and the weights of its GRN for them; its depthwise convolutions, and all around the blocks, stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture, ConvNextArchitecture
from edgeslim.errors import InputError


def slim_state(
    state: Mapping[str, Tensor], arch: AnyArchitecture, width_multiplier: float, depth: int | None = None
) -> dict[str, Tensor]:
    """Slice the state dict of a `new_encoder(arch)` to `width_multiplier`, 0 < s <= 1, and to its first `depth` blocks.

    Tensors are contiguous copies where something is cut, and the very same tensors where nothing is. Raises InputError
    for a width or a depth outside the range.
    """
    return first_of(state, arch, arch.at(width_multiplier, depth))


def first_of(state: Mapping[str, Tensor], arch: AnyArchitecture, slim: AnyArchitecture) -> dict[str, Tensor]:
    """Slice the state dict of a `new_encoder(arch)` to the inner sizes and the depth of `slim`, as `slim_state`."""
    if isinstance(arch, ConvNextArchitecture) and isinstance(slim, ConvNextArchitecture):
        return _first_of_convnext(state, arch, slim)
    assert isinstance(arch, Architecture)
    assert isinstance(slim, Architecture)
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


def _first_of_convnext(
    state: Mapping[str, Tensor], arch: ConvNextArchitecture, slim: ConvNextArchitecture
) -> dict[str, Tensor]:
    """The same of a ConvNeXt V2: of each block the first hidden channels, with their GRN."""
    if slim.depth < arch.fewest_blocks:
        raise InputError(
            f"depth: found {slim.depth}, expected at least {arch.fewest_blocks}: the last LayerNorm is for "
            "the channels of the last stage"
        )
    sliced = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "stages" and parts[2] == "blocks":
            stage, number = int(parts[1]), int(parts[3])
            if number >= slim.depths[stage]:
                continue
            full, hidden = arch.stage_sizes[stage][number], slim.stage_sizes[stage][number]
            if hidden < full and key.endswith("mlp.fc2.weight"):
                tensor = tensor[:, :hidden].contiguous()
            elif hidden < full and (".mlp.fc1." in key or ".mlp.grn." in key):
                tensor = tensor[:hidden].contiguous()
        sliced[key] = tensor
    return sliced
