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
    teacher_epochs: Annotated[int, typer.Option(min=0, help="Passes of the CNN teacher; 0: no teacher.")] = 24,
    calm_epochs: Annotated[int, typer.Option(min=0, help="Passes at the end with few mixed tiles.")] = 7,
    random_widths: Annotated[int, typer.Option(min=0, help="Random widths a step, besides widest and narrowest.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of the encoder.")] = 2e-3,
    optimizer: Annotated[str, typer.Option(help="adamw, or muon for the blocks' matrices.")] = "muon",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 where the processor has it.")] = "fp32",
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
    from edgeslim.ground.train import Recipe
    from edgeslim.profile import take_profile
    from edgeslim.report.width_scores import print_width_scores

    if precision not in ("fp32", "bf16"):
        raise UsageError(f"--precision: found {precision!r}, expected fp32 or bf16")
    if optimizer not in ("adamw", "muon"):
        raise UsageError(f"--optimizer: found {optimizer!r}, expected adamw or muon")
    if threads:
        torch.set_num_threads(threads)
    progress = Console(stderr=True, highlight=False)
    recipe = Recipe(
        epochs=epochs,
        random_widths=random_widths,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        optimizer=optimizer,
    )
    make_folder(out)
    trained = train_embedded(
        take_profile(encoder, cards), tiles, recipe, teacher_epochs, calm_epochs, out, say=progress.print
    )
    print_width_scores(trained.rows, Console(highlight=False))
    for path in trained.files:
        typer.echo(str(path))
