"""`edgeslim classify`: a GeoTIFF scene, or a folder of them, into class maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeslim.cli import flags as f
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.observer import observer_of
from edgeslim.cli.schema import schema_flag
from edgeslim.cli.stopping import DEADLINE, EXIT_DEADLINE, Stopping
from edgeslim.errors import EdgeslimError, UsageError, shown
from edgeslim.onboard.progress import Event, Lines, Silence

if TYPE_CHECKING:
    from edgeslim.onboard.classify import Unfinished


def classify(
    scene: Annotated[Path, typer.Argument(help="GeoTIFF to classify, or a folder of them.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write the results into.", show_default=False)],
    artifact: f.Artifact = Path("artifact"),
    stack: f.Stack = None,
    bands: f.Bands = None,
    scale: f.Scale = None,
    offset: f.Offset = None,
    accept_gsd: f.AcceptGsd = False,
    resample: f.Resample = False,
    allow_network: f.AllowNetwork = False,
    image: f.Image = None,
    stride: f.Stride = None,
    overlap: f.Overlap = None,
    cells: f.Cells = False,
    training_prior: f.TrainingPrior = False,
    probabilities: f.Probabilities = False,
    vector: f.Vector = None,
    batch: f.Batch = None,
    threads: f.Threads = None,
    max_ram: f.MaxRam = None,
    check_every_s: f.CheckEvery = None,
    deadline_s: Annotated[
        float | None,
        typer.Option(
            help="Stop a scene after so many seconds, resumable, with exit code 124.", rich_help_panel="Limits"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run into OUT was stopped or cut off.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what stands in OUT, finished or unfinished.")
    ] = False,
    progress: Annotated[
        f.ProgressMode,
        typer.Option(help="On stderr: a bar (auto: on a terminal only), events as NDJSON, or nothing."),
    ] = f.ProgressMode.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("classify")] = False,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Classify a scene on board: class map, confidence, areas and a quicklook. No torch.

    A folder is classified scene by scene into OUT/<scene>/; run again, it goes on where it stopped.
    """
    f.positive("--deadline-s", deadline_s)
    if resume and overwrite:
        raise UsageError("found both --resume and --overwrite: go on with what stands in OUT, or replace it")
    asked = f.SceneFlags(
        stack=tuple(stack or ()),
        stride=stride,
        overlap=overlap,
        cells=cells,
        bands=bands,
        scale=scale,
        offset=offset,
        accept_gsd=accept_gsd,
        resample=resample,
        allow_network=allow_network,
        image=image,
        training_prior=training_prior,
        probabilities=probabilities,
        vector=vector,
        batch=batch,
        threads=threads,
        max_ram=max_ram,
        check_every_s=check_every_s,
    )
    if parent is not None:
        from edgeslim.onboard.watching.scene_process import end_with

        end_with(parent)
    if scene.is_dir():
        from edgeslim.cli.folder import classify_folder

        if asked.stack:
            raise UsageError(f"--stack: adds bands to one scene, found the folder {scene}; give the scene itself")
        classify_folder(scene, artifact, out, asked, deadline_s, overwrite, progress, as_json)
        return
    with Stopping(deadline_s) as stop:
        _one(scene, artifact, out, asked, stop, resume, overwrite, progress, as_json)


def _one(
    scene: Path,
    artifact: Path,
    out: Path,
    asked: f.SceneFlags,
    stop: Stopping,
    resume: bool,
    overwrite: bool,
    progress: f.ProgressMode,
    as_json: bool,
) -> None:
    stderr = stderr_console()
    told: set[str] = set()
    done = Event("done", {"seconds": 0.0})
    with observer_of(progress, stderr, stop) as show:

        def observe(event: Event) -> None:
            nonlocal done
            done = event if event.kind == "done" else done
            if event.kind == "warning":
                told.add(str(event.data.get("text")))
                if isinstance(show, Silence):
                    stderr.print(f"[yellow]warning:[/] {escape(shown(event.data.get('text')))}")
            if event.kind != "done":  # said last: what the summary warns of comes before it
                show(event)

        try:
            options = asked.options(artifact, resume, overwrite)
            from edgeslim.onboard.classify import Unfinished, classify_scene

            result = classify_scene(scene, artifact, out, options, observe, stop)
            if not isinstance(result, Unfinished):
                for warning in result.warnings:
                    if warning not in told:
                        observe(Event("warning", {"text": warning}))
                show(Event("done", {"tiles": sum(result.tiles.values()), **done.data}))
        except (EdgeslimError, KeyboardInterrupt) as error:
            # On the terminal the one `except` of `main` says it; among events it has to be one.
            if not isinstance(show, Lines):
                raise
            code = error.exit_code if isinstance(error, EdgeslimError) else 130
            show(Event("error", {"text": str(error) or "stopped", "exit_code": code}))
            raise typer.Exit(code) from None
    if isinstance(result, Unfinished):
        say_stopped(result, stderr, isinstance(show, Lines), as_json)
    elif as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        print_summary(result.to_dict(), out)


def say_stopped(unfinished: Unfinished, stderr: Console, as_events: bool, as_json: bool) -> None:
    """One line of where a run stopped and how to go on. Raises typer.Exit(124) where its deadline stopped it."""
    done, bands, reason = unfinished.bands_done, unfinished.bands, unfinished.reason
    if as_json:
        typer.echo(json.dumps(unfinished.to_dict(), indent=2))
    if not as_events:
        stderr.print(
            f"[yellow]stopped[/] ({reason}) after row band {done} of {bands}, all kept in "
            f"{escape(shown(unfinished.out))}; go on with the same command and --resume"
        )
    if reason == DEADLINE:
        raise typer.Exit(EXIT_DEADLINE)


def _area(km2: float) -> str:
    return f"{km2 * 1e6:.1f} m²" if 0 < km2 < 0.01 else f"{km2:.2f} km²"


def _unknown(summary: dict[str, Any]) -> str:
    found = summary.get("unknown_tiles")
    return "" if found is None else f"{found} of them unlike any that the head was fitted on, "


def print_summary(summary: dict[str, Any], out: Path) -> None:
    """The areas of a summary.json as a table, and where map and quicklook lie."""
    console = stdout_console(soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Class")
    table.add_column("Share", justify="right")
    table.add_column("Area", justify="right")
    for row in sorted(summary["classes"], key=lambda c: -c["share"]):
        area = "unknown" if row["area_km2"] is None else _area(row["area_km2"])
        table.add_row(
            f"[#{row['color'].lstrip('#')}]■[/] {escape(row['title'])}",
            f"{row['share']:.1%}",
            area,
            style="" if row["pixels"] else "dim",
        )
    console.print(table)
    tiles, total = summary["tiles"], sum(c["pixels"] for c in summary["classes"]) + summary["nodata_pixels"]
    mean = "" if summary["mean_confidence"] is None else f", mean confidence {summary['mean_confidence']:.0%}"
    console.print(
        f"{tiles['classified']} tiles classified, {_unknown(summary)}{tiles['skipped']} skipped; "
        f"{summary['nodata_pixels'] / total:.1%} nodata{mean}"
    )
    console.print(f"map        {out / 'classes.tif'}", markup=False)
    console.print(f"quicklook  {out / 'quicklook.png'}", markup=False)
