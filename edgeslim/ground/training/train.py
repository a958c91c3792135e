"""Train: the loop of every objective: order, schedule, moving average, checkpoints, one process or several.

What is learnt of a batch an `Objective` says (edgeslim.ground.training.supervised, contrastive, masked).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeslim.errors import InputError
from edgeslim.ground.training import together
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.recipe import Recipe

Model = TypeVar("Model", bound=nn.Module)


class Objective(Protocol):
    """What a model learns, and of which tiles."""

    @property
    def tiles(self) -> int:
        """Number of them to learn from."""

    def to(self, place: torch.device) -> Objective:
        """The same with its tensors on a device."""

    def loss(self, model: nn.Module, average: nn.Module, chosen: Tensor, chance: Chance) -> Tensor:
        """Of one step, float32, with gradients to `model`; `average` is its moving average, before the step.

        `chosen` (B,) are numbers of tiles, the whole batch, from which random numbers are drawn; the mean is over this
        process's share of it.
        """

    def scores(self, average: nn.Module) -> dict[str, float]:
        """How good the average is, by width multiplier, for the log."""


def statistics(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band of (n, C, H, W) uint8 tiles, in levels."""
    values = tiles.double().transpose(0, 1).flatten(1)
    return values.mean(1).float(), values.std(1).float()


def hours(folder: Path) -> float:
    """Hours that `fit` has spent in `folder`, of the processor's cores or of the GPU; 0.0 where it never ran."""
    log = folder / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return round(rows[-1]["seconds"] / 3600, 2) if rows else 0.0


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


_TOKENS = ("pos_embed", "cls_token", "reg_token", "mask_token")
"""Ends of the names of parameters that are tokens, or are added to them: they do not decay."""


def _optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or for all but the blocks' matrices, which Muon takes."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if recipe.optimizer == "muon" and ".blocks." in n and p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [(n, p) for n, p in named if id(p) not in taken]
    decayed = [p for n, p in rest if p.ndim >= 2 and not n.endswith(_TOKENS)]
    plain = [p for n, p in rest if p.ndim < 2 or n.endswith(_TOKENS)]
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


def _check_recipe(before: dict[str, Any], recipe: Recipe, path: Path) -> None:
    """Raise InputError where a run would go on by another recipe than it was begun by."""
    now = asdict(recipe)
    for name, value in before.items():
        if name in now and now[name] != value:
            raise InputError(
                f"{path}: was begun with {name} {value}, found {now[name]}; resume it as it was, or give another -o"
            )


def fit(
    model: Model,
    recipe: Recipe,
    objective: Objective,
    folder: Path,
    *,
    device: str = "cpu",
    every: int = 1,
    say: Callable[[str], None] = print,
) -> Model:
    """Train `model` by `recipe` on `device`; return its moving average, in evaluation mode, on the CPU.

    `folder` receives `last.pt` after every `every` epochs, from which a later call resumes, and `log.jsonl`. A stopped
    run that is resumed on the CPU gives the same weights bit for bit; a GPU sums in no fixed order. Of several
    processes (ground.training.together) each calls it alike, and the first writes. Raises UsageError for a batch that
    they cannot share, InputError for fewer tiles than one batch, or a `last.pt` of another run.
    """
    together.check_batch(recipe.batch)
    if objective.tiles < recipe.batch:
        raise InputError(f"--batch: found {recipe.batch}, expected at most the {objective.tiles} tiles to train on")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    place = torch.device(device)
    chance = Chance.seeded(recipe.seed, place)
    together.share_batch_norm(model)
    model.to(place)
    objective = objective.to(place)
    steps = objective.tiles // recipe.batch
    total, warmup = steps * recipe.epochs, max(1, round(recipe.warmup_epochs * steps))
    optimizers = _optimizers(model, recipe)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    average = _averaged(model, recipe.average_decay).eval()
    first, spent = 0, 0.0
    checkpoint = folder / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        _check_recipe(state["recipe"], recipe, checkpoint)
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
        order = torch.randperm(objective.tiles, generator=chance.host).to(place)
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            loss = objective.loss(model, average.module, chosen, chance)
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            together.average_gradients(model)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
            average.update_parameters(model)
            loss_sum += loss.detach()
        if (epoch + 1) % every and epoch + 1 < recipe.epochs:
            continue
        lost = float(together.averaged(loss_sum)) / steps
        spent, before = spent + clock() - before, clock()
        if together.rank():
            continue
        scores = objective.scores(average.module)
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
    return cast("Model", average.module.to("cpu").eval())
