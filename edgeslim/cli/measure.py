"""`edgeslim measure`: what an encoder keeps at each width and depth, on a person's own labelled tiles."""

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
from edgeslim.errors import MissingExtra, UsageError, shown


def measure(
    encoder: Annotated[str, typer.Argument(help="Encoder card, or path of a checkpoint.")],
    tiles: Annotated[
        Path,
        typer.Option(help="Folder or zip of PNG, JPEG or GeoTIFF tiles, one folder a class.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Encoder card to write (.toml), the scores in it; a plot goes to .svg.")
    ] = Path("measured.toml"),
    width_multiplier: Annotated[
        list[float] | None,
        typer.Option(
            "--width-multiplier",
            "-w",
            help="Width to score; more than once: each. Default: the narrowest, and about 10, 25, 50, 75 % of FLOP.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Splits of the tiles, each with its own seed.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=t.LARGEST_SEED, help="Of the first split.")] = 0,
    tiles_max: t.TilesMax = 1000,
    labels: t.Labels = None,
    block_m: Annotated[
        float | None,
        typer.Option(help="Side of the spatial blocks that are held out whole, metres.", rich_help_panel=t.TILES),
    ] = None,
    bands: t.TileBands = None,
    scale: t.TileScale = None,
    offset: t.TileOffset = None,
    resample: t.ResampleTiles = False,
    tile_px: t.TilePx = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what stands at -o.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every width, depth and probe as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("measure")] = False,
) -> None:
    """Score an encoder at every width and behind every block, beside the pixels alone, and write its card."""
    need_ground()
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "ground")
    from dataclasses import replace

    from edgeslim.cli.encoder import encoder_of
    from edgeslim.cli.flags import positive
    from edgeslim.cli.ground import full_checkpoint
    from edgeslim.ground.heads.head import Asked, tiles_wanted
    from edgeslim.ground.measuring.features import spread_over, usual_widths
    from edgeslim.ground.measuring.measure import measure as look
    from edgeslim.ground.measuring.measure import scored_card
    from edgeslim.ground.tile_radiometry import own_bands, radiometry_of_tiles
    from edgeslim.onboard.labels import labelled_tiles
    from edgeslim.report.retention import CARD_FILE, PLOT_FILE, print_retention, retention_svg
    from edgeslim.whole import require_free, write_whole

    for flag, value in (("--tile-px", tile_px), ("--block-m", block_m)):
        positive(flag, value)
    t.require_units(scale, offset)
    if out.suffix != ".toml":
        raise UsageError(f"-o {out}: found suffix {out.suffix!r}, expected .toml")
    plot = out.with_suffix(".svg")
    require_free(out, CARD_FILE, overwrite=overwrite)
    require_free(plot, PLOT_FILE, overwrite=overwrite)
    profile = encoder_of(encoder, cards)
    if tile_px is not None:
        profile = replace(profile, architecture=replace(profile.architecture, tile_px=tile_px))
    widths = tuple(width_multiplier or usual_widths(profile.architecture))
    for width in widths:
        profile.architecture.at(width)
    found = labelled_tiles(tiles, labels)
    found = replace(found, files=spread_over(found.files, tiles_max))
    full, digest = full_checkpoint(profile, checkpoint, cards)
    stderr = stderr_console()
    asked = Asked(block_m=block_m, seed=seed, bands=bands, scale=scale, offset=offset, resample=resample)
    record = look(profile, full, found, widths, seeds, asked, lambda line: stderr.print(escape(shown(line))))
    for warning in record.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    if profile.radiometry is None:  # the scores are of these values: whoever takes the card slims and plans by them
        radiometry = radiometry_of_tiles(found, tiles_wanted(profile, asked), lambda _: None)
        profile = replace(profile, radiometry=radiometry, bands=profile.bands or own_bands(profile.architecture))
    command = f"edgeslim measure {Path(encoder).name} --tiles {tiles.name} --tiles-max {tiles_max} --seeds {seeds}"
    write_whole(out, scored_card(profile, record, digest, command, out.stem), CARD_FILE, overwrite=overwrite)
    write_whole(plot, retention_svg(record), PLOT_FILE, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(record.to_dict(), indent=2))
        return
    print_retention(record, stdout_console())
    typer.echo(str(out))
    typer.echo(str(plot))
