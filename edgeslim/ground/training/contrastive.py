"""Contrastive: momentum contrast without a queue, as MoCo v3 (arXiv 2104.02057), at any width.

Two views of each tile; the query of one must find the key of the other among those of the whole batch (InfoNCE), both
ways round. Keys are made by the moving average of the model, at full width, without gradient. There is no queue as in
MoCo v1 and v2 (arXiv 1911.05722, 2003.04297): a queue wants keys that grow old slowly, so a momentum of 0.999, so many
thousand steps, and is state that a resumed run must have; a batch of some hundred tiles of ten or twenty land covers
has negatives enough. Projector and predictor have LayerNorm where MoCo v3 has BatchNorm: it looks at no other tile, so
it leaks nothing between query and key, and several processes give what one gives. The patch embedding is trained, too.

Slimmable: every width has the contrast, its queries through the same projector and predictor against the same keys;
and a narrow one is drawn to the pooled features of the full one, which are detached, by 1 - cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.ground.encoder import AnyEncoder
from edgeslim.ground.training import together
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.sandwich import distance, widths_of_step
from edgeslim.ground.training.unlabelled import OfUnlabelled
from edgeslim.ground.training.views import view

OUT = 128
"""Dimensions of a query and of a key."""
HIDDEN = 4
"""Hidden units of projector and predictor for each dimension of the features."""
_LOOKED_AT = 256
"""Tiles of the validation part that the log's loss is of, at most."""


def _mlp(*sizes: int) -> nn.Sequential:
    """Linear layers without bias, LayerNorm behind each, GELU between them."""
    layers = nn.Sequential()
    for inputs, outputs in pairwise(sizes):
        if len(layers):
            layers.append(nn.GELU())
        layers.append(nn.Linear(inputs, outputs, bias=False))
        layers.append(nn.LayerNorm(outputs))
    return layers


class Contrast(nn.Module):
    """An encoder of normalised tiles with projector (three layers) and predictor (two), both left behind later."""

    def __init__(self, encoder: AnyEncoder) -> None:
        super().__init__()
        dim, hidden = encoder.arch.dim, HIDDEN * encoder.arch.dim
        self.encoder = encoder
        self.projector = _mlp(dim, hidden, hidden, OUT)
        self.predictor = _mlp(OUT, hidden, OUT)

    def query(self, features: Tensor) -> Tensor:
        """(B, d) features -> (B, OUT) float32 of length 1."""
        return F.normalize(self.predictor(self.projector(features)).float(), dim=1)

    def key(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) normalised tiles -> (B, OUT) float32 of length 1, at full width."""
        return F.normalize(self.projector(self.encoder(tiles)).float(), dim=1)


def info_nce(queries: Tensor, keys: Tensor, first: int, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each query's own key: of (b, OUT) queries, row `first` + i of (B, OUT) keys."""
    own = torch.arange(first, first + len(queries), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):  # bf16 would round what the temperature enlarges
        return F.cross_entropy(queries @ keys.T / temperature, own)


@dataclass(frozen=True)
class Contrastive(OfUnlabelled):
    """Unlabelled tiles and what is learnt of them by a `Contrast`."""

    def loss(self, model: nn.Module, average: nn.Module, chosen: Tensor, chance: Chance) -> Tensor:
        """Of one step on the tiles whose numbers are `chosen`, (B,)."""
        tiles = self.train.normalised(chosen)
        views = [together.share(view(tiles, chance)) for _ in range(2)]
        contrast, momentum = _contrast(model), _contrast(average)
        widths = widths_of_step(contrast.encoder.arch, self.recipe, chance)
        with torch.autocast(tiles.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            with torch.no_grad():
                keys = [together.gathered(momentum.key(one)) for one in views]
            tokens: Tensor = contrast.encoder.embed(torch.cat(views))
            return self._widths(contrast, tokens, keys, widths)

    def _widths(self, model: Contrast, tokens: Tensor, keys: list[Tensor], widths: list[float]) -> Tensor:
        """Sum over widths, of (2 b, N, d) tokens (or maps) of both views and the (B, OUT) keys of each."""
        full, loss = None, tokens.new_zeros((), dtype=torch.float32)
        own = len(tokens) // 2
        for width in widths:
            features = model.encoder.pool(model.encoder.encode(tokens, width))
            queries = model.query(features)
            for query, key in zip((queries[:own], queries[own:]), reversed(keys), strict=True):
                loss = loss + info_nce(query, key, together.rank() * own, self.recipe.temperature)
            if full is None:
                full = features.detach()
            else:
                loss = loss + self.recipe.distil_weight * distance(features, full)
        return loss

    def scores(self, average: nn.Module) -> dict[str, float]:
        """InfoNCE of views of the validation part among themselves, both ways, at full width."""
        model, chance = _contrast(average), Chance.seeded(self.recipe.seed, self.validation.images.device)
        with torch.no_grad():
            tiles = self.validation.normalised(slice(_LOOKED_AT))
            views = [view(tiles, chance) for _ in range(2)]
            keys = [model.key(one) for one in views]
            queries = [model.query(model.encoder(one)) for one in views]
            pairs = zip(queries, reversed(keys), strict=True)
            return {"1.0": float(sum(info_nce(q, k, 0, self.recipe.temperature) for q, k in pairs))}


def _contrast(model: nn.Module) -> Contrast:
    if not isinstance(model, Contrast):
        raise TypeError(f"found {type(model).__name__}, expected the Contrast that Contrastive trains")
    return model
