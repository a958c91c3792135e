"""The canonical ConvNeXt V2: the closed forms hold on it exactly; a width is the first hidden channels of a block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim import cost
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.ground.convnext import ConvNext
from tests.ground.counter import count_flop
from tests.test_cost import ATTO, NANO

WIDTHS = (1.0, 0.75, 0.5, 0.3, 0.001)
SMALL = ConvNextArchitecture(depths=(1, 2, 1), dims=(6, 10, 14), hidden=(24, 40, 56), tile_px=50, bands=4)


def random(arch: ConvNextArchitecture) -> ConvNext:
    encoder, generator = ConvNext(arch), torch.Generator().manual_seed(3)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return encoder.eval()


def tiles(arch: ConvNextArchitecture, count: int = 2) -> Tensor:
    return torch.randn(count, arch.bands, arch.tile_px, arch.tile_px, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("arch", [ATTO, NANO], ids=["Atto", "Nano"])
@pytest.mark.parametrize("width", WIDTHS)
def test_published_sizes_on_the_meta_device(arch: ConvNextArchitecture, width: float) -> None:
    for depth in (None, 1, 2, 4, 9):
        cut = arch.at(width, depth)
        with torch.device("meta"):
            module = nn.Sequential(ConvNext(cut), nn.Linear(cut.dim, 1000)).eval()
            x = torch.empty(3, cut.bands, cut.tile_px, cut.tile_px)
        assert cost.parameters(cut, 1000) == sum(p.numel() for p in module.parameters())
        assert cost.flop(cut, 1000, batch=3) == count_flop(module, x)


@pytest.mark.parametrize("stem_stride", [1, 2, 3])
@pytest.mark.parametrize("tile_px", [56, 61])
def test_a_stem_behind_a_convolution_is_counted_exactly(stem_stride: int, tile_px: int) -> None:
    arch = replace(SMALL, tile_px=tile_px, stem_stride=stem_stride, conv_before_stem=True, grn_eps=1e-4)
    encoder = random(arch)
    assert cost.parameters(arch) == sum(value.numel() for value in encoder.parameters())
    assert cost.flop(arch, batch=2) == count_flop(encoder, tiles(arch))
    with torch.no_grad():
        x = encoder.stem(encoder.initial_conv(tiles(arch)))
        for stage, side in zip(encoder.stages, arch.sides, strict=True):
            x = stage(x)
            assert x.shape[-2:] == (side, side)


@pytest.mark.parametrize("tile_px", [16, 17, 31, 50, 64])
def test_any_tile_size_on_the_cpu(tile_px: int) -> None:
    arch = ConvNextArchitecture(SMALL.depths, SMALL.dims, SMALL.hidden, tile_px, bands=12)
    assert cost.flop(arch, batch=2) == count_flop(random(arch), tiles(arch))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_width_on_the_fly_is_the_sliced_encoder_and_runs_its_products(width: float) -> None:
    encoder, narrow = random(SMALL), SMALL.at(width)
    sliced = ConvNext(narrow).eval()
    state = encoder.state_dict()
    for key, expected in sliced.state_dict().items():
        state[key] = state[key][tuple(slice(n) for n in expected.shape)]
    sliced.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(encoder(tiles(SMALL), width), sliced(tiles(SMALL)))
    assert cost.flop(narrow, batch=2) == count_flop(sliced, tiles(SMALL))


def reference(state: dict[str, Tensor], arch: ConvNextArchitecture, x: Tensor) -> Tensor:
    """ConvNeXt V2 as its authors write it, channels last, in float64."""
    p = {key: value.double() for key, value in state.items()}

    def norm(x: Tensor, key: str) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], p[key + ".weight"], p[key + ".bias"], 1e-6)
        return y.permute(0, 3, 1, 2)

    x = norm(F.conv2d(x.double(), p["stem.0.weight"], p["stem.0.bias"], stride=4), "stem.1")
    for stage, depth in enumerate(arch.depths):
        s = f"stages.{stage}."
        if stage:
            x = norm(x, s + "downsample.0")
            x = F.conv2d(x, p[s + "downsample.1.weight"], p[s + "downsample.1.bias"], stride=2)
        for block in range(depth):
            b = f"{s}blocks.{block}."
            y = F.conv2d(x, p[b + "conv_dw.weight"], p[b + "conv_dw.bias"], padding=3, groups=x.shape[1])
            y = norm(y, b + "norm").permute(0, 2, 3, 1)
            y = F.gelu(y @ p[b + "mlp.fc1.weight"][:, :, 0, 0].T + p[b + "mlp.fc1.bias"])
            gx = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
            nx = gx / (gx.mean(dim=-1, keepdim=True) + 1e-6)
            y = p[b + "mlp.grn.weight"] * (y * nx) + p[b + "mlp.grn.bias"] + y
            y = y @ p[b + "mlp.fc2.weight"][:, :, 0, 0].T + p[b + "mlp.fc2.bias"]
            x = x + y.permute(0, 3, 1, 2)
    return F.layer_norm(x.mean((2, 3)), (arch.dim,), p["head.norm.weight"], p["head.norm.bias"], 1e-6)


def test_features_equal_the_published_network() -> None:
    encoder = random(SMALL)
    with torch.no_grad():
        found = encoder(tiles(SMALL)).double()
    torch.testing.assert_close(found, reference(encoder.state_dict(), SMALL, tiles(SMALL)), rtol=1e-4, atol=1e-4)
