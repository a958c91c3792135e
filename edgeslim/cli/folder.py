"""`edgeslim classify FOLDER`: every raster of a folder, one after another, each in a process of its own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeslim.cli import flags as f
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.stopping import DEADLINE, Stopping
from edgeslim.errors import InputError, shown
from edgeslim.manifest import read_manifest
from edgeslim.onboard.progress import Bar, Event, Lines, Silence
from edgeslim.onboard.unfinished import read_json
from edgeslim.onboard.watching.finished import SUMMARY_NAME
from edgeslim.onboard.watching.inbox import is_ignored
from edgeslim.onboard.watching.scene_process import Outcome, SceneProcess

if TYPE_CHECKING:
    from edgeslim.report.records import FolderRecord, FolderScene

SUFFIXES = (".tif", ".tiff", ".vrt")
"""Of what a folder is searched for."""
_ARTIFACT_FAULTS = (4, 5)
"""Exit codes that speak of the artifact, not of the scene: the next scene would fail alike."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one scene of a folder."""

    scene: Path
    """In the folder."""
    out: Path
    """Its results."""
    state: str
    """done, kept (finished before), stopped or failed."""
    reason: str
    """One line; empty when done or kept."""

    def to_dict(self) -> FolderScene:
        """Plain types."""
        return {"scene": str(self.scene), "out": str(self.out), "state": self.state, "reason": self.reason}


def scenes_in(folder: Path) -> list[Path]:
    """Every raster of a folder by name, its subfolders left out. Raises InputError where there is none."""
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not is_ignored(path.name) and path.is_file()
        )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    if not found:
        raise InputError(f"{folder}: found no raster, expected files that end in {', '.join(SUFFIXES)}")
    return found


def result_folders(scenes: list[Path], out: Path) -> list[Path]:
    """OUT/<stem> of each scene; where two share a stem, OUT/<whole file name> of both."""
    stems = Counter(scene.stem.casefold() for scene in scenes)
    return [out / (scene.name if stems[scene.stem.casefold()] > 1 else scene.stem) for scene in scenes]


def classify_folder(
    folder: Path,
    artifact: Path,
    out: Path,
    asked: f.SceneFlags,
    deadline_s: float | None,
    overwrite: bool,
    progress: f.ProgressMode,
    as_json: bool,
) -> None:
    """Classify every scene.

    Raises typer.Exit(1) if one failed, InputError or UntrustedResult where none can be classified.
    """
    from edgeslim.cli.observer import observer_of

    scenes = scenes_in(folder)
    read_manifest(artifact)  # said once, not once a scene
    stderr = stderr_console()
    rows: list[Row] = []
    code = 0
    with Stopping() as stop, observer_of(progress, stderr, stop) as show:
        for scene, target in zip(scenes, result_folders(scenes, out), strict=True):
            if stop() is not None:
                rows.append(Row(scene, target, "stopped", "not begun"))
                continue
            row, code_now = _one(scene, target, artifact, asked, deadline_s, overwrite, show, stop, stderr)
            rows.append(row)
            if row.state == "failed":
                code = 1
                if not isinstance(show, Lines):
                    stderr.print(f"[bold red]error:[/] {escape(shown(row.reason))}")
                if code_now in _ARTIFACT_FAULTS:
                    code = code_now
                    break
    _report(rows, len(scenes), as_json)
    if (reason := stop()) is not None and not isinstance(show, Lines):
        left = sum(row.state == "stopped" for row in rows)
        stderr.print(
            f"[yellow]stopped[/] ({reason}) with {left} of {len(scenes)} scenes left; the same command goes on"
        )
    if code:
        raise typer.Exit(code)


def _one(
    scene: Path,
    target: Path,
    artifact: Path,
    asked: f.SceneFlags,
    deadline_s: float | None,
    overwrite: bool,
    show: Bar | Lines | Silence,
    stop: Stopping,
    stderr: Console,
) -> tuple[Row, int]:
    # Resumed whatever stands there: what is finished and of the same inputs is found so, what is of others is refused.
    more = ["--overwrite" if overwrite else "--resume"]
    more += [] if deadline_s is None else [f"--deadline-s={deadline_s}"]
    arguments = [str(scene.absolute()), "-o", str(target.absolute()), f"--artifact={artifact.absolute()}"]
    try:
        outcome, begun = _watch([*arguments, *asked.arguments(), *more], scene, show, stop, stderr)
    except OSError as error:
        raise InputError(f"{scene}: no process can be started for it ({error.strerror})") from None
    if outcome.ended == "done":
        return Row(scene, target, "done" if begun else "kept", ""), 0
    if outcome.ended == "stopped" and outcome.reason != DEADLINE:
        return Row(scene, target, "stopped", outcome.reason), outcome.exit_code
    named = outcome.reason if scene.name in outcome.reason else f"{scene}: {outcome.reason}"
    if outcome.ended == "stopped":
        named = f"{scene}: its deadline of {deadline_s:g} s passed; run again, it goes on where it stopped"
    return Row(scene, target, "failed", named), outcome.exit_code


def _watch(
    arguments: list[str], scene: Path, show: Bar | Lines | Silence, stop: Stopping, stderr: Console
) -> tuple[Outcome, bool]:
    """How its process ended, and whether it had anything to do."""
    asked_to_stop = begun = False
    with SceneProcess(arguments) as process:
        while (outcome := process.outcome) is None:
            for event in process.events(0.2):
                begun = begun or event.kind == "start"
                if event.kind == "warning" and not isinstance(show, Lines):
                    stderr.print(
                        f"[yellow]warning:[/] {escape(shown(scene.name))}: {escape(shown(event.data.get('text')))}"
                    )
                else:
                    show(event)
            if not asked_to_stop and stop() is not None:
                process.ask_to_stop()
                asked_to_stop = True
    if outcome.ended == "crashed":  # it could not say so itself
        show(Event("error", {"text": f"{scene}: {outcome.reason}", "exit_code": outcome.exit_code}))
    return outcome, begun


def _report(rows: list[Row], scenes: int, as_json: bool) -> None:
    if as_json:
        record: FolderRecord = {"schema": 1, "scenes": [row.to_dict() for row in rows]}
        typer.echo(json.dumps(record, indent=2))
        return
    console = stdout_console(soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Scene", no_wrap=True)
    table.add_column("State")
    table.add_column("Largest class")
    table.add_column("Results", no_wrap=True)
    for row in rows:
        made = row.state in ("done", "kept")
        table.add_row(
            escape(shown(row.scene.name)),
            {"done": "done", "kept": "[dim]done before[/]", "stopped": "[yellow]stopped[/]"}.get(
                row.state, "[red]failed[/]"
            ),
            _largest(row.out) if made else "",
            escape(shown(row.out)) if made else "",
        )
    console.print(table)
    counts = Counter(row.state for row in rows)
    said = [f"{counts[state]} {title}" for state, title in _STATES.items() if counts[state]]
    console.print(f"{scenes} scenes: {', '.join(said)}")


_STATES = {"done": "done", "kept": "done before", "stopped": "stopped", "failed": "failed"}


def _largest(out: Path) -> str:
    try:
        classes = (read_json(out / SUMMARY_NAME) or {})["classes"]
        best = max(classes, key=lambda c: c["share"])
        return (
            f"[#{best['color'].lstrip('#')}]■[/] {escape(best['title'])} {best['share']:.0%}"
            if best["pixels"]
            else "none"
        )
    except (KeyError, ValueError, TypeError):
        return ""
