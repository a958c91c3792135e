"""Laws of calibration, on tiny encoders of random weights and on the real one that ships."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.flight import normalised, profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.ground.slimming import calibrated, refitted
from edgeslim.ground.slimming.calibrated import _Walk, calibrate
from edgeslim.ground.slimming.calibration import Calibration, tiles_needed
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.slimming.taken import neighbours_kept
from edgeslim.ground.vit import Vit
from edgeslim.profile import take_profile
from tests.ground.checkpoints.test_branches import FUSED
from tests.ground.checkpoints.test_branches import SWIGLU as FUSED_SWIGLU
from tests.ground.conftest import TINY, random_vit
from tests.ground.counter import count_flop
from tests.ground.slimming.test_slim import DINOV3, PANOPTICON, PLAIN, SATMAE, SWIGLU

ALIBI = replace(
    PLAIN, class_token=False, register_tokens=0, positions="alibi", activation="quick-gelu", pool="mean-then-norm"
)
SHAPES = {
    "stem": TINY,
    "registers": PLAIN,
    "swiglu": SWIGLU,
    "branches": FUSED,
    "gated branches": FUSED_SWIGLU,
    "alibi": ALIBI,
    "rope": DINOV3,
    "groups of bands": SATMAE,
    "attention over bands": PANOPTICON,
}
TRUNCATED = {name: arch for name, arch in SHAPES.items() if arch.positions != "rope"}
"""Whose q and k may be in any basis."""


def tiles_for(arch: Architecture, seed: int = 3, count: int | None = None) -> Tensor:
    shape = (count or tiles_needed(arch), arch.bands, arch.tile_px, arch.tile_px)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(encoder: Vit, tiles: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoder(tiles)
    return found


def error(encoder: Vit, slimmed: Vit, tiles: Tensor) -> float:
    """Mean square error of the features, as a share of their variance."""
    expected = features(encoder, tiles)
    return float((features(slimmed, tiles) - expected).square().sum() / (expected - expected.mean(0)).square().sum())


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES.keys())
def test_width_one_reproduces_the_features(arch: Architecture) -> None:
    encoder = random_vit(arch)
    whole = slim(encoder, 1.0, method="calibrated", calibration=Calibration(tiles_for(arch)))
    torch.testing.assert_close(
        features(whole, tiles_for(arch, 4)), features(encoder, tiles_for(arch, 4)), rtol=0, atol=1e-5
    )


def test_pairs_of_rotary_positions_stay_pairs() -> None:
    """q and k keep their first dimensions, and their products their size; values and units are refitted."""
    encoder, rows = random_vit(DINOV3), 2 * DINOV3.attention_heads * 4
    tiles = tiles_for(DINOV3)
    first = slim(encoder, 1 / 3)
    with torch.no_grad():
        walked = _Walk(encoder, first.arch, Calibration(tiles))
        walked.run()
    for way in walked.ways:
        for block, plain in zip(way.encoder.blocks, first.blocks, strict=True):
            for found, expected in zip(block.attn.qkv.parameters(), plain.attn.qkv.parameters(), strict=True):
                queries = 1.0 if way.mend is None else (4 / DINOV3.head_dim) ** 0.5
                torch.testing.assert_close(found[: rows // 2], expected[: rows // 2] * queries)
                torch.testing.assert_close(found[rows // 2 : rows], expected[rows // 2 : rows])
            assert (way.mend is None) == torch.equal(block.attn.qkv.weight[rows:], plain.attn.qkv.weight[rows:])
    assert min(error(encoder, way.encoder, tiles) for way in walked.ways) < error(encoder, first, tiles)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(list(SHAPES.values())), st.floats(0.001, 0.99))
def test_the_shape_is_that_of_first(arch: Architecture, width: float) -> None:
    tiles = tiles_for(arch)
    made = slim(random_vit(arch), width, method="calibrated", calibration=Calibration(tiles))
    assert made.arch == arch.at(width)
    assert sum(value.numel() for value in made.parameters()) == cost.parameters(arch.at(width))
    assert count_flop(made, tiles[:1]) == cost.flop(arch.at(width))
    assert features(made, tiles).isfinite().all()
    # What no width cuts is as it was.
    before, after = random_vit(arch).state_dict(), made.state_dict()
    kept = [key for key in after if "attn" not in key and "mlp" not in key]
    assert all(torch.equal(before[key], after[key]) for key in kept)


def test_a_seed_decides_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refitted, "PATCHES", 8)  # so that tokens are drawn, too
    encoder, tiles = random_vit(TINY), tiles_for(TINY, count=60)
    made = [calibrate(encoder, TINY.at(0.5), Calibration(tiles, seed)).encoder.state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(value, made[1][key]) for key, value in made[0].items())
    assert any(not torch.equal(value, made[2][key]) for key, value in made[0].items())


@pytest.mark.parametrize("arch", TRUNCATED.values(), ids=TRUNCATED.keys())
def test_heads_of_low_rank_are_recovered_exactly(arch: Architecture) -> None:
    """q, k and v of each head live in half of its dimensions, mixed: half as many dimensions lose nothing."""
    encoder = random_vit(arch)
    size, half = arch.head_dim, arch.head_dim // 2
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for block in encoder.blocks:
            for value in block.attn.qkv.parameters():
                parts = value.view(3 * arch.attention_heads, size, -1)
                mixing = torch.randn(len(parts), size, half, generator=generator) / half**0.5
                parts.copy_(mixing @ parts[:, :half])
    narrow = replace(arch, head_dim=half)
    made = calibrate(encoder, narrow, Calibration(tiles_for(arch))).encoder
    assert error(encoder, made, tiles_for(arch, 4)) < 1e-5
    fewer = calibrate(encoder, replace(arch, head_dim=max(1, half // 2)), Calibration(tiles_for(arch))).encoder
    assert error(encoder, fewer, tiles_for(arch, 4)) > 1e-3


def test_rotary_pairs_stay_pairs() -> None:
    """q and k live in their first two pairs, v in four directions, mixed: four dimensions lose nothing."""
    encoder, kept = random_vit(DINOV3), 4
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for block in encoder.blocks:
            for value in block.attn.qkv.parameters():
                parts = value.view(3, DINOV3.attention_heads, DINOV3.head_dim, -1)
                parts[:2, :, kept:] = 0
                mixing = torch.randn(DINOV3.attention_heads, DINOV3.head_dim, kept, generator=generator)
                parts[2].copy_(mixing @ parts[2, :, :kept])
    made = calibrate(encoder, replace(DINOV3, head_dim=kept), Calibration(tiles_for(DINOV3))).encoder
    assert error(encoder, made, tiles_for(DINOV3, 4)) < 1e-5


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES.keys())
def test_units_that_repeat_each_other_are_halved_without_loss(arch: Architecture) -> None:
    encoder = random_vit(arch)
    half = arch.ffn_hidden // 2
    with torch.no_grad():
        for block in encoder.blocks:
            for name in ("fc1", "fc3") if arch.ffn == "swiglu" else ("fc1",):
                for value in getattr(block.mlp, name).parameters():
                    # Unit j and the one half of a branch on are the same, and stand side by side in no branch.
                    each = value.view(-1, arch.branches, *value.shape[1:])
                    each[len(each) // 2 :] = each[: len(each) // 2]
    made = calibrate(encoder, replace(arch, ffn_hidden=half), Calibration(tiles_for(arch))).encoder
    assert error(encoder, made, tiles_for(arch, 4)) < 1e-5
    first = slim(encoder, 0.5)
    assert error(encoder, first, tiles_for(arch, 4)) > 1e-3


def test_each_branch_keeps_its_share_of_hidden_units() -> None:
    encoder = random_vit(FUSED)
    made = calibrate(encoder, FUSED.at(0.5), Calibration(tiles_for(FUSED))).encoder
    for before, after in zip(encoder.blocks, made.blocks, strict=True):
        for place, row in enumerate(after.mlp.fc1.weight):
            (unit,) = (before.mlp.fc1.weight == row).all(1).nonzero().flatten().tolist()
            assert unit % FUSED.branches == place % FUSED.branches


def test_a_depth_is_cut_besides() -> None:
    encoder = random_vit(PLAIN)
    made = slim(encoder, 0.5, depth=1, method="calibrated", calibration=Calibration(tiles_for(PLAIN)))
    assert made.arch == PLAIN.at(0.5, 1)
    short = slim(encoder, 1.0, depth=1)
    tiles = tiles_for(PLAIN, 4)
    assert error(short, made, tiles) < error(short, slim(encoder, 0.5, depth=1), tiles)


def test_neighbours_kept_counts_those_in_common() -> None:
    line = torch.arange(1.0, 41.0)[:, None].square()
    assert neighbours_kept(line, 3 * line + 1) == 1
    assert neighbours_kept(line, torch.randn(40, 5, generator=torch.Generator().manual_seed(0))) < 0.3
    swapped = torch.cat([line[1:2], line[:1], line[2:]])  # far from both, nothing changes but their order
    assert 0.8 < neighbours_kept(line, swapped) < 1


def test_what_cannot_calibrate_is_refused() -> None:
    encoder, tiles = random_vit(TINY), tiles_for(TINY)
    needed = tiles_needed(TINY)

    def refusal(some: Tensor) -> str:
        with pytest.raises(InputError) as caught:
            slim(encoder, 0.5, method="calibrated", calibration=Calibration(some))
        return str(caught.value)

    assert f"found {needed - 1}, expected at least {needed}" in refusal(tiles[1:])
    assert "found (2, 16, 16), expected (bands, height, width) (3, 16, 16)" in refusal(tiles[:, :2])
    assert "found (3, 8, 8)" in refusal(tiles[:, :, :8, :8])
    holed = tiles.clone()
    holed[4, 0, 3, 3] = float("nan")
    assert f"1 of {needed} hold NaN or infinity, the first is number 5" in refusal(holed)
    assert f"found 1 that differ among {needed}" in refusal(tiles[:1].expand_as(tiles))
    assert "found no tiles, expected some" in _unusable(encoder, "calibrated", None)
    assert "found tiles, expected none" in _unusable(encoder, "first", Calibration(tiles))
    assert "method: found 'best', expected one of first, calibrated" in _unusable(encoder, "best", None)


def test_an_encoder_that_is_not_finite_is_refused() -> None:
    encoder = random_vit(TINY)
    with torch.no_grad():
        encoder.blocks[1].mlp.fc2.weight[3, 5] = float("nan")
    with pytest.raises(InputError, match=r"calibration: .*(block 2|no solution)"):
        calibrate(encoder, TINY.at(0.5), Calibration(tiles_for(TINY)))


def test_silent_heads_and_units_do_no_harm() -> None:
    encoder = random_vit(PLAIN)
    with torch.no_grad():
        for block in encoder.blocks:
            block.attn.qkv.weight.zero_()
            block.mlp.fc1.weight.zero_()
    made = calibrate(encoder, PLAIN.at(0.5), Calibration(tiles_for(PLAIN))).encoder
    assert error(encoder, made, tiles_for(PLAIN, 4)) < 1e-6


def _unusable(encoder: Vit, method: str, calibration: Calibration | None) -> str:
    with pytest.raises(InputError) as caught:
        slim(encoder, 0.5, method=method, calibration=calibration)
    return str(caught.value)


def test_a_trained_encoder_keeps_more_than_by_first() -> None:
    """The one that ships, but with its inner channels in another order: as one that was never trained to be slimmed."""
    profile = take_profile("eurosat-rgb")
    arch = profile.architecture
    encoder = profile_checkpoint(profile)[0].build()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(arch.ffn_hidden, generator=generator)
    within = torch.randperm(arch.head_dim, generator=generator)
    with torch.no_grad():
        for block in encoder.blocks:
            block.mlp.fc1.weight.copy_(block.mlp.fc1.weight[order])
            block.mlp.fc1.bias.copy_(block.mlp.fc1.bias[order])
            block.mlp.fc2.weight.copy_(block.mlp.fc2.weight[:, order])
            for value in block.attn.qkv.parameters():
                value.copy_(value.view(3 * arch.attention_heads, arch.head_dim, -1)[:, within].reshape(value.shape))
            value = block.attn.proj.weight
            value.copy_(value.view(arch.dim, arch.attention_heads, -1)[:, :, within].flatten(1))
    assert profile.radiometry is not None
    textures = torch.from_numpy(synthetic_tiles(profile, tiles_needed(arch) + 24).tiles)
    tiles = normalised(textures, profile.radiometry)[1:-1]  # without the two hostile ones
    held_out, some = tiles[::4], torch.cat([tiles[1::4], tiles[2::4], tiles[3::4]])
    made = calibrate(encoder, arch.at(0.25), Calibration(some))
    assert made.way != calibrated.FIRST
    first = slim(encoder, 0.25)
    assert error(encoder, made.encoder, held_out) < 0.5 * error(encoder, first, held_out)


def test_an_encoder_that_was_trained_to_be_slimmed_stays_as_it_is() -> None:
    profile = take_profile("eurosat-rgb")
    encoder, arch = profile_checkpoint(profile)[0].build(), profile.architecture
    assert profile.radiometry is not None
    textures = synthetic_tiles(profile, tiles_needed(arch)).tiles
    made = calibrate(encoder, arch.at(1 / 32), Calibration(normalised(torch.from_numpy(textures), profile.radiometry)))
    assert made.way == calibrated.FIRST
    first = slim(encoder, 1 / 32).state_dict()
    assert all(torch.equal(value, first[key]) for key, value in made.encoder.state_dict().items())
