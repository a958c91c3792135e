"""The closed forms against the canonical module: its own parameters, and a count of the products that it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgeslim import cost, size
from edgeslim.architecture import Architecture
from edgeslim.ground import vit
from tests.ground.counter import ProductCounter, count_flop

PLAIN = Architecture(depth=2, dim=48, attention_heads=3, head_dim=16, ffn_hidden=96, patch_size=8, tile_px=32, bands=3)
STEM = replace(PLAIN, class_token=False, pool="mean", stem_channels=(8, 16, 24), tile_px=64)
ARCHITECTURES = {
    "plain": PLAIN,
    "stem": STEM,
    "swiglu with registers and layer scale": replace(PLAIN, ffn="swiglu", register_tokens=4, layer_scale=True),
    "patches that begin before the tile, mean before the norm": replace(PLAIN, patch_padding=1, pool="mean-then-norm"),
    "CROMA": replace(PLAIN, class_token=False, pool="mean", positions="alibi", qkv_bias=False),
    "DINOv3": replace(PLAIN, register_tokens=4, layer_scale=True, positions="rope", rope_dim=16),
    "CLIP": replace(PLAIN, pre_norm=True, activation="quick-gelu"),
    "SatMAE": replace(PLAIN, bands=10, band_groups=((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))),
    "SpectralGPT": replace(
        PLAIN, bands=6, band_groups=((0, 1, 2), (3, 4, 5)), class_token=False, pool="mean-of-rest-then-norm"
    ),
    "Panopticon": replace(PLAIN, bands=5, band_attention_heads=4, layer_scale=True),
    "12 bands, no qkv bias": replace(PLAIN, bands=12, qkv_bias=False),
    "embedded": Architecture(
        depth=5,
        dim=160,
        attention_heads=5,
        head_dim=32,
        ffn_hidden=512,
        patch_size=8,
        tile_px=64,
        bands=3,
        class_token=False,
        pool="mean",
        stem_channels=(16, 32, 64),
    ),
}
WIDTHS = (1.0, 0.75, 0.5, 0.3, 0.01)


def vit_of(dim: int, heads: int, depth: int, **rest: object) -> Architecture:
    values = {"head_dim": dim // heads, "ffn_hidden": 4 * dim, "patch_size": 16, "tile_px": 224, "bands": 3, **rest}
    return Architecture(depth=depth, dim=dim, attention_heads=heads, **values)


PUBLISHED = {
    "ViT-Ti/16": vit_of(192, 3, 12),
    "ViT-S/16": vit_of(384, 6, 12),
    "ViT-B/16": vit_of(768, 12, 12),
    "ViT-L/16": vit_of(1024, 16, 24),
    "ViT-H/14": vit_of(1280, 16, 32, patch_size=14),
    "ViT-L/16, SwiGLU, four registers, LayerScale, 256 px": vit_of(
        1024, 16, 24, ffn="swiglu", ffn_hidden=2730, register_tokens=4, layer_scale=True, tile_px=256
    ),
    "ViT-B/16, 12 bands, mean of the patches": vit_of(768, 12, 12, bands=12, class_token=False, pool="mean"),
    "Panopticon of 13 bands": vit_of(768, 12, 12, patch_size=14, bands=13, layer_scale=True, band_attention_heads=16),
    "ViT-L/8, ten bands, 96 px, LayerScale": vit_of(1024, 16, 24, bands=10, patch_size=8, tile_px=96, layer_scale=True),
    "SatMAE, ViT-L/8": vit_of(
        1024, 16, 24, bands=10, patch_size=8, tile_px=96, band_groups=((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
    ),
    "SpectralGPT+, ViT-B/8": vit_of(
        768,
        12,
        12,
        bands=12,
        patch_size=8,
        tile_px=128,
        class_token=False,
        pool="mean-of-rest-then-norm",
        band_groups=((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)),
    ),
    "four parallel branches, 605 M": vit_of(
        1024, 64, 12, head_dim=64, ffn_hidden=4 * 4096, branches=4, class_token=False, pool="mean"
    ),
}
"""Shapes that encoders of the field have."""


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_and_flop_equal_the_modules(name: str, width: float) -> None:
    arch = ARCHITECTURES[name].at(width)
    encoder = vit.Vit(arch).eval()
    assert cost.parameters(arch) == sum(p.numel() for p in encoder.parameters())
    tiles = torch.zeros(2, arch.bands, arch.tile_px, arch.tile_px)
    assert cost.flop(arch, batch=2) == count_flop(encoder, tiles)
    with_head = nn.Sequential(encoder, nn.Linear(arch.dim, 10))
    assert cost.parameters(arch, 10) == sum(p.numel() for p in with_head.parameters())
    assert cost.flop(arch, 10, batch=2) == count_flop(with_head, tiles)


@pytest.mark.parametrize("name", ["CROMA", "DINOv3"])
@pytest.mark.parametrize("width", WIDTHS)
def test_what_says_the_places_is_held_beside_the_parameters(name: str, width: float) -> None:
    arch = ARCHITECTURES[name].at(width)
    encoder = vit.Vit(arch)
    assert encoder.places is not None
    assert cost.constants(arch) == encoder.places.numel()
    plain = replace(arch, positions="absolute", rope_dim=0)
    assert cost.constants(plain) == 0
    added = cost.constants(arch) - plain.position_tokens * arch.dim
    assert (cost.footprint(arch).weights_bytes - cost.footprint(plain).weights_bytes) == 4 * added
    assert size.weights_bytes(arch, 0, "fp16") - size.weights_bytes(plain, 0, "fp16") == 2 * added
    moved = [sum(op.moved_bytes for op in cost.ops(one)) for one in (plain, arch)]
    assert moved[1] > moved[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_on_the_meta_device(name: str) -> None:
    for width in WIDTHS:
        arch = PUBLISHED[name].at(width)
        with torch.device("meta"):
            module = nn.Sequential(vit.Vit(arch), nn.Linear(arch.dim, 10)).eval()
            tiles = torch.empty(3, arch.bands, arch.tile_px, arch.tile_px)
        assert cost.parameters(arch, 10) == sum(p.numel() for p in module.parameters())
        assert cost.flop(arch, 10, batch=3) == count_flop(module, tiles)


@pytest.mark.parametrize("name", ["ViT-Ti/16", "ViT-S/16"])
def test_what_the_meta_device_counts_the_cpu_runs(name: str) -> None:
    arch = PUBLISHED[name]
    encoder, tiles = vit.Vit(arch).eval(), torch.zeros(1, arch.bands, arch.tile_px, arch.tile_px)
    with torch.no_grad(), ProductCounter() as counter:
        encoder(tiles)
    assert counter.by_operator["_scaled_dot_product_flash_attention_for_cpu"]
    assert cost.flop(arch) == counter.flop


@pytest.mark.parametrize("depth", [1, 5, 11])
def test_a_depth_cut_on_the_meta_device(depth: int) -> None:
    arch = PUBLISHED["ViT-B/16"].at(0.25, depth)
    with torch.device("meta"):
        encoder, tiles = vit.Vit(arch).eval(), torch.empty(1, arch.bands, arch.tile_px, arch.tile_px)
    assert cost.parameters(arch) == sum(p.numel() for p in encoder.parameters())
    assert cost.flop(arch) == count_flop(encoder, tiles)


def test_slicing_on_the_fly_runs_the_products_of_the_slimmed_encoder() -> None:
    encoder, tiles = vit.Vit(PLAIN).eval(), torch.zeros(2, PLAIN.bands, PLAIN.tile_px, PLAIN.tile_px)
    for width in WIDTHS:
        with torch.no_grad(), ProductCounter() as counter:
            encoder(tiles, width)
        assert counter.flop == cost.flop(PLAIN.at(width), batch=2)


def test_groups_of_bands_multiply_tokens_and_not_the_embedding() -> None:
    arch = PUBLISHED["SatMAE, ViT-L/8"]
    together = replace(arch, band_groups=())
    assert (arch.tokens, together.tokens) == (1 + 3 * 144, 1 + 144)
    groups, one = ({op.name: op for op in cost.ops(each)} for each in (arch, together))
    embedding = [op.flop for name, op in groups.items() if name.startswith("patch_embed.")]
    assert len(embedding) == 3
    assert sum(embedding) == one["patch_embed"].flop
    assert groups["blocks.0.fc1"].flop * together.tokens == one["blocks.0.fc1"].flop * arch.tokens
    assert groups["blocks.0.scores"].flop * together.tokens**2 == one["blocks.0.scores"].flop * arch.tokens**2
    # Scores before and after the softmax are the largest thing that is held.
    assert cost.footprint(arch).activations_bytes > 4 * 2 * arch.attention_heads * arch.tokens**2
    # What is added is a bias and positions a group.
    assert cost.parameters(arch) - cost.parameters(together) == 2 * (arch.dim + 144 * arch.dim)
    tiles = arch.bands * arch.tile_px**2
    moved = sum(op.moved_bytes for name, op in groups.items() if name.startswith("patch_embed.")) / 4
    # Besides what one convolution moves: the bands copied, and tokens of two more groups; joined, and placed.
    assert moved == one["patch_embed"].moved_bytes / 4 + 2 * tiles + (2 * 3 + 3 * 2) * 144 * arch.dim


def test_the_published_size_of_four_parallel_branches() -> None:
    """605.26 M of arXiv 2304.05215 has a bias in each branch's output projections, and positions that are fixed."""
    arch = PUBLISHED["four parallel branches, 605 M"]
    biases = arch.depth * (arch.branches - 1) * 2 * arch.dim
    assert cost.parameters(arch) + biases - arch.patches * arch.dim == 605_260_800
    once = vit_of(768, 12, 12, class_token=False, pool="mean")
    assert round((cost.parameters(once) - once.patches * once.dim) / 1e6) == 86
