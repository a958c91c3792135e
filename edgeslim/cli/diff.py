"""`edgeslim diff`: what changed between two artifacts, as one small file to send."""

from __future__ import annotations

import json
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from edgeslim.cli.console import stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.errors import UsageError, shown

if TYPE_CHECKING:
    from edgeslim.onboard.uplink.delta import Difference


def diff(
    old: Annotated[Path, typer.Argument(help="Artifact that stands on board: folder or bundle.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Artifact that is to stand there: folder or bundle.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Delta to write.")] = Path("update.delta"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what changed as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("diff")] = False,
) -> None:
    """Write what changed between two artifacts, for `edgeslim apply` on board: a new head takes a few kilobytes."""
    from edgeslim.onboard.uplink.delta import write_delta

    for artifact in (old, new):
        if artifact.is_dir() and Path(realpath(artifact)) in Path(realpath(out)).parents:
            raise UsageError(f"-o {out}: lies in {artifact}, which holds the artifact alone; choose another place")
        if out.is_file() and artifact.is_file() and out.samefile(artifact):
            raise UsageError(f"-o {out}: is {artifact} itself, which would be lost; choose another name")
    made = write_delta(old, new, out, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"schema": 1, "delta": str(out), **made.to_dict()}, indent=2))
    else:
        _print(made, out)


def _print(made: Difference, out: Path) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("File")
    table.add_column("Bytes", justify="right")
    table.add_column("New among them", justify="right")
    for change in made.header.files:
        new = "unchanged" if change.same else f"{change.fresh:,}"
        table.add_row(escape(shown(change.name)), f"{change.size:,}", new, style="dim" if change.same else "")
    for name in made.removed:
        table.add_row(escape(shown(name)), "0", "removed", style="dim")
    console = stdout_console(soft_wrap=True)
    console.print(table)
    was, now = made.header.old, made.header.new
    console.print(f"{shown(was.name)} {was.seal[:12]} -> {shown(now.name)} {now.seal[:12]}", markup=False)
    console.print(f"{out}  {made.size / 1000:,.1f} KB", markup=False)
