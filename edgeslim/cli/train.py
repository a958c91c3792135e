"""`edgeslim train`: labelled tiles -> a slimmable encoder, its heads, its card; unlabelled ones -> an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeslim.cli import tile_flags as t
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.ground import make_folder
from edgeslim.cli.need_ground import need_ground

SUPERVISED = "supervised"
WITH_LABELS = "With labels"
"""Panel of the help."""
_LABELS_ONLY = ("teacher", "teacher_epochs", "teacher_share", "mixed_teacher_share", "calm_epochs")
_TILES_ONLY = ("bands", "scale", "offset", "resample")
_UNSAID = ("tiles", "out", "cards", "threads")
"""Parameters that a record of the command leaves out, or says otherwise."""


def train(
    context: typer.Context,
    tiles: Annotated[
        Path,
        typer.Argument(help="A folder or zip of tiles: labelled, one folder a class; or, to pretrain, as they lie."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder; a stopped run resumes in it.")] = Path(
        "runs/train"
    ),
    objective: Annotated[
        str,
        typer.Option(
            help="supervised: by labels. contrastive: momentum contrast (MoCo v3, without a queue). mae: masked "
            "autoencoder. The latter two take tiles without labels."
        ),
    ] = SUPERVISED,
    slimmable: Annotated[
        bool,
        typer.Option(
            "--slimmable/--regular",
            help="Train every width, or the full one alone. The evidence (arXiv 2601.22841): contrastive pretraining "
            "gains from slimmable training, MAE does not (the paper's first version said that both do). In a short "
            "trial of ours both gained at the narrowest widths, lost at the full one, and kept less than a regular "
            "encoder slimmed by `slim --method calibrated` (benchmarks/results/pretraining.md).",
        ),
    ] = True,
    random_widths: Annotated[
        int | None,
        typer.Option(
            min=0, help="Random widths a step, besides widest and narrowest. Default: 3; 1 with labels.", metavar="N"
        ),
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder card with the architecture to train.")] = "eurosat-rgb",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 46,
    batch: Annotated[int, typer.Option(min=1, help="Tiles a step, of all processes together.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the encoder.")] = 2e-3,
    warmup_epochs: Annotated[float, typer.Option(min=0, help="Passes in which the learning rate rises.")] = 2.0,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="adamw, or muon for the blocks' matrices; default: muon, and adamw for a ConvNeXt, whose matrices "
            "are convolutions."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 where the processor or the GPU has it.")] = "fp32",
    device: Annotated[
        str, typer.Option(help="cpu, or cuda: one GPU; several, of either, by torchrun -m edgeslim train.")
    ] = "cpu",
    every: Annotated[int, typer.Option(min=1, help="Epochs between two checkpoints.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch decides.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    teacher: Annotated[
        str, typer.Option(help="Size of the CNN teacher: small, or large for a GPU.", rich_help_panel=WITH_LABELS)
    ] = "small",
    teacher_epochs: Annotated[
        int, typer.Option(min=0, help="Passes of the CNN teacher; 0: no teacher.", rich_help_panel=WITH_LABELS)
    ] = 24,
    teacher_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Weight of the teacher's view against the labels.", rich_help_panel=WITH_LABELS
        ),
    ] = 0.5,
    mixed_teacher_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="The same on mixed tiles; above 0 the teacher is trained on them.",
            rich_help_panel=WITH_LABELS,
        ),
    ] = 0.0,
    calm_epochs: Annotated[
        int, typer.Option(min=0, help="Passes at the end with few mixed tiles.", rich_help_panel=WITH_LABELS)
    ] = 7,
    bands: t.TileBands = None,
    scale: t.TileScale = None,
    offset: t.TileOffset = None,
    resample: t.ResampleTiles = False,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
) -> None:
    """Train an encoder that works at every width: by labels, with a head at each; or pretrain one without labels."""
    need_ground()
    import torch
    from rich.markup import escape

    from edgeslim.cli.flags import positive
    from edgeslim.errors import UsageError, shown
    from edgeslim.ground.training import together
    from edgeslim.ground.training.pretrain import OBJECTIVES
    from edgeslim.ground.training.recipe import Course, Recipe
    from edgeslim.ground.training.teacher import SIZES
    from edgeslim.profile import take_profile

    for flag, found, expected in (
        ("--objective", objective, (SUPERVISED, *OBJECTIVES)),
        ("--precision", precision, ("fp32", "bf16")),
        ("--optimizer", optimizer or "adamw", ("adamw", "muon")),
        ("--teacher", teacher, tuple(SIZES)),
        ("--device", device, ("cpu", "cuda")),
    ):
        if found not in expected:
            raise UsageError(f"{flag}: found {found!r}, expected {', '.join(expected[:-1])} or {expected[-1]}")
    given = _given(context)
    for name in _TILES_ONLY if objective == SUPERVISED else _LABELS_ONLY:
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')}: found with --objective {objective}, which has no use for it")
    if not slimmable and random_widths is not None:
        raise UsageError("--random-widths: found with --regular, which trains the full width alone")
    positive("--scale", scale)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device: found no GPU that torch {torch.__version__} can use, expected one; use cpu")
    if threads:
        torch.set_num_threads(threads)
    if random_widths is None:
        random_widths = 1 if objective == SUPERVISED else 3
    profile = take_profile(encoder, cards)
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        warmup_epochs=warmup_epochs,
        teacher_share=teacher_share,
        mixed_teacher_share=mixed_teacher_share,
        slimmable=slimmable,
        random_widths=random_widths,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        optimizer=_optimizer(optimizer, profile),
    )
    make_folder(out)
    progress = stderr_console()
    with together.joined(device) as place:
        together.check_batch(batch)

        def say(line: str) -> None:
            if not together.rank():
                progress.print(escape(shown(line)))

        course = Course(teacher, teacher_epochs, calm_epochs, place, every)
        if objective == SUPERVISED:
            _with_labels(profile, tiles, recipe, course, out, say)
            return
        from edgeslim.ground.training.pretrain import pretrain
        from edgeslim.onboard.labels import tiles_of
        from edgeslim.onboard.reading.tile import Wanted

        arch = profile.architecture
        wanted = Wanted(arch.tile_px, arch.bands, profile.bands, None, bands, scale, offset, resample)
        command = " ".join(["edgeslim train", tiles.name, *given.values()])
        for path in pretrain(profile, tiles_of(tiles), objective, recipe, course, out, wanted, command, say=say):
            typer.echo(str(path))


def _optimizer(asked: str | None, profile: Any) -> str:
    """Raises UsageError for muon where no block has a matrix."""
    from edgeslim.architecture import Architecture
    from edgeslim.errors import UsageError

    if isinstance(profile.architecture, Architecture):
        return asked or "muon"
    if asked == "muon":
        raise UsageError(
            f"--optimizer: found muon for {profile.id!r}, a ConvNeXt V2, expected adamw: muon is for matrices"
        )
    return "adamw"


def _with_labels(profile: Any, tiles: Path, recipe: Any, course: Any, out: Path, say: Callable[[str], None]) -> None:
    from edgeslim.ground.training.embedded import train_embedded
    from edgeslim.report.width_scores import print_width_scores

    trained = train_embedded(profile, tiles, recipe, course, out, say=say)
    if trained is None:
        return
    print_width_scores(trained.rows, stdout_console())
    for path in trained.files:
        typer.echo(str(path))


def _given(context: typer.Context) -> dict[str, str]:
    """Name and text of every option that the command line has, by which it can be typed again."""
    found = {}
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in _UNSAID or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[option.name or ""]
        if isinstance(value, bool):
            found[option.name or ""] = (option.opts if value else option.secondary_opts)[0]
        else:
            found[option.name or ""] = f"{option.opts[-1]} {value}"
    return found
