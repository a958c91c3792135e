"""Published latencies as benchmarks/latency.py holds the estimate against them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.cost import Op
from edgeslim.device import take_device
from edgeslim.planning.durations import roofline
from edgeslim.shelf import read_toml
from edgeslim.units import GIGA, OP_CLASSES, VALUE_BYTES

SHARED = Path(__file__).parents[2] / "shared" / "evidence" / "published_latencies.csv"
OWN = Path(__file__).with_name("latency.toml")
PRECISIONS = {"f32": "fp32", "f16": "fp16", "i8": "int8"}


def vit(tile_px: int, patch_size: int, dim: int = 768, **kwargs: Any) -> Architecture:
    """A plain ViT of 12 blocks, heads of 64 dimensions and a class token, on three bands."""
    return Architecture(
        depth=12,
        dim=dim,
        attention_heads=dim // 64,
        head_dim=64,
        ffn_hidden=4 * dim,
        patch_size=patch_size,
        tile_px=tile_px,
        bands=3,
        **kwargs,
    )


TRANSFORMERS = {
    "vit_tiny_16_224": (vit(224, 16, 192), 1000),
    "deit_tiny_16_224": (vit(224, 16, 192), 1000),
    "vit_small_16_224": (vit(224, 16, 384), 1000),
    "vit_base_16_224": (vit(224, 16), 1000),
    "vit_base_32_224": (vit(224, 32), 1000),
    "vit_base_32_384": (vit(384, 32), 1000),
    "clip_b16": (vit(224, 16), 512),
    "clip_b32": (vit(224, 32), 512),
    "dinov2_b14_224": (vit(224, 14, layer_scale=True), 0),
    "owlvit_b16_768": (vit(768, 16), 0),
    "owlvit_b32_768": (vit(768, 32), 0),
}
"""Architecture, and classes of the head (of CLIP: its projection), of each transformer that was published."""


@dataclass(frozen=True, eq=False)
class Row:
    """A published latency."""

    kind: str
    """"ViT": op-wise; "CNN": one term."""
    runtime: str
    precision: str
    core: str
    unit: str
    chip: str
    silicon: str
    device: str
    model: str
    measured_ms: float
    ops: tuple[tuple[Op, int], ...]
    """Products, each with how often it runs; of a CNN one, of all its FLOP, that moves nothing."""
    peak_flop_s: float
    bytes_s: float
    op_overhead_s: float
    fixed_s: float
    source: str

    @property
    def gflop(self) -> float:
        return sum(op.flop * times for op, times in self.ops) / GIGA

    def seconds(self, efficiency: float) -> dict[str, float]:
        """As the planner computes it, at one efficiency for all op classes; see planning.durations.roofline."""
        flop_s = dict.fromkeys(OP_CLASSES, self.peak_flop_s * efficiency)
        parts = {"compute": 0.0, "bandwidth": 0.0, "overhead": self.fixed_s}
        for op, times in self.ops:
            found = roofline([op], flop_s, self.bytes_s, op_overhead_s=self.op_overhead_s, fixed_s=0.0)
            parts = {part: total + times * found[part] for part, total in parts.items()}
        return parts


def read_rows(shared: Path = SHARED) -> list[Row]:
    """Rows of the file beside the checkout, then edgeslim's own."""
    own = read_toml(OWN)
    with shared.open(encoding="utf-8", newline="") as file:
        found = [dict(row) for row in csv.DictReader(file)]
    return [_row(data, own) for data in [*found, *own["row"]]]


def _row(data: dict[str, Any], own: dict[str, Any]) -> Row:
    group, device = own["group"][data["group"]], own["device"][data["device"]]
    card, name = group["like"]
    like = take_device(card)
    runtime = next(r for r in like.runtime if r.id == name)
    precision, model = PRECISIONS[data["dtype"]], data["model"]
    if model in TRANSFORMERS:
        ops = _transformer(model, VALUE_BYTES[precision], runtime.fused_attention)
        op_overhead_s = runtime.op_overhead_us.value / 1e6
        counted = sum(op.flop for op in ops) / GIGA
        if data.get("gflop") and abs(counted / float(data["gflop"]) - 1) > 0.01:
            raise SystemExit(f"latency.py: {model}: counted {counted:g} GFLOP, published {data['gflop']}")
        bandwidth = device.get("bandwidth_gb_s", float("inf")) * like.memory.sustained_fraction.value * GIGA
    else:
        ops, op_overhead_s = [Op("network", "conv", round(float(data["gflop"]) * GIGA), 0)], 0.0
        bandwidth = float("inf")
    # The same products of every block are counted once.
    once = Counter(replace(op, name=op.name.rsplit(".", 1)[-1]) for op in ops)
    return Row(
        kind="ViT" if model in TRANSFORMERS else "CNN",
        runtime=group["runtime"],
        precision=precision,
        core=group["core"],
        unit=runtime.unit,
        chip=device["chip"],
        silicon=device.get("silicon", device["chip"]),
        device=data["device"],
        model=model,
        measured_ms=float(data["measured_ms"]),
        ops=tuple(once.items()),
        peak_flop_s=float(data["peak_gflops"]) * GIGA,
        bytes_s=bandwidth,
        op_overhead_s=op_overhead_s,
        fixed_s=runtime.fixed_overhead_ms.value / 1e3,
        source=data["source"],
    )


def _transformer(model: str, value_bytes: int, fused_attention: bool) -> list[Op]:
    arch, classes = TRANSFORMERS[model]
    ops = list(cost.ops(arch, classes, 1, value_bytes, fused_attention=fused_attention))
    if model.startswith("owlvit"):
        # OWL-ViT's heads on every patch (arXiv 2205.06230): class embedding, and three layers for the box.
        d, rows = arch.dim, arch.patches
        for index, columns in enumerate((512, d, d, 4)):
            moved = (rows * d + d * columns + rows * columns) * value_bytes
            ops.append(Op(f"heads.{index}", "gemm", 2 * rows * d * columns, moved))
    return ops
