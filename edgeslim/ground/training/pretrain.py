"""Pretrain: unlabelled tiles -> an encoder's checkpoint with its card in it, as `edgeslim slim` writes one."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import torch

from edgeslim import __version__
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, write_checkpoint
from edgeslim.ground.encoder import AnyEncoder, init_encoder, need_vit_shape, new_encoder
from edgeslim.ground.labelled import part_of
from edgeslim.ground.tile_radiometry import own_bands, radiometry_of_tiles
from edgeslim.ground.training import together
from edgeslim.ground.training.contrastive import Contrast, Contrastive
from edgeslim.ground.training.masked import Masked, MaskedAutoencoding, check_maskable, sines_of_places
from edgeslim.ground.training.recipe import Course, Recipe
from edgeslim.ground.training.train import fit, hours
from edgeslim.ground.training.unlabelled import read_unlabelled
from edgeslim.ground.vit import Vit
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.reading.tile import Wanted
from edgeslim.profile import Profile, card_facts

OBJECTIVES = ("contrastive", "mae")
"""What an encoder can learn of tiles without labels."""
CONTRASTIVE_DECAY = 0.99
"""Of the moving average that makes the keys: where MoCo v3 (arXiv 2104.02057) begins."""


Encoder = TypeVar("Encoder", bound=AnyEncoder)


def pretrained_encoder(encoder: Encoder, seed: int) -> Encoder:
    """Weights to begin with: a ViT's positions say where a patch is, in sines (trained like all)."""
    init_encoder(encoder, seed)
    if isinstance(encoder, Vit) and encoder.pos_embed is not None:
        arch = encoder.arch
        with torch.no_grad():
            encoder.pos_embed.zero_()
            encoder.pos_embed[0, -arch.patches :] = sines_of_places(arch.tile_px // arch.patch_size, arch.dim)
    return encoder


def pretrain(
    profile: Profile,
    tiles: Labelled,
    objective: str,
    recipe: Recipe,
    course: Course,
    out: Path,
    wanted: Wanted,
    command: str,
    *,
    say: Callable[[str], None],
) -> list[Path]:
    """Train the encoder of `profile` by one of OBJECTIVES on unlabelled `tiles`; write its weights and a record.

    ID-OBJECTIVE.safetensors holds float32 weights, and what bands and values they take; the record, .json, the recipe,
    the course of the loss and `command`. A run that `out` already holds is resumed or reused. Empty in all processes
    but the first (ground.training.together). Raises InputError for tiles that do not fit the encoder, or an encoder
    that does not fit the objective.
    """
    arch = profile.architecture
    if objective == "mae":
        check_maskable(need_vit_shape(arch, "--objective mae"))
    train_files = tuple(file for file in tiles.files if part_of(file.name) == "train")
    if not train_files:
        raise InputError(f"{tiles.source}: found {len(tiles.files)} tiles, none of them in part 'train'; give more")
    radiometry = profile.radiometry or radiometry_of_tiles(replace(tiles, files=train_files), wanted, say)
    parts = read_unlabelled(tiles, replace(wanted, radiometry=profile.radiometry), radiometry, say)
    train, validation = parts["train"], parts["validation"]
    say(f"{len(train)} tiles to train on, {len(validation)} to look at; those of part 'test' were left alone")
    encoder = pretrained_encoder(new_encoder(arch), recipe.seed)
    torch.manual_seed(recipe.seed)
    place, every = course.device, course.every
    stage = out / f"{objective}-{'slimmable' if recipe.slimmable else 'regular'}"
    if isinstance(encoder, Vit) and objective == "mae":
        learnt = MaskedAutoencoding(recipe, train, validation)
        encoder = fit(Masked(encoder), recipe, learnt, stage, device=place, every=every, say=say).encoder
    else:
        recipe = replace(recipe, average_decay=CONTRASTIVE_DECAY)
        contrast = Contrastive(recipe, train, validation)
        encoder = fit(Contrast(encoder), recipe, contrast, stage, device=place, every=every, say=say).encoder
    if together.rank():
        return []
    taken = replace(
        profile,
        bands=profile.bands or own_bands(arch),
        radiometry=radiometry,
        classes=(),
        land_share_source=None,
    )
    path = out / f"{profile.id}-{objective}.safetensors"
    metadata = {
        "encoder": f"{profile.id}-{objective}",
        "licence": profile.licence,
        "objective": objective,
        "trained": f"slimmable, {recipe.random_widths} random widths" if recipe.slimmable else "regular",
        "card": json.dumps(card_facts(taken)),
    }
    state = {key: value.detach() for key, value in encoder.state_dict().items()}
    write_checkpoint(Checkpoint(arch, state, {}), path, metadata, torch.float32)
    rows = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
    record = {
        "command": command,
        "objective": objective,
        "recipe": asdict(recipe),
        "device": course.device,
        "processes": together.size(),
        "edgeslim": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "tiles": {part: len(found) for part, found in parts.items()},
        "steps": len(train) // recipe.batch * recipe.epochs,
        "hours": hours(stage),
        "loss": [row["loss"] for row in rows],
        "validation": [row["validation"] for row in rows],
    }
    page = path.with_suffix(".json")
    page.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return [path, page]
