"""`edgeslim export`: plan -> a proven artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.ground import need_ground


def export(
    plan: Annotated[Path | None, typer.Argument(help="Plan to export; plan.json if left out.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Artifact folder to write.")] = Path("artifact"),
    tiles: Annotated[
        Path | None, typer.Option(help="Golden tiles: a folder or zip of image tiles, or a GeoTIFF scene.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder card, instead of a plan.")] = None,
    width_multiplier: Annotated[
        float | None, typer.Option("--width-multiplier", "-w", help="Kept fraction, 0 < w <= 1, instead of a plan.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    target: Annotated[str, typer.Option(help="Format card.")] = "onnx",
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    accept_gsd: Annotated[
        bool, typer.Option("--accept-gsd", help="Take golden tiles from a scene of another or unknown pixel size.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Slim, convert, prove against torch on golden tiles, and pack: an artifact, or nothing at all."""
    need_ground()
    import json

    from rich.console import Console

    from edgeslim.cli.ground import chosen_width, full_checkpoint
    from edgeslim.ground.export import export as run_export
    from edgeslim.ground.golden import golden_tiles
    from edgeslim.report import print_certificate
    from edgeslim.target import take_target

    progress = Console(stderr=True, highlight=False)
    profile, width, made = chosen_width(plan, encoder, width_multiplier, cards)
    card = take_target(target, cards)
    full, digest = full_checkpoint(profile, checkpoint)
    golden = golden_tiles(profile, tiles, accept_gsd)
    done = run_export(profile, full, digest, width, card, golden, out, plan=made, say=progress.print)
    if as_json:
        typer.echo(json.dumps({"artifact": str(done.folder), "manifest": done.manifest.to_dict()}, indent=2))
    else:
        print_certificate(done.manifest, Console(highlight=False))
        typer.echo(str(done.folder))
