"""Supervised: the objective with labels, of the slimmable encoder (arXiv 1903.05134) and of its teacher.

Each step trains the widest width on labels (and on a teacher's view of the same tiles), and the narrowest plus some
random widths on the widest one's detached output; gradients are summed, one optimiser step is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.training import augment, together
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.classifier import Classifier, NormalisedTeacher
from edgeslim.ground.training.recipe import Recipe
from edgeslim.ground.training.sandwich import widths_of_step


@dataclass(frozen=True)
class Supervised:
    """Labelled tiles and what is learnt of them. Any module that maps tiles of 0 ... 255 to logits can."""

    recipe: Recipe
    """A `Classifier` is trained slimmable if it says so."""
    train: LabelledTiles
    """To learn from."""
    validation: LabelledTiles
    """Looked at after an epoch."""
    teacher: NormalisedTeacher | None = None
    """None: labels alone teach."""

    @property
    def tiles(self) -> int:
        """Number of them to learn from."""
        return len(self.train.labels)

    def to(self, place: torch.device) -> Supervised:
        """The same on a device."""
        teacher = None if self.teacher is None else self.teacher.to(place)
        return replace(self, train=self.train.to(place), validation=self.validation.to(place), teacher=teacher)

    def loss(self, model: nn.Module, _: nn.Module, chosen: Tensor, chance: Chance) -> Tensor:
        """Of one step on the tiles whose numbers are `chosen`, (B,)."""
        recipe, data = self.recipe, self.train
        hard = torch.eye(len(data.classes), device=data.labels.device)[data.labels[chosen]]
        tiles = augment.geometry(data.images[chosen].float(), chance)
        target = hard * (1 - recipe.label_smoothing) + recipe.label_smoothing / hard.shape[1]
        shares = (recipe.mixup_share, recipe.cutmix_share, recipe.patchwork_share, recipe.mosaic_share)
        tiles, target, mixed = augment.mix(tiles, target, chance, shares)
        # After the mixing, as a scene lies under one atmosphere.
        tiles = augment.noise(augment.radiometry(tiles, chance, recipe.band_jitter), chance)
        tiles, target = together.share(tiles), together.share(target)
        maps = None
        with torch.autocast(tiles.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            if self.teacher is not None:
                maps, taught = self.teacher.teach(tiles)
                if share := recipe.mixed_teacher_share if mixed else recipe.teacher_share:
                    target = target * (1 - share) + taught * share
            if recipe.slimmable and isinstance(model, Classifier):
                return sandwich(model, tiles, target, maps, recipe, chance)
            return _soft_cross_entropy(model(tiles), target)

    def scores(self, average: nn.Module) -> dict[str, float]:
        """Validation accuracy by width multiplier."""
        with torch.autocast(
            self.validation.labels.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"
        ):
            found = {"1.0": accuracy(average, self.validation)}
            if isinstance(average, Classifier) and self.recipe.slimmable:
                found["0.25"] = accuracy(partial(_quarter, average), self.validation)
        return found


def accuracy(
    logits_of: Callable[[Tensor], Tensor],
    data: LabelledTiles,
    batch: int = 500,
    change: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Share of `data` that `logits_of` (tiles 0 ... 255 -> logits) classifies right, after `change` to the tiles."""
    right = torch.zeros((), dtype=torch.int64, device=data.labels.device)
    with torch.inference_mode():
        for start in range(0, len(data.labels), batch):
            tiles = data.images[start : start + batch].float()
            tiles = tiles if change is None else change(tiles)
            right += (logits_of(tiles).argmax(1) == data.labels[start : start + batch]).sum()
    return int(right) / len(data.labels)


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def _quarter(model: Classifier, tiles: Tensor) -> Tensor:
    return model.logits(model.tokens(tiles), 0.25)


def sandwich(
    model: Classifier,
    tiles: Tensor,
    target: Tensor,
    maps: Tensor | None,
    recipe: Recipe,
    chance: Chance,
) -> Tensor:
    """Sum of the losses of the widest, the narrowest and the recipe's random widths; `maps` are hints, if any."""
    tokens = model.tokens(tiles)
    loss = tokens.new_zeros((), dtype=torch.float32)
    for width in widths_of_step(model.encoder.arch, recipe, chance):
        encoded = model.encoder.encode(tokens, width)
        logits = model.classify(encoded)
        loss = loss + _soft_cross_entropy(logits, target)
        if maps is not None:
            loss = loss + recipe.hint_weight * model.hint_loss(encoded, maps)
        if width == 1.0:
            target = logits.detach().softmax(1)
    return loss
