"""Slimmable training: the sandwich rule with in-place distillation (arXiv 1903.05134), and the teacher's own training.

Each step trains the widest width on labels (and on a teacher's view of the same tiles), and the narrowest plus some
random widths on the widest one's detached output; gradients are summed, one optimiser step is taken.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from edgeslim.ground import augment
from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.teacher import TeacherCnn
from edgeslim.ground.vit import Vit


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
    """Random widths a step, besides the widest and the narrowest; 0 with `slimmable` False."""
    slimmable: bool = True
    """False trains the widest width alone."""
    teacher_share: float = 0.5
    """Weight of the teacher's probabilities against the labels, on batches that are not mixed."""
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
    """Decay of the exponential moving average whose weights are kept."""
    precision: str = "fp32"
    """"fp32", or "bf16" autocast where the processor has it."""
    seed: int = 0
    """Of weights, order and augmentation."""


class Classifier(nn.Module):
    """Encoder and linear head, with the normalisation of 0 ... 255 tiles in front.

    The tokens before the blocks do not depend on the width: they are computed once a step. `hint_channels` adds a
    projection to a teacher's feature maps, for training alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Vit, classes: int, mean: Tensor, std: Tensor, hint_channels: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.arch.dim, classes)
        self.hint = nn.Linear(encoder.arch.dim, hint_channels) if hint_channels else None
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def tokens(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) 0 ... 255 -> (B, N, d)."""
        return self.encoder.embed((tiles - self.mean) / self.std)

    def logits(self, tokens: Tensor, width_multiplier: float = 1.0) -> Tensor:
        """(B, N, d) -> (B, classes) float32."""
        return self.classify(self.encoder.encode(tokens, width_multiplier))

    def classify(self, encoded: Tensor) -> Tensor:
        """(B, N, d) encoded tokens -> (B, classes) float32."""
        logits: Tensor = self.head(self.encoder.pool(encoded))
        return logits.float()

    def hint_loss(self, encoded: Tensor, maps: Tensor) -> Tensor:
        """Mean squared distance of projected patch tokens (B, N, d) from standardised feature maps (B, C, h, w).

        0 for a model without `hint_channels`.
        """
        if self.hint is None:
            return torch.zeros(())
        patches = encoded[:, self.encoder.arch.tokens - self.encoder.arch.patches :]
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
        return F.batch_norm(maps.float(), None, None, training=True), probabilities


def statistics(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band of (n, C, H, W) uint8 tiles, in levels."""
    values = tiles.double().transpose(0, 1).flatten(1)
    return values.mean(1).float(), values.std(1).float()


def accuracy(
    logits_of: Callable[[Tensor], Tensor],
    data: LabelledTiles,
    batch: int = 500,
    change: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Share of `data` that `logits_of` (tiles 0 ... 255 -> logits) classifies right, after `change` to the tiles."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(data.labels), batch):
            tiles = data.images[start : start + batch].float()
            tiles = tiles if change is None else change(tiles)
            right += int((logits_of(tiles).argmax(1) == data.labels[start : start + batch]).sum())
    return right / len(data.labels)


def cpu_hours(folder: Path) -> float:
    """CPU hours that `fit` has spent in `folder`; 0.0 where it never ran."""
    log = folder / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return round(rows[-1]["cpu_seconds"] / 3600, 2) if rows else 0.0


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average that forgets the first weights: the decay starts low and rises to `decay`."""

    def update(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        seen = int(count)
        return torch.lerp(average, current.to(average.dtype), 1 - min(decay, (1 + seen) / (10 + seen)))

    return update


def _optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or for all but the blocks' matrices, which Muon takes."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if recipe.optimizer == "muon" and ".blocks." in n and p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [(n, p) for n, p in named if id(p) not in taken]
    decayed = [p for n, p in rest if p.ndim >= 2 and not n.endswith(("pos_embed", "cls_token", "reg_token"))]
    plain = [p for n, p in rest if p.ndim < 2 or n.endswith(("pos_embed", "cls_token", "reg_token"))]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=recipe.learning_rate)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _save(state: dict[str, object], path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)


def fit(
    model: nn.Module,
    recipe: Recipe,
    train: LabelledTiles,
    validation: LabelledTiles,
    folder: Path,
    *,
    teacher: NormalisedTeacher | None = None,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Train `model` by `recipe`; return its moving average, in evaluation mode.

    `model` maps (B, C, H, W) tiles of 0 ... 255 to logits; a `Classifier` is trained slimmable. `folder` receives
    `last.pt` after every epoch, from which a later call resumes, and `log.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = len(train.labels) // recipe.batch
    total, warmup = steps * recipe.epochs, max(1, round(recipe.warmup_epochs * steps))
    optimizers = _optimizers(model, recipe)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    average = AveragedModel(model, avg_fn=_moving_average(recipe.average_decay), use_buffers=True)
    first, spent = 0, 0.0
    checkpoint = folder / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, scheduler, of_optimizer, of_scheduler in zip(
            optimizers, schedulers, state["optimizers"], state["schedulers"], strict=True
        ):
            optimizer.load_state_dict(of_optimizer)
            scheduler.load_state_dict(of_scheduler)
        generator.set_state(state["generator"])
        first, spent = int(state["epoch"]), float(state["cpu_seconds"])
        say(f"resuming after epoch {first} of {recipe.epochs}")
    classes = len(train.classes)
    slimmable = model if recipe.slimmable and isinstance(model, Classifier) else None
    for epoch in range(first, recipe.epochs):
        model.train()
        started, cpu, loss_sum = time.perf_counter(), time.process_time(), 0.0
        order = torch.randperm(len(train.labels), generator=generator)
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            tiles = augment.geometry(train.images[chosen].float(), generator)
            hard = F.one_hot(train.labels[chosen], classes).float()
            target = hard * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
            shares = (recipe.mixup_share, recipe.cutmix_share, recipe.patchwork_share, recipe.mosaic_share)
            tiles, target, mixed = augment.mix(tiles, target, generator, shares)
            # After the mixing, as a scene lies under one atmosphere.
            tiles = augment.noise(augment.radiometry(tiles, generator, recipe.band_jitter), generator)
            maps = None
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                if teacher is not None:
                    maps, taught = teacher.teach(tiles)
                    # Of a mixed tile the teacher's opinion is worth less than the labels; its features are local.
                    if not mixed:
                        target = target * (1 - recipe.teacher_share) + taught * recipe.teacher_share
                if slimmable is not None:
                    loss = _sandwich(slimmable, tiles, target, maps, recipe, generator)
                else:
                    loss = _soft_cross_entropy(model(tiles), target)
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            average.update_parameters(model)
            loss_sum += float(loss.detach())
        average.eval()
        spent += time.process_time() - cpu
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            scores = {"1.0": accuracy(average, validation)}
            if isinstance(slim := average.module, Classifier) and slimmable is not None:
                scores["0.25"] = accuracy(partial(_quarter, slim), validation)
        row = {
            "epoch": epoch + 1,
            "loss": loss_sum / steps,
            "validation": scores,
            "cpu_seconds": round(spent, 1),
            "wall_seconds": round(time.perf_counter() - started, 1),
        }
        _save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "schedulers": [scheduler.state_dict() for scheduler in schedulers],
                "generator": generator.get_state(),
                "epoch": epoch + 1,
                "cpu_seconds": spent,
                "recipe": asdict(recipe),
            },
            checkpoint,
        )
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        say(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {row['loss']:.3f}  validation "
            + "  ".join(f"w {w}: {s:.4f}" for w, s in scores.items())
            + f"  {row['wall_seconds']:.0f} s"
        )
    return average.module.eval()


def _quarter(model: Classifier, tiles: Tensor) -> Tensor:
    return model.logits(model.tokens(tiles), 0.25)


def _sandwich(
    model: Classifier,
    tiles: Tensor,
    target: Tensor,
    maps: Tensor | None,
    recipe: Recipe,
    generator: torch.Generator,
) -> Tensor:
    """Sum of the losses of the widest, the narrowest and the recipe's random widths; `maps` are hints, if any."""
    steps = model.encoder.arch.width_steps()
    tokens = model.tokens(tiles)
    # The exponent draws narrow widths more often than wide ones: they gain more from a step, and it costs less.
    draws = torch.rand(recipe.random_widths, generator=generator) ** 1.5
    drawn = (1 + draws * (len(steps) - 2)).long().tolist()
    loss = torch.zeros(())
    for index in (len(steps) - 1, 0, *drawn):
        encoded = model.encoder.encode(tokens, steps[index])
        logits = model.classify(encoded)
        loss = loss + _soft_cross_entropy(logits, target)
        if maps is not None:
            loss = loss + recipe.hint_weight * model.hint_loss(encoded, maps)
        if index == len(steps) - 1:
            target = logits.detach().softmax(1)
    return loss
