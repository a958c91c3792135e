"""`edgeslim classify`: a GeoTIFF scene into a class map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from edgeslim.onboard.classify import ClassifyOptions, Summary


def classify(
    scene: Annotated[Path, typer.Argument(help="GeoTIFF to classify.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write the results into.", show_default=False)],
    artifact: Annotated[Path, typer.Option(help="Folder that `edgeslim export` wrote.")] = Path("artifact"),
    stride: Annotated[int | None, typer.Option(help="Step between windows, px; default half a tile.")] = None,
    cells: Annotated[bool, typer.Option("--cells", help="One output pixel a stride, not a scene pixel.")] = False,
    bands: Annotated[
        str | None, typer.Option(help="Scene bands in the encoder's order, numbers or names: 3,2,1 or B04,B03,B02.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Reflectance of one unit of the scene, e.g. 0.0001.")] = None,
    offset: Annotated[float | None, typer.Option(help="Reflectance at value 0 of the scene, e.g. -0.1.")] = None,
    accept_gsd: Annotated[
        bool, typer.Option("--accept-gsd", help="Process a scene of another, or unknown, ground sample distance.")
    ] = False,
    training_prior: Annotated[
        bool, typer.Option("--training-prior", help="Take classes to be as frequent as in training, not as on land.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Tiles given to the network at once.")] = 16,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; default every core.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that stand in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Classify a scene on board: class map, confidence, areas and a quicklook. No torch."""
    from edgeslim.onboard.classify import ClassifyOptions, SceneOptions

    options = ClassifyOptions(
        stride_px=stride,
        cells=cells,
        batch=batch,
        threads=threads,
        training_prior=training_prior,
        overwrite=overwrite,
        scene=SceneOptions(bands=bands, scale=scale, offset=offset, accept_gsd=accept_gsd),
    )
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    summary = _run(scene, artifact, out, options, stderr)
    for warning in summary.warnings:
        stderr.print(f"[yellow]warning:[/] {escape(warning)}")
    if as_json:
        typer.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        _print(summary, out)


def _run(scene: Path, artifact: Path, out: Path, options: ClassifyOptions, stderr: Console) -> Summary:
    """Classify, with a progress bar where a person looks on."""
    from edgeslim.onboard.classify import classify_scene

    if not stderr.is_terminal:
        return classify_scene(scene, artifact, out, options)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("tiles", total=None)
        return classify_scene(
            scene, artifact, out, options, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _area(km2: float) -> str:
    return f"{km2 * 1e6:.1f} m²" if 0 < km2 < 0.01 else f"{km2:.2f} km²"


def _print(summary: Summary, out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Class")
    table.add_column("Share", justify="right")
    table.add_column("Area", justify="right")
    for row in sorted(summary.classes, key=lambda c: -c.share):
        area = "unknown" if row.area_km2 is None else _area(row.area_km2)
        table.add_row(
            f"[#{row.color.lstrip('#')}]■[/] {escape(row.title)}",
            f"{row.share:.1%}",
            area,
            style="" if row.pixels else "dim",
        )
    console.print(table)
    tiles, total = summary.tiles, sum(c.pixels for c in summary.classes) + summary.nodata_pixels
    mean = "" if summary.mean_confidence is None else f", mean confidence {summary.mean_confidence:.0%}"
    console.print(
        f"{tiles['classified']} tiles classified, {tiles['skipped']} skipped; "
        f"{summary.nodata_pixels / total:.1%} nodata{mean}"
    )
    console.print(f"map        {out / 'classes.tif'}", markup=False)
    console.print(f"quicklook  {out / 'quicklook.png'}", markup=False)
