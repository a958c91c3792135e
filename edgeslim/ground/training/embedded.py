"""How an encoder that ships with edgeslim is made: teacher, slimmable student, a head for every width, its card."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from edgeslim import __version__
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.encoder import init_encoder, new_encoder
from edgeslim.ground.labelled import LabelledTiles, load_labelled
from edgeslim.ground.training import together
from edgeslim.ground.training.card import WidthScore, write_card
from edgeslim.ground.training.classifier import Classifier, NormalisedTeacher
from edgeslim.ground.training.heads import fit_heads
from edgeslim.ground.training.modelcard import write_model_card
from edgeslim.ground.training.recipe import Course, Recipe
from edgeslim.ground.training.supervised import Supervised, accuracy
from edgeslim.ground.training.teacher import SIZES, STRIDE, TeacherCnn
from edgeslim.ground.training.train import fit, hours, statistics
from edgeslim.ground.vit import Vit, fold_batch_norm
from edgeslim.profile import Profile

TEACHER_LEARNING_RATE = 2e-3
JOINED_TO_TEACHER = 0.1
"""Share of a teacher's batches that are joined along borders, and around a point, if it is asked about such tiles."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run made."""

    rows: list[WidthScore]
    """Cost and test accuracy of every width step."""
    files: list[Path]
    """Card, weights and model card."""


def calm(recipe: Recipe, epochs: int) -> Recipe:
    """How training ends: a fifth of the learning rate, few mixed tiles, surer labels."""
    return replace(
        recipe,
        epochs=epochs,
        learning_rate=recipe.learning_rate / 5,
        warmup_epochs=0.3,
        label_smoothing=0.02,
        mixup_share=0.0,
        cutmix_share=0.0,
        patchwork_share=0.05,
        mosaic_share=0.15,
        seed=recipe.seed + 1,
    )


def teacher_for(
    recipe: Recipe, course: Course, parts: dict[str, LabelledTiles], folder: Path, say: Callable[[str], None]
) -> NormalisedTeacher:
    """Train (or resume, or load) the CNN teacher by the student's recipe without widths.

    A teacher that is asked about mixed tiles sees joined ones, too.
    """
    data = parts["train"]
    torch.manual_seed(recipe.seed)
    mean, std = statistics(data.images)
    network = NormalisedTeacher(TeacherCnn(data.images.shape[1], len(data.classes), SIZES[course.teacher]), mean, std)
    # Convolutions run faster with the channels last: on the CPU by a quarter, on a GPU's matrix units by more.
    for convolution in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    own = replace(
        recipe,
        epochs=course.teacher_epochs,
        slimmable=False,
        learning_rate=TEACHER_LEARNING_RATE,
        optimizer="adamw",
        band_jitter=0.3,
        mixup_share=0.25,
        cutmix_share=0.25,
        patchwork_share=JOINED_TO_TEACHER if recipe.mixed_teacher_share else 0.0,
        mosaic_share=JOINED_TO_TEACHER if recipe.mixed_teacher_share else 0.0,
    )
    return fit(
        network,
        own,
        Supervised(own, data, parts["validation"]),
        folder,
        device=course.device,
        every=course.every,
        say=lambda line: say(f"teacher  {line}"),
    )


def _command(tiles: Path, recipe: Recipe, course: Course) -> str:
    """What remakes a run: the verb with every option that is not its own default."""
    words = ["edgeslim", "train", tiles.name, "--epochs", str(recipe.epochs)]
    words += ["--calm-epochs", str(course.calm_epochs), "--teacher-epochs", str(course.teacher_epochs)]
    words += ["--random-widths", str(recipe.random_widths)] if recipe.slimmable else ["--regular"]
    words += ["--optimizer", recipe.optimizer, "--precision", recipe.precision, "--seed", str(recipe.seed)]
    usual = Recipe(), Course()
    for flag, value, default in (
        ("--learning-rate", recipe.learning_rate, 2e-3),
        ("--warmup-epochs", recipe.warmup_epochs, usual[0].warmup_epochs),
        ("--batch", recipe.batch, usual[0].batch),
        ("--teacher", course.teacher, usual[1].teacher),
        ("--teacher-share", recipe.teacher_share, usual[0].teacher_share),
        ("--mixed-teacher-share", recipe.mixed_teacher_share, usual[0].mixed_teacher_share),
        ("--device", course.device, usual[1].device),
    ):
        if value != default:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return " ".join(words)


def train_embedded(
    profile: Profile,
    tiles: Path,
    recipe: Recipe,
    course: Course,
    out: Path,
    *,
    say: Callable[[str], None],
) -> Trained | None:
    """Train the encoder of `profile` on labelled RGB `tiles` and write its weights, card and model card into `out`.

    Stages that `out` already holds are resumed or reused. The test part is read once, after everything is decided.
    None in all processes but the first (ground.training.together). Raises InputError where tiles and card disagree.
    """
    arch, radiometry = profile.architecture, profile.radiometry
    if radiometry is None or arch.bands != 3:
        raise InputError(f"encoder {profile.id!r}: expected a card with [radiometry] and 3 bands to train on RGB tiles")
    parts = load_labelled(tiles, arch.tile_px)
    train, validation = parts["train"], parts["validation"]
    if (found := train.classes) != (expected := tuple(label.name for label in profile.classes)):
        raise InputError(f"{tiles}: classes {', '.join(found)}; expected the card's: {', '.join(expected)}")
    say(", ".join(f"{part} {len(data.labels)}" for part, data in parts.items()) + " tiles")
    teacher = teacher_for(recipe, course, parts, out / "teacher", say) if course.teacher_epochs else None
    mean, std = statistics(train.images)
    stemmed = isinstance(arch, Architecture) and bool(arch.stem_channels)
    encoder = new_encoder(arch, batch_norm=stemmed)
    init_encoder(encoder, recipe.seed)
    torch.manual_seed(recipe.seed)
    # Tokens can be held against the teacher's feature map only where they lie on the same grid.
    hints = teacher.network.channels if teacher and arch.patches == (arch.tile_px // STRIDE) ** 2 else 0
    model = Classifier(encoder, len(train.classes), mean, std, hints)
    place, every = course.device, course.every
    learnt = Supervised(recipe, train, validation, teacher)
    model = fit(model, recipe, learnt, out / "student", device=place, every=every, say=say)
    if course.calm_epochs:
        last = calm(recipe, course.calm_epochs)
        model = fit(
            model,
            last,
            replace(learnt, recipe=last),
            out / "calm",
            device=place,
            every=every,
            say=lambda line: say(f"calm  {line}"),
        )
    if together.rank():
        return None
    if stemmed and isinstance(model.encoder, Vit):
        model.encoder = fold_batch_norm(model.encoder)
    heads = fit_heads(model, train, validation, recipe, say)
    state = {key: value.detach() for key, value in model.encoder.state_dict().items()}
    scale = radiometry.image_scale
    counts = torch.bincount(train.labels, minlength=len(train.classes)).tolist()
    trained = replace(
        profile,
        slimmable=recipe.slimmable,
        classes=tuple(
            replace(label, trained_share=round(count / len(train.labels), 4))
            for label, count in zip(profile.classes, counts, strict=True)
        ),
        radiometry=replace(
            radiometry,
            mean=tuple(round(float(v) * scale, 2) for v in mean),
            std=tuple(round(float(v) * scale, 2) for v in std),
        ),
    )
    card, rows = write_card(trained, Checkpoint(arch, state, heads), parts["test"], out)
    facts = {
        "command": _command(tiles, recipe, course),
        "recipe": asdict(recipe),
        "course": asdict(course),
        "edgeslim": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "parts": {part: len(data.labels) for part, data in parts.items()},
        "hours": {name: hours(out / name) for name in ("teacher", "student", "calm")},
        "teacher_parameters": 0 if teacher is None else sum(p.numel() for p in teacher.parameters()),
        "hinted": bool(hints),
        "teacher_accuracy": None if teacher is None else accuracy(teacher, parts["test"]),
        "widths": [asdict(row) for row in rows],
    }
    record = out / f"{profile.id}.json"
    record.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    page = write_model_card(card, facts, rows, out)
    return Trained(rows, [out / f"{profile.id}.toml", out / f"{profile.id}.safetensors", page, record])
