"""`edgeslim calibrate`: a device card of this machine, from what is timed on it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.cli.stopping import Stopping
from edgeslim.errors import InputError, MissingExtra, UsageError, shown
from edgeslim.report.tables import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeslim.device import Device
    from edgeslim.onboard.calibrating.calibrate import Calibration
    from edgeslim.target import Target

WIDTHS = (1.0, 0.5, 0.25)
"""Of the embedded encoder, where no artifact is given."""


def calibrate(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders that `edgeslim export` wrote: of three widths, say; of any formats. Default: the embedded "
            "encoder, where the ground is installed.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device card to start from, for what cannot be measured; default: x86-64-host, on one."),
    ] = None,
    power_mode: Annotated[
        str | None, typer.Option(help="Mode of it that this machine is in now; default: the card's default.")
    ] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of each row of the table, at least; default 1.2.")] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Device card to write; its name becomes the device's.")
    ] = Path("cards/devices/this-machine.toml"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that stands there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("calibrate")] = False,
) -> None:
    """Time artifacts on this machine and write a device card from what that showed: `plan` believes it. No torch.

    What was timed replaces the estimate; widths between are set right by it. Rows of the card that it starts from are
    kept, so that more encoders can be added.
    """
    from edgeslim.onboard.calibrating.calibrate import SECONDS
    from edgeslim.onboard.calibrating.calibrate import calibrate as run

    if seconds is not None and not 0 < seconds <= 3600:
        raise UsageError(f"--seconds: found {seconds:g}, expected more than 0 and at most an hour")
    name = _name(out, overwrite)
    base, targets = _base(device, cards), _targets(cards)
    stderr = stderr_console()
    with tempfile.TemporaryDirectory() as scratch:
        folders = artifacts or _embedded(Path(scratch), stderr)
        with Stopping() as stop, Live(console=stderr, auto_refresh=False, transient=True) as live:

            def observe(text: str) -> None:
                if stderr.is_terminal:
                    live.update(Text(shown(text)), refresh=True)

            found = run(
                folders, base, targets, name, power_mode, SECONDS if seconds is None else seconds, observe, stop
            )
    for warning in found.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    _write(found, out)
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(found.record())}, indent=2))
        return
    print_calibration(found, stdout_console(soft_wrap=True))
    shelf = out.parent.parent if out.parent.name == "devices" else None
    where = f"--cards {shelf} " if shelf is not None else "--cards DIR (with the card in DIR/devices) "
    typer.echo(f"wrote {out}; plan with: edgeslim plan {where}--device {name}")


def _name(out: Path, overwrite: bool) -> str:
    """The device's name, from the file's. Raises UsageError where that is none, or where something stands there."""
    if out.suffix != ".toml" or not out.stem.strip("."):
        raise UsageError(
            f"-o {out}: expected a card's name that ends in .toml, such as cards/devices/this-machine.toml"
        )
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(f"-o {out}: found it there already, kept it; give another name, or --overwrite")
    return out.stem


def _base(name: str | None, cards: Path | None) -> Device:
    """The card to start from."""
    import platform

    from edgeslim.device import device_names, take_device
    from edgeslim.onboard.calibrating.card import GENERIC

    if name is None and platform.machine() not in ("x86_64", "AMD64"):
        raise UsageError(
            f"missing --device: expected the card to start from, as this is no x86-64 computer: one of "
            f"{', '.join(device_names(cards))}"
        )
    return take_device(name or GENERIC, cards)


def _targets(cards: Path | None) -> list[Target]:
    from edgeslim.shelf import card_paths
    from edgeslim.target import SHELF, load_target

    return [load_target(path) for path in card_paths(SHELF, cards)]


def _embedded(folder: Path, stderr: Console) -> list[Path]:
    """The embedded encoder at WIDTHS as ONNX, exported into `folder`. Raises UsageError where the ground is missing."""
    from edgeslim.cli.ground import full_checkpoint
    from edgeslim.cli.need_ground import need_ground
    from edgeslim.profile import DEFAULT_ENCODER, take_profile

    try:
        need_ground()
    except MissingExtra as error:
        raise UsageError(
            "found no artifact, expected some of several widths, such as three of the embedded encoder; make them on "
            f"the ground by `edgeslim export --encoder {DEFAULT_ENCODER} -w 0.5 -o NAME`, or here: {error}"
        ) from None
    from edgeslim import cost
    from edgeslim.ground.exporting.capture import Proving, Request, Source
    from edgeslim.ground.exporting.export import export
    from edgeslim.ground.golden import golden_tiles
    from edgeslim.target import take_target

    profile = take_profile(DEFAULT_ENCODER)
    checkpoint, digest = full_checkpoint(profile, None)
    golden, made = golden_tiles(profile, None), []
    for width in WIDTHS:
        stderr.print(f"exporting {profile.id} at {width:g}")
        batch = cost.default_batch(profile.architecture.at(width))
        source, proving = Source(profile, checkpoint, digest, width), Proving(golden, batches=(1, batch))
        request = [Request(take_target("onnx"), "fp32")]
        made += export(source, request, proving, folder / f"{width:g}", lambda _: None)
    return [one.folder for one in made]


def _write(found: Calibration, out: Path) -> None:
    """The card, whole or not at all."""
    from edgeslim.device_text import device_text
    from edgeslim.whole import Kind, write_whole

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {out}: its folder cannot be made ({error.strerror}); give another name") from None
    # What stood there was refused before anything was timed, unless it may be replaced.
    write_whole(out, device_text(found.device), Kind("device card", "-o", lambda _: False), overwrite=True)


def print_calibration(found: Calibration, console: Console) -> None:
    """A table with a row a timing, then what the machine gives and what its runtimes reach."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    several = len({row.encoder for row in found.rows}) > 1
    for name in (*(["Encoder"] if several else []), "Runtime"):
        table.add_column(name, no_wrap=True)
    for name in ("w", "Batch", "At once", "p50 ms", "p95", "Before"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, before in zip(found.rows, found.before, strict=True):
        table.add_row(
            *([row.encoder] if several else []),
            f"{row.runtime} {row.precision}",
            str(row.cut) if row.depth else f"{row.width_multiplier:.3g}",
            str(row.batch),
            str(row.workers),
            number(row.p50_ms),
            number(row.p95_ms),
            "–" if before is None else number(before),
        )
    console.print(table)
    for name, text in _facts(found):
        console.print(f"{name:<10} {text}", markup=False)


def _facts(found: Calibration) -> Iterator[tuple[str, str]]:
    device, hardware = found.device, found.hardware
    storage = "not known" if hardware.storage_mb_s is None else f"{number(hardware.storage_mb_s)} MB/s"
    yield "machine", device.name
    yield (
        "gives",
        f"{number(hardware.gemm_gflop_s)} GFLOP/s of float32 products, {number(hardware.copy_gb_s)} GB/s copied; "
        f"storage {storage}",
    )
    for name in dict.fromkeys(row.runtime for row in found.rows):
        runtime = next(one for one in device.runtime if one.id == name)
        startup = "" if runtime.startup_ms is None else f", a scene open after {number(runtime.startup_ms.value)} ms"
        for precision, share in runtime.efficiency.items():
            peak = number(device.peak_gflop_s(runtime, precision).value)
            overhead = number(runtime.op_overhead_us.value)
            yield (
                "reached",
                f"{name} {precision}: {share['gemm'].value:.0%} of {peak} GFLOP/s, {overhead} us a product{startup}",
            )
    yield "timed", f"{', '.join({row.encoder: 0 for row in found.rows})}; ms of a tile; Before: estimated by the card"
