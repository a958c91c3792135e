"""What an artifact is estimated to take, held against one that is exported here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeslim.architecture import Architecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.profile import Profile
from edgeslim.size import artifact_mb
from edgeslim.target import take_target
from tests.ground.conftest import random_vit

DEEP = Architecture(
    depth=12, dim=96, attention_heads=3, head_dim=32, ffn_hidden=384, patch_size=8, tile_px=32, bands=3, pool="class"
)
"""The depth of a ViT-S: what the graph takes a block is measured at five."""


WIDE = replace(DEEP, depth=2, dim=384, head_dim=128, ffn_hidden=1536, layer_scale=True, class_token=True)
"""In fp16 all that is no matrix stays in fp32."""


@pytest.mark.parametrize(
    ("target", "precision", "arch"),
    [
        ("onnx", "fp32", DEEP),
        ("onnx", "fp16", DEEP),
        ("tensorrt", "fp32", DEEP),
        ("onnx", "fp16", WIDE),
        ("openvino", "fp16", WIDE),
        ("tflite", "fp16", WIDE),
    ],
)
def test_never_under_and_at_most_15_percent_over(
    tiny: Profile, tmp_path: Path, target: str, precision: str, arch: Architecture
) -> None:
    profile = replace(tiny, architecture=arch)
    # Of float16's own values: whether fp16 turns a class is another test's matter.
    state = {key: value.detach().half().float() for key, value in random_vit(arch).state_dict().items()}
    drawn = torch.Generator().manual_seed(0)
    head = torch.randn(3, arch.dim, generator=drawn), torch.randn(3, generator=drawn)
    full = Checkpoint(arch, state, {arch.head_dim: head})
    card = take_target(target)
    proving = Proving(synthetic_tiles(profile))
    export(Source(profile, full, "0" * 64, 1.0), [Request(card, precision)], proving, tmp_path / "artifact")
    written = sum(path.stat().st_size for path in (tmp_path / "artifact").iterdir())
    estimated = artifact_mb(arch, 3, card, precision)
    assert estimated is not None
    assert written < estimated * 1e6 < 1.15 * written
