"""What is new in an architecture flies in every format: exported at a width, and proven against torch by the export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeslim.architecture import Architecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.manifest import read_manifest
from edgeslim.profile import Profile
from edgeslim.target import take_target
from tests.ground.conftest import random_vit

PLAIN = Architecture(2, 24, 3, 8, 40, 4, 16, 3)
ARCHITECTURES = {
    "DOFA": replace(PLAIN, patch_padding=1, pool="mean-then-norm"),
    "CLIP": replace(PLAIN, pre_norm=True, activation="quick-gelu"),
    "Panopticon": replace(PLAIN, band_attention_heads=2, layer_scale=True),
    "CROMA": replace(PLAIN, class_token=False, pool="mean", positions="alibi", qkv_bias=False),
    "SatMAE": replace(PLAIN, band_groups=((0, 2), (1,))),
    "SpectralGPT": replace(PLAIN, band_groups=((0, 1), (2,)), class_token=False, pool="mean-of-rest-then-norm"),
    "DINOv3": replace(PLAIN, register_tokens=2, layer_scale=True, positions="rope", rope_dim=8),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_exported_and_proven_in_every_format(name: str, tiny: Profile, tmp_path: Path) -> None:
    for module in ("openvino", "ai_edge_litert", "litert_torch"):
        pytest.importorskip(module, reason=f"{module} is not installed: not every format was tried")
    arch = ARCHITECTURES[name]
    profile = replace(tiny, architecture=arch)
    state = {key: value.detach() for key, value in random_vit(arch).state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(3, arch.dim, generator=generator), torch.randn(3, generator=generator)
    source = Source(profile, Checkpoint(arch, state, {4: head}), "0" * 64, 0.5)
    requests = [Request(take_target(target)) for target in ("onnx", "openvino", "tflite")]
    done = export(source, requests, Proving(synthetic_tiles(profile, 5), batches=(1, 4)), tmp_path / "out")
    assert len(done) == 3
    for one in done:
        assert read_manifest(one.folder).architecture == arch.at(0.5)
