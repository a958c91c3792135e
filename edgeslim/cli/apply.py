"""`edgeslim apply`: a bundle or a delta into place on board, whole or not at all; and back."""

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


def apply(
    update: Annotated[
        Path | None,
        typer.Argument(help="Bundle of `edgeslim export --bundle`, or delta of `edgeslim diff`.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Artifact folder that it is put into.")] = Path("artifact"),
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Let the artifact before the last change stand again; a second one undoes it."),
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; default every core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what stands now as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("apply")] = False,
) -> None:
    """Put a new artifact in place once its hashes and golden tiles are right; a cut leaves the old or the new one."""
    from edgeslim.errors import UsageError
    from edgeslim.onboard.uplink.apply import apply as run_apply
    from edgeslim.onboard.uplink.apply import rollback as run_rollback

    flags.require_threads(threads)
    if rollback:
        if update is not None:
            raise UsageError(f"found both {update} and --rollback: go forward, or back")
        done = run_rollback(out, threads=threads)
    elif update is None:
        raise UsageError("missing argument: expected a bundle or a delta, or --rollback")
    else:
        done = run_apply(update, out, threads=threads)
    stderr = stderr_console()
    for warning in done.report.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    if as_json:
        typer.echo(json.dumps(done.to_dict(), indent=2))
        return
    worst = max(parity.max_abs for parity in done.report.batches.values())
    now = f"{shown(done.name)} {done.seal[:12]}"
    if not done.changed:
        said = f"stands already: {now}"
    elif done.old_name is None or done.old_seal is None:
        said = f"stands now: {now}; nothing stood there before"
    else:
        said = f"stands now: {now}; before, and by --rollback again: {shown(done.old_name)} {done.old_seal[:12]}"
    console = stdout_console(soft_wrap=True)
    console.print(said, markup=False)
    console.print(
        f"golden tiles agree within {done.report.tolerance:g} (largest difference {worst:.1e}), {done.report.runtime}",
        markup=False,
    )
    console.print(str(done.place), markup=False)
