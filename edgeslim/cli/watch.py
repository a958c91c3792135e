"""`edgeslim watch`: scenes that arrive in a folder are classified into another, for as long as the machine runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from edgeslim.cli import flags as f
from edgeslim.cli.console import stderr_console
from edgeslim.cli.observer import observer_of
from edgeslim.cli.schema import schema_flag
from edgeslim.cli.stopping import Stopping
from edgeslim.errors import UsageError, shown
from edgeslim.onboard.progress import Bar, Event, Lines, Silence, now_utc

_WATCH = "The watch"


def watch(
    inbox: Annotated[Path, typer.Argument(help="Folder that scenes arrive in.", show_default=False)],
    outbox: Annotated[Path, typer.Argument(help="Folder for results, one folder a scene.", show_default=False)],
    artifact: f.Artifact = Path("artifact"),
    once: Annotated[bool, typer.Option("--once", help="Classify what is there, then end.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave scenes in INBOX, which is then never written to.")
    ] = False,
    settle_s: Annotated[
        float, typer.Option(help="A scene is whole when unchanged for so long.", rich_help_panel=_WATCH)
    ] = 10.0,
    poll_s: Annotated[float, typer.Option(help="Between two looks at INBOX.", rich_help_panel=_WATCH)] = 2.0,
    deadline_s: Annotated[
        float | None,
        typer.Option(help="Of one scene; then it goes into quarantine, resumable.", rich_help_panel=_WATCH),
    ] = None,
    stall_s: Annotated[
        float, typer.Option(help="A scene's process silent for so long is killed.", rich_help_panel=_WATCH)
    ] = 1800.0,
    attempts: Annotated[
        int,
        typer.Option(help="Starts without a row band finished before a scene is given up.", rich_help_panel=_WATCH),
    ] = 3,
    max_outbox: Annotated[
        str | None,
        typer.Option(
            help="OUTBOX's size, e.g. 10GiB, at which no further scene is begun.",
            metavar="SIZE",
            rich_help_panel=_WATCH,
        ),
    ] = None,
    min_free: Annotated[
        str,
        typer.Option(help="Room on OUTBOX's disk below which scenes wait.", metavar="SIZE", rich_help_panel=_WATCH),
    ] = "256MiB",
    heartbeat: Annotated[
        Path | None,
        typer.Option(
            help="File rewritten every few seconds; default OUTBOX/heartbeat.json.",
            rich_help_panel=_WATCH,
            show_default=False,
        ),
    ] = None,
    heartbeat_s: Annotated[float, typer.Option(help="Between two of them.", rich_help_panel=_WATCH)] = 5.0,
    bands: f.Bands = None,
    scale: f.Scale = None,
    offset: f.Offset = None,
    accept_gsd: f.AcceptGsd = False,
    resample: f.Resample = False,
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
    progress: Annotated[
        f.ProgressMode,
        typer.Option(help="On stderr: a bar (auto: on a terminal only), events as NDJSON, or nothing."),
    ] = f.ProgressMode.auto,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a scene on stdout, not of text.")] = False,
    json_schema: Annotated[bool, schema_flag("watch")] = False,
) -> None:
    """Classify every scene that arrives in INBOX into OUTBOX, one at a time, until stopped.

    Done scenes move to INBOX/done, bad ones to INBOX/quarantine with the reason beside them. See docs/operations.md.
    """
    from edgeslim.onboard.watching.watch import Watch
    from edgeslim.onboard.watching.watch_options import WatchOptions

    asked = f.SceneFlags(
        stride=stride,
        overlap=overlap,
        cells=cells,
        bands=bands,
        scale=scale,
        offset=offset,
        accept_gsd=accept_gsd,
        resample=resample,
        image=image,
        training_prior=training_prior,
        probabilities=probabilities,
        vector=vector,
        batch=batch,
        threads=threads,
        max_ram=max_ram,
        check_every_s=check_every_s,
    )
    if inbox.absolute() == outbox.absolute():
        raise UsageError(f"INBOX and OUTBOX: found {inbox} for both, expected two folders")
    asked.check_against(artifact)
    options = WatchOptions(
        artifact=artifact,
        arguments=tuple(asked.arguments()),
        settle_s=settle_s,
        poll_s=poll_s,
        deadline_s=deadline_s,
        stall_s=stall_s,
        attempts=attempts,
        max_outbox=None if max_outbox is None else f.size_bytes("--max-outbox", max_outbox),
        min_free=f.size_bytes("--min-free", min_free),
        keep=keep,
        once=once,
        heartbeat=heartbeat,
        heartbeat_s=heartbeat_s,
    )
    stderr = stderr_console()
    with Stopping() as stop, observer_of(progress, stderr, stop) as show:
        teller = _Teller(show, stderr, as_json)
        if isinstance(show, Bar):
            stderr.print(
                f"watching {escape(shown(inbox))}, results go to {escape(shown(outbox))}; Ctrl-C stops", style="dim"
            )
        code = Watch(inbox, outbox, options, teller, stop).run()
    if code:
        raise typer.Exit(code)


class _Teller:
    """A line on stdout for each scene that is over, troubles on stderr; the bar, or events as JSON, beside them."""

    def __init__(self, show: Bar | Lines | Silence, stderr: Console, as_json: bool) -> None:
        self._show, self._stderr, self._as_json = show, stderr, as_json
        self._text = ""

    def __call__(self, event: Event) -> None:
        self._show(event)
        data, quiet = event.data, isinstance(self._show, Lines)
        if event.kind in ("delivered", "quarantined"):
            typer.echo(self._over(event))  # echo flushes: a journal is read while the watch runs
        elif quiet:
            return
        elif event.kind == "state" and data.get("text") and data["text"] != self._text:
            self._text = str(data["text"])
            self._stderr.print(f"[yellow]{data['state']}:[/] {escape(shown(self._text))}")
        elif event.kind == "warning" and not isinstance(self._show, Bar):
            named = f"{data['file']}: " if "file" in data else ""
            self._stderr.print(f"[yellow]warning:[/] {escape(named)}{escape(shown(data.get('text')))}")

    def _over(self, event: Event) -> str:
        data = event.data
        if self._as_json:
            return json.dumps({"schema": 1, "time": now_utc(), "state": event.kind, **data})
        done = event.kind == "delivered"
        text = (
            f"done         {data['file']}  {data['out']}" if done else f"quarantined  {data['file']}  {data['reason']}"
        )
        # A file name may hold a line's end, or bytes that are no text: it is one line all the same.
        return "".join(c if c.isprintable() else "?" for c in text)
