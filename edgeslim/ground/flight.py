"""The module that flies: raw band values in, logits out, normalisation inside."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, OpenCheckpoint, open_checkpoint
from edgeslim.ground.encoder import AnyEncoder
from edgeslim.ground.vit import Vit, fold_layer_scale
from edgeslim.manifest import sha256_of
from edgeslim.profile import Profile, Radiometry


class FlightModel(nn.Module):
    """Encoder and head behind the clip and normalisation of raw band values."""

    clip_low: Tensor
    clip_high: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(self, encoder: AnyEncoder, head: tuple[Tensor, Tensor], radiometry: Radiometry) -> None:
        super().__init__()
        weight, bias = head
        if weight.shape != (len(bias), encoder.arch.dim):
            raise InputError(f"head: found shape {tuple(weight.shape)}, expected (classes, {encoder.arch.dim})")
        self.encoder = encoder
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.load_state_dict({"weight": weight, "bias": bias})
        mean = torch.tensor(radiometry.mean, dtype=torch.float64)
        std = torch.tensor(radiometry.std, dtype=torch.float64)
        low, high = clip_range(radiometry)
        # Buffers, not numbers in the code: the graph keeps them as named float32 constants.
        self.register_buffer("clip_low", low)
        self.register_buffer("clip_high", high)
        self.register_buffer("gain", (1 / std).float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).float().view(1, -1, 1, 1))

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, bands, H, W) float32 raw band values -> (B, classes) logits, (B, d) features."""
        values = torch.minimum(torch.maximum(tiles, self.clip_low), self.clip_high)
        features: Tensor = self.encoder(values * self.gain + self.shift)
        return self.head(features), features


def clip_range(radiometry: Radiometry) -> tuple[Tensor, Tensor]:
    """Lowest and highest raw values: () of all bands, or (1, bands, 1, 1) where each has its own."""
    shape = (1, -1, 1, 1) if radiometry.band_clip else ()
    low, high = (torch.tensor(ends, dtype=torch.float32).view(shape) for ends in zip(*radiometry.clips, strict=True))
    return low, high


def normalised(tiles: Tensor, radiometry: Radiometry) -> Tensor:
    """Raw band values (n, bands, H, W) as the encoder takes them, as `FlightModel` does it: clipped, mean 0, std 1."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (radiometry.mean, radiometry.std))
    gain, shift = (v.float().view(1, -1, 1, 1).to(tiles.device) for v in (1 / std, -mean / std))
    low, high = (limit.to(tiles.device) for limit in clip_range(radiometry))
    return tiles.clamp(low, high) * gain + shift


def radiometry_of(profile: Profile) -> Radiometry:
    """What a raw band value means to the encoder. Raises InputError where its card does not say."""
    if profile.radiometry is None:
        raise InputError(
            f"encoder {profile.id!r}: its card has no [radiometry], expected what a raw band value means; "
            "write it there, or take the card that `edgeslim measure` writes"
        )
    return profile.radiometry


def flight_model(profile: Profile, slimmed: Checkpoint) -> FlightModel:
    """What flies: a slimmed checkpoint as a module in evaluation mode.

    Raises InputError where the card lacks radiometry or the checkpoint a head.
    """
    return FlightModel(
        slimmed.build(), slimmed.head(slimmed.architecture.units_of_width), radiometry_of(profile)
    ).eval()


def folded_model(model: FlightModel) -> FlightModel:
    """The same function in fewer operators, for a converter. What it becomes is held against the unfolded model."""
    encoder = model.encoder
    if not isinstance(encoder, Vit) or not encoder.arch.layer_scale:
        return model
    folded = copy.deepcopy(model)
    folded.encoder = fold_layer_scale(encoder)
    return folded


def profile_checkpoint(profile: Profile, cards: Path | None = None) -> tuple[Checkpoint, str]:
    """The full-width weights that ship beside the encoder's card, and their SHA-256.

    Raises InputError where none do, or where they are not the ones that the card was written with.
    """
    opened, digest = open_profile_checkpoint(profile, cards)
    return Checkpoint(opened.architecture, dict(opened.tensors()), opened.heads), digest


def open_profile_checkpoint(profile: Profile, cards: Path | None = None) -> tuple[OpenCheckpoint, str]:
    """The same, not read yet."""
    if profile.checkpoint is None:
        raise InputError(
            f"encoder {profile.id!r}: its card ships no weights, expected --checkpoint FILE (a plan needs none)"
        )
    opened = open_checkpoint(profile.checkpoint, profile.architecture, cards, profile.made_for, profile.gsd_m)
    digest = sha256_of(profile.checkpoint)
    if profile.checkpoint_sha256 not in (None, digest):
        raise InputError(f"{profile.checkpoint}: its SHA-256 is not the card's; reinstall edgeslim or mend the card")
    return opened, digest
