"""Calibrate: artifacts timed on this machine, and a device card that says what they showed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeslim import __version__, cost
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.device import Device
from edgeslim.errors import InputError, UsageError
from edgeslim.manifest import Manifest, read_standing
from edgeslim.measurement import Measurement
from edgeslim.onboard.bench import Bench, BenchOptions, bench_artifact
from edgeslim.onboard.calibrating.card import Calibrated, card_of
from edgeslim.onboard.calibrating.hardware import Hardware, measure_hardware
from edgeslim.onboard.calibrating.opening import Opening, measure_opening
from edgeslim.onboard.machine import available_threads, this_host
from edgeslim.onboard.timing.case import Case
from edgeslim.shelf import shown
from edgeslim.target import Target
from edgeslim.units import gflop

SECONDS = 1.2
"""Of each row, at least: three widths are timed in half a minute."""

Observer = Callable[[str], None]
"""Is told what is being measured."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and the card that it makes."""

    device: Device
    """The card, at all power modes."""
    rows: tuple[Measurement, ...]
    """The new ones of the card."""
    before: tuple[float | None, ...]
    """What the card that it started from estimates of each, ms a tile; None: it has no figures for that runtime."""
    hardware: Hardware
    """Of this machine."""
    warnings: tuple[str, ...]
    """What a person should know."""

    def record(self) -> CalibrationRecord:
        """For machines."""
        rows = (
            CalibratedRow(**asdict(row), estimated_before_ms=before)
            for row, before in zip(self.rows, self.before, strict=True)
        )
        return CalibrationRecord(self.device.id, self.hardware, tuple(rows), self.warnings)


@dataclass(frozen=True, slots=True)
class CalibratedRow(Measurement):
    """A new row of the card, beside what was expected."""

    estimated_before_ms: float | None = None
    """Of a tile, by the card that it started from; null: that has no figures for the runtime."""


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What `edgeslim calibrate` measured."""

    device: str
    """The card that it wrote."""
    hardware: Hardware
    """Of this machine."""
    rows: tuple[CalibratedRow, ...]
    """In the order in which they were timed."""
    warnings: tuple[str, ...]
    """What a person should know."""


def calibrate(
    artifacts: Sequence[Path],
    base: Device,
    targets: Sequence[Target],
    name: str,
    power_mode: str | None = None,
    seconds: float = SECONDS,
    observe: Observer | None = None,
    stop: Callable[[], str | None] | None = None,
) -> Calibration:
    """Time artifacts (three widths of an encoder are the usual) and make a card called `name`.

    What cannot be measured here (power modes, what the system leaves alone on a board) is as on `base`, whose power
    mode this machine is in: `power_mode`, or its default one. Raises as `edgeslim check` does for an artifact that is
    not whole, UsageError for two of the same, InputError where a part of the measurement fails or was stopped.
    """
    observe, stop = observe or (lambda _: None), stop or (lambda: None)
    _, mode = base.in_mode(power_mode)
    standing = [read_standing(path)[1] for path in artifacts]
    flown = [_flown(path, manifest, targets) for path, manifest in zip(artifacts, standing, strict=True)]
    _require_different(artifacts, standing)
    cores = available_threads()
    benches: list[Bench] = []
    for number, path in enumerate(artifacts, 1):

        def tell(case: Case, spent_s: float, tiles_per_s: float, number: int = number, path: Path = path) -> None:
            observe(f"artifact {number} of {len(artifacts)}, {path}: batch {case.batch}, {tiles_per_s:.3g} tiles/s")

        observe(f"artifact {number} of {len(artifacts)}, {path}")
        benches.append(bench_artifact(path, BenchOptions(seconds=seconds), tell, stop))
        if (why := stop()) is not None:
            raise InputError(f"calibrate: stopped ({why}) before all was measured; nothing was written")
    observe("processor, memory and storage")
    modules = {target.id: target.module for target, _ in flown}
    hardware = measure_hardware(cores, next(iter(modules.values())))
    openings: dict[str, Opening] = {}
    for target, _ in flown:
        if target.id not in openings:
            observe(f"start with {target.module}")
            openings[target.id] = measure_opening(target.module)
    measured = [
        Calibrated(
            runtime,
            manifest.architecture,
            len(manifest.classes),
            _rows(bench, manifest, runtime, mode.id),
            openings[target.id],
        )
        for (target, runtime), manifest, bench in zip(flown, standing, benches, strict=True)
    ]
    device, before = card_of(base, name, this_host(), mode.id, cores, hardware, measured)
    return Calibration(
        device=device,
        rows=tuple(row for one in measured for row in one.rows),
        before=before,
        hardware=hardware,
        warnings=tuple(dict.fromkeys(warning for bench in benches for warning in bench.warnings)),
    )


def _flown(path: Path, manifest: Manifest, targets: Sequence[Target]) -> tuple[Target, str]:
    """Export card and runtime of the device card that an artifact is of."""
    for target in targets:
        if (target.format, target.runtime, target.providers) == (manifest.format, manifest.runtime, manifest.providers):
            return target, target.runtimes[0]
    known = ", ".join(target.id for target in targets)
    raise InputError(f"{path}: found a network for {shown(manifest.runtime)}, expected one of an export card: {known}")


def _require_different(artifacts: Sequence[Path], standing: Sequence[Manifest]) -> None:
    seen: dict[tuple[object, ...], Path] = {}
    for path, manifest in zip(artifacts, standing, strict=True):
        what = (manifest.encoder, manifest.cut, manifest.format, manifest.providers, manifest.precision)
        if what in seen:
            raise UsageError(
                f"{path}: found {manifest.encoder} at {manifest.cut} as {manifest.format} in "
                f"{manifest.precision} a second time, expected different artifacts; {seen[what]} is the same"
            )
        seen[what] = path


def _rows(bench: Bench, manifest: Manifest, runtime: str, power_mode: str) -> tuple[Measurement, ...]:
    """A row a timing."""
    arch: AnyArchitecture = manifest.architecture
    source = f"edgeslim {__version__} measured by `edgeslim calibrate`: {bench.runtime}, Python {bench.machine.python}"
    return tuple(
        Measurement(
            encoder=manifest.encoder,
            width_multiplier=manifest.width_multiplier,
            gflop=float(f"{gflop(cost.flop(arch, len(manifest.classes))):.6g}"),
            runtime=runtime,
            precision=manifest.precision,
            power_mode=power_mode,
            batch=timing.batch,
            workers=timing.workers,
            p50_ms=timing.p50_ms,
            p95_ms=max(timing.p95_ms, timing.p50_ms),
            source=source,
            depth=manifest.depth,
        )
        for timing in bench.timings
        if timing.workers == 1 or not manifest.providers  # a GPU is not shared out like cores
    )
