"""`edgeslim diagnose`: how redundant an encoder's features are on a person's own tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgeslim.cli import tile_flags as t
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.need_ground import need_ground
from edgeslim.cli.schema import schema_flag
from edgeslim.errors import MissingExtra, shown


def diagnose(
    encoder: Annotated[str, typer.Argument(help="Encoder card, or path of a checkpoint.")],
    tiles: Annotated[
        Path,
        typer.Option(
            help="Folder or zip of PNG, JPEG or GeoTIFF tiles; one folder a class, to be probed, too.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write (.html); the numbers go to .json.")] = Path(
        "diagnosis.html"
    ),
    width_multiplier: Annotated[
        list[float] | None,
        typer.Option(
            "--width-multiplier",
            "-w",
            help="Width to look at; more than once: each. Default: the narrowest, and about 10, 25, 50, 75 % of FLOP.",
        ),
    ] = None,
    tiles_max: t.TilesMax = 500,
    labels: t.Labels = None,
    bands: t.TileBands = None,
    scale: t.TileScale = None,
    offset: t.TileOffset = None,
    resample: t.ResampleTiles = False,
    tile_px: t.TilePx = None,
    seed: Annotated[int, typer.Option(min=0, max=t.LARGEST_SEED, help="Of the split.")] = 0,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace whatever stands at -o.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON, too.")] = False,
    json_schema: Annotated[bool, schema_flag("diagnose")] = False,
) -> None:
    """Look at an encoder's features at several widths and after each block: variance, likeness, and what they tell."""
    need_ground()
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "ground")
    from dataclasses import replace

    from edgeslim.cli.encoder import encoder_of
    from edgeslim.cli.flags import positive
    from edgeslim.cli.ground import full_checkpoint
    from edgeslim.ground.heads.head import Asked
    from edgeslim.ground.measuring.diagnose import diagnose as look
    from edgeslim.ground.measuring.features import spread_over, usual_widths
    from edgeslim.onboard.labels import labelled_tiles
    from edgeslim.report.diagnosis import PAGE_FILE, RECORD_FILE, print_diagnosis, write_diagnosis
    from edgeslim.whole import require_free

    positive("--tile-px", tile_px)
    t.require_units(scale, offset)
    require_free(out, PAGE_FILE, overwrite=overwrite)
    require_free(out.with_suffix(".json"), RECORD_FILE, overwrite=overwrite)
    profile = encoder_of(encoder, cards)
    if tile_px is not None:
        profile = replace(profile, architecture=replace(profile.architecture, tile_px=tile_px))
    widths = tuple(width_multiplier or usual_widths(profile.architecture))
    for width in widths:
        profile.architecture.at(width)
    found = labelled_tiles(tiles, labels)
    found = replace(found, files=spread_over(found.files, tiles_max))
    full, _ = full_checkpoint(profile, checkpoint, cards)
    stderr = stderr_console()
    asked = Asked(seed=seed, bands=bands, scale=scale, offset=offset, resample=resample)
    record = look(profile, full, found, widths, asked, lambda line: stderr.print(escape(shown(line))))
    for warning in record.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    write_diagnosis(record, out, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(record.to_dict(), indent=2))
        return
    print_diagnosis(record, stdout_console())
    typer.echo(str(out))
    typer.echo(str(out.with_suffix(".json")))
