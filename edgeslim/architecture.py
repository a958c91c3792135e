"""Architecture: the shape of a vision transformer encoder, at full width or slimmed. No torch.

A slimmed encoder is an ordinary Architecture with smaller inner sizes, so the counter, the slimmer and the canonical
module need no notion of "slimmed": they read `inner_sizes`, a `head_dim` and an `ffn_hidden` a block, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from edgeslim.errors import InputError
from edgeslim.shelf import read_record, shown


def inner_size(full: int, width_multiplier: float) -> int:
    """Kept channels of `full` at a width multiplier: max(1, floor(s * full)) (arXiv 2601.22841).

    The product is rounded at the ninth decimal first: 0.7 * 80 is 55.99999999999999 in binary, and 56 is meant.
    """
    return max(1, math.floor(round(width_multiplier * full, 9)))


def check_cut(width_multiplier: float, depth: int | None, blocks: int) -> None:
    """Raise InputError for a width multiplier or a number of kept blocks that no encoder of `blocks` blocks has."""
    if not 0 < width_multiplier <= 1:
        raise InputError(f"width multiplier: found {width_multiplier}, expected 0 < w <= 1")
    if depth is not None and not 1 <= depth <= blocks:
        raise InputError(f"depth: found {depth}, expected 1 to the encoder's {blocks} blocks")


_LARGEST = {
    "depth": 1024,
    "dim": 1 << 17,
    "attention_heads": 4096,
    "head_dim": 4096,
    "ffn_hidden": 1 << 20,
    "patch_size": 4096,
    "tile_px": 1 << 14,
    "bands": 4096,
}
"""Far beyond any encoder: a damaged card or manifest must not make the planner count to a trillion."""


USUAL_NORM_EPS = 1e-6
"""As timm's ViTs have it."""
NORM_OF_MEAN = ("mean-then-norm", "mean-of-rest-then-norm")
"""Pools whose mean, and not each token, goes through the last LayerNorm."""
POOLS = ("class", "mean", *NORM_OF_MEAN)
"""Of `Architecture.pool`."""
ACTIVATIONS = ("gelu", "quick-gelu")
"""Of `Architecture.activation`."""
POSITIONS = ("absolute", "alibi", "rope")
"""Of `Architecture.positions`."""
LATER = (
    "patch_padding",
    "pre_norm",
    "activation",
    "positions",
    "rope_dim",
    "band_groups",
    "band_attention_heads",
    "block_head_dims",
    "block_ffn_hidden",
)
"""Fields that `to_dict` leaves out where they have their defaults: what has none of it is written as it always was, and
read by an edgeslim on board that does not know them."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a ViT. Blocks have the same inner sizes, unless it names each; the residual dimension is never cut."""

    depth: int
    """Number of transformer blocks."""
    dim: int
    """Residual width d, channels."""
    attention_heads: int
    """Number of attention heads."""
    head_dim: int
    """Dimensions of one head, dk; of the widest block, where they differ."""
    ffn_hidden: int
    """Hidden units of the feed-forward network, dh; of the widest block, where they differ."""
    patch_size: int
    """Side of a patch, px; with a stem, its total stride."""
    tile_px: int
    """Side of the square tile that the encoder takes, px."""
    bands: int
    """Input bands."""
    ffn: str = "mlp"
    """"mlp" (GELU) or "swiglu" (three matrices)."""
    qkv_bias: bool = True
    """Whether q, k and v have a bias."""
    class_token: bool = True
    """Whether a class token stands before the patches."""
    register_tokens: int = 0
    """Register (storage) tokens beside the class token."""
    layer_scale: bool = False
    """Whether both branches of a block end in a per-channel scale."""
    stem_channels: tuple[int, ...] = ()
    """Output channels of 3x3 stride-2 convolutions before the patch projection (Xiao et al., arXiv 2106.14881);
    empty: the usual single convolution of patch_size. Never cut."""
    pool: str = "class"
    """Feature: "class" token or "mean" of the patch tokens, after the last LayerNorm; or "mean-then-norm": the mean of
    the patch tokens as the last block leaves them, which alone goes through that LayerNorm (timm's `fc_norm`); or
    "mean-of-rest-then-norm": the same without the first patch, as SpectralGPT has it, which has no class token."""
    branches: int = 1
    """Parallel attentions, and parallel feed-forward networks, that are fused into each block (arXiv 2304.05215):
    attention_heads and ffn_hidden are those of all together, with unit j of each branch side by side."""
    norm_eps: float = USUAL_NORM_EPS
    """Added to the variance in every LayerNorm."""
    patch_padding: int = 0
    """Rows and columns of zeros, px, before the first patch: DOFA's patches begin so much before the tile, and its last
    rows and columns are not seen."""
    pre_norm: bool = False
    """Whether the tokens go through a LayerNorm before the first block (CLIP)."""
    activation: str = "gelu"
    """Of an "mlp": "gelu", or "quick-gelu": x sigmoid(1.702 x) (Hendrycks & Gimpel, arXiv 1606.08415)."""
    positions: str = "absolute"
    """"absolute": added to the tokens; or "alibi": attention's scores lose the distance of two patches, in patches,
    times 2^(-8 j / attention_heads) in head j = 1, 2, ... (CROMA, arXiv 2311.00566); or "rope": q and k are turned by
    the patch's place, two dimensions after two by row and by column (DINOv3, arXiv 2508.10104)."""
    rope_dim: int = 0
    """Dimensions of a head before any was cut, over which the periods of "rope" are spread; 0 without it. A head keeps
    a multiple of four: its pairs stay pairs, of rows as of columns."""
    band_groups: tuple[tuple[int, ...], ...] = ()
    """Bands, counted from 0, that are embedded together, where the tile becomes tokens more than once: each group has a
    convolution of its own, and its patches follow those of the group before it (SatMAE, arXiv 2207.08051). Each band is
    in one of them; empty: all bands are embedded together."""
    band_attention_heads: int = 0
    """Heads of an attention over the bands of each patch (Panopticon, arXiv 2503.10845), each of which mixes them into
    one; the mixed bands are embedded. 0: the bands are, as they are. Never cut."""
    block_head_dims: tuple[int, ...] = ()
    """Dimensions of one head in each block; empty: head_dim in all of them."""
    block_ffn_hidden: tuple[int, ...] = ()
    """Hidden units in each block; empty: ffn_hidden in all of them."""

    def __post_init__(self) -> None:
        for field, largest in _LARGEST.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
                raise InputError(f"architecture.{field}: found {value!r}, expected a whole number of 1 to {largest}")
        if not 0 <= self.register_tokens <= 1024:
            raise InputError(f"architecture.register_tokens: found {self.register_tokens}, expected 0 to 1024")
        if self.ffn not in ("mlp", "swiglu"):
            raise InputError(f"architecture.ffn: found {self.ffn!r}, expected 'mlp' or 'swiglu'")
        if self.pool not in POOLS:
            raise InputError(f"architecture.pool: found {self.pool!r}, expected one of {', '.join(POOLS)}")
        if self.activation not in ACTIVATIONS or (self.ffn != "mlp" and self.activation != "gelu"):
            raise InputError(
                f"architecture.activation: found {self.activation!r}, expected one of {', '.join(ACTIVATIONS)}, "
                "and of an mlp"
            )
        if self.positions not in POSITIONS:
            raise InputError(
                f"architecture.positions: found {self.positions!r}, expected one of {', '.join(POSITIONS)}"
            )
        if self.positions == "alibi" and (self.class_token or self.register_tokens):
            raise InputError(
                "architecture.positions: found 'alibi' with tokens that have no place, expected patches alone"
            )
        if (self.positions == "rope") != (self.rope_dim > 0) or not 0 <= self.rope_dim <= _LARGEST["head_dim"]:
            raise InputError(f"architecture.rope_dim: found {self.rope_dim}, expected that of positions 'rope', or 0")
        self._check_blocks()
        for size in {self.head_dim, *self.block_head_dims}:
            if self.rope_dim and (self.rope_dim % 4 or size % 4 or size > self.rope_dim):
                raise InputError(
                    f"architecture.head_dim: found {size} of rope_dim {self.rope_dim}, expected multiples of 4, "
                    "the first of them not larger"
                )
        if self.pool == "class" and not self.class_token:
            raise InputError("architecture.pool: found 'class' without a class token, expected pool = 'mean'")
        for hidden in {self.ffn_hidden, *self.block_ffn_hidden}:
            if not 1 <= self.branches <= 64 or self.attention_heads % self.branches or hidden % self.branches:
                raise InputError(
                    f"architecture.branches: found {self.branches}, expected 1 to 64 that share out "
                    f"{self.attention_heads} attention_heads and {hidden} ffn_hidden evenly"
                )
        if not 0 < self.norm_eps < 0.1:
            raise InputError(f"architecture.norm_eps: found {self.norm_eps:g}, expected more than 0, less than 0.1")
        if self.tile_px % self.patch_size:
            raise InputError(
                f"architecture.tile_px: found {self.tile_px}, expected a multiple of patch_size {self.patch_size}"
            )
        if not 0 <= 2 * self.patch_padding < self.patch_size or (self.patch_padding and self.stem_channels):
            raise InputError(
                f"architecture.patch_padding: found {self.patch_padding}, expected less than half of patch_size "
                f"{self.patch_size}, and 0 with a stem"
            )
        if not 0 <= self.band_attention_heads <= _LARGEST["attention_heads"] or (
            self.band_attention_heads and (self.stem_channels or self.patch_padding)
        ):
            raise InputError(
                f"architecture.band_attention_heads: found {self.band_attention_heads}, expected 0 to "
                f"{_LARGEST['attention_heads']}, and 0 with a stem or patch_padding"
            )
        if self.stem_channels and self.patch_size != 2 ** len(self.stem_channels):
            raise InputError(
                f"architecture.stem_channels: found {len(self.stem_channels)} stride-2 convolutions, "
                f"expected patch_size {self.patch_size} = 2^{len(self.stem_channels)}"
            )
        if self.band_groups:
            self._check_band_groups()

    def _check_blocks(self) -> None:
        for name, widest in (("block_head_dims", self.head_dim), ("block_ffn_hidden", self.ffn_hidden)):
            sizes = getattr(self, name)
            if sizes and (len(sizes) != self.depth or min(sizes) < 1 or max(sizes) != widest or len(set(sizes)) == 1):
                raise InputError(
                    f"architecture.{name}: found {shown(sizes)}, expected a size for each of the {self.depth} blocks, "
                    f"the largest {widest}, or none where all are alike"
                )

    def _check_band_groups(self) -> None:
        grouped = sorted(band for group in self.band_groups for band in group)
        if len(self.band_groups) < 2 or not all(self.band_groups) or grouped != list(range(self.bands)):
            raise InputError(
                f"architecture.band_groups: found {shown(self.band_groups)}, expected two groups or more, and each of "
                f"the {self.bands} bands (0 to {self.bands - 1}) in one of them"
            )
        if self.stem_channels or self.band_attention_heads or self.positions != "absolute":
            raise InputError(
                "architecture.band_groups: found beside a stem, an attention over bands or positions that are not "
                "added to the tokens, expected none of them"
            )

    @property
    def inner_sizes(self) -> tuple[tuple[int, int], ...]:
        """(head_dim, ffn_hidden) of each block."""
        heads = self.block_head_dims or (self.head_dim,) * self.depth
        return tuple(zip(heads, self.block_ffn_hidden or (self.ffn_hidden,) * self.depth, strict=True))

    @property
    def is_uneven(self) -> bool:
        """Whether blocks have other inner sizes than others."""
        return bool(self.block_head_dims or self.block_ffn_hidden)

    def is_aligned(self, head_multiple: float, hidden_multiple: float) -> bool:
        """Whether the inner sizes of all blocks are multiples that the hardware likes."""
        return not any(dk % head_multiple or dh % hidden_multiple for dk, dh in set(self.inner_sizes))

    def sized(self, sizes: Sequence[tuple[int, int]]) -> Architecture:
        """The same encoder with as many blocks as there are `sizes`, (head_dim, ffn_hidden) of each."""
        heads, hidden = zip(*sizes, strict=True)
        return replace(
            self,
            depth=len(sizes),
            head_dim=max(heads),
            ffn_hidden=max(hidden),
            block_head_dims=heads if len(set(heads)) > 1 else (),
            block_ffn_hidden=hidden if len(set(hidden)) > 1 else (),
        )

    @property
    def patch_groups(self) -> int:
        """How often the tile becomes patches: groups of bands, or once."""
        return len(self.band_groups) or 1

    @property
    def patches(self) -> int:
        """Patch tokens of a tile, those of all groups of bands."""
        return self.patch_groups * (self.tile_px // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """All tokens of a tile: patches, class token, registers."""
        return self.patches + int(self.class_token) + self.register_tokens

    @property
    def position_tokens(self) -> int:
        """Tokens that a position of their own is added to."""
        return self.patches + int(self.class_token) if self.positions == "absolute" else 0

    @property
    def constant_values(self) -> int:
        """Values that the places of the patches are said by in attention, which all blocks share.

        What "alibi" adds to the scores of all heads; cosines and sines by which "rope" turns.
        """
        if self.positions == "alibi":
            return self.attention_heads * self.tokens**2
        return 2 * self.tokens * self.head_dim if self.rope_dim else 0

    @property
    def head_step(self) -> int:
        """Dimensions that a head is cut by at a time."""
        return 4 if self.rope_dim else 1

    @property
    def attention_dim(self) -> int:
        """Width of q, k, v and of the attention's output: attention_heads * head_dim; that of the widest block."""
        return self.attention_heads * self.head_dim

    @property
    def inner_text(self) -> str:
        """Sizes that a width cuts, for people."""
        return "head_dim {}, FFN {}".format(*self.inner_texts)

    @property
    def inner_texts(self) -> tuple[str, str]:
        """Dimensions of a head and hidden units, for people: "8" and "128", or "4 to 12" where blocks differ."""
        heads, hidden = zip(*self.inner_sizes, strict=True)
        return span(heads), span(hidden)

    @property
    def shape_text(self) -> str:
        """Blocks and their sizes, for people."""
        heads, hidden = self.inner_texts
        return f"{self.depth} blocks, dim {self.dim}, {self.attention_heads} heads of {heads}, FFN {hidden}"

    @property
    def units_of_width(self) -> int:
        """By which one width is told from the others: the dimensions of a head."""
        return self.head_dim

    @property
    def told_sizes(self) -> tuple[int, int]:
        """Dimensions of a head and hidden units, as plans tell them: of the widest block."""
        return self.head_dim, self.ffn_hidden

    @property
    def fewest_blocks(self) -> int:
        """That can be kept with the last LayerNorm behind them."""
        return 1

    def at(self, width_multiplier: float, depth: int | None = None) -> Architecture:
        """The same encoder with each block's inner sizes cut to `width_multiplier`, 0 < s <= 1, and its first blocks.

        All blocks where `depth` is None. Raises InputError outside either range.
        """
        check_cut(width_multiplier, depth, self.depth)
        return _cut(self, width_multiplier, depth)

    def width_steps(self) -> list[float]:
        """Width multipliers at which a head's width changes: j / dk for j = 1 ... dk, or 4, 8, ... dk, ascending."""
        return [j / self.head_dim for j in range(self.head_step, self.head_dim + 1, self.head_step)]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for cards, plans and manifests."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if not self._is_unsaid(f)}
        return {name: _plain(value) for name, value in values.items()}

    def _is_unsaid(self, one: Field[Any]) -> bool:
        return one.name in LATER and getattr(self, one.name) == one.default

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "architecture") -> Architecture:
        """Read what `to_dict` wrote. Raises InputError naming `where`, the key and what was expected."""
        return read_record(cls, data, where)


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


@lru_cache(256)  # a plan asks for each width several times, and over all boards on each
def _cut(full: Architecture, width_multiplier: float, depth: int | None) -> Architecture:
    step, branches = full.head_step, full.branches

    def kept(head_dim: int, ffn_hidden: int) -> tuple[int, int]:
        of_head = inner_size(head_dim, width_multiplier)
        return max(step, of_head - of_head % step), branches * inner_size(ffn_hidden // branches, width_multiplier)

    return full.sized([kept(*sizes) for sizes in full.inner_sizes[:depth]])


def span(sizes: Sequence[int]) -> str:
    """Sizes of blocks, for people: "8", or "4 to 12" where they differ."""
    return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
