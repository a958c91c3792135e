"""A small residual CNN: teaches the embedded encoder on the ground, never flies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))


STRIDE = 8
"""Pixels of a tile behind one cell of the last feature map."""
SIZES = {"small": (48, 96, 192), "large": (64, 128, 256, 512)}
"""Channels of each stage: a teacher for two cores (2.0 M parameters), and one for a GPU (14.1 M)."""


class TeacherCnn(nn.Module):
    """Stages of two residual blocks each, the last three at strides 2, 4 and 8, then a linear classifier."""

    def __init__(self, bands: int, classes: int, channels: tuple[int, ...] = SIZES["small"]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for left, width in zip(reversed(range(len(channels))), channels, strict=True):
            layers += [_conv(bands, width, stride=2 if left < 3 else 1), Residual(width), Residual(width)]
            bands = width
        self.channels = bands
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(bands, classes)

    def classify(self, features: Tensor) -> Tensor:
        """(B, channels, H/8, W/8) feature maps -> (B, classes) logits."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, classes) logits."""
        return self.classify(self.features(tiles))
