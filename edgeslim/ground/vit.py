"""The canonical slimmable ViT. Every ViT family is converted into this one.

State-dict keys follow timm (`blocks.0.attn.qkv.weight`, rows [3, heads, head_dim]), so a timm checkpoint needs no map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.architecture import NORM_OF_MEAN, Architecture
from edgeslim.ground.band_attention import BandAttention
from edgeslim.ground.places import alibi, rotation, turn


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias) v, all (B, heads, N, head_dim), where head_dim is the kept one.

    `bias` is (1, heads, N, N).

    With gradients on the CPU the product is written out, because the fused kernel's backward pass took half of a whole
    training step at 64 tokens (torch 2.13); and in an export, because the fused one decomposes into shape arithmetic.
    """
    if torch.compiler.is_exporting() or (torch.is_grad_enabled() and q.device.type == "cpu"):
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        weights = (scores if bias is None else scores + bias).softmax(-1)
        return torch.matmul(weights.to(v.dtype), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Attention(nn.Module):
    """Multi-head self-attention whose heads may be narrower than dim / heads."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.attention_heads, self.head_dim = arch.attention_heads, arch.head_dim
        self.turned = arch.positions == "rope"
        self.qkv = nn.Linear(arch.dim, 3 * arch.attention_dim, bias=arch.qkv_bias)
        self.proj = nn.Linear(arch.attention_dim, arch.dim)

    def forward(self, x: Tensor, head_dim: int | None = None, places: Tensor | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d), using the first `head_dim` dimensions of each head (all by default).

        `places` say where the patches are: (1, heads, N, N) of `alibi`, or (2, N, head_dim) of `rotation`.
        """
        batch, tokens, _ = x.shape
        heads, kept = self.attention_heads, head_dim or self.head_dim
        whole = kept == self.head_dim
        qkv = self.qkv(x) if whole else F.linear(x, *self._first_of_qkv(kept))
        q, k, v = qkv.view(batch, tokens, 3, heads, kept).permute(2, 0, 3, 1, 4).unbind(0)
        if self.turned and places is not None:
            cosines, sines = places[..., :kept].unbind(0)
            q, k, places = turn(q, cosines, sines), turn(k, cosines, sines), None
        y = attend(q, k, v, places).transpose(1, 2).reshape(batch, tokens, heads * kept)
        if whole:
            mixed: Tensor = self.proj(y)
            return mixed
        weight = self.proj.weight.view(-1, heads, self.head_dim)[:, :, :kept].flatten(1)
        return F.linear(y, weight, self.proj.bias)

    def _first_of_qkv(self, kept: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the first `kept` dimensions of each head."""
        heads, bias = self.attention_heads, self.qkv.bias
        weight = self.qkv.weight.view(3, heads, self.head_dim, -1)[:, :, :kept].flatten(0, 2)
        return weight, None if bias is None else bias.view(3, heads, self.head_dim)[:, :, :kept].flatten()


def quick_gelu(x: Tensor) -> Tensor:
    """X sigmoid(1.702 x), elementwise."""
    return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two-layer feed-forward network with exact GELU, or the quick one."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.activation = F.gelu if arch.activation == "gelu" else quick_gelu
        self.fc1 = nn.Linear(arch.dim, arch.ffn_hidden)
        self.fc2 = nn.Linear(arch.ffn_hidden, arch.dim)

    def forward(self, x: Tensor, ffn_hidden: int | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d), using the first `ffn_hidden` hidden units (all by default)."""
        if ffn_hidden in (None, self.fc1.out_features):
            whole: Tensor = self.fc2(self.activation(self.fc1(x)))
            return whole
        hidden = self.activation(F.linear(x, self.fc1.weight[:ffn_hidden], self.fc1.bias[:ffn_hidden]))
        return F.linear(hidden, self.fc2.weight[:, :ffn_hidden], self.fc2.bias)


class SwiGlu(nn.Module):
    """Gated feed-forward network: fc2(silu(fc1 x) * fc3 x)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.fc1 = nn.Linear(arch.dim, arch.ffn_hidden)
        self.fc3 = nn.Linear(arch.dim, arch.ffn_hidden)
        self.fc2 = nn.Linear(arch.ffn_hidden, arch.dim)

    def forward(self, x: Tensor, ffn_hidden: int | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d), using the first `ffn_hidden` hidden units (all by default)."""
        k = ffn_hidden or self.fc1.out_features
        gate = F.silu(F.linear(x, self.fc1.weight[:k], self.fc1.bias[:k]))
        hidden = gate * F.linear(x, self.fc3.weight[:k], self.fc3.bias[:k])
        return F.linear(hidden, self.fc2.weight[:, :k], self.fc2.bias)


class LayerScale(nn.Module):
    """Per-channel scale at the end of a branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.dim, eps=arch.norm_eps)
        self.attn = Attention(arch)
        self.ls1 = LayerScale(arch.dim) if arch.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(arch.dim, eps=arch.norm_eps)
        self.mlp = Mlp(arch) if arch.ffn == "mlp" else SwiGlu(arch)
        self.ls2 = LayerScale(arch.dim) if arch.layer_scale else nn.Identity()

    def add_attention(self, x: Tensor, head_dim: int | None = None, places: Tensor | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d), the block's first half; `places` as in Attention."""
        y: Tensor = self.ls1(self.attn(self.norm1(x), head_dim, places))
        return x + y

    def add_feed_forward(self, x: Tensor, ffn_hidden: int | None = None) -> Tensor:
        """(B, N, d) -> (B, N, d), the block's second half."""
        y: Tensor = self.ls2(self.mlp(self.norm2(x), ffn_hidden))
        return x + y

    def forward(
        self, x: Tensor, head_dim: int | None = None, ffn_hidden: int | None = None, places: Tensor | None = None
    ) -> Tensor:
        """(B, N, d) -> (B, N, d); `places` as in Attention."""
        return self.add_feed_forward(self.add_attention(x, head_dim, places), ffn_hidden)


class PatchEmbed(nn.Module):
    """Tile -> patch tokens: one convolution, or a stem of 3x3 stride-2 convolutions and a projection.

    Where bands are grouped, one convolution a group, `proj.0`, `proj.1`, ...
    """

    def __init__(self, arch: Architecture, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        bands = arch.bands
        for channels in arch.stem_channels:
            self.stem.append(nn.Conv2d(bands, channels, 3, stride=2, padding=1))
            if batch_norm:
                self.stem.append(nn.BatchNorm2d(channels))
            self.stem.append(nn.GELU())
            bands = channels
        kernel = 1 if arch.stem_channels else arch.patch_size
        self.band_groups = arch.band_groups

        def projection(channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, arch.dim, kernel, stride=kernel, padding=arch.patch_padding)

        self.proj: nn.Conv2d | nn.ModuleList = (
            nn.ModuleList(projection(len(group)) for group in arch.band_groups)
            if arch.band_groups
            else projection(bands)
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, P, d), of groups of bands one after the other."""
        if isinstance(self.proj, nn.ModuleList):
            groups = zip(self.proj, self.band_groups, strict=True)
            tokens = torch.cat([proj(picked(tiles, group)).flatten(2) for proj, group in groups], dim=2)
        else:
            tokens = self.proj(self.stem(tiles)).flatten(2)
        return tokens.transpose(1, 2)


def picked(tiles: Tensor, group: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, len(group), H, W): bands of a group, in its order.

    By slices of neighbours, not by an index: every runtime and every accelerator slices.
    """
    starts = [at for at, band in enumerate(group) if not at or band != group[at - 1] + 1]
    runs = [group[start:stop] for start, stop in zip(starts, [*starts[1:], len(group)], strict=True)]
    slices = [tiles[:, run[0] : run[-1] + 1] for run in runs]
    return slices[0] if len(slices) == 1 else torch.cat(slices, dim=1)


class Vit(nn.Module):
    """The canonical encoder.

    `batch_norm=True` puts BatchNorm between the stem's convolutions, for training; `fold_batch_norm` takes it out.
    """

    places: Tensor | None

    def __init__(self, arch: Architecture, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.arch = arch
        mixed = arch.band_attention_heads
        self.patch_embed = BandAttention(arch) if mixed else PatchEmbed(arch, batch_norm=batch_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.dim)) if arch.class_token else None
        registers = arch.register_tokens
        self.reg_token = nn.Parameter(torch.zeros(1, registers, arch.dim)) if registers else None
        count = arch.position_tokens
        self.pos_embed = nn.Parameter(torch.zeros(1, count, arch.dim)) if count else None
        # Computed from the architecture alone, so no checkpoint has it.
        made = {"alibi": alibi, "rope": rotation}.get(arch.positions)
        self.register_buffer("places", None if made is None else made(arch), persistent=False)
        self.norm_pre = nn.LayerNorm(arch.dim, eps=arch.norm_eps) if arch.pre_norm else nn.Identity()
        # A block knows of no other: it is of an encoder of one block, in its own inner sizes.
        self.blocks = nn.ModuleList(Block(arch.sized([sizes])) for sizes in arch.inner_sizes)
        self.norm = nn.LayerNorm(arch.dim, eps=arch.norm_eps)

    def embed(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, N, d) tokens with positions, ready for the first block."""
        x: Tensor = self.patch_embed(tiles)
        batch = x.shape[0]
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(batch, -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        if self.reg_token is not None:
            split = int(self.cls_token is not None)
            x = torch.cat([x[:, :split], self.reg_token.expand(batch, -1, -1), x[:, split:]], dim=1)
        normed: Tensor = self.norm_pre(x)
        return normed

    def encode(self, tokens: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """(B, N, d) tokens -> (B, N, d) encoded ones, blocks cut to the first channels at `width_multiplier`.

        They went through the last LayerNorm, unless the pool is one whose mean goes through it.
        """
        slim = self.arch.at(width_multiplier)
        x = tokens
        for block, (head_dim, ffn_hidden) in zip(self.blocks, slim.inner_sizes, strict=True):
            x = block(x, head_dim, ffn_hidden, self.places)
        return self.end(x)

    def end(self, x: Tensor) -> Tensor:
        """(B, N, d) tokens behind a block -> (B, N, d) as `pool` takes them."""
        return x if self.arch.pool in NORM_OF_MEAN else self._last_norm(x)

    def _last_norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.arch.dim,), self.norm.weight, self.norm.bias, self.norm.eps)

    def pool(self, encoded: Tensor) -> Tensor:
        """(B, N, d) encoded tokens -> (B, d) features."""
        if self.arch.pool == "class":
            return encoded[:, 0]
        first = self.arch.tokens - self.arch.patches + int(self.arch.pool == "mean-of-rest-then-norm")
        mean = encoded[:, first:].mean(1)
        return self._last_norm(mean) if self.arch.pool in NORM_OF_MEAN else mean

    def feature(self, tokens: Tensor) -> Tensor:
        """(B, N, d) tokens behind a block -> (B, d)."""
        return self.pool(self.end(tokens))

    def forward(self, tiles: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, d) features."""
        return self.pool(self.encode(self.embed(tiles), width_multiplier))


def init_weights(encoder: Vit, generator: torch.Generator) -> None:
    """Truncated normal (std 0.02) matrices and positions, zero biases: the ViT custom, from one seed."""
    for name, parameter in encoder.named_parameters():
        if parameter.ndim >= 2 and "stem" not in name:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
        elif parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def fold_batch_norm(encoder: Vit) -> Vit:
    """The same function without BatchNorm: each is folded into the convolution before it."""
    folded = Vit(encoder.arch)
    if not isinstance(encoder.patch_embed, PatchEmbed):  # there is none
        folded.load_state_dict(encoder.state_dict())
        return folded.eval()
    state = {k: v for k, v in encoder.state_dict().items() if not k.startswith("patch_embed.stem.")}
    modules = list(encoder.patch_embed.stem)
    index = 0
    for module, after in zip(modules, [*modules[1:], None], strict=True):
        if not isinstance(module, nn.Conv2d):
            continue
        fused = nn.utils.fuse_conv_bn_eval(module.eval(), after.eval()) if isinstance(after, nn.BatchNorm2d) else module
        state[f"patch_embed.stem.{index}.weight"], state[f"patch_embed.stem.{index}.bias"] = fused.weight, fused.bias
        index += 2
    folded.load_state_dict(state)
    return folded.eval()


def fold_layer_scale(encoder: Vit) -> Vit:
    """The same function without LayerScale: each is folded into the matrix product before it.

    gamma * (W x + b) = (diag(gamma) W) x + gamma * b.
    """
    folded = Vit(replace(encoder.arch, layer_scale=False)).eval()
    state = {k: v.detach().clone() for k, v in encoder.state_dict().items()}
    for number in range(encoder.arch.depth if encoder.arch.layer_scale else 0):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma, before = state.pop(f"blocks.{number}.{scale}.gamma"), f"blocks.{number}.{layer}"
            state[f"{before}.weight"] *= gamma[:, None]
            state[f"{before}.bias"] *= gamma
    folded.load_state_dict(state)
    return folded


def side_by_side(layer: str, kind: str, each: Sequence[Tensor]) -> Tensor:
    """One tensor of those of parallel branches that share a LayerNorm, of the `kind` "weight" or "bias".

    A sum of attentions is one attention with all their heads, and a sum of feed-forward networks is one with all their
    hidden units. Heads stay whole; hidden units go side by side (unit 0 of each branch, then unit 1, ...), so that the
    first of a fused network are the first of each branch. Biases of the output projections add up.
    """
    if layer == "qkv":  # rows [3, heads, head_dim] of each
        return torch.cat([part.view(3, -1, *part.shape[1:]) for part in each], dim=1).flatten(0, 1)
    if kind == "bias" and layer in ("proj", "fc2"):
        return torch.stack(list(each)).sum(0)
    if layer == "proj":
        return torch.cat(list(each), dim=1)
    if layer == "fc2":
        return torch.stack(list(each), dim=2).flatten(1)
    return torch.stack(list(each), dim=1).flatten(0, 1)
