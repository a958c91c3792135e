"""The closed forms against the canonical module: its own parameters, and a count of the products that it runs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.ground import vit

PLAIN = Architecture(depth=2, dim=48, attention_heads=3, head_dim=16, ffn_hidden=96, patch_size=8, tile_px=32, bands=3)
STEM = replace(PLAIN, class_token=False, pool="mean", stem_channels=(8, 16, 24), tile_px=64)
ARCHITECTURES = {
    "plain": PLAIN,
    "stem": STEM,
    "swiglu with registers and layer scale": replace(PLAIN, ffn="swiglu", register_tokens=4, layer_scale=True),
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


@pytest.fixture
def count_flop(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module, Tensor], int]:
    """Counts linear products, convolutions and both products of attention while a module runs, from their operands."""
    total = [0]
    linear, attend, conv = functional.linear, vit.attend, nn.Conv2d._conv_forward

    def counted_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        total[0] += 2 * x.numel() * weight.shape[0]
        return linear(x, weight, bias)

    def counted_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        total[0] += 2 * q.numel() * k.shape[-2] + 2 * q.shape[-2] * v.numel()
        return attend(q, k, v)

    def counted_conv(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = conv(self, x, weight, bias)
        total[0] += 2 * y.numel() * weight[0].numel()
        return y

    monkeypatch.setattr(functional, "linear", counted_linear)
    monkeypatch.setattr(vit, "attend", counted_attend)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", counted_conv)

    def count(module: nn.Module, x: Tensor) -> int:
        total[0] = 0
        with torch.inference_mode():
            module(x)
        return total[0]

    return count


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_and_flop_equal_the_modules(
    name: str, width: float, count_flop: Callable[[nn.Module, Tensor], int]
) -> None:
    arch = ARCHITECTURES[name].at(width)
    encoder = vit.Vit(arch).eval()
    assert cost.parameters(arch) == sum(p.numel() for p in encoder.parameters())
    tiles = torch.zeros(2, arch.bands, arch.tile_px, arch.tile_px)
    assert cost.flop(arch, batch=2) == count_flop(encoder, tiles)
    with_head = nn.Sequential(encoder, nn.Linear(arch.dim, 10))
    assert cost.parameters(arch, 10) == sum(p.numel() for p in with_head.parameters())
    assert cost.flop(arch, 10, batch=2) == count_flop(with_head, tiles)


@pytest.mark.parametrize(("dim", "heads", "depth"), [(192, 3, 12), (384, 6, 12), (768, 12, 12), (1024, 16, 24)])
def test_published_sizes_on_the_meta_device(dim: int, heads: int, depth: int) -> None:
    arch = Architecture(
        depth=depth,
        dim=dim,
        attention_heads=heads,
        head_dim=64,
        ffn_hidden=4 * dim,
        patch_size=16,
        tile_px=224,
        bands=3,
    )
    for width in WIDTHS:
        with torch.device("meta"):
            encoder = vit.Vit(arch.at(width))
        assert cost.parameters(arch.at(width)) == sum(p.numel() for p in encoder.parameters())
