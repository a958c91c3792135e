"""Cost: closed-form parameters, FLOP, traffic and peak memory of an architecture, full or slimmed. No torch, no numpy.

Parameters and FLOP are exact: they equal the canonical module's (edgeslim/ground/vit.py, convnext.py) own parameters
and the matrix products that it runs, attention's two included. FLOP leave out what is not a matrix product (LayerNorm,
GELU, GRN, softmax, additions), as is the custom; those count as traffic of the product that they stand beside.

    MACs = P·C·p²·d + L·(4·N·d·a + 2·N²·a + g·N·d·dh),   a = attention_heads · head_dim,   g = 2 (mlp) or 3 (swiglu)

where P are patches and N all tokens; a convolutional stem replaces the first term, and so does an attention of m heads
over the bands, by P·m·(2·C·p² + p²·d + C·d). Where bands are grouped, P are the patches of one group, as each band is
embedded once, and N counts those of all. Blocks of parallel branches count as the wide blocks that they are fused into,
and blocks that differ each as it is.
Of a ConvNeXt V2, with S² values in a stage's map and d' channels before,

    MACs = S₁²·C·k²·d₁ + Σ stages (S²·4·d'·d + Σ blocks S²·d·(49 + 2·hidden)),   1 MAC = 2 FLOP,

with k = 4 px of the stem; of MMEarth's the first term is S₀²·C·9·d₁ + S₁²·k²·d₁, S₀ a tile's side less 2 px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import BEFORE_STEM, KERNEL, AnyArchitecture, ConvNextArchitecture
from edgeslim.units import FLOP_PER_MAC

_REMEMBERED = 256
"""Counts that are kept: a plan asks for those of a width in every way to run it and, over all boards, on each."""


@dataclass(frozen=True, slots=True)
class Op:
    """One matrix product with the elementwise work that stands beside it."""

    name: str
    """Where it is: "blocks.3.qkv"."""
    op_class: str
    """One of edgeslim.units.OP_CLASSES."""
    flop: int
    """Of the product, at the whole batch."""
    moved_bytes: int
    """Weights and activations read and written, each once."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that an architecture needs at once, without the runtime's own."""

    weights_bytes: int
    """One copy of every parameter and constant."""
    activations_bytes: int
    """Largest set of tensors alive at the same time."""
    buffers_bytes: int
    """Tiles as read and as fed to the network, and the output."""


@lru_cache(_REMEMBERED)
def parameters(arch: AnyArchitecture, classes: int = 0) -> int:
    """Parameters of the encoder and, with `classes`, of a linear head on its feature."""
    encoder = _vit_parameters(arch) if isinstance(arch, Architecture) else _convnext_parameters(arch)
    return encoder + (arch.dim * classes + classes if classes else 0)


def constants(arch: AnyArchitecture) -> int:
    """Values that an encoder holds beside its parameters: what says the places of its patches in attention."""
    return arch.constant_values if isinstance(arch, Architecture) else 0


def _vit_parameters(arch: Architecture) -> int:
    d, heads = arch.dim, arch.attention_heads
    count, bands = 0, arch.bands
    for channels in arch.stem_channels:
        count += bands * channels * 9 + channels
        bands = channels
    kernel = 1 if arch.stem_channels else arch.patch_size
    if mixed := arch.band_attention_heads:
        count += mixed * (kernel**2 * (1 + d) + bands * (1 + d)) + d
    else:
        count += bands * kernel**2 * d + arch.patch_groups * d
    count += (int(arch.class_token) + arch.register_tokens) * d + arch.position_tokens * d
    into_hidden = 1 if arch.ffn == "mlp" else 2
    for (head_dim, h), blocks in Counter(arch.inner_sizes).items():
        a = heads * head_dim
        block = 4 * d + d * 3 * a + (3 * a if arch.qkv_bias else 0) + a * d + d
        block += into_hidden * (d * h + h) + h * d + d
        block += 2 * d if arch.layer_scale else 0
        count += blocks * block
    return count + (4 if arch.pre_norm else 2) * d


def _convnext_parameters(arch: ConvNextArchitecture) -> int:
    before = (0, *arch.dims)
    first, bands = arch.dims[0], arch.bands
    count = 3 * first
    if arch.conv_before_stem:
        count += bands * BEFORE_STEM**2 * first + 3 * first
        bands = 1
    count += bands * arch.stem_stride**2 * first
    for stage, (d, sizes) in enumerate(zip(arch.dims, arch.stage_sizes, strict=True)):
        count += 2 * before[stage] + 4 * before[stage] * d + d if stage else 0
        count += sum(KERNEL**2 * d + d + 2 * d + 2 * d * h + 3 * h + d for h in sizes)
    return count + 2 * arch.dim


@lru_cache(_REMEMBERED)
def ops(
    arch: AnyArchitecture, classes: int = 0, batch: int = 1, value_bytes: int = 4, *, fused_attention: bool = False
) -> tuple[Op, ...]:
    """Every matrix product of one forward pass of `batch` tiles, in order of execution.

    The two products of attention are one op each; q, k and v are one product, as the runtimes run them. With
    `fused_attention` the scores between the two never reach the memory (Dao et al., arXiv 2205.14135).
    """
    if isinstance(arch, Architecture):
        return tuple(_vit_ops(arch, classes, batch, value_bytes, fused_attention))
    return tuple(_convnext_ops(arch, classes, batch, value_bytes))


@lru_cache(_REMEMBERED)
def merged_ops(
    arch: AnyArchitecture, classes: int = 0, batch: int = 1, value_bytes: int = 4, *, fused_attention: bool = False
) -> tuple[tuple[Op, ...], int]:
    """The same, those alike as one with the sums of their FLOP and bytes; and how many there are.

    On a roofline they take as long together as one after the other: what bounds one of them bounds all.
    """
    every = ops(arch, classes, batch, value_bytes, fused_attention=fused_attention)
    alike = Counter((op.op_class, op.flop, op.moved_bytes) for op in every)
    merged = (Op(kind, kind, flops * n, moved * n) for (kind, flops, moved), n in alike.items())
    return tuple(merged), len(every)


def flop(arch: AnyArchitecture, classes: int = 0, batch: int = 1) -> int:
    """FLOP of one forward pass of `batch` tiles; 1 MAC = 2 FLOP."""
    return sum(op.flop for op in ops(arch, classes, batch))


@lru_cache(_REMEMBERED)
def footprint(
    arch: AnyArchitecture, classes: int = 0, batch: int = 1, value_bytes: int = 4, scores_held: int = 2
) -> Footprint:
    """Peak memory of one forward pass of `batch` tiles, where a runtime holds attention's scores so many times.

    Activations: the largest live set of the network's phases (each stem convolution, attention, feed-forward network),
    where a runtime that fuses nothing keeps the input of an elementwise step beside its output.
    """
    tile_values = arch.bands * arch.tile_px**2
    phases = _vit_phases(arch, scores_held) if isinstance(arch, Architecture) else _convnext_phases(arch)
    return Footprint(
        weights_bytes=(parameters(arch, classes) + constants(arch)) * value_bytes,
        activations_bytes=max(phases) * batch * value_bytes,
        # Tiles and logits cross the border as float32 whatever the precision inside; one more copy is being read.
        buffers_bytes=(2 * tile_values + max(classes, arch.dim)) * batch * 4,
    )


def _vit_phases(arch: Architecture, scores_held: int) -> list[int]:
    """Values alive in each phase; of blocks that differ in the widest attention and feed-forward network."""
    d, a, h, n = arch.dim, arch.attention_dim, arch.ffn_hidden, arch.tokens
    scores = arch.attention_heads * n * n
    phases = [n * d * 3]
    side, values_in = arch.tile_px, arch.bands * arch.tile_px**2
    for channels in arch.stem_channels:
        side = (side + 1) // 2
        values_out = channels * side**2
        phases.append(values_in + 2 * values_out)
        values_in = values_out
    if mixed := arch.band_attention_heads:
        # The tile beside its patches, scores before and after softmax, then the mixed patches.
        weights, values_out = arch.patches * mixed * arch.bands, mixed * arch.tile_px**2
        phases += [2 * values_in, values_in + 2 * weights, values_in + weights + values_out]
        values_in = weights + values_out
    # Of groups of bands, the tile, the bands of one as its convolution takes them, and tokens as made and as joined.
    picked = max(map(len, arch.band_groups), default=0) * arch.tile_px**2
    phases.append(values_in + picked + 2 * n * d)
    # Residual, normalised input, q k v as computed and as laid out per head, then scores before and after softmax.
    # Where q and k are turned, they are held as they are and with their pairs exchanged, too.
    phases.append(2 * n * d + (10 if arch.rope_dim else 6) * n * a)
    phases.append(n * d + 3 * n * a + scores_held * scores)
    phases.append(2 * n * d + (3 if arch.ffn == "mlp" else 4) * n * h)
    return phases


def _convnext_phases(arch: ConvNextArchitecture) -> list[int]:
    """Values alive in each phase; of blocks that differ in the widest of the stage."""
    values_in, phases = arch.bands * arch.tile_px**2, []
    if arch.conv_before_stem:
        values = arch.dims[0] * arch.side_before_stem**2
        phases += [values_in + values, 3 * values]
        values_in = values
    for stage, (side, d, h) in enumerate(zip(arch.sides, arch.dims, arch.hidden, strict=True)):
        values, hidden = d * side**2, h * side**2
        # The stem's convolution and norm come one after the other; a downsampling's norm keeps its input beside it.
        phases += [values_in + values, 2 * (values_in if stage else values)]
        phases += [3 * values, 2 * values + hidden, values + 3 * hidden]
        values_in = values
    return phases


_BATCH_BYTES = {8: 2 << 20, 4: 2 << 20, 2: 8 << 20}
"""Tiles a batch -> largest activations. Beyond the processor's second cache a larger batch is slower; a second tile
makes up for that longest, because it halves how often the weights are fetched."""
_CUT_BYTES = 1 << 20
"""Tiles cut out of a chunk at once. A network between two cuts leaves nothing of them in the processor's caches."""


def default_batch(arch: AnyArchitecture) -> int:
    """Tiles a batch on board: a power of two whose activations stay near the processor."""
    fitting = (b for b, limit in _BATCH_BYTES.items() if footprint(arch, 0, b).activations_bytes <= limit)
    return next(fitting, 1)


def tiles_at_once(batch: int, bands: int, tile_px: int) -> int:
    """Tiles that a worker cuts out of a chunk at once: whole batches."""
    return batch * max(1, _CUT_BYTES // (batch * bands * tile_px**2 * 4))


def _product(
    name: str, op_class: str, count: int, rows: int, inner: int, columns: int, beside: int = 0, *, value_bytes: int
) -> Op:
    """`count` products (rows, inner) x (inner, columns); `beside` values are moved by elementwise neighbours."""
    moved = count * (rows * inner + inner * columns + rows * columns) + beside
    return Op(name, op_class, FLOP_PER_MAC * count * rows * inner * columns, moved * value_bytes)


def _convolution(
    name: str, bands: int, channels: int, kernel: int, side: int, out: int, beside: int, *, batch: int, value_bytes: int
) -> Op:
    """From `bands` maps of `side` to `channels` maps of `out`; `beside` as in `_product`, of one tile."""
    macs = batch * out * out * bands * channels * kernel**2
    moved = batch * (bands * side**2 + channels * out**2 + beside) + bands * channels * kernel**2
    return Op(name, "conv", FLOP_PER_MAC * macs, moved * value_bytes)


def _vit_ops(arch: Architecture, classes: int, batch: int, value_bytes: int, fused_attention: bool) -> Iterator[Op]:
    d, n = arch.dim, arch.tokens
    rows = batch * n
    product = partial(_product, value_bytes=value_bytes)
    convolution = partial(_convolution, batch=batch, value_bytes=value_bytes)

    side, bands = arch.tile_px, arch.bands
    for index, channels in enumerate(arch.stem_channels):
        out = (side + 1) // 2
        yield convolution(f"stem.{index}", bands, channels, 3, side, out, 2 * channels * out**2)
        side, bands = out, channels
    kernel = 1 if arch.stem_channels else arch.patch_size
    out = side // kernel
    if mixed := arch.band_attention_heads:
        places, values = batch * arch.patches, kernel**2
        weights = places * mixed * bands
        # The tile is read and written as patches; softmax reads and writes the scores.
        beside = 2 * places * bands * values + 2 * weights
        yield product("patch_embed.score", "gemm", 1, places * bands, values, mixed, beside)
        yield product("patch_embed.mix", "attention", places, mixed, bands, values)
        yield product("patch_embed.proj", "gemm", 1, places, mixed * values, d)
        yield product("patch_embed.band_shift", "gemm", 1, places, mixed * bands, d, 2 * places * d)
    elif not arch.band_groups:
        yield convolution("patch_embed", bands, d, kernel, side, out, 2 * d * arch.patches)
    for index, group in enumerate(arch.band_groups):
        # A group's bands are copied out of the tile, and its tokens behind those of the groups before it.
        beside = 2 * len(group) * side**2 + 4 * d * out**2
        yield convolution(f"patch_embed.{index}", len(group), d, kernel, side, out, beside)

    heads = batch * arch.attention_heads
    scores = heads * n * n
    # What ALiBi adds is read, and the scores once more, beside the product that wrote them.
    beside_bias = 0 if arch.positions != "alibi" else arch.constant_values + (0 if fused_attention else 2 * scores)
    # Softmax reads and writes the scores, beside the products that write and read them: no more, where all is fused.
    beside_scores, beside_values = (-scores, -scores) if fused_attention else (2 * scores, 0)
    for block, (head_dim, h) in enumerate(arch.inner_sizes):
        a = arch.attention_heads * head_dim
        # Turned, q and k are read twice, as they are and with their pairs exchanged, and written once more; what turns
        # them has the widest block's size.
        beside_turn = arch.constant_values + 8 * rows * a if arch.rope_dim else 0
        yield product(f"blocks.{block}.qkv", "gemm", 1, rows, d, 3 * a, 2 * rows * d + beside_turn)
        yield product(f"blocks.{block}.scores", "attention", heads, n, head_dim, n, beside_scores + beside_bias)
        yield product(f"blocks.{block}.values", "attention", heads, n, n, head_dim, beside_values)
        yield product(f"blocks.{block}.proj", "gemm", 1, rows, a, d, 2 * rows * d)
        yield product(f"blocks.{block}.fc1", "gemm", 1, rows, d, h, 2 * rows * (d + h))
        if arch.ffn == "swiglu":
            yield product(f"blocks.{block}.fc3", "gemm", 1, rows, d, h, 2 * rows * h)
        yield product(f"blocks.{block}.fc2", "gemm", 1, rows, h, d, 2 * rows * d)
    if classes:
        yield product("head", "gemm", 1, batch, d, classes, 3 * rows * d)


def _convnext_ops(arch: ConvNextArchitecture, classes: int, batch: int, value_bytes: int) -> Iterator[Op]:
    product = partial(_product, value_bytes=value_bytes)
    convolution = partial(_convolution, batch=batch, value_bytes=value_bytes)
    first, side = arch.dims[0], arch.sides[0]
    kernel, before, normed = arch.stem_stride, arch.side_before_stem, 2 * first * side**2
    if arch.conv_before_stem:
        # Norm and GELU read and write the map.
        beside = 4 * first * before**2
        yield convolution("initial_conv", arch.bands, first, BEFORE_STEM, arch.tile_px, before, beside)
        macs, moved = batch * first * side**2 * kernel**2, batch * (first * before**2 + first * side**2 + normed)
        yield Op("stem", "conv", FLOP_PER_MAC * macs, (moved + first * kernel**2) * value_bytes)
    else:
        yield convolution("stem", arch.bands, first, kernel, arch.tile_px, side, normed)
    for stage, (side, d, sizes) in enumerate(zip(arch.sides, arch.dims, arch.stage_sizes, strict=True)):
        if stage:
            before, side_before = arch.dims[stage - 1], arch.sides[stage - 1]
            normed = 2 * before * side_before**2
            yield convolution(f"stages.{stage}.downsample", before, d, 2, side_before, side, normed)
        rows = batch * side**2
        for block, h in enumerate(sizes):
            name = f"stages.{stage}.blocks.{block}"
            # Depthwise: each channel is a map of its own, with its own kernel.
            macs, moved = rows * d * KERNEL**2, 4 * rows * d + d * KERNEL**2
            yield Op(f"{name}.conv_dw", "conv", FLOP_PER_MAC * macs, moved * value_bytes)
            # GELU reads and writes the hidden channels; GRN reads them for their norm, then again, and writes them.
            yield product(f"{name}.fc1", "gemm", 1, rows, d, h, 5 * rows * h)
            yield product(f"{name}.fc2", "gemm", 1, rows, h, d, 2 * rows * d)
    if classes:
        yield product("head", "gemm", 1, batch, arch.dim, classes, rows * arch.dim)
