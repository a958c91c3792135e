"""`edgeslim train`: labelled tiles -> a slimmable encoder, its heads, its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.ground import make_folder, need_ground


def train(
    tiles: Annotated[Path, typer.Argument(help="Labelled tiles: a folder or zip, one folder a class.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder; a stopped run resumes in it.")] = Path(
        "runs/train"
    ),
    encoder: Annotated[str, typer.Option(help="Encoder card with the architecture to train.")] = "eurosat-rgb",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training part.")] = 46,
    batch: Annotated[int, typer.Option(min=1, help="Tiles a step.")] = 128,
    teacher: Annotated[str, typer.Option(help="Size of the CNN teacher: small, or large for a GPU.")] = "small",
    teacher_epochs: Annotated[int, typer.Option(min=0, help="Passes of the CNN teacher; 0: no teacher.")] = 24,
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the teacher's view against the labels.")
    ] = 0.5,
    mixed_teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="The same on mixed tiles; above 0 the teacher is trained on them.")
    ] = 0.0,
    calm_epochs: Annotated[int, typer.Option(min=0, help="Passes at the end with few mixed tiles.")] = 7,
    random_widths: Annotated[int, typer.Option(min=0, help="Random widths a step, besides widest and narrowest.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the encoder.")] = 2e-3,
    optimizer: Annotated[str, typer.Option(help="adamw, or muon for the blocks' matrices.")] = "muon",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 where the processor or the GPU has it.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, or cuda: one GPU.")] = "cpu",
    every: Annotated[int, typer.Option(min=1, help="Epochs between two checkpoints.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch decides.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
) -> None:
    """Train a slimmable encoder, fit a head at every width, and write its weights and card."""
    need_ground()
    import torch
    from rich.console import Console

    from edgeslim.errors import UsageError
    from edgeslim.ground.embedded import train_embedded
    from edgeslim.ground.recipe import Course, Recipe
    from edgeslim.ground.teacher import SIZES
    from edgeslim.profile import take_profile
    from edgeslim.report.width_scores import print_width_scores

    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision: found {precision!r}, expected fp32 or bf16")
    if optimizer not in ("adamw", "muon"):
        raise UsageError(f"--optimizer: found {optimizer!r}, expected adamw or muon")
    if teacher not in SIZES:
        raise UsageError(f"--teacher: found {teacher!r}, expected {' or '.join(SIZES)}")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device: found {device!r}, expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device: found no GPU that torch {torch.__version__} can use, expected one; use cpu")
    if threads:
        torch.set_num_threads(threads)
    progress = Console(stderr=True, highlight=False)
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        teacher_share=teacher_share,
        mixed_teacher_share=mixed_teacher_share,
        random_widths=random_widths,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        optimizer=optimizer,
    )
    course = Course(teacher, teacher_epochs, calm_epochs, device, every)
    make_folder(out)
    trained = train_embedded(take_profile(encoder, cards), tiles, recipe, course, out, say=progress.print)
    print_width_scores(trained.rows, Console(highlight=False))
    for path in trained.files:
        typer.echo(str(path))
