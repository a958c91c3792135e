"""Blocks that differ in their inner sizes: what an Architecture says of them, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim import cost, size
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from tests.test_architecture import TINY

ROPE = replace(TINY, positions="rope", rope_dim=16)
FUSED = replace(TINY, branches=2)
UNEVEN = TINY.sized([(4, 24), (12, 64), (4, 8)])


@st.composite
def uneven(draw: st.DrawFn) -> Architecture:
    """One to four blocks of whatever sizes its kind allows."""
    full = draw(st.sampled_from([TINY, ROPE, FUSED, replace(TINY, ffn="swiglu", layer_scale=True, qkv_bias=False)]))
    heads = st.integers(1, 16 // full.head_step).map(lambda j: j * full.head_step)
    hidden = st.integers(1, 32).map(lambda j: 2 * j)
    return full.sized(draw(st.lists(st.tuples(heads, hidden), min_size=1, max_size=4)))


def test_sizes_are_said_of_each_block_where_they_differ() -> None:
    assert (UNEVEN.depth, UNEVEN.head_dim, UNEVEN.ffn_hidden) == (3, 12, 64)
    assert (UNEVEN.block_head_dims, UNEVEN.block_ffn_hidden) == ((4, 12, 4), (24, 64, 8))
    assert UNEVEN.inner_sizes == ((4, 24), (12, 64), (4, 8))
    assert UNEVEN.inner_texts == ("4 to 12", "8 to 64")
    assert TINY.inner_texts == ("16", "64")
    assert UNEVEN.is_uneven
    assert not TINY.is_uneven
    only_hidden = TINY.sized([(16, 8), (16, 64)])
    assert (only_hidden.block_head_dims, only_hidden.block_ffn_hidden) == ((), (8, 64))


def test_what_is_alike_in_all_blocks_is_written_as_it_always_was() -> None:
    assert TINY.sized(TINY.inner_sizes) == TINY
    assert not {"block_head_dims", "block_ffn_hidden"} & set(TINY.to_dict())
    data = UNEVEN.to_dict()
    assert (data["block_head_dims"], data["block_ffn_hidden"]) == ([4, 12, 4], [24, 64, 8])
    assert Architecture.from_dict(data) == UNEVEN


def test_a_width_cuts_each_block() -> None:
    assert UNEVEN.at(0.5).inner_sizes == ((2, 12), (6, 32), (2, 4))
    assert UNEVEN.at(0.01).inner_sizes == ((1, 1),) * 3
    assert not UNEVEN.at(0.01).is_uneven
    assert UNEVEN.at(1.0, 1) == TINY.sized([(4, 24)])
    assert UNEVEN.at(0.5, 2).inner_sizes == ((2, 12), (6, 32))
    assert [UNEVEN.at(w).head_dim for w in UNEVEN.width_steps()] == list(range(1, 13))
    assert ROPE.sized([(4, 8), (16, 8)]).at(0.5).inner_sizes == ((4, 4), (8, 4))


def test_multiples_are_those_of_every_block() -> None:
    assert UNEVEN.is_aligned(4, 8)
    assert not UNEVEN.is_aligned(8, 8)
    assert not UNEVEN.is_aligned(4, 16)


@pytest.mark.parametrize(
    ("full", "changes", "message"),
    [
        (TINY, {"block_head_dims": (16,)}, "block_head_dims: found (16,), expected a size for each of the 2 blocks"),
        (TINY, {"block_head_dims": (8, 12)}, "the largest 16"),
        (TINY, {"block_head_dims": (16, 16)}, "or none where all are alike"),
        (TINY, {"block_ffn_hidden": (64, 0)}, "block_ffn_hidden: found"),
        (ROPE, {"block_head_dims": (16, 6)}, "head_dim: found 6 of rope_dim 16"),
        (FUSED, {"block_ffn_hidden": (64, 31)}, "31 ffn_hidden evenly"),
    ],
)
def test_sizes_that_no_encoder_has_are_refused(full: Architecture, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(full, **changes)
    assert message in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(uneven(), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_narrower_width_is_nowhere_wider(arch: Architecture, one: float, other: float) -> None:
    narrow, wide = (arch.at(width) for width in sorted((one, other)))
    assert all(
        a <= b for n, w in zip(narrow.inner_sizes, wide.inner_sizes, strict=True) for a, b in zip(n, w, strict=True)
    )
    assert cost.flop(narrow) <= cost.flop(wide)


@settings(max_examples=50, deadline=None)
@given(uneven())
def test_an_encoder_costs_its_blocks_and_what_stands_around_them(arch: Architecture) -> None:
    """Each block as in an encoder of it alone, but for what turns q and k, which is as wide as the widest."""
    each = [arch.sized([sizes]) for sizes in arch.inner_sizes]
    two = [arch.sized([sizes, sizes]) for sizes in arch.inner_sizes]
    around = [2 * cost.flop(one) - cost.flop(both) for one, both in zip(each, two, strict=True)]
    assert len(set(around)) == 1
    assert cost.flop(arch) - around[0] == sum(cost.flop(one) - around[0] for one in each)
    flop = [sum(op.flop for op in cost.ops(arch) if op.name.startswith(f"blocks.{n}.")) for n in range(arch.depth)]
    assert flop == [cost.flop(one) - around[0] for one in each]
    rest = 2 * cost.parameters(each[0]) - cost.parameters(two[0])
    assert cost.parameters(arch) == rest + sum(cost.parameters(one) - rest for one in each)
    assert cost.footprint(arch).activations_bytes == max(cost.footprint(one).activations_bytes for one in each)
    if not arch.rope_dim:
        for precision in ("fp32", "fp16", "int8-dynamic"):
            empty = 2 * size.weights_bytes(each[0], 0, precision) - size.weights_bytes(two[0], 0, precision)
            summed = sum(size.weights_bytes(one, 0, precision) - empty for one in each)
            assert size.weights_bytes(arch, 0, precision) == empty + summed
