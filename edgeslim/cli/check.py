"""`edgeslim check`: prove an artifact on the device that will fly it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from edgeslim.cli import flags
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.errors import shown


def check(
    artifact: Annotated[Path, typer.Argument(help="Folder that `edgeslim export` wrote.")] = Path("artifact"),
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; default every core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("check")] = False,
) -> None:
    """Replay an artifact's golden tiles on this machine's runtime and compare with torch's logits."""
    from edgeslim.onboard.check import check_artifact

    flags.require_threads(threads)
    report = check_artifact(artifact, threads)
    stderr = stderr_console()
    for warning in report.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Batch", "Tiles", "Max |Δ| logit", "Mean |Δ|", "Same class"):
        table.add_column(name, justify="right")
    for batch, parity in report.batches.items():
        table.add_row(
            str(batch),
            str(parity.tiles),
            f"{parity.max_abs:.2e}",
            f"{parity.mean_abs:.2e}",
            f"{parity.argmax_agreement:.1%}",
        )
    console = stdout_console(soft_wrap=True)
    console.print(table)
    kind = "SYNTHETIC" if report.synthetic else "real"
    console.print(
        f"{shown(report.name)} agrees with torch within {report.tolerance:g} on {kind} golden tiles "
        f"({shown(report.source)}), {report.runtime}",
        markup=False,
    )
