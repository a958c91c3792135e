"""Families against figures: what the original modules made of seeded weights and tiles, where no library is installed.

`benchmarks/families.py` runs the originals and writes the figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.families.family import all_families
from edgeslim.families.recognition import recognise
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint, shapes_of, write_checkpoint
from edgeslim.ground.slimming.slim import slim
from tests.ground.checkpoints.family_cases import DIM, NEAR, random_value, seeded_tiles

FIGURES = json.loads((Path(__file__).parent / "family_figures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FIGURES)
def test_features_are_those_that_the_original_made(name: str, tmp_path: Path) -> None:
    figure: dict[str, Any] = FIGURES[name]
    path, made_for = tmp_path / "a.safetensors", figure["made_for"]
    save_file({key: random_value(key, shape) for key, shape in figure["state"].items()}, path)
    reading = recognise(shapes_of(path), all_families(), name, made_for)
    assert reading.family.id == figure["family"]
    encoder = read_checkpoint(path, reading.architecture(DIM // figure["heads"]), made_for=made_for).build()
    expected = torch.tensor(figure["features"])
    with torch.no_grad():
        found = encoder(seeded_tiles(len(expected), encoder.arch.bands, figure.get("tile_px", encoder.arch.tile_px)))
    # What is slimmed from it is read again, whatever its family.
    slimmed = slim(encoder, 0.5)
    state = {key: value.detach() for key, value in slimmed.state_dict().items()}
    write_checkpoint(Checkpoint(slimmed.arch, state, {}), tmp_path / "own.safetensors", {}, torch.float32)
    profile, said = profile_of(tmp_path / "own.safetensors", *read_header(tmp_path / "own.safetensors"))
    assert "edgeslim's own, as it says itself" in said
    again = read_checkpoint(tmp_path / "own.safetensors", profile.architecture).encoder
    assert all(torch.equal(value, again[key]) for key, value in state.items())
    # Written to eight digits, and other processors add up in another order.
    assert float((found - expected).abs().max()) <= NEAR * float(expected.max() - expected.min())


def test_every_family_that_the_suite_has_no_library_of_has_figures() -> None:
    installed = {"hf-vit", "hf-dinov2", "hf-clip", "hf-dinov3", "hf-dinov3-gated", "dinov2", "dinov3"}
    installed.add("parallel-vit")  # nobody published one: tests/ground/checkpoints/test_branches.py has it
    assert {figure["family"] for figure in FIGURES.values()} >= {f.id for f in all_families()} - installed
