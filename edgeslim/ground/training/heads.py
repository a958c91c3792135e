"""Heads: a linear classifier fitted to the features of each width, and what every width scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.training import augment
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.classifier import Classifier
from edgeslim.ground.training.recipe import Recipe
from edgeslim.ground.training.sandwich import trained_widths

ANCHORS = (float("inf"), 1.0, 0.1, 0.01)
"""Strengths tried for the pull towards the shared head; infinite keeps it."""
MOST_TILES = 6000
"""Training tiles that heads are fitted on, evenly spaced: enough for a linear head, and a third of the time."""


def tokens_of(model: Classifier, tiles: Tensor, batch: int = 64) -> Tensor:
    """(n, C, H, W) tiles of 0 ... 255, any type -> (n, N, d) tokens, or (n, d, h, w) maps, before the blocks."""
    with torch.inference_mode():
        return torch.cat([model.tokens(tiles[i : i + batch].float()) for i in range(0, len(tiles), batch)])


def features_of(model: Classifier, tokens: Tensor, width_multiplier: float, batch: int = 64) -> Tensor:
    """Tokens or maps of `tokens_of` -> (n, d) features at a width."""
    encoder = model.encoder
    with torch.inference_mode():
        pieces = [tokens[i : i + batch] for i in range(0, len(tokens), batch)]
        return torch.cat([encoder.pool(encoder.encode(piece, width_multiplier)) for piece in pieces])


def training_view(data: LabelledTiles, seed: int, band_jitter: float) -> Tensor:
    """Up to about MOST_TILES of `data`, turned and under random radiometry, float32 0 ... 255: to fit heads on."""
    chance = Chance.seeded(seed)
    step = max(1, len(data.labels) // MOST_TILES)
    tiles = augment.geometry(data.images[::step].float(), chance)
    return augment.radiometry(tiles, chance, band_jitter)


def fit_head(features: Tensor, target: Tensor, start: tuple[Tensor, Tensor], anchor: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression (L-BFGS) on (n, d) features and (n, classes) target probabilities.

    The squared distance to `start`, weighted by `anchor`, is added to the loss: a head for a width stays near the one
    that all widths were trained with, unless the data say otherwise.
    """
    weight, bias = (t.detach().clone().requires_grad_() for t in start)
    if anchor == float("inf"):
        return weight.detach(), bias.detach()
    inputs, soft = features.clone(), target.clone()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(soft * F.log_softmax(F.linear(inputs, weight, bias), dim=1)).sum(1).mean()
        loss = loss + anchor * ((weight - start[0]).square().mean() + (bias - start[1]).square().mean())
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide (n, classes) logits by so that their negative log-likelihood is least (Guo et al. 2017).

    From 0.2 to 5, to a hundredth. The class with the largest logit stays the same.
    """
    grid = torch.logspace(-0.7, 0.7, 325)
    losses = torch.stack([F.cross_entropy(logits / t, labels) for t in grid])
    return float(grid[losses.argmin()])


def right_share(features: Tensor, labels: Tensor, head: tuple[Tensor, Tensor]) -> float:
    """Share of (n, d) features whose largest logit is the label's."""
    return float((F.linear(features, *head).argmax(1) == labels).float().mean())


def fit_heads(
    model: Classifier, train: LabelledTiles, validation: LabelledTiles, recipe: Recipe, say: Callable[[str], None]
) -> dict[int, tuple[Tensor, Tensor]]:
    """A head for each of `trained_widths`, keyed by its units (Architecture.units_of_width).

    The full width's probabilities on training tiles are the targets; the anchor is the one that does best on the
    validation part, as it is and as surface reflectance, the strongest among equals. There, too, the temperature of
    each head is chosen, by which its weight and bias are divided: probabilities are to mean what they say.
    """
    shared = (model.head.weight.detach(), model.head.bias.detach())
    view = tokens_of(model, training_view(train, recipe.seed, recipe.band_jitter))
    checks = [
        tokens_of(model, validation.images),
        tokens_of(model, augment.surface_reflectance(validation.images.float())),
    ]
    target = F.linear(features_of(model, view, 1.0), *shared).softmax(1)
    heads = {}
    for step in trained_widths(model.encoder.arch):
        features = features_of(model, view, step)
        held_out = [features_of(model, tokens, step) for tokens in checks]
        best, best_score = shared, -1.0
        for anchor in ANCHORS:
            head = fit_head(features, target, shared, anchor)
            score = sum(right_share(f, validation.labels, head) for f in held_out)
            if score > best_score:
                best, best_score = head, score
        logits = torch.cat([F.linear(features, *best) for features in held_out])
        divisor = temperature(logits, validation.labels.repeat(len(held_out)))
        heads[model.encoder.arch.at(step).units_of_width] = (best[0] / divisor, best[1] / divisor)
        say(f"head at w {step:.3f}: validation {best_score / len(checks):.4f}, temperature {divisor:.2f}")
    return heads
