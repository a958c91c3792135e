from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.architecture import LATER, Architecture, inner_size
from edgeslim.errors import InputError

TINY = Architecture(depth=2, dim=32, attention_heads=2, head_dim=16, ffn_hidden=64, patch_size=8, tile_px=32, bands=3)


@given(full=st.integers(1, 5000), kept=st.data())
def test_inner_size_at_j_of_n_is_j(full: int, kept: st.DataObject) -> None:
    j = kept.draw(st.integers(1, full))
    assert inner_size(full, j / full) == j


def test_inner_size_never_falls_below_one() -> None:
    assert inner_size(64, 0.001) == 1
    assert inner_size(80, 0.7) == 56


def test_slimming_cuts_only_the_inner_sizes() -> None:
    assert TINY.at(0.5) == replace(TINY, head_dim=8, ffn_hidden=32)
    assert TINY.at(1.0) == TINY


def test_each_of_parallel_branches_keeps_the_same_units() -> None:
    fused = replace(TINY, branches=2, ffn_hidden=2 * 33)
    assert fused.at(0.5) == replace(fused, head_dim=8, ffn_hidden=2 * 16)
    assert fused.at(0.001).ffn_hidden == 2


def test_a_card_of_before_has_one_branch() -> None:
    data = TINY.to_dict()
    del data["branches"]
    assert Architecture.from_dict(data) == TINY


@pytest.mark.parametrize("width", [0, -0.5, 1.01])
def test_a_width_outside_its_range_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="expected 0 < w <= 1"):
        TINY.at(width)


def test_a_depth_keeps_the_first_blocks() -> None:
    assert TINY.at(0.5, 1) == replace(TINY, depth=1, head_dim=8, ffn_hidden=32)
    assert TINY.at(1.0, 2) == TINY.at(1.0) == TINY


@pytest.mark.parametrize("depth", [0, -1, 3])
def test_a_depth_that_the_encoder_has_not_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match="expected 1 to the encoder's 2 blocks"):
        TINY.at(1.0, depth)


def test_width_steps_are_each_kept_head_dim() -> None:
    assert [TINY.at(w).head_dim for w in TINY.width_steps()] == list(range(1, 17))


def test_heads_with_pairs_are_cut_by_fours() -> None:
    turned = replace(TINY, positions="rope", rope_dim=16)
    assert [turned.at(w).head_dim for w in turned.width_steps()] == [4, 8, 12, 16]
    assert [turned.at(w).head_dim for w in (0.001, 0.49, 0.5, 0.99)] == [4, 4, 8, 12]
    assert turned.at(0.5).at(0.5) == turned.at(0.25) == replace(turned, head_dim=4, ffn_hidden=16)
    assert turned.position_tokens == 0


def test_tokens_count_class_and_registers() -> None:
    assert TINY.tokens == 17
    assert replace(TINY, register_tokens=4).tokens == 21
    assert replace(TINY, class_token=False, pool="mean").tokens == TINY.patches == 16


def test_dictionary_round_trip() -> None:
    stem = replace(TINY, stem_channels=(8, 16, 32))
    assert Architecture.from_dict(stem.to_dict()) == stem


def test_groups_of_bands_are_patches_each() -> None:
    grouped = replace(TINY, band_groups=((0, 2), (1,)))
    assert (grouped.patches, grouped.tokens, grouped.position_tokens) == (32, 33, 33)
    assert grouped.at(0.5) == replace(grouped, head_dim=8, ffn_hidden=32)
    assert grouped.to_dict()["band_groups"] == [[0, 2], [1]]
    assert Architecture.from_dict(grouped.to_dict()) == grouped


def test_a_later_field_is_written_only_where_it_says_something() -> None:
    padded = replace(TINY, patch_padding=1, pool="mean-then-norm")
    assert set(LATER).isdisjoint(TINY.to_dict())
    assert padded.to_dict()["patch_padding"] == 1
    assert Architecture.from_dict(padded.to_dict()) == padded
    assert (padded.patches, padded.at(0.5).patch_padding, padded.at(0.5).pool) == (TINY.patches, 1, "mean-then-norm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "architecture.depth: found 0"),
        ({"positions": "rotary"}, "positions: found 'rotary', expected one of absolute, alibi, rope"),
        ({"positions": "rope"}, "rope_dim: found 0, expected that of positions 'rope'"),
        ({"rope_dim": 16}, "rope_dim: found 16, expected that of positions 'rope', or 0"),
        ({"positions": "rope", "rope_dim": 12}, "head_dim: found 16 of rope_dim 12, expected multiples of 4"),
        ({"positions": "rope", "rope_dim": 16, "head_dim": 6}, "head_dim: found 6 of rope_dim 16"),
        ({"positions": "alibi"}, "positions: found 'alibi' with tokens that have no place"),
        ({"activation": "relu"}, "activation: found 'relu', expected one of gelu, quick-gelu"),
        ({"activation": "quick-gelu", "ffn": "swiglu"}, "activation: found 'quick-gelu', expected .* of an mlp"),
        ({"patch_padding": 4}, "patch_padding: found 4, expected less than half of patch_size 8"),
        ({"patch_padding": -1}, "patch_padding: found -1"),
        ({"stem_channels": [8, 16, 32], "patch_padding": 1}, "and 0 with a stem"),
        ({"band_attention_heads": -1}, "band_attention_heads: found -1, expected 0 to 4096"),
        ({"band_attention_heads": 2, "patch_padding": 1}, "found 2, .* and 0 with a stem or patch_padding"),
        ({"dim": 3.5}, "architecture: dim: found 3.5"),
        ({"ffn": "conv"}, "architecture.ffn: found 'conv'"),
        ({"pool": "max"}, "architecture.pool: found 'max'"),
        ({"class_token": False}, "without a class token"),
        ({"tile_px": 33}, "expected a multiple of patch_size 8"),
        ({"stem_channels": [8]}, "expected patch_size 8 = 2"),
        (
            {"band_groups": [[0, 1], [3]]},
            r"band_groups: found \(\(0, 1\), \(3,\)\), expected .* each of the 3 bands \(",
        ),
        ({"band_groups": [[0, 1], [1, 2]]}, "band_groups: found .* in one of them"),
        ({"band_groups": [[0, 1, 2]]}, "band_groups: found .* expected two groups or more"),
        ({"band_groups": [[0, 1, 2], []]}, "band_groups: found .* expected two groups or more"),
        ({"band_groups": [[0], 1]}, "band_groups 2: found 1, expected an array"),
        ({"band_groups": [[0, 1], [2]], "stem_channels": [8, 16, 32]}, "band_groups: found beside a stem"),
        (
            {"band_groups": [[0, 1], [2]], "positions": "rope", "rope_dim": 16},
            "band_groups: found beside a stem, an attention",
        ),
        ({"branches": 0}, "architecture.branches: found 0"),
        ({"branches": 3}, "share out 2 attention_heads and 64 ffn_hidden evenly"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Architecture.from_dict({**TINY.to_dict(), **change})


def test_a_missing_key_is_named() -> None:
    data = TINY.to_dict()
    del data["dim"]
    with pytest.raises(InputError, match="dim"):
        Architecture.from_dict(data, "card.toml")
