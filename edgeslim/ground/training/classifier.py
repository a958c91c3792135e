"""What is trained: the encoder with a head and the normalisation in front; and the teacher likewise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.ground.encoder import AnyEncoder, tokens_of
from edgeslim.ground.training import together
from edgeslim.ground.training.teacher import TeacherCnn


class Classifier(nn.Module):
    """Encoder and linear head, with the normalisation of 0 ... 255 tiles in front.

    The tokens (of a ConvNeXt: maps) before the blocks do not depend on the width: they are computed once a step.
    `hint_channels` adds a projection to a teacher's feature maps, for training alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: AnyEncoder, classes: int, mean: Tensor, std: Tensor, hint_channels: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.arch.dim, classes)
        self.hint = nn.Linear(encoder.arch.dim, hint_channels) if hint_channels else None
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def tokens(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) 0 ... 255 -> what the encoder's `encode` takes: (B, N, d), of a ConvNeXt (B, d, h, w)."""
        embedded: Tensor = self.encoder.embed((tiles - self.mean) / self.std)
        return embedded

    def logits(self, tokens: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """Of `tokens` -> (B, classes) float32."""
        return self.classify(self.encoder.encode(tokens, width_multiplier))

    def classify(self, encoded: Tensor) -> Tensor:
        """What the encoder's `encode` gives -> (B, classes) float32."""
        logits: Tensor = self.head(self.encoder.pool(encoded))
        return logits.float()

    def hint_loss(self, encoded: Tensor, maps: Tensor) -> Tensor:
        """Mean squared distance of what is `encoded`, projected, from standardised feature maps (B, C, h, w).

        Of a ViT's (B, N, d) tokens those of patches, of a ConvNeXt's maps every place.

        0 for a model without `hint_channels`.
        """
        if self.hint is None:
            return encoded.new_zeros(())
        patches = tokens_of(encoded)[:, -self.encoder.arch.patches :]
        return F.mse_loss(self.hint(patches).float(), maps.flatten(2).transpose(1, 2))

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) 0 ... 255 -> (B, classes) at full width."""
        return self.logits(self.tokens(tiles))


class NormalisedTeacher(nn.Module):
    """The teacher on normalised tiles, fed 0 ... 255 ones."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: TeacherCnn, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) 0 ... 255 -> (B, classes) float32."""
        logits: Tensor = self.network((tiles - self.mean) / self.std)
        return logits.float()

    @torch.no_grad()
    def teach(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) 0 ... 255 -> feature maps standardised by channel, and (B, classes) probabilities."""
        maps: Tensor = self.network.features((tiles - self.mean) / self.std)
        probabilities = self.network.classify(maps).float().softmax(1)
        return together.standardise(maps.float()), probabilities
