"""Slimming against a reference slice written out head by head, and its laws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.places import rotation, turn
from edgeslim.ground.slimming.first import slim_state
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.vit import attend
from tests.ground.conftest import TINY, random_vit

PLAIN = Architecture(
    depth=2,
    dim=20,
    attention_heads=2,
    head_dim=10,
    ffn_hidden=30,
    patch_size=8,
    tile_px=16,
    bands=4,
    register_tokens=2,
    layer_scale=True,
)
PADDED = replace(PLAIN, patch_padding=1, pool="mean-then-norm")
CLIP = replace(PLAIN, pre_norm=True, activation="quick-gelu")
SWIGLU = replace(PLAIN, ffn="swiglu", qkv_bias=False, register_tokens=0, layer_scale=False)
CROMA = replace(PLAIN, class_token=False, register_tokens=0, pool="mean", positions="alibi")
DINOV3 = replace(PLAIN, head_dim=12, positions="rope", rope_dim=12)
SATMAE = replace(PLAIN, band_groups=((0, 3), (1,), (2,)), pool="mean-of-rest-then-norm")
PANOPTICON = replace(PLAIN, band_attention_heads=3)
EVERY = [TINY, PLAIN, SWIGLU, PADDED, CLIP, CROMA, DINOV3, SATMAE, PANOPTICON]


def reference(state: dict[str, torch.Tensor], arch: Architecture, tiles: torch.Tensor, s: float) -> torch.Tensor:
    """The scheme of arXiv 2601.22841 on a plain MLP encoder, one head at a time, in float64."""
    p = {k: v.double() for k, v in state.items()}
    dk, dh = max(1, math.floor(s * arch.head_dim)), max(1, math.floor(s * arch.ffn_hidden))
    x = torch.nn.functional.conv2d(
        tiles.double(), p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=arch.patch_size
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + p["pos_embed"]
    x = torch.cat([x[:, :1], p["reg_token"].expand(len(x), -1, -1), x[:, 1:]], 1)
    norm = torch.nn.functional.layer_norm
    for i in range(arch.depth):
        b = f"blocks.{i}."
        h = norm(x, (arch.dim,), p[b + "norm1.weight"], p[b + "norm1.bias"], 1e-6)
        y = p[b + "attn.proj.bias"].clone().expand(*x.shape)
        for head in range(arch.attention_heads):
            rows = [
                slice(
                    part * arch.attention_dim + head * arch.head_dim,
                    part * arch.attention_dim + head * arch.head_dim + dk,
                )
                for part in range(3)
            ]
            q, k, v = (h @ p[b + "attn.qkv.weight"][r].T + p[b + "attn.qkv.bias"][r] for r in rows)
            attention = (q @ k.transpose(1, 2) / math.sqrt(dk)).softmax(-1)
            columns = slice(head * arch.head_dim, head * arch.head_dim + dk)
            y = y + attention @ v @ p[b + "attn.proj.weight"][:, columns].T
        x = x + y * p[b + "ls1.gamma"]
        h = norm(x, (arch.dim,), p[b + "norm2.weight"], p[b + "norm2.bias"], 1e-6)
        h = torch.nn.functional.gelu(h @ p[b + "mlp.fc1.weight"][:dh].T + p[b + "mlp.fc1.bias"][:dh])
        x = x + (h @ p[b + "mlp.fc2.weight"][:, :dh].T + p[b + "mlp.fc2.bias"]) * p[b + "ls2.gamma"]
    return norm(x, (arch.dim,), p["norm.weight"], p["norm.bias"], 1e-6)[:, 0]


@pytest.mark.parametrize("s", [1.0, 0.7, 0.5, 0.3, 0.1])
def test_features_equal_the_written_out_scheme(s: float) -> None:
    encoder = random_vit(PLAIN)
    tiles = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = slim(encoder, s)(tiles)
    torch.testing.assert_close(found.double(), reference(encoder.state_dict(), PLAIN, tiles, s), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arch", EVERY, ids=["stem", "registers", "swiglu", "padded", "clip", "croma", "dinov3", "satmae", "panopticon"]
)
def test_width_one_is_bit_exact(arch: Architecture) -> None:
    encoder = random_vit(arch)
    tiles = torch.randn(2, arch.bands, 16, 16, generator=torch.Generator().manual_seed(2))
    whole = slim(encoder, 1.0)
    assert all(
        torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), whole.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        assert torch.equal(encoder(tiles), whole(tiles))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), st.floats(0.001, 1.0))
def test_parameters_and_slices_at_any_width(arch: Architecture, s: float) -> None:
    encoder = random_vit(arch)
    slimmed = slim(encoder, s)
    assert sum(p.numel() for p in slimmed.parameters()) == cost.parameters(arch.at(s))
    tiles = torch.randn(2, arch.bands, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        # What training slices on the fly and what slimming cuts off are the same function, bit for bit.
        assert torch.equal(encoder(tiles, s), slimmed(tiles))


def test_narrower_state_is_a_slice_of_a_wider_one() -> None:
    state = random_vit(TINY).state_dict()
    once = slim_state(state, TINY, 0.25)
    twice = slim_state(slim_state(state, TINY, 0.5), TINY.at(0.5), 0.5)
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("s", [0.0, -0.5, 1.01, float("nan")])
def test_a_width_out_of_range_is_refused(s: float) -> None:
    with pytest.raises(InputError, match="expected 0 < w <= 1"):
        slim_state(random_vit(TINY).state_dict(), TINY, s)


def test_a_depth_keeps_the_first_blocks_and_the_last_norm() -> None:
    encoder = random_vit(PLAIN)
    tiles = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    short = slim(encoder, 0.5, depth=1)
    assert sum(p.numel() for p in short.parameters()) == cost.parameters(PLAIN.at(0.5, 1))
    narrow = PLAIN.at(0.5)
    with torch.no_grad():
        x = encoder.blocks[0](encoder.embed(tiles), narrow.head_dim, narrow.ffn_hidden)
        assert torch.equal(short(tiles), encoder.pool(encoder.norm(x)))


def test_a_mean_before_the_norm_is_a_mean_of_the_patches_and_then_the_norm() -> None:
    encoder = random_vit(PADDED)
    tiles = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        x = encoder.embed(tiles)
        for block in encoder.blocks:
            x = block(x)
        assert torch.equal(encoder(tiles), encoder.norm(x[:, 1 + PADDED.register_tokens :].mean(1)))


def test_patches_that_begin_before_the_tile_see_zeros_there() -> None:
    encoder = random_vit(PADDED)
    tiles = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    shifted = torch.zeros_like(tiles)
    shifted[:, :, 1:, 1:] = tiles[:, :, :-1, :-1]
    plain = random_vit(replace(PADDED, patch_padding=0))
    plain.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(encoder.embed(tiles), plain.embed(shifted))


def test_alibi_takes_the_distance_from_the_scores() -> None:
    bias = random_vit(CROMA).places
    assert bias is not None
    # Two heads, 2 x 2 patches: patch 0 and 3 are a diagonal apart, and head 2 is a sixteenth as steep as head 1.
    assert bias[0, :, 0, 3].tolist() == pytest.approx([-math.sqrt(2) / 16, -math.sqrt(2) / 256])
    assert bias[0, 0, 0].tolist() == pytest.approx([0, -1 / 16, -1 / 16, -math.sqrt(2) / 16])
    q, k, v = torch.randn(3, 1, 2, 4, 5, generator=torch.Generator().manual_seed(1)).unbind(0)
    with torch.no_grad():
        fused = attend(q, k, v, bias)
    torch.testing.assert_close(fused, attend(q.requires_grad_(), k, v, bias).detach())
    assert not torch.allclose(fused, attend(q, k, v))


@pytest.mark.parametrize("kept", [4, 8, 12])
def test_turned_products_say_how_far_two_patches_are_apart(kept: int) -> None:
    arch = replace(DINOV3, tile_px=32, patch_size=4, head_dim=kept)
    cosines, sines = rotation(arch).unbind(0)
    assert torch.equal(cosines[:3], torch.ones(3, kept))
    q, k = torch.randn(2, 1, kept, generator=torch.Generator().manual_seed(1)).unbind(0)
    turned = [turn(x.expand(arch.tokens, kept), cosines, sines)[3:].view(8, 8, kept) for x in (q, k)]
    # The same step between two patches, the same product, wherever they are; and each pair keeps its length.
    product = (turned[0][2, 3] * turned[1][4, 6]).sum()
    torch.testing.assert_close(product, (turned[0][5, 1] * turned[1][7, 4]).sum(), rtol=1e-4, atol=1e-5)
    assert abs(float(product - (turned[0][2, 3] * turned[1][6, 4]).sum())) > 1e-3
    torch.testing.assert_close(turned[0].square().sum(-1), q.square().sum().expand(8, 8))
    # A slimmed encoder turns by the first of the whole one's angles.
    assert torch.equal(rotation(replace(arch, head_dim=12))[..., :kept], rotation(arch))
