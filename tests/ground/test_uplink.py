"""A new head for the encoder that ships, made by `edgeslim export`, takes few bytes to send and flies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from edgeslim.ground.capture import Proving, Request, Source
from edgeslim.ground.checkpoint import Checkpoint
from edgeslim.ground.export import export
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.onboard.uplink.apply import apply
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
from edgeslim.profile import DEFAULT_ENCODER, take_profile
from edgeslim.target import take_target
from tests.onboard.uplink.updates import everything, held

HEAD_BYTES = 100_000
"""Most that a new head may take."""


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_a_new_head_takes_at_most_100_kb(tmp_path: Path, width: float) -> None:
    profile = take_profile(DEFAULT_ENCODER)
    checkpoint, digest = profile_checkpoint(profile)
    generator = torch.Generator().manual_seed(0)
    heads = {
        size: (torch.randn(weight.shape, generator=generator), torch.randn(bias.shape, generator=generator))
        for size, (weight, bias) in checkpoint.heads.items()
    }
    other = Checkpoint(checkpoint.architecture, checkpoint.encoder, heads)
    tiles = synthetic_tiles(profile)
    for name, weights, sha256 in (("old", checkpoint, digest), ("new", other, "1" * 64)):
        source = Source(profile, weights, sha256, width)
        export(source, [Request(take_target("onnx"))], Proving(tiles), tmp_path / name)
    difference = write_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    changed = {change.name: change.fresh for change in difference.header.files if not change.same}
    classes, dim = heads[profile.architecture.at(width).head_dim][0].shape
    assert changed["weights.bin"] <= 4 * classes * dim
    assert difference.size <= HEAD_BYTES
    bundle = write_bundle(tmp_path / "new", tmp_path / "bundle")
    print(f"\nnew head at width {width}: {difference.size} bytes, bundle {bundle}; new bytes: {changed}")
    place = shutil.copytree(tmp_path / "old", tmp_path / "place")
    apply(tmp_path / "delta", place, threads=1)
    assert held(place) == everything(tmp_path / "new")
