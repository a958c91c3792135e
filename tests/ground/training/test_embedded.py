"""The encoder that ships: its weights, heads and cards belong together, and its figures can be measured again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeslim import cost
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.ground.labelled import load_labelled
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.ground.training.card import score_widths
from edgeslim.profile import DEFAULT_ENCODER, Profile, take_profile
from edgeslim.target import take_target


@pytest.fixture(scope="module")
def profile() -> Profile:
    return take_profile(DEFAULT_ENCODER)


@pytest.fixture(scope="module")
def checkpoint(profile: Profile) -> Checkpoint:
    return profile_checkpoint(profile)[0]


def test_it_is_small_enough_to_ship(profile: Profile) -> None:
    assert profile.checkpoint is not None
    assert profile.checkpoint.stat().st_size < 15e6
    assert cost.parameters(profile.architecture, profile.num_classes) <= 6e6


def test_every_width_has_a_head_and_the_closed_form_of_parameters(profile: Profile, checkpoint: Checkpoint) -> None:
    assert sorted(checkpoint.heads) == list(range(1, profile.architecture.head_dim + 1))
    for step in profile.architecture.width_steps():
        slimmed = slimmed_checkpoint(checkpoint, step)
        count = sum(tensor.numel() for tensor in slimmed.encoder.values())
        count += sum(tensor.numel() for tensor in slimmed.head(slimmed.architecture.head_dim))
        assert count == cost.parameters(profile.architecture.at(step), profile.num_classes)


def test_width_one_is_bit_exact(checkpoint: Checkpoint) -> None:
    encoder = checkpoint.build()
    tiles = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(slim(encoder, 1.0)(tiles), encoder(tiles))


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25, 7 / 32, 1 / 32])
def test_the_exported_file_equals_torch(profile: Profile, checkpoint: Checkpoint, tmp_path: Path, width: float) -> None:
    source, proving = Source(profile, checkpoint, "", width), Proving(synthetic_tiles(profile))
    (done,) = export(source, [Request(take_target("onnx"))], proving, tmp_path / "artifact")
    assert done.manifest.certificate is not None
    parity = done.manifest.certificate.batches
    assert set(parity) == {"1", "3"}
    assert max(record.max_abs for record in parity.values()) <= 1e-4


def test_the_model_card_says_what_the_profile_card_says(profile: Profile) -> None:
    assert profile.checkpoint is not None
    text = profile.checkpoint.with_suffix(".md").read_text()
    for score in profile.scores:
        row = next(line for line in text.splitlines() if line.startswith(f"| {score.width_multiplier:.3f} |"))
        assert f"{score.value:.2%}" in row


def test_the_scores_can_be_measured_again(profile: Profile, checkpoint: Checkpoint, shared_data: Path) -> None:
    test = load_labelled(shared_data / "eurosat" / "eurosat_rgb_train.zip", 64, ("test",))["test"]
    kept = Checkpoint(checkpoint.architecture, checkpoint.encoder, {j: checkpoint.heads[j] for j in (8, 32)})
    rows = score_widths(profile, kept, test)
    assert [row.width_multiplier for row in rows] == [0.25, 1.0]
    for row in rows:
        measured = [s.value for s in profile.scores if np.isclose(s.width_multiplier, row.width_multiplier)]
        # Another processor may round a handful of the 3262 tiles over a border.
        assert measured == pytest.approx([row.as_imaged, row.as_surface], abs=0.002)
