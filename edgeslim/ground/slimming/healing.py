"""Healing: how long and how a calibrated encoder is taught by the full one, and where a stopped run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

from edgeslim.errors import InputError

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates that are tried where none is given."""


@dataclass(frozen=True, slots=True)
class Healing:
    """All that decides a healing besides encoder, width and tiles."""

    folder: Path
    """Where the full encoder's features and the state of the run are kept."""
    steps: int = 1000
    """Updates of the weights."""
    batch: int = 32
    """Views of tiles a step."""
    learning_rate: float | None = None
    """Peak of the cosine schedule: the share of its size that an update takes a row of weights along
    (ground.slimming.scaled_adam). None: by a trial of RATES; encoders differ in it tenfold."""
    precision: str = "fp32"
    """"fp32", or "bf16" autocast where the processor or the GPU has it."""
    device: str = "cpu"
    """As torch names it: "cpu" or "cuda"."""
    looks: int = 10
    """How often the state is saved, and the held-out tiles are looked at, evenly spread over the steps."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises."""
    average_decay: float = 0.99
    """Decay of the exponential moving average, whose weights are kept."""
    temperature: float = 0.1
    """Of the softmax over cosines, which says whose neighbour a tile is."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "looks"):
            if getattr(self, name) < 1:
                raise InputError(f"healing: {name}: found {getattr(self, name)}, expected at least 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InputError(f"healing: learning rate: found {self.learning_rate:g}, expected more than 0, less than 1")
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"healing: precision: found {self.precision!r}, expected fp32 or bf16")
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"healing: device: found {self.device!r}, expected cpu or cuda")

    def share(self, step: int) -> float:
        """Share of the peak rate at a step, the first of which is 0: a linear rise, then a cosine to a hundredth."""
        rising = max(1, round(self.warmup_share * self.steps))
        if step < rising:
            return (step + 1) / rising
        through = (step - rising) / max(1, self.steps - rising)
        return 0.01 + 0.99 * 0.5 * (1 + cos(pi * through))

    def looks_after(self, step: int) -> bool:
        """Whether the state is saved after so many steps."""
        return step == self.steps or step * self.looks // self.steps > (step - 1) * self.looks // self.steps
