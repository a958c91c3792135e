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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from edgeslim.ground import augment
from edgeslim.ground.augment import Chance
from edgeslim.ground.classifier import Classifier, NormalisedTeacher
from edgeslim.ground.labelled import LabelledTiles
from edgeslim.ground.recipe import Recipe


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
    right = torch.zeros((), dtype=torch.int64, device=data.labels.device)
    with torch.inference_mode():
        for start in range(0, len(data.labels), batch):
            tiles = data.images[start : start + batch].float()
            tiles = tiles if change is None else change(tiles)
            right += (logits_of(tiles).argmax(1) == data.labels[start : start + batch]).sum()
    return int(right) / len(data.labels)


def hours(folder: Path) -> float:
    """Hours that `fit` has spent in `folder`, of the processor's cores or of the GPU; 0.0 where it never ran."""
    log = folder / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return round(rows[-1]["seconds"] / 3600, 2) if rows else 0.0


def _soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average that forgets the first weights: the decay starts low and rises to `decay`."""

    def update(averages: Any, currents: Any, _: Tensor | int) -> None:
        seen = int(average.n_averaged)  # not what is handed over: that lies on the device, and would be waited for
        share = 1 - min(decay, (1 + seen) / (10 + seen))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, share)
        else:
            torch._foreach_copy_(averages, currents)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average


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
    device: str = "cpu",
    every: int = 1,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Train `model` by `recipe` on `device`; return its moving average, in evaluation mode, on the CPU.

    `model` maps (B, C, H, W) tiles of 0 ... 255 to logits; a `Classifier` is trained slimmable. `folder` receives
    `last.pt` after every `every` epochs, from which a later call resumes, and `log.jsonl`. A stopped run that is
    resumed on the CPU gives the same weights bit for bit; a GPU sums in no fixed order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    place = torch.device(device)
    chance = Chance.seeded(recipe.seed, place)
    model, train, validation = model.to(place), train.to(place), validation.to(place)
    teacher = None if teacher is None else teacher.to(place)
    steps = len(train.labels) // recipe.batch
    total, warmup = steps * recipe.epochs, max(1, round(recipe.warmup_epochs * steps))
    optimizers = _optimizers(model, recipe)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    average = _averaged(model, recipe.average_decay)
    one_hot = torch.eye(len(train.classes), device=place)
    first, spent = 0, 0.0
    checkpoint = folder / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, scheduler, of_optimizer, of_scheduler in zip(
            optimizers, schedulers, state["optimizers"], state["schedulers"], strict=True
        ):
            optimizer.load_state_dict(of_optimizer)
            scheduler.load_state_dict(of_scheduler)
        chance.host.set_state(state["host"])
        if state["place"] == place.type:  # another device cannot go on with these numbers, and draws its own
            chance.device.set_state(state["device"])
        first, spent = int(state["epoch"]), float(state["seconds"])
        say(f"resuming after epoch {first} of {recipe.epochs}")
    clock = time.process_time if place.type == "cpu" else time.perf_counter
    started, before = time.perf_counter(), clock()
    for epoch in range(first, recipe.epochs):
        model.train()
        loss_sum = torch.zeros((), device=place)
        order = torch.randperm(len(train.labels), generator=chance.host).to(place)
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            hard = one_hot[train.labels[chosen]]
            loss = _loss(model, train.images[chosen].float(), hard, recipe, teacher, chance)
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            average.update_parameters(model)
            loss_sum += loss.detach()
        if (epoch + 1) % every and epoch + 1 < recipe.epochs:
            continue
        average.eval()
        lost = float(loss_sum) / steps
        spent, before = spent + clock() - before, clock()
        with torch.autocast(place.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            scores = {"1.0": accuracy(average, validation)}
            if isinstance(slim := average.module, Classifier) and recipe.slimmable:
                scores["0.25"] = accuracy(partial(_quarter, slim), validation)
        row = {
            "epoch": epoch + 1,
            "loss": lost,
            "validation": scores,
            "device": place.type,
            "seconds": round(spent, 1),
            "wall_seconds": round(time.perf_counter() - started, 1),
        }
        _save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "schedulers": [scheduler.state_dict() for scheduler in schedulers],
                "place": place.type,
                "host": chance.host.get_state(),
                "device": chance.device.get_state(),
                "epoch": epoch + 1,
                "seconds": spent,
                "recipe": asdict(recipe),
            },
            checkpoint,
        )
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        say(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {lost:.3f}  validation "
            + "  ".join(f"w {w}: {s:.4f}" for w, s in scores.items())
            + f"  {row['wall_seconds']:.0f} s"
        )
        started, before = time.perf_counter(), clock()
    return average.module.to("cpu").eval()


def _loss(
    model: nn.Module,
    tiles: Tensor,
    hard: Tensor,
    recipe: Recipe,
    teacher: NormalisedTeacher | None,
    chance: Chance,
) -> Tensor:
    """Of one step on (B, C, H, W) tiles of 0 ... 255, which are changed and mixed first, and their one-hot labels."""
    tiles = augment.geometry(tiles, chance)
    target = hard * (1 - recipe.label_smoothing) + recipe.label_smoothing / hard.shape[1]
    shares = (recipe.mixup_share, recipe.cutmix_share, recipe.patchwork_share, recipe.mosaic_share)
    tiles, target, mixed = augment.mix(tiles, target, chance, shares)
    # After the mixing, as a scene lies under one atmosphere.
    tiles = augment.noise(augment.radiometry(tiles, chance, recipe.band_jitter), chance)
    maps = None
    with torch.autocast(tiles.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        if teacher is not None:
            maps, taught = teacher.teach(tiles)
            if share := recipe.mixed_teacher_share if mixed else recipe.teacher_share:
                target = target * (1 - share) + taught * share
        if recipe.slimmable and isinstance(model, Classifier):
            return _sandwich(model, tiles, target, maps, recipe, chance)
        return _soft_cross_entropy(model(tiles), target)


def _quarter(model: Classifier, tiles: Tensor) -> Tensor:
    return model.logits(model.tokens(tiles), 0.25)


def _sandwich(
    model: Classifier,
    tiles: Tensor,
    target: Tensor,
    maps: Tensor | None,
    recipe: Recipe,
    chance: Chance,
) -> Tensor:
    """Sum of the losses of the widest, the narrowest and the recipe's random widths; `maps` are hints, if any."""
    steps = model.encoder.arch.width_steps()
    tokens = model.tokens(tiles)
    # The exponent draws narrow widths more often than wide ones: they gain more from a step, and it costs less.
    draws = torch.rand(recipe.random_widths, generator=chance.host) ** 1.5
    drawn = (1 + draws * (len(steps) - 2)).long().tolist()
    loss = tokens.new_zeros((), dtype=torch.float32)
    for index in (len(steps) - 1, 0, *drawn):
        encoded = model.encoder.encode(tokens, steps[index])
        logits = model.classify(encoded)
        loss = loss + _soft_cross_entropy(logits, target)
        if maps is not None:
            loss = loss + recipe.hint_weight * model.hint_loss(encoded, maps)
        if index == len(steps) - 1:
            target = logits.detach().softmax(1)
    return loss
