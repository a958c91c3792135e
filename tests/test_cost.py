from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.profile import take_profile
from edgeslim.units import OP_CLASSES

EMBEDDED = Architecture(
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
)

single = st.builds(
    Architecture,
    depth=st.integers(1, 4),
    dim=st.sampled_from([24, 64, 96]),
    attention_heads=st.integers(1, 4),
    head_dim=st.integers(1, 40),
    ffn_hidden=st.integers(1, 300),
    patch_size=st.sampled_from([4, 8]),
    tile_px=st.sampled_from([16, 32, 64]),
    bands=st.integers(1, 12),
    ffn=st.sampled_from(["mlp", "swiglu"]),
    qkv_bias=st.booleans(),
    class_token=st.just(True),
    register_tokens=st.integers(0, 4),
    layer_scale=st.booleans(),
)


def fused(arch: Architecture) -> Architecture:
    """Three of the blocks' branches side by side."""
    return replace(arch, branches=3, attention_heads=3 * arch.attention_heads, ffn_hidden=3 * arch.ffn_hidden)


def grouped(arch: Architecture) -> Architecture:
    """Every second band in a group of its own, and the others in another."""
    bands = arch.bands + 1
    return replace(arch, bands=bands, band_groups=(tuple(range(0, bands, 2)), tuple(range(1, bands, 2))))


shapes = single | single.map(fused) | single.map(grouped)


@st.composite
def convnexts(draw: st.DrawFn) -> ConvNextArchitecture:
    stages = draw(st.integers(1, 4))

    def of_each(largest: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(1, largest)) for _ in range(stages))

    tile_px, stem, before = draw(st.integers(2 ** (stages + 1) + 2, 100)), draw(st.integers(1, 4)), draw(st.booleans())
    sizes = of_each(3), tuple(sorted(of_each(50))), of_each(60)
    return ConvNextArchitecture(*sizes, tile_px, draw(st.integers(1, 12)), stem_stride=stem, conv_before_stem=before)


ATTO = ConvNextArchitecture((2, 2, 6, 2), (40, 80, 160, 320), (160, 320, 640, 1280), tile_px=224, bands=3)
NANO = ConvNextArchitecture((2, 2, 8, 2), (80, 160, 320, 640), (320, 640, 1280, 2560), tile_px=224, bands=3)


@pytest.mark.parametrize(("arch", "gmac", "parameters_m"), [(ATTO, 0.55, 3.7), (NANO, 2.45, 15.6)])
def test_published_counts_of_convnext_v2(arch: ConvNextArchitecture, gmac: float, parameters_m: float) -> None:
    """Arxiv 2301.00808, table 9 and its repository."""
    assert cost.flop(arch, 1000) / 2e9 == pytest.approx(gmac, abs=0.005)
    assert cost.parameters(arch, 1000) / 1e6 == pytest.approx(parameters_m, abs=0.05)


@pytest.mark.parametrize(
    ("card", "gmac", "parameters_m"), [("vit-s-16", 4.60, 21.7), ("vit-b-16", 17.56, 85.8), ("vit-l-16", 61.6, 303)]
)
def test_published_counts(card: str, gmac: float, parameters_m: float) -> None:
    arch = take_profile(card).architecture
    assert cost.flop(arch) / 2e9 == pytest.approx(gmac, rel=1e-3)
    assert cost.parameters(arch) / 1e6 == pytest.approx(parameters_m, rel=2e-3)


def test_vit_h_14_published_counts() -> None:
    arch = Architecture(
        depth=32, dim=1280, attention_heads=16, head_dim=80, ffn_hidden=5120, patch_size=14, tile_px=224, bands=3
    )
    assert cost.flop(arch) / 2e9 == pytest.approx(167, rel=5e-3)
    assert cost.parameters(arch) / 1e6 == pytest.approx(631, rel=2e-3)


@given(shapes)
def test_flop_equal_the_written_formula(arch: Architecture) -> None:
    p, n, d, a = arch.patches // arch.patch_groups, arch.tokens, arch.dim, arch.attention_dim
    gates = 2 if arch.ffn == "mlp" else 3
    block = 4 * n * d * a + 2 * n * n * a + gates * n * d * arch.ffn_hidden
    assert cost.flop(arch) == 2 * (p * arch.bands * arch.patch_size**2 * d + arch.depth * block)


@given(shapes | convnexts(), st.integers(1, 9))
def test_flop_grow_with_the_batch_and_weights_do_not(arch: cost.AnyArchitecture, batch: int) -> None:
    assert cost.flop(arch, 10, batch) == batch * cost.flop(arch, 10)
    one, many = cost.footprint(arch, 10), cost.footprint(arch, 10, batch)
    assert many.weights_bytes == one.weights_bytes
    assert many.activations_bytes == batch * one.activations_bytes
    assert many.buffers_bytes == batch * one.buffers_bytes


@given(shapes | convnexts())
def test_narrower_never_costs_more(arch: cost.AnyArchitecture) -> None:
    steps = [arch.at(w) for w in arch.width_steps()]
    for narrow, wide in pairwise(steps):
        assert cost.parameters(narrow) < cost.parameters(wide)
        for less, more in zip(cost.ops(narrow, 10), cost.ops(wide, 10), strict=True):
            assert less.name == more.name
            assert less.flop <= more.flop
            assert less.moved_bytes <= more.moved_bytes
        assert cost.footprint(narrow).activations_bytes <= cost.footprint(wide).activations_bytes


@given(shapes | convnexts(), st.integers(0, 10))
def test_shallower_never_costs_more(arch: cost.AnyArchitecture, classes: int) -> None:
    for depth in range(1, arch.depth):
        less, more = arch.at(1.0, depth), arch.at(1.0, depth + 1)
        assert cost.parameters(less, classes) < cost.parameters(more, classes)
        assert cost.flop(less, classes) < cost.flop(more, classes)
        few, many = cost.footprint(less, classes), cost.footprint(more, classes)
        assert few.activations_bytes <= many.activations_bytes
        assert few.buffers_bytes <= many.buffers_bytes


def test_a_head_adds_its_matrix_and_bias() -> None:
    assert cost.parameters(EMBEDDED, 10) - cost.parameters(EMBEDDED) == 160 * 10 + 10
    assert cost.flop(EMBEDDED, 10) - cost.flop(EMBEDDED) == 2 * 160 * 10


def test_ops_of_the_embedded_encoder() -> None:
    ops = cost.ops(EMBEDDED, 10)
    assert [op.name for op in ops[:5]] == ["stem.0", "stem.1", "stem.2", "patch_embed", "blocks.0.qkv"]
    assert len(ops) == 4 + 5 * 6 + 1
    assert {op.op_class for op in ops} == set(OP_CLASSES)
    assert ops[0].flop == 2 * 32 * 32 * 27 * 16


def test_traffic_halves_with_the_precision() -> None:
    full, half = (sum(op.moved_bytes for op in cost.ops(EMBEDDED, 10, value_bytes=b)) for b in (4, 2))
    assert full == 2 * half


def test_swiglu_has_a_third_matrix() -> None:
    gated = replace(EMBEDDED, ffn="swiglu")
    assert cost.flop(gated) - cost.flop(EMBEDDED) == 2 * 5 * 64 * 160 * 512


@given(convnexts())
def test_flop_of_a_convnext_equal_the_written_formula(arch: ConvNextArchitecture) -> None:
    before = (1 if arch.conv_before_stem else arch.bands, *arch.dims)
    macs = (arch.tile_px - 2) ** 2 * arch.bands * 9 * arch.dims[0] if arch.conv_before_stem else 0
    for stage, (depth, side, d, h) in enumerate(zip(arch.depths, arch.sides, arch.dims, arch.hidden, strict=True)):
        macs += side**2 * d * before[stage] * (4 if stage else arch.stem_stride**2) + depth * side**2 * d * (49 + 2 * h)
    assert cost.flop(arch) == 2 * macs


def test_ops_of_a_convnext() -> None:
    ops = cost.ops(ATTO.at(0.5, 3), 10)
    names = ["stages.0.blocks.0.conv_dw", "stages.0.blocks.0.fc1", "stages.0.blocks.0.fc2"]
    assert [op.name for op in ops[:4]] == ["stem", *names]
    assert len(ops) == 1 + 2 * 3 + 1 + 3 + 1
    assert ops[1].flop == 2 * 56 * 56 * 40 * 49
    assert ops[2].flop == 2 * 56 * 56 * 40 * 80
    assert {op.op_class for op in ops} == {"gemm", "conv"}
