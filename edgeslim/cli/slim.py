"""`edgeslim slim`: write the slimmed checkpoint of a plan, or of a width."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.ground import need_ground


def slim(
    plan: Annotated[Path | None, typer.Argument(help="Plan that names encoder and width.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Checkpoint to write (.safetensors).")] = Path(
        "slimmed.safetensors"
    ),
    encoder: Annotated[
        str | None, typer.Option(help="Encoder card, or the path of a checkpoint, instead of a plan.")
    ] = None,
    width_multiplier: Annotated[
        float | None, typer.Option("--width-multiplier", "-w", help="Kept fraction, 0 < w <= 1, instead of a plan.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the slimmed checkpoint: first-k channels of every head and feed-forward network, and its head."""
    need_ground()
    import torch

    from edgeslim.cli.ground import chosen_width, full_checkpoint
    from edgeslim.errors import InputError
    from edgeslim.ground.checkpoint import write_checkpoint
    from edgeslim.ground.flight import slimmed_checkpoint
    from edgeslim.ground.slim import METHOD

    profile, width, _ = chosen_width(plan, encoder, width_multiplier, cards)
    if out.exists() and not overwrite:
        raise InputError(f"-o {out}: exists already; choose another name or add --overwrite")
    if out.suffix != ".safetensors":
        raise InputError(f"-o {out}: found suffix {out.suffix!r}, expected .safetensors")
    full, digest = full_checkpoint(profile, checkpoint, cards)
    slimmed = slimmed_checkpoint(full, width)
    write_checkpoint(
        slimmed,
        out,
        {
            "encoder": profile.id,
            "licence": profile.licence,
            "method": METHOD,
            "width_multiplier": repr(width),
            "checkpoint_sha256": digest,
        },
        torch.float32,
    )
    arch = slimmed.architecture
    count = sum(t.numel() for t in slimmed.encoder.values())
    before = sum(t.numel() for t in full.encoder.values())
    typer.echo(
        f"{profile.id} at width {width:.4g}: head_dim {full.architecture.head_dim} -> {arch.head_dim}, "
        f"ffn_hidden {full.architecture.ffn_hidden} -> {arch.ffn_hidden}, parameters {before:,} -> {count:,}"
    )
    if not slimmed.heads:
        typer.echo("no head was fitted at this width: the file holds the encoder alone")
    typer.echo(str(out))
