"""The canonical slimmable ConvNeXt V2 (arXiv 2301.00808).

State-dict keys follow timm (`stages.0.blocks.0.mlp.fc1.weight`, its 1x1 convolutions included), so a timm checkpoint of
the sizes Atto to Nano needs no map; of Tiny and above fc1 and fc2 are linear there, without the last two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.convnext_architecture import BEFORE_STEM, KERNEL, ConvNextArchitecture


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Each hidden channel scaled by its share of the response: its norm over the map against the channels' mean."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, k, H, W) -> (B, k, H, W), by the first k channels' weights."""
        k = x.shape[1]
        response: Tensor = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        share = response / (response.mean(1, keepdim=True) + self.eps)
        return x + self.bias[:k].view(1, k, 1, 1) + self.weight[:k].view(1, k, 1, 1) * (x * share)


class Mlp(nn.Module):
    """The pointwise half of a block: wider by a 1x1 convolution, GELU, GRN, and back."""

    def __init__(self, dim: int, hidden: int, grn_eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.grn = GlobalResponseNorm(hidden, grn_eps)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """(B, d, H, W) -> (B, d, H, W), using the first `hidden` hidden channels (all by default)."""
        k = hidden or self.fc1.out_channels
        bias = None if self.fc1.bias is None else self.fc1.bias[:k]
        y = F.gelu(F.conv2d(x, self.fc1.weight[:k], bias))
        return F.conv2d(self.grn(y), self.fc2.weight[:, :k], self.fc2.bias)


class Block(nn.Module):
    """Depthwise convolution, LayerNorm, Mlp, beside the residual."""

    def __init__(self, dim: int, hidden: int, grn_eps: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.mlp = Mlp(dim, hidden, grn_eps)

    def forward(self, x: Tensor, hidden: int | None = None) -> Tensor:
        """(B, d, H, W) -> (B, d, H, W)."""
        y: Tensor = self.mlp(self.norm(self.conv_dw(x)), hidden)
        return x + y


class Stage(nn.Module):
    """Blocks of one resolution, behind the downsampling from the one before."""

    def __init__(self, dim_before: int | None, dim: int, sizes: Sequence[int], grn_eps: float) -> None:
        super().__init__()
        self.downsample = nn.Sequential()
        if dim_before is not None:
            self.downsample.append(LayerNorm2d(dim_before))
            self.downsample.append(nn.Conv2d(dim_before, dim, 2, stride=2))
        self.blocks = nn.ModuleList(Block(dim, hidden, grn_eps) for hidden in sizes)

    def forward(self, x: Tensor, sizes: Sequence[int | None] | None = None) -> Tensor:
        """(B, d before, H, W) -> (B, d, H / 2, W / 2), using so many hidden channels of each block (all by default).

        The first stage keeps its sides.
        """
        x = self.downsample(x)
        for block, hidden in zip(self.blocks, sizes or repeat(None), strict=False):
            x = block(x, hidden)
        return x


class ConvNext(nn.Module):
    """The canonical encoder."""

    def __init__(self, arch: ConvNextArchitecture) -> None:
        super().__init__()
        self.arch = arch
        first, side = arch.dims[0], arch.stem_stride
        self.initial_conv = nn.Sequential()
        if arch.conv_before_stem:
            self.initial_conv.extend((nn.Conv2d(arch.bands, first, BEFORE_STEM), LayerNorm2d(first), nn.GELU()))
            self.stem = nn.Sequential(nn.Conv2d(first, first, side, side, padding=side // 2, groups=first))
        else:
            self.stem = nn.Sequential(nn.Conv2d(arch.bands, first, side, side))
        self.stem.append(LayerNorm2d(first))
        before = (None, *arch.dims[:-1])
        self.stages = nn.ModuleList(map(Stage, before, arch.dims, arch.stage_sizes, repeat(arch.grn_eps)))
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(arch.dim, eps=arch.norm_eps)})

    def forward(self, tiles: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, d) features, blocks cut to the first hidden channels."""
        return self.pool(self.encode(self.embed(tiles), width_multiplier))

    def embed(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, d of the first stage, h, w)."""
        maps: Tensor = self.stem(self.initial_conv(tiles))
        return maps

    def encode(self, maps: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """Through every block: (B, d of the first stage, h, w) -> encoded (B, d, h / 8, w / 8) of four stages."""
        for stage, sizes in zip(self.stages, self.arch.at(width_multiplier).stage_sizes, strict=True):
            maps = stage(maps, sizes)
        return maps

    def pool(self, encoded: Tensor) -> Tensor:
        """(B, d, h, w) encoded maps -> (B, d) features."""
        features: Tensor = self.head["norm"](encoded.mean((2, 3)))
        return features

    def feature(self, maps: Tensor) -> Tensor:
        """(B, d, h, w) behind a block of the last stage -> (B, d)."""
        return self.pool(maps)


def init_weights(encoder: ConvNext, generator: torch.Generator) -> None:
    """Truncated normal (std 0.02) kernels, zero biases, a GRN that changes nothing: as its authors begin."""
    for name, parameter in encoder.named_parameters():
        if parameter.ndim >= 2:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
        elif name.endswith("bias") or ".grn." in name:
            nn.init.zeros_(parameter)
