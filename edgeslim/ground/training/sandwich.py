"""Sandwich: the widths that one step of training goes through, and how far a narrow one is from the full one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.recipe import Recipe


def widths_of_step(arch: Architecture, recipe: Recipe, chance: Chance) -> list[float]:
    """Full, narrowest and `recipe.random_widths` drawn ones (sandwich rule, arXiv 1903.05134).

    The full one alone where the recipe is not slimmable.
    """
    if not recipe.slimmable:
        return [1.0]
    steps = arch.width_steps()
    # The exponent draws narrow widths more often than wide ones: they gain more from a step, and it costs less.
    draws = torch.rand(recipe.random_widths, generator=chance.host) ** 1.5
    drawn = (1 + draws * (len(steps) - 2)).long().tolist()
    return [steps[index] for index in (len(steps) - 1, 0, *drawn)]


def distance(features: Tensor, full: Tensor) -> Tensor:
    """1 - cosine of (..., d) features of a narrow width and the full one's, which get no gradient: their mean."""
    return (1 - F.cosine_similarity(features.float(), full.detach().float(), dim=-1)).mean()
