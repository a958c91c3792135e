"""One training run as each of several processes has it.

`python -m tests.ground.training.several FOLDER`, under torchrun's names.

Every process writes FOLDER/RANK-OBJECTIVE.pt: the gradients of one step, and the weights after an epoch.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeslim.architecture import Architecture
from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.training import together
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.classifier import Classifier, NormalisedTeacher
from edgeslim.ground.training.contrastive import Contrast, Contrastive
from edgeslim.ground.training.masked import Masked, MaskedAutoencoding
from edgeslim.ground.training.pretrain import pretrained_encoder
from edgeslim.ground.training.recipe import Recipe
from edgeslim.ground.training.supervised import Supervised
from edgeslim.ground.training.teacher import TeacherCnn
from edgeslim.ground.training.train import Objective, fit
from edgeslim.ground.training.unlabelled import UnlabelledTiles
from edgeslim.ground.vit import Vit
from edgeslim.profile import Radiometry
from tests.ground.conftest import TINY

PLAIN = replace(TINY, stem_channels=(), class_token=True)
OBJECTIVES = ("supervised", "contrastive", "mae")
RECIPE = Recipe(epochs=1, batch=16, random_widths=3, warmup_epochs=0.2, learning_rate=1e-3, average_decay=0.99)


def unlabelled(count: int = 64, arch: Architecture = PLAIN) -> UnlabelledTiles:
    generator = torch.Generator().manual_seed(5)
    size = (count, arch.bands, arch.tile_px, arch.tile_px)
    radiometry = Radiometry(("any",), 1.0, 0.0, (0.0, 255.0), (120.0,) * arch.bands, (60.0,) * arch.bands, 1.0)
    return UnlabelledTiles(torch.randint(0, 256, size, generator=generator, dtype=torch.uint8), radiometry)


def made(objective: str, recipe: Recipe = RECIPE) -> tuple[nn.Module, Objective]:
    """A model and what it is to learn, the same bits for the same arguments."""
    tiles = unlabelled()
    torch.manual_seed(0)
    if objective == "contrastive":
        return Contrast(pretrained_encoder(Vit(PLAIN), 0)), Contrastive(recipe, tiles, tiles)
    if objective == "mae":
        return Masked(pretrained_encoder(Vit(PLAIN), 0)), MaskedAutoencoding(recipe, tiles, tiles)
    labels = torch.arange(len(tiles)) % 3
    data = LabelledTiles(tiles.images, labels, ("a", "b", "c"), tuple(str(i) for i in range(len(tiles))))
    mean, std = torch.full((3,), 120.0), torch.full((3,), 60.0)
    teacher = NormalisedTeacher(TeacherCnn(3, 3, (4, 6)), mean, std).eval()
    encoder = pretrained_encoder(Vit(TINY, batch_norm=True), 0)
    return Classifier(encoder, 3, mean, std, 6), Supervised(recipe, data, data, teacher)


def gradients(objective: str) -> dict[str, Tensor]:
    model, learnt = made(objective)
    together.share_batch_norm(model)
    average = copy.deepcopy(model).eval()
    torch.autograd.backward(learnt.loss(model, average, torch.arange(7, 23), Chance.seeded(3)))
    together.average_gradients(model)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def weights(objective: str) -> dict[str, Tensor]:
    model, learnt = made(objective)
    folder = Path(tempfile.mkdtemp())
    return fit(model, RECIPE, learnt, folder, say=lambda _: None).state_dict()


def main() -> None:
    torch.set_num_threads(1)
    with together.joined("cpu"):
        for objective in OBJECTIVES:
            found = {"gradients": gradients(objective), "weights": weights(objective)}
            torch.save(found, Path(sys.argv[1]) / f"{together.rank()}-{objective}.pt")


if __name__ == "__main__":
    main()
