"""`edgeslim head`: labelled tiles -> a head on an encoder's features, and how it does on tiles that it has not seen."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeslim.cli import tile_flags as t
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.need_ground import need_ground
from edgeslim.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from edgeslim.cuts import Cut
    from edgeslim.profile import Profile


class HeadKind(str, Enum):
    """What is fitted."""

    logistic = "logistic"
    ridge = "ridge"
    knn = "knn"


_FIT = "How to fit"


def head(
    encoder: Annotated[
        str, typer.Argument(help="Encoder card, path of a checkpoint, or a plan (.json), whose cut is taken.")
    ],
    tiles: Annotated[
        Path, typer.Option(help="Folder or zip of PNG, JPEG or GeoTIFF tiles, one folder a class.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Head file to write (.safetensors).")] = Path(
        "head.safetensors"
    ),
    width_multiplier: Annotated[
        float | None, typer.Option("--width-multiplier", "-w", help="Kept fraction, 0 < w <= 1; default 1.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Blocks to keep, the first ones; default all.")] = None,
    kind: Annotated[
        HeadKind,
        typer.Option(
            help="logistic or ridge, which fly; knn only tells what the features are worth: `export` refuses it, as "
            "every tile in flight would be held against all that it was fitted on.",
            rich_help_panel=_FIT,
        ),
    ] = HeadKind.logistic,
    labels: t.Labels = None,
    bands: t.TileBands = None,
    scale: t.TileScale = None,
    offset: t.TileOffset = None,
    gsd_m: Annotated[
        float | None,
        typer.Option(help="Metres a pixel of the tiles, where they do not say it themselves.", rich_help_panel=t.TILES),
    ] = None,
    resample: t.ResampleTiles = False,
    tile_px: t.TilePx = None,
    block_m: Annotated[
        float | None,
        typer.Option(
            help="Side of the spatial blocks that are held out whole, metres; default ten tiles.", rich_help_panel=_FIT
        ),
    ] = None,
    unknown_share: Annotated[
        float,
        typer.Option(
            help="Share of tiles like these that may be called unknown in flight; 0: none, whatever it sees.",
            rich_help_panel=_FIT,
        ),
    ] = 0.05,
    seed: Annotated[
        int,
        typer.Option(min=0, max=t.LARGEST_SEED, help="Of split, cross-validation and bootstrap.", rich_help_panel=_FIT),
    ] = 0,
    picture: Annotated[
        Path | None, typer.Option(help="Confusion matrix to draw (.svg); default beside the head.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing head.")] = False,
) -> None:
    """Fit a head to labelled tiles and score it on tiles, or whole blocks of ground, that it has not seen."""
    need_ground()
    _need_scikit_learn()
    from dataclasses import replace

    from rich.markup import escape

    from edgeslim.cli.flags import positive
    from edgeslim.cli.ground import full_checkpoint
    from edgeslim.errors import shown
    from edgeslim.ground.heads.head import Asked, fit_head
    from edgeslim.ground.heads.head_file import require_place, write_head
    from edgeslim.onboard.labels import labelled_tiles
    from edgeslim.report.confusion import PICTURE_FILE, print_classes, write_picture
    from edgeslim.report.head import print_head
    from edgeslim.whole import require_free

    for flag, value in (("--block-m", block_m), ("--gsd-m", gsd_m), ("--tile-px", tile_px)):
        positive(flag, value)
    t.require_units(scale, offset)
    if not 0 <= unknown_share < 1:
        raise UsageError(f"--unknown-share: found {unknown_share:g}, expected a share from 0, and below 1")
    drawn = picture or out.with_suffix(".svg")
    require_place(out, overwrite=overwrite)
    require_free(drawn, PICTURE_FILE)
    profile, cut = _encoder_and_cut(encoder, width_multiplier, depth, cards)
    if tile_px is not None:
        profile = replace(profile, architecture=replace(profile.architecture, tile_px=tile_px))
    found = labelled_tiles(tiles, labels)
    full, digest = full_checkpoint(profile, checkpoint, cards)
    stderr = stderr_console()
    asked = Asked(kind.value, block_m, seed, bands, scale, offset, gsd_m, resample, unknown_share)
    fitted = fit_head(
        profile, full, digest, cut.width_multiplier, found, asked, lambda line: stderr.print(escape(shown(line))),
        cut.depth,
    )  # fmt: skip
    write_head(fitted.card, fitted.tensors, out, overwrite=overwrite)
    console = stdout_console()
    names = [one.name for one in fitted.classes]
    print_classes(fitted.classes, names, fitted.confusion, console)
    print_head(fitted.card, console)
    if fitted.confusion is not None:
        card = fitted.card
        title = f"{Path(profile.id).stem} at width {cut}: {card.metric} {card.score:.1%} of {card.scored_tiles} tiles"
        write_picture(drawn, names, names, fitted.confusion, title, card.split)
        typer.echo(str(drawn))
    elif picture is not None:
        stderr.print(f"warning: {escape(str(picture))} is not drawn: tiles have several classes, which no matrix shows")
    typer.echo(str(out))


def _need_scikit_learn() -> None:
    import importlib.util

    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtra("scikit-learn", "ground")


def _encoder_and_cut(
    name: str, width_multiplier: float | None, depth: int | None, cards: Path | None
) -> tuple[Profile, Cut]:
    from edgeslim.cli.encoder import encoder_of
    from edgeslim.cli.ground import chosen_cut, cut_of

    if name.endswith(".json"):
        for flag, given in (("--width-multiplier", width_multiplier), ("--depth", depth)):
            if given is not None:
                raise UsageError(f"found both the plan {name} and {flag}: give one of them")
        chosen = chosen_cut(Path(name), None, None, None, cards)
        return chosen.profile, chosen.cut
    profile = encoder_of(name, cards)
    return profile, cut_of(profile, 1.0 if width_multiplier is None else width_multiplier, depth)
