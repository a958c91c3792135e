"""`edgeslim build`: make an artifact's TensorRT engine on the board that will fly it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgeslim.cli import flags
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.errors import shown
from edgeslim.units import MOST_BATCH


def build(
    artifact: Annotated[Path, typer.Argument(help="Folder that `edgeslim export` wrote.")] = Path("artifact"),
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Batch size to run; more than once: each. Default: 1 and the plan's. Larger ones fly in parts."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; default every core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record of the engine as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("build")] = False,
) -> None:
    """Build the TensorRT engine of an artifact before the flight, prove where its nodes run, and check it."""
    from dataclasses import asdict

    from edgeslim.errors import UsageError
    from edgeslim.manifest import read_manifest
    from edgeslim.onboard.check import check_artifact
    from edgeslim.onboard.engine import build_engine, usual_batches
    from edgeslim.onboard.machine import available_threads

    flags.require_threads(threads)
    if bad := [size for size in batch or () if not 1 <= size <= MOST_BATCH]:
        raise UsageError(f"--batch: found {bad[0]}, expected 1 to {MOST_BATCH}")
    stderr = stderr_console()
    sizes = batch or usual_batches(read_manifest(artifact))
    workers = threads or available_threads()
    built = build_engine(artifact, sizes, workers, lambda line: stderr.print(escape(shown(line))))
    # As in flight: the engine is looked up, loaded, and must not be built again.
    report = check_artifact(artifact, workers, (1, built.record.largest_batch))
    for warning in report.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    if as_json:
        typer.echo(json.dumps({"folder": str(built.folder), **asdict(built.record)}, indent=2))
        return
    record = built.record
    console = stdout_console(soft_wrap=True)
    for name, text in (
        ("machine", str(record.machine)),
        ("batches", f"1 to {record.largest_batch}, {record.precision}, built in {record.seconds:g} s"),
        ("ran on", ", ".join(f"{provider}: {count} nodes" for provider, count in record.placement.items())),
        ("golden tiles", f"agree with torch within {report.tolerance:g}"),
        ("engine", str(built.folder)),
    ):
        console.print(f"{name:<13} {text}", markup=False)
