"""A new head for the encoder that ships, made by `edgeslim export`, takes few bytes to send and flies."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.ground.heads.known import known_of
from edgeslim.known import KNOWN_NAME, Known
from edgeslim.onboard.known import statistics_of
from edgeslim.onboard.uplink.apply import apply
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
from edgeslim.onboard.uplink.packed import Packer
from edgeslim.profile import DEFAULT_ENCODER, take_profile
from edgeslim.target import take_target
from tests.onboard.uplink.updates import everything, held

HEAD_BYTES = 100_000
"""Most that a new head may take."""


def limits(seed: int, dim: int, classes: int, bands: int) -> dict[str, np.ndarray]:
    """Arrays that tell unknown tiles, as of a head fitted on tiles of its own."""
    random = np.random.default_rng(seed)
    labels, order = np.arange(600) % classes, random.permutation(600)
    features = random.normal(0, 1, (600, dim)) + random.normal(0, 2, (classes, dim))[labels]
    pixels = random.normal(0, 1, (600, statistics_of(bands)))
    folds = [(np.setdiff1d(order, part), part) for part in np.array_split(order, 3)]
    return known_of(features.astype(np.float32), pixels.astype(np.float32), labels, classes, folds, 0.05)


@pytest.mark.parametrize(("dim", "bands"), [(768, 13), (1024, 6)], ids=["ViT-B", "ViT-L"])
def test_a_new_head_of_a_large_encoder_takes_at_most_100_kb(dim: int, bands: int) -> None:
    sent = io.BytesIO()
    packer = Packer(sent)
    packer.write(np.random.default_rng(1).normal(0, 0.02, (10, dim + 1)).astype(np.float32).tobytes())
    for array in limits(0, dim, 10, bands).values():
        packer.write(array.tobytes())
    packer.finish()
    assert sent.tell() <= HEAD_BYTES


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
    for seed, (name, weights, sha256) in enumerate((("old", checkpoint, digest), ("new", other, "1" * 64))):
        known = Known(KNOWN_NAME, 600, 0.05), limits(seed, profile.architecture.dim, len(profile.classes), 3)
        source = Source(profile, weights, sha256, width, known=known)
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
