"""Recipe and course: how an encoder is trained, and what a training run goes through. No data, no architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run besides data and architecture."""

    epochs: int = 60
    """Passes over the training part."""
    batch: int = 128
    """Tiles a step."""
    learning_rate: float = 1.5e-3
    """Peak of the cosine schedule."""
    weight_decay: float = 0.05
    """Decay of matrices and kernels; the rest has none."""
    optimizer: str = "adamw"
    """"adamw", or "muon" for the blocks' matrices (Jordan 2024; updates scaled as in arXiv 2502.16982)."""
    warmup_epochs: float = 2.0
    """Linear rise of the learning rate."""
    label_smoothing: float = 0.05
    """Share of the target spread over all classes."""
    random_widths: int = 1
    """Random widths a step, besides the widest and the narrowest; without a meaning where `slimmable` is False."""
    slimmable: bool = True
    """False trains the widest width alone."""
    teacher_share: float = 0.5
    """Weight of the teacher's probabilities against the labels, on batches that are not mixed."""
    mixed_teacher_share: float = 0.0
    """The same on mixed batches, whose labels are shares of area: for a teacher that was trained on such."""
    hint_weight: float = 1.0
    """Weight of the distance between encoded tokens and the teacher's feature map (FitNets, arXiv 1412.6550)."""
    band_jitter: float = 0.1
    """How far a band's radiometry strays from the others'."""
    mixup_share: float = 0.1
    """Share of the batches that MixUp blends."""
    cutmix_share: float = 0.05
    """Share of the batches that CutMix pastes together."""
    patchwork_share: float = 0.2
    """Share of the batches that are joined along irregular borders."""
    mosaic_share: float = 0.25
    """Share of the batches that are joined around a point."""
    average_decay: float = 0.999
    """Decay of the exponential moving average whose weights are kept; a contrast's keys are made by it, too."""
    distil_weight: float = 1.0
    """Weight of a narrow width's distance from the full one's features, without labels."""
    temperature: float = 0.2
    """What similarities of a contrast are divided by (MoCo v3, arXiv 2104.02057)."""
    masked_share: float = 0.75
    """Share of the patches that a masked autoencoder does not see (arXiv 2111.06377)."""
    precision: str = "fp32"
    """"fp32", or "bf16" autocast where the processor has it."""
    seed: int = 0
    """Of weights, order and augmentation."""


@dataclass(frozen=True, slots=True)
class Course:
    """The stages of a training run, and where they are computed."""

    teacher: str = "small"
    """Size of the CNN teacher: a key of edgeslim.ground.training.teacher.SIZES."""
    teacher_epochs: int = 24
    """Passes of the teacher; 0: none teaches."""
    calm_epochs: int = 7
    """Passes at the end, at a fifth of the learning rate and with few mixed tiles."""
    device: str = "cpu"
    """As torch names it: "cpu" or "cuda"."""
    every: int = 1
    """Epochs between two checkpoints, each with a look at the validation part."""
