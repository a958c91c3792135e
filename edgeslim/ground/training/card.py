"""From a trained classifier to what ships: weights, profile card and model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from edgeslim import cost
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgeslim.ground.flight import flight_model, radiometry_of
from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.profile_toml import profile_toml
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.ground.training import augment
from edgeslim.ground.training.supervised import accuracy
from edgeslim.onboard.scores import wilson_interval
from edgeslim.profile import Profile
from edgeslim.score import Score

BATCH = 64
"""Tiles scored at once: small enough to stay in the processor's cache."""
PROBE = "its own head, trained with it"
AS_IMAGED = "EuroSAT RGB, test part"
AS_SURFACE = "EuroSAT RGB, test part, a whole path radiance taken away"


@dataclass(frozen=True, slots=True)
class WidthScore:
    """What one width step costs and keeps."""

    width_multiplier: float
    """Of the encoder."""
    gflop: float
    """A tile, encoder and head, 1 MAC = 2 FLOP."""
    parameters: int
    """Encoder and head."""
    as_imaged: float
    """Accuracy on the tiles as they are (top of atmosphere)."""
    as_surface: float
    """Accuracy after a whole path radiance is taken away (like Level-2A)."""


def _share_right(
    model: torch.nn.Module, data: LabelledTiles, image_scale: float, change: Callable[[Tensor], Tensor] | None
) -> float:
    return accuracy(lambda tiles: model(tiles * image_scale)[0], data, BATCH, change)


def score_widths(profile: Profile, checkpoint: Checkpoint, data: LabelledTiles) -> list[WidthScore]:
    """Score the module that flies, fed raw band values, at every width that has a head."""
    scale, rows = radiometry_of(profile).image_scale, []
    for step in profile.architecture.width_steps():
        arch = profile.architecture.at(step)
        if arch.units_of_width not in checkpoint.heads:
            continue
        model = flight_model(profile, slimmed_checkpoint(checkpoint, step))
        rows.append(
            WidthScore(
                width_multiplier=step,
                gflop=cost.flop(arch, classes=len(data.classes)) / 1e9,
                parameters=cost.parameters(arch, classes=len(data.classes)),
                as_imaged=_share_right(model, data, scale, None),
                as_surface=_share_right(model, data, scale, augment.surface_reflectance),
            )
        )
    return rows


def write_card(
    profile: Profile, checkpoint: Checkpoint, test: LabelledTiles, folder: Path
) -> tuple[Profile, list[WidthScore]]:
    """Write ID.safetensors (fp16) and ID.toml into `folder`; the scores are those of the written, rounded weights."""
    path = folder / f"{profile.id}.safetensors"
    write_checkpoint(checkpoint, path, {"encoder": profile.id, "licence": profile.licence}, torch.float16)
    rows = score_widths(profile, read_checkpoint(path, profile.architecture), test)
    scores = tuple(
        Score(
            row.width_multiplier,
            "accuracy",
            dataset,
            round(value, 4),
            f"edgeslim train, see {profile.id}.md",
            PROBE,
            wilson_interval(value, len(test.labels)),
        )
        for row in rows
        for dataset, value in ((AS_IMAGED, row.as_imaged), (AS_SURFACE, row.as_surface))
    )
    scored = replace(profile, checkpoint=path, scores=scores)
    (folder / f"{profile.id}.toml").write_text(profile_toml(scored), encoding="utf-8")
    return scored, rows
