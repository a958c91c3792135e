"""`edgeslim evaluate`: an artifact on a person's own labelled tiles, as it flies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgeslim.cli import flags as f
from edgeslim.cli import tile_flags as t
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.errors import UsageError, shown


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder that `edgeslim export` wrote.")] = Path("artifact"),
    tiles: Annotated[
        Path | None, typer.Option(help="Folder or zip of PNG, JPEG or GeoTIFF tiles, one folder a class.")
    ] = None,
    labels: t.Labels = None,
    bands: t.TileBands = None,
    scale: t.TileScale = None,
    offset: t.TileOffset = None,
    resample: t.ResampleTiles = False,
    training_prior: f.TrainingPrior = False,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; default every core.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Confusion matrix to draw (.svg).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace whatever stands at --picture.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("evaluate")] = False,
) -> None:
    """Score an artifact on your own labelled tiles, by the runtime that flies. No torch."""
    import numpy as np

    from edgeslim.onboard.evaluate import TileOptions, evaluate_artifact
    from edgeslim.onboard.labels import labelled_tiles
    from edgeslim.report.confusion import PICTURE_FILE, print_classes, write_picture
    from edgeslim.report.evaluation import print_evaluation
    from edgeslim.whole import require_free

    if tiles is None:
        raise UsageError("--tiles: found none, expected a folder or zip of labelled tiles")
    f.require_threads(threads)
    t.require_units(scale, offset)
    if picture is not None:
        require_free(picture, PICTURE_FILE, overwrite=overwrite)
    options = TileOptions(bands, scale, offset, resample, training_prior, threads)
    found = evaluate_artifact(artifact, labelled_tiles(tiles, labels), options)
    stderr = stderr_console()
    for warning in found.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    counts = np.array(found.confusion, np.int64)
    if picture is not None:
        title = f"{found.name}: {found.accuracy:.1%} of {found.tiles} tiles right"
        note = f"{found.dataset}; prior: {found.prior}; {found.runtime}"
        write_picture(picture, found.labels, found.answers, counts, title, note, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    console = stdout_console()
    print_classes(found.classes, found.answers, counts, console)
    print_evaluation(found, console)
    if picture is not None:
        typer.echo(str(picture))
