"""Encoders for counting.py, and one counter run on them: `python counting_subjects.py TOOL`, a JSON line a subject.

It runs in the environment of the tools, so it imports nothing but torch, edgeslim and the tool itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.vit import Vit

CLASSES = 1000
WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.01)


@dataclass(frozen=True)
class Subject:
    name: str
    full: Architecture | ConvNextArchitecture
    width: float = 1.0
    timm: str | None = None
    """timm's own module of this shape instead of edgeslim's."""

    @property
    def key(self) -> str:
        return f"{self.name}, {'timm' if self.timm else f'w = {self.width:g}'}"

    @property
    def arch(self) -> Architecture | ConvNextArchitecture:
        return self.full.at(self.width)

    def build(self) -> nn.Module:
        """With weights of zeros: drawing random ones would take longer than all tools."""
        with torch.device("meta"):
            if self.timm:
                import timm

                module = timm.create_model(self.timm, num_classes=CLASSES)
            else:
                encoder = Vit(self.arch) if isinstance(self.arch, Architecture) else ConvNext(self.arch)
                module = nn.Sequential(encoder, nn.Linear(self.arch.dim, CLASSES))
        module = module.to_empty(device="cpu").eval()
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        return module

    def tile(self) -> torch.Tensor:
        return torch.zeros(1, self.full.bands, self.full.tile_px, self.full.tile_px)


def vit(dim: int, heads: int, depth: int, **rest: Any) -> Architecture:
    values = {"head_dim": dim // heads, "ffn_hidden": 4 * dim, "patch_size": 16, "tile_px": 224, "bands": 3, **rest}
    return Architecture(depth=depth, dim=dim, attention_heads=heads, **values)


def convnext(depths: tuple[int, ...], dim: int) -> ConvNextArchitecture:
    dims = tuple(dim << stage for stage in range(len(depths)))
    return ConvNextArchitecture(depths, dims, tuple(4 * d for d in dims), tile_px=224, bands=3)


ENCODERS: dict[str, tuple[Architecture | ConvNextArchitecture, str | None]] = {
    "ViT-Ti/16": (vit(192, 3, 12), "vit_tiny_patch16_224"),
    "ViT-S/16": (vit(384, 6, 12), None),
    "ViT-B/16": (vit(768, 12, 12), "vit_base_patch16_224"),
    "ViT-L/16": (vit(1024, 16, 24), None),
    "ViT-H/14": (vit(1280, 16, 32, patch_size=14), None),
    "ViT-B/16 SwiGLU, 4 registers, LayerScale": (
        vit(768, 12, 12, ffn="swiglu", ffn_hidden=2048, register_tokens=4, layer_scale=True),
        None,
    ),
    "ViT-B/16, 12 bands": (vit(768, 12, 12, bands=12), None),
    "ViT-B/8, 12 bands, 120 px": (vit(768, 12, 12, bands=12, patch_size=8, tile_px=120), None),
    "ViT of 4 branches, 605 M": (
        vit(1024, 64, 12, head_dim=64, ffn_hidden=16384, branches=4, class_token=False, pool="mean"),
        None,
    ),
    "ConvNeXtV2-Atto": (convnext((2, 2, 6, 2), 40), "convnextv2_atto"),
    "ConvNeXtV2-Nano": (convnext((2, 2, 8, 2), 80), "convnextv2_nano"),
}
SUBJECTS = [Subject(name, full, width) for name, (full, _) in ENCODERS.items() for width in WIDTHS] + [
    Subject(name, full, timm=timm) for name, (full, timm) in ENCODERS.items() if timm
]

Counted = tuple[float, int]
"""FLOP and parameters."""


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def audited(module: nn.Module, tile: torch.Tensor) -> Counted:
    from tests.ground.counter import count_flop

    return count_flop(module.to("meta"), tile.to("meta")), _size(module)


def torch_cpu(module: nn.Module, tile: torch.Tensor) -> Counted:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(tile)
    return counter.get_total_flops(), _size(module)


def torch_meta(module: nn.Module, tile: torch.Tensor) -> Counted:
    return torch_cpu(module.to("meta"), tile.to("meta"))


def fvcore(module: nn.Module, tile: torch.Tensor) -> Counted:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    analysis = FlopCountAnalysis(module, tile).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return 2 * analysis.total(), parameter_count(module)[""]


def torchinfo(module: nn.Module, tile: torch.Tensor) -> Counted:
    from torchinfo import summary

    found = summary(module, input_data=tile, verbose=0, device="cpu")
    return 2 * found.total_mult_adds, found.total_params


def thop(module: nn.Module, tile: torch.Tensor) -> Counted:
    from thop import profile

    macs, parameters = profile(module, inputs=(tile,), verbose=False)
    return 2 * macs, int(parameters)


def calflops(module: nn.Module, tile: torch.Tensor) -> Counted:
    from calflops import calculate_flops

    _, macs, parameters = calculate_flops(module, args=[tile], print_results=False, output_as_string=False)
    return 2 * macs, int(parameters)


TOOLS: dict[str, Callable[[nn.Module, torch.Tensor], Counted]] = {
    "audited": audited,
    "torch": torch_cpu,
    "torch, meta": torch_meta,
    "fvcore": fvcore,
    "torchinfo": torchinfo,
    "thop": thop,
    "calflops": calflops,
}


def main() -> None:
    tool = TOOLS[sys.argv[1]]
    for subject in SUBJECTS:
        found: dict[str, Any]
        try:
            module, tile = subject.build(), subject.tile()
            with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                flop, parameters = tool(module, tile)
            found = {"flop": round(flop), "parameters": parameters}
        except Exception as error:  # what a tool raises is a result
            lines = str(error).strip().splitlines() or [""]
            found = {"error": f"{type(error).__name__}: {lines[0][:160]}"}
        print(json.dumps({"subject": subject.key, **found}), flush=True)


if __name__ == "__main__":
    main()
