"""Bench: how long an artifact takes on this machine, how much memory, and how it keeps up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim import __version__, cost
from edgeslim.errors import InputError, UsageError
from edgeslim.manifest import MANIFEST_NAME, Manifest, read_standing, sha256_of
from edgeslim.onboard.machine import MOST_THREADS, Host, available_threads, this_host
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.onboard.timing.calls import Timing
from edgeslim.onboard.timing.case import Case
from edgeslim.onboard.timing.measuring import Order
from edgeslim.onboard.timing.process import measure_apart
from edgeslim.onboard.timing.sensors import crowded
from edgeslim.onboard.timing.sustained import Sustained
from edgeslim.shelf import read_record, shown
from edgeslim.units import MOST_BATCH

SCHEMA = 1
SECONDS = 3.0
"""Of a case, at least."""
LEAST_CALLS = 40
"""Of a case: two of them are slower than its 95th percentile."""
SUSTAINED_S = 600.0
"""In ten minutes a board without enough cooling gets as warm as it ever will."""
WINDOW_S = 10.0
_WINDOWS = 10
"""At least so many, which are shorter then."""

_LEAST_S = 0.5
_LEAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to time. Invalid values cannot be built."""

    batches: tuple[int, ...] = ()
    """Tiles a call; empty: one, and what `classify` takes; of a format with a file a batch, those."""
    threads: int | None = None
    """Calls at the same time, as in flight; None: one for every core that this process may use."""
    seconds: float = SECONDS
    """Of a case, at least."""
    sustained_s: float | None = None
    """Watch the rate for so long, too."""

    def __post_init__(self) -> None:
        for flag, values, most in (
            ("--batch", self.batches, MOST_BATCH),
            ("--threads", () if self.threads is None else (self.threads,), MOST_THREADS),
        ):
            for value in values:
                if not 1 <= value <= most:
                    raise UsageError(f"{flag}: found {value}, expected a whole number from 1 to {most}")
        for flag, number in (("--seconds", self.seconds), ("--sustained-s", self.sustained_s)):
            if number is not None and not 0 < number <= 7 * 86400:
                raise UsageError(f"{flag}: found {number:g}, expected more than 0 and at most a week")


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan of an artifact estimates of a tile's time, with one call on all cores."""

    device: str
    """Device card."""
    power_mode: str
    """Of the device."""
    runtime: str
    """Of the device card."""
    precision: str
    """Of weights and activations."""
    batch: int
    """Tiles a call."""
    latency_ms: float
    """Estimated."""
    latency_low_ms: float
    """Lower end of the error band."""
    latency_high_ms: float
    """Upper end of the error band."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What an artifact took on a machine."""

    name: str
    """Encoder and width."""
    encoder: str
    """Profile card."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    format: str
    """Export card."""
    precision: str
    """As exported."""
    gflop_per_tile: float
    """1 MAC = 2 FLOP."""
    tile_px: int
    """Side of a tile, px."""
    synthetic: bool
    """True: no real pixel among the golden tiles, which are what was timed."""
    manifest_sha256: str
    """Of the artifact's manifest.json, which holds the hashes of its other files."""
    edgeslim_version: str
    """That timed it."""
    runtime: str
    """Library and version that computed."""
    chip: str
    """GPU and what drives it; empty: the processor computed."""
    machine: Host
    """Where."""
    timings: tuple[Timing, ...]
    """One a case."""
    sustained: Sustained | None
    """The rate over minutes; None: not asked for, or stopped before there was one."""
    planned: Planned | None
    """What its plan estimates; None: it was exported without one."""
    stopped: str | None
    """Why it ended early; None: it did not."""
    warnings: tuple[str, ...]
    """What a person should know."""

    @property
    def measured_as_planned(self) -> Timing | None:
        """The timing that the plan's estimate is to be held against; None: no such case was timed."""
        if self.planned is None:
            return None
        alike = (t for t in self.timings if t.batch == self.planned.batch and t.workers == 1)
        return max(alike, key=lambda timing: timing.threads, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain types; read back by `from_dict`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "bench") -> Bench:
        """Read what `to_dict` made, also after its way through JSON. Raises InputError for anything else."""
        if data.get("schema") != SCHEMA:
            raise InputError(f"{where}: schema: found {shown(data.get('schema'))}, expected {SCHEMA}; bench again")
        return read_record(cls, {key: value for key, value in data.items() if key != "schema"}, where)


Observer = Callable[[Case, float, float], None]
"""Is told, about once a second, which case is timed, for how many seconds so far, and its tiles a second."""


def bench_artifact(
    artifact: Path,
    options: BenchOptions | None = None,
    observe: Observer | None = None,
    stop: Callable[[], str | None] | None = None,
) -> Bench:
    """Time an artifact, each case in a process of its own; `stop` is asked now and then for a reason to end early.

    Raises as `edgeslim check` does where it is no artifact, is damaged or does not give its golden answers; InputError
    where its runtime is missing, UsageError for a batch that it has no file for.
    """
    options, stop = options or BenchOptions(), stop or (lambda: None)
    folder, manifest = read_standing(artifact)
    seal = sha256_of(folder / MANIFEST_NAME)
    timings: list[Timing] = []
    sustained: list[Sustained] = []
    heard: dict[str, Any] = {"runtime": manifest.runtime, "on": "", "warnings": []}
    for case in cases(artifact, manifest, options):
        if stop() is not None:
            break

        def hear(kind: str, data: dict[str, Any], case: Case = case) -> None:
            if kind == "opened":
                heard.update(data)
            elif kind == "timing":
                timings.append(read_record(Timing, data, kind))
            elif kind == "sustained":
                sustained.append(read_record(Sustained, data, kind))
            elif kind == "progress" and observe is not None:
                observe(case, data["seconds"], data["tiles_per_s"])

        measure_apart(Order(str(folder), seal, case, os.getpid()), hear, stop)
    return Bench(
        name=manifest.name,
        encoder=manifest.encoder,
        width_multiplier=manifest.width_multiplier,
        format=manifest.format,
        precision=manifest.precision,
        gflop_per_tile=manifest.gflop_per_tile,
        tile_px=manifest.tile_px,
        synthetic=manifest.golden.synthetic,
        manifest_sha256=seal,
        edgeslim_version=__version__,
        runtime=heard["runtime"],
        chip=heard["on"],
        machine=this_host(),
        timings=tuple(timings),
        sustained=sustained[0] if sustained else None,
        planned=planned_of(manifest.plan),
        stopped=stop(),
        warnings=(*heard["warnings"], *_of_others([*timings, *sustained])),
    )


def _of_others(found: list[Timing | Sustained]) -> list[str]:
    """A warning where other processes worked on the cores that were timed."""
    cores = os.cpu_count() or 1
    busy = [f.others_cores or 0.0 for f in found if crowded(f.others_cores, f.workers * f.threads, cores)]
    if not busy:
        return []
    return [f"other processes kept up to {max(busy):.1f} of {cores} cores busy meanwhile, which the figures show, too"]


def cases(artifact: Path, manifest: Manifest, options: BenchOptions) -> list[Case]:
    """What is timed: each batch as in flight, one call a core; one tile on all cores; and the rate over minutes.

    Raises UsageError for a batch that the artifact has no file for.
    """
    usual = cost.default_batch(manifest.architecture)
    held = manifest.batches
    for batch in options.batches:
        if held and batch not in held:
            raise UsageError(
                f"--batch: found {batch}, expected {' or '.join(map(str, held))}: {artifact} holds a network for each "
                f"of these only; give one of them, or export with --batch {batch}"
            )
    batches = sorted(set(options.batches or held or (1, usual)))
    cores = options.threads or available_threads()
    found = [Case(batch, cores, 1, options.seconds, LEAST_CALLS) for batch in batches]
    if batches[0] == 1 and cores > 1:
        found.insert(0, Case(1, 1, cores, options.seconds, LEAST_CALLS))
    if (watched := options.sustained_s) is not None:
        flown = next((batch for batch in reversed(batches) if batch <= usual), batches[0])
        found.append(Case(flown, cores, 1, watched, window_s=min(WINDOW_S, watched / _WINDOWS)))
    return found


def planned_of(plan: dict[str, Any]) -> Planned | None:
    """What a manifest's plan estimates; None where it holds no estimate."""
    chosen: Any = plan.get("chosen")
    known = ("device", "power_mode", "runtime", "precision", "batch")
    times = ("latency_ms", "latency_low_ms", "latency_high_ms")
    try:
        found = {**{key: plan[key] for key in known}, **{key: chosen[key] for key in times}}
        return read_record(Planned, found, "plan")
    except (KeyError, TypeError, InputError):
        return None


def ms_per_tile(runtime: Runtime, tiles: NDArray[np.float32]) -> float:
    """Median time of a tile, ms, given all of `tiles` (n, bands, H, W) at once, after two calls to warm up."""
    for _ in range(2):
        runtime.run(tiles)
    times: list[float] = []
    end = time.perf_counter() + _LEAST_S
    while len(times) < _LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(tiles)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3 / len(tiles)
