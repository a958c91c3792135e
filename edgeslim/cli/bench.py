"""`edgeslim bench`: time an artifact on the machine that will fly it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgeslim.cli import flags as f
from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.cli.stopping import Stopping
from edgeslim.errors import UsageError, shown
from edgeslim.report.tables import number

if TYPE_CHECKING:
    from edgeslim.onboard.bench import Bench
    from edgeslim.onboard.timing.case import Case
    from edgeslim.onboard.timing.sustained import Sustained


def bench(
    artifact: Annotated[Path, typer.Argument(help="Folder that `edgeslim export` wrote.")] = Path("artifact"),
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Tiles a call; more than once: each. Default: 1 and what `classify` takes."),
    ] = None,
    threads: f.Threads = None,
    seconds: Annotated[float | None, typer.Option(help="Of each row of the table, at least; default 3.")] = None,
    sustained: Annotated[bool, typer.Option("--sustained", help="Watch the rate for ten minutes, too.")] = False,
    sustained_s: Annotated[float | None, typer.Option(help="The same for so many seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("bench")] = False,
) -> None:
    """Time an artifact on this machine: ms a tile, tiles a second, memory, and the rate over minutes. No torch.

    Hashes and golden tiles are checked first, and every answer while it is timed. Each row of the table is measured in
    a process of its own: so many calls at the same time, each on so many threads.
    """
    from edgeslim.onboard.bench import SECONDS, SUSTAINED_S, BenchOptions, bench_artifact

    if sustained and sustained_s is not None:
        raise UsageError("found both --sustained, which is ten minutes, and --sustained-s: give one of them")
    options = BenchOptions(
        batches=tuple(batch or ()),
        threads=threads,
        seconds=SECONDS if seconds is None else seconds,
        sustained_s=SUSTAINED_S if sustained else sustained_s,
    )
    stderr = stderr_console()
    # Drawn about once a second, by this thread alone: a spinner would take time from what is timed.
    with Stopping() as stop, Live(console=stderr, auto_refresh=False, transient=True) as live:

        def observe(case: Case, seconds: float, tiles_per_s: float) -> None:
            if stderr.is_terminal:
                live.update(Text(_doing(case, seconds, tiles_per_s)), refresh=True)

        found = bench_artifact(artifact, options, observe, stop)
    if not found.timings and found.sustained is None:
        stderr.print(f"[yellow]stopped[/] ({found.stopped}) before anything was timed")
        raise typer.Exit(130)
    for warning in found.warnings:
        stderr.print(f"[bold yellow]warning:[/] {escape(shown(warning))}")
    if found.stopped is not None:
        stderr.print(f"[yellow]stopped[/] ({found.stopped}): this is what was seen before")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_bench(found, stdout_console(soft_wrap=True))


def _doing(case: Case, seconds: float, tiles_per_s: float) -> str:
    what = f"batch {case.batch}, {_ways(case.workers, case.threads)}"
    return f"{what}: {min(seconds, case.seconds):.0f} of {case.seconds:.0f} s, {number(tiles_per_s)} tiles/s"


def _ways(workers: int, threads: int) -> str:
    return f"{workers} × {threads} thread{'s' if threads > 1 else ''}"


def print_bench(bench: Bench, console: Console) -> None:
    """A table with a row a case, then the plan's estimate, the rate over minutes, and where that was."""
    if bench.timings:
        console.print(_table(bench))
    rows = [("timed", _what(bench)), ("on", _where(bench))]
    if bench.planned is not None:
        rows.append(("estimate", _estimate(bench)))
    if bench.sustained is not None:
        rows += _sustained(bench.sustained)
    for name, text in rows:
        console.print(f"{name:<10} {text}", markup=False)


def _table(bench: Bench) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Batch", "Workers", "p50 ms", "p95", "p99", "Tiles/s", "Peak MiB", "Open ms", "First"):
        table.add_column(name, justify="right", no_wrap=True)
    for timing in bench.timings:
        table.add_row(
            str(timing.batch),
            f"{timing.workers} × {timing.threads}",
            number(timing.p50_ms),
            number(timing.p95_ms),
            "–" if timing.p99_ms is None else number(timing.p99_ms),
            number(timing.tiles_per_s),
            f"{timing.peak_mib:,.0f}",
            number(timing.open_ms),
            number(timing.first_ms),
        )
    return table


def _what(bench: Bench) -> str:
    calls = min((timing.calls for timing in bench.timings), default=0)
    kind = "SYNTHETIC" if bench.synthetic else "real"
    return (
        f"{bench.name}, {bench.format} {bench.precision}, {bench.gflop_per_tile:.3g} GFLOP a tile, {kind} golden tiles"
        + (f"; ms of a tile (a call's time / batch) in at least {calls} calls" if calls else "")
    )


def _where(bench: Bench) -> str:
    return f"{bench.runtime}; {bench.chip + '; ' if bench.chip else ''}{shown(bench.machine)}"


def _estimate(bench: Bench) -> str:
    planned, measured = bench.planned, bench.measured_as_planned
    if planned is None:
        return ""
    text = (
        f"{number(planned.latency_ms)} ms a tile ({number(planned.latency_low_ms)} to "
        f"{number(planned.latency_high_ms)}) planned for {shown(planned.device)} ({shown(planned.power_mode)}), "
        f"{shown(planned.runtime)} {shown(planned.precision)}, batch {planned.batch}; "
    )
    if measured is None:
        return text + f"not measured here: give --batch {planned.batch}"
    times = measured.p50_ms / planned.latency_ms
    return text + f"measured here, {_ways(1, measured.threads)}: {number(measured.p50_ms)} ({times:.2f} times)"


def _sustained(seen: Sustained) -> list[tuple[str, str]]:
    span = "minute" if seen.span_s == 60 else f"{seen.span_s:g} s"
    short = len(seen.windows) < 2
    unknown = "too short to tell whether it throttled" if short else "it got slower, but not alone: others worked, too"
    verdict = {None: unknown, True: "it THROTTLED", False: "it did not throttle"}
    change = f"{-seen.fall:+.1%}"
    rows = [
        (
            "sustained",
            f"{number(seen.tiles_per_s)} tiles/s over {seen.seconds:.0f} s, batch {seen.batch}, "
            f"{_ways(seen.workers, seen.threads)}: first {span} {number(seen.first_tiles_per_s)}, last {span} "
            f"{number(seen.last_tiles_per_s)} ({change}), lowest {seen.window_s:g} s "
            f"{number(seen.lowest_tiles_per_s)}; {verdict[seen.throttled]}",
        )
    ]
    for name, values, unit in (
        ("CPU", [w.temperature_c for w in seen.windows], "°C"),
        ("clock", [w.frequency_mhz for w in seen.windows], "MHz"),
    ):
        known = [value for value in values if value is not None]
        rows.append((name, _range(known, unit) if known else "not known: /sys does not tell"))
    return rows


def _range(values: list[float], unit: str) -> str:
    return f"{values[0]:,.0f} → {values[-1]:,.0f} {unit} ({min(values):,.0f} to {max(values):,.0f})"
