"""Slimming: an encoder and a width multiplier -> a narrower encoder that needs no slicing code.

Method "first" (arXiv 2601.22841): each head keeps its first floor(s * dk) dimensions of q, k and v and those columns of
the output projection; each FFN keeps its first floor(s * dh) hidden units. Residual width, number of heads, LayerNorm,
patch and position embedding, depth and the bias of the output projections stay. Attention is scaled by 1 / sqrt(dk').
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.ground.vit import Vit

METHOD = "first"


def slim_state(state: Mapping[str, Tensor], arch: Architecture, width_multiplier: float) -> dict[str, Tensor]:
    """Slice the state dict of a `Vit(arch)` to `width_multiplier`, 0 < s <= 1.

    Tensors are contiguous copies where something is cut, and the very same tensors where nothing is. Raises InputError
    for a width outside the range.
    """
    slim = arch.at(width_multiplier)
    heads, dk, kept, hidden = arch.attention_heads, arch.head_dim, slim.head_dim, slim.ffn_hidden
    sliced = {}
    for key, tensor in state.items():
        if kept < dk and key.endswith(("attn.qkv.weight", "attn.qkv.bias")):
            tensor = tensor.view(3, heads, dk, *tensor.shape[1:])[:, :, :kept].flatten(0, 2).contiguous()
        elif kept < dk and key.endswith("attn.proj.weight"):
            tensor = tensor.view(-1, heads, dk)[:, :, :kept].flatten(1).contiguous()
        elif hidden < arch.ffn_hidden and ".mlp.fc2.weight" in key:
            tensor = tensor[:, :hidden].contiguous()
        elif hidden < arch.ffn_hidden and (".mlp.fc1." in key or ".mlp.fc3." in key):
            tensor = tensor[:hidden].contiguous()
        sliced[key] = tensor
    return sliced


def slim(encoder: Vit, width_multiplier: float) -> Vit:
    """The encoder cut to `width_multiplier`, in evaluation mode; at 1.0 its weights are bit for bit the same."""
    slimmed = Vit(encoder.arch.at(width_multiplier))
    slimmed.load_state_dict(slim_state(encoder.state_dict(), encoder.arch, width_multiplier))
    return slimmed.eval()
