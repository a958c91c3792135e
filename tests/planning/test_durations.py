"""The roofline's laws."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.cost import Op
from edgeslim.device import take_device
from edgeslim.figure import Figure
from edgeslim.planning.durations import bound_of, call_seconds, roofline
from edgeslim.profile import take_profile
from edgeslim.units import OP_CLASSES

rates = st.floats(1e6, 1e15)
overheads = st.floats(0, 1)
products = st.builds(
    Op,
    name=st.just("a product"),
    op_class=st.sampled_from(OP_CLASSES),
    flop=st.integers(0, 10**15),
    moved_bytes=st.integers(0, 10**12),
)
some = st.lists(products, max_size=20)
speeds = st.fixed_dictionaries(dict.fromkeys(OP_CLASSES, rates))


def total(ops: list[Op], flop_s: dict[str, float], bytes_s: float, op_s: float, fixed_s: float) -> float:
    return sum(roofline(ops, flop_s, bytes_s, op_overhead_s=op_s, fixed_s=fixed_s).values())


@given(some, speeds, rates, overheads, overheads)
def test_each_product_takes_the_longer_of_its_parts(
    ops: list[Op], flop_s: dict[str, float], bytes_s: float, op_s: float, fixed_s: float
) -> None:
    written = fixed_s + sum(op_s + max(op.flop / flop_s[op.op_class], op.moved_bytes / bytes_s) for op in ops)
    assert total(ops, flop_s, bytes_s, op_s, fixed_s) == pytest.approx(written)


@given(products, rates, overheads)
def test_of_one_product_it_is_the_one_term_form(op: Op, flop_s: float, fixed_s: float) -> None:
    found = total([replace(op, moved_bytes=0)], dict.fromkeys(OP_CLASSES, flop_s), math.inf, 0.0, fixed_s)
    assert found == pytest.approx(fixed_s + op.flop / flop_s)


@given(some, speeds, rates, overheads, overheads, st.data())
def test_more_work_is_never_faster(
    ops: list[Op], flop_s: dict[str, float], bytes_s: float, op_s: float, fixed_s: float, data: st.DataObject
) -> None:
    more = [replace(op, flop=op.flop + data.draw(st.integers(0, 10**12)), moved_bytes=op.moved_bytes + 1) for op in ops]
    fewer = total(ops, flop_s, bytes_s, op_s, fixed_s)
    assert total(more, flop_s, bytes_s, op_s, fixed_s) >= fewer
    assert total([*ops, data.draw(products)], flop_s, bytes_s, op_s, fixed_s) >= fewer


@given(some, speeds, rates, overheads, overheads, st.floats(1, 100), st.sampled_from([*OP_CLASSES, "bytes"]))
def test_what_reaches_more_is_never_slower(
    ops: list[Op], flop_s: dict[str, float], bytes_s: float, op_s: float, fixed_s: float, times: float, which: str
) -> None:
    faster = {op_class: rate * times if op_class == which else rate for op_class, rate in flop_s.items()}
    moved = bytes_s * times if which == "bytes" else bytes_s
    slower = total(ops, flop_s, bytes_s, op_s, fixed_s)
    assert total(ops, faster, moved, op_s, fixed_s) <= slower * (1 + 1e-12)


@given(some, speeds, rates, overheads, overheads)
def test_the_bound_is_the_largest_part(
    ops: list[Op], flop_s: dict[str, float], bytes_s: float, op_s: float, fixed_s: float
) -> None:
    parts = roofline(ops, flop_s, bytes_s, op_overhead_s=op_s, fixed_s=fixed_s)
    assert set(parts) == {"compute", "bandwidth", "overhead"}
    assert parts[bound_of(parts)] == max(parts.values())


@pytest.mark.parametrize("starved", ["compute", "bandwidth", "overhead"])
def test_what_a_board_lacks_bounds_it(starved: str) -> None:
    board, profile = take_device("raspberry-pi-5-8gb"), take_profile("vit-s-16")
    figure = Figure(1e9 if starved == "overhead" else 1e-3, "a test")
    if starved == "bandwidth":
        board = replace(board, memory=replace(board.memory, bandwidth_gb_s=figure))
    elif starved == "compute":
        board = replace(board, unit=(replace(board.unit[0], peak_gflop_s={"fp32": figure}),))
    else:
        board = replace(board, runtime=(replace(board.runtime[0], op_overhead_us=figure),))
    assert bound_of(call_seconds(profile.architecture, 0, 1, board, board.runtime[0], "fp32")) == starved


def test_fused_attention_keeps_the_scores_from_the_memory() -> None:
    arch = take_profile("vit-b-16").architecture
    apart, fused = (cost.ops(arch, 0, 2, 2, fused_attention=fused) for fused in (False, True))
    assert [op.flop for op in fused] == [op.flop for op in apart]
    scores = 2 * arch.attention_heads * arch.tokens**2 * 2
    saved = [a.moved_bytes - f.moved_bytes for a, f in zip(apart, fused, strict=True) if a != f]
    # Written, read and written by softmax, read: 4 times in each block.
    assert sum(saved) == arch.depth * 4 * scores
    left = [op.moved_bytes for op in fused if op.op_class == "attention"]
    assert set(left) == {2 * 2 * arch.tokens * arch.attention_dim * 2}


def test_fused_attention_is_what_the_card_says() -> None:
    board = take_device("jetson-orin-nano-8gb")
    runtime = next(r for r in board.runtime if r.id == "tensorrt")
    assert runtime.fused_attention
    arch = replace(take_profile("vit-b-16").architecture, tile_px=768)
    with_scores = replace(runtime, fused_attention=False)
    times = [sum(call_seconds(arch, 0, 1, board, r, "fp16").values()) for r in (runtime, with_scores)]
    assert times[0] < times[1]


@pytest.mark.parametrize("encoder", ["eurosat-rgb", "vit-s-16"])
@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("fused", [False, True])
def test_products_alike_take_as_long_together(encoder: str, width: float, fused: bool) -> None:
    arch = take_profile(encoder).architecture.at(width)
    every = cost.ops(arch, 10, 2, 4, fused_attention=fused)
    merged, count = cost.merged_ops(arch, 10, 2, 4, fused_attention=fused)
    assert count == len(every) > len(merged)
    assert sum(op.flop for op in merged) == sum(op.flop for op in every)
    for bytes_s in (1e8, 1e10, 1e13):
        flop_s = {"gemm": 3e10, "attention": 1e10, "conv": 2e10}
        one_by_one = roofline(every, flop_s, bytes_s, op_overhead_s=1e-5, fixed_s=1e-3)
        together = roofline(merged, flop_s, bytes_s, op_overhead_s=0, fixed_s=1e-3 + count * 1e-5)
        assert together == pytest.approx(one_by_one)
