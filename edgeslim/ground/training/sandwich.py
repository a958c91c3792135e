"""Sandwich: the widths that one step of training goes through, and how far a narrow one is from the full one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.recipe import Recipe

_LIKED = 8
"""Hidden channels come in multiples of this on most boards (`multiples` of their cards)."""


def trained_widths(arch: AnyArchitecture) -> list[float]:
    """Widths that are trained and get a head, ascending: every step of a ViT.

    A ConvNeXt has hundreds, the narrowest of one hidden channel: of these such as most boards are planned at, where
    every stage's hidden channels come in eights; all where it has none.
    """
    steps = arch.width_steps()
    if isinstance(arch, Architecture):
        return steps
    liked = [step for step in steps if step == 1.0 or arch.at(step).is_aligned(1, _LIKED)]
    return liked if len(liked) > 1 else steps


def widths_of_step(arch: AnyArchitecture, recipe: Recipe, chance: Chance) -> list[float]:
    """Full, narrowest and `recipe.random_widths` drawn ones (sandwich rule, arXiv 1903.05134).

    The full one alone where the recipe is not slimmable.
    """
    if not recipe.slimmable:
        return [1.0]
    steps = trained_widths(arch)
    # The exponent draws narrow widths more often than wide ones: they gain more from a step, and it costs less.
    draws = torch.rand(recipe.random_widths, generator=chance.host) ** 1.5
    drawn = (1 + draws * (len(steps) - 2)).long().tolist()
    return [steps[index] for index in (len(steps) - 1, 0, *drawn)]


def distance(features: Tensor, full: Tensor) -> Tensor:
    """1 - cosine of (..., d) features of a narrow width and the full one's, which get no gradient: their mean."""
    return (1 - F.cosine_similarity(features.float(), full.detach().float(), dim=-1)).mean()
