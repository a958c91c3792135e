"""Card: what was measured of a machine, as the device card that `edgeslim plan` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeslim import __version__
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.device import Device
from edgeslim.device_card import Unit
from edgeslim.figure import Figure
from edgeslim.measurement import Measurement
from edgeslim.onboard.calibrating.fit import Fitted, fit
from edgeslim.onboard.calibrating.hardware import Hardware
from edgeslim.onboard.calibrating.opening import Opening
from edgeslim.onboard.machine import Host
from edgeslim.planning.durations import modelled_tile_s
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.units import ARITHMETIC, OP_CLASSES, VALUE_BYTES

GENERIC = "x86-64-host"
"""Card of a machine that nobody knows: whatever can be measured replaces what it assumes."""
_MEASURED_BY = "measured by `edgeslim calibrate`"
_MEASURED = f"edgeslim {__version__} {_MEASURED_BY}"
_RELATIVE = {"gemm": 1.0, "attention": 0.66, "conv": 0.9}
"""Efficiencies beside gemm's where the card has none: as the cards of other processors assume."""
_OTHERS = 1.0
"""Error band for encoders that were not timed: a factor of two, as a runtime reaches twice the share of the peak in a
wide encoder that it reaches in a narrow one (ViT-S against a dim of 96 on two AVX2 cores: ONNX Runtime 0.59 and 0.35,
LiteRT 0.85 and 0.45)."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One artifact and what was timed of it."""

    runtime: str
    """Of device cards."""
    architecture: AnyArchitecture
    """At its width."""
    classes: int
    """Of its head."""
    rows: tuple[Measurement, ...]
    """What was timed."""
    opening: Opening
    """Start of a flight with its runtime."""


def card_of(
    base: Device,
    name: str,
    host: Host,
    power_mode: str,
    cores: int,
    hardware: Hardware,
    measured: Sequence[Calibrated],
) -> tuple[Device, tuple[float | None, ...]]:
    """The card, and what `base` estimates of each row, ms a tile (None: it has no figures for its runtime)."""
    before = tuple(_estimated(base, power_mode, one, row) for one in measured for row in one.rows)
    device = _of_machine(base, name, host, cores, hardware)
    for runtime in dict.fromkeys(one.runtime for one in measured):
        device = _with_runtime(device, runtime, power_mode, [one for one in measured if one.runtime == runtime])
    rows = {row.what: row for row in base.measurement}
    rows.update({row.what: row for one in measured for row in one.rows})
    return replace(device, measurement=tuple(rows.values())), before


def _estimated(base: Device, power_mode: str, one: Calibrated, row: Measurement) -> float | None:
    device, _ = base.in_mode(power_mode)
    runtime = next((r for r in device.runtime if r.id == one.runtime), None)
    if runtime is None or ARITHMETIC[row.precision] not in runtime.precisions:
        return None
    return modelled_tile_s(row, one.architecture, one.classes, device, runtime) * 1e3


def _of_machine(base: Device, name: str, host: Host, cores: int, hardware: Hardware) -> Device:
    """The card without its runtimes' figures. A board's own card knows its memory and its peaks better."""
    storage = base.storage_mb_s
    if hardware.storage_mb_s is not None:
        storage = _figure(hardware.storage_mb_s, "a library read past the page cache")
    device = replace(base, id=name, aliases=(), storage_mb_s=storage)
    if base.id != GENERIC and _MEASURED_BY not in base.memory.total_mib.source:
        return replace(device, name=f"{base.name}, as {host.board or host.processor or 'this machine'} measured")
    memory = base.memory
    if hardware.total_mib is not None:
        reserve = hardware.total_mib - (hardware.available_mib or hardware.total_mib * 0.75)
        memory = replace(
            memory,
            total_mib=_figure(hardware.total_mib, "what the system, or its cgroup, grants"),
            reserve_mib=_figure(reserve, "what others held when it ran"),
        )
    memory = replace(
        memory,
        bandwidth_gb_s=_figure(hardware.copy_gb_s, f"NumPy copies on {cores} cores, bytes read and written"),
        sustained_fraction=Figure(1, "the bandwidth is what was sustained"),
    )
    peak = _figure(hardware.gemm_gflop_s, f"the fastest float32 matrix product of NumPy on {cores} cores")
    cpu = Unit("cpu", f"{cores} cores, {host.processor or host.architecture}", {"fp32": peak}, _figure(cores, "usable"))
    return replace(device, name=str(host), memory=memory, unit=(cpu,))


def _with_runtime(device: Device, name: str, power_mode: str, measured: Sequence[Calibrated]) -> Device:
    """The card with the figures of one runtime."""
    known = next((runtime for runtime in device.runtime if runtime.id == name), None)
    runtime = known or _like(device.runtime[0], name)
    unit = device.unit_of(runtime)
    worst, efficiency, overhead = 1.0, dict(runtime.efficiency), runtime.op_overhead_us
    for precision in dict.fromkeys(row.precision for one in measured for row in one.rows):
        arithmetic = ARITHMETIC[precision]
        shares = runtime.efficiency.get(arithmetic)
        relative = (
            dict(_RELATIVE)
            if shares is None
            else {kind: figure.value / shares["gemm"].value for kind, figure in shares.items()}
        )
        peak = _peak(device, unit, arithmetic, power_mode)
        timed = [
            (one.architecture, one.classes, row)
            for one in measured
            for row in one.rows
            if ARITHMETIC[row.precision] == arithmetic
        ]
        found = fit(timed, peak.value, relative, runtime.fixed_overhead_ms.value)
        if (too_fast := found.efficiency * max(relative.values())) > 1:
            found = replace(found, efficiency=found.efficiency / too_fast)
            if power_mode == device.default_power_mode:
                raised = f"{peak.value * too_fast:.4g} GFLOP/s, reached by {name}; more than {peak.source}"
                peak = _figure(peak.value * too_fast, raised)
        if power_mode == device.default_power_mode or arithmetic not in unit.peaks:
            unit = replace(unit, peak_gflop_s={**unit.peaks, arithmetic: peak})
        efficiency[arithmetic] = {kind: _share(found, relative[kind], len(timed)) for kind in OP_CLASSES}
        worst = max(worst, found.worst)
        if precision == measured[0].rows[0].precision:
            overhead = _figure(found.op_overhead_us, f"fitted to {len(timed)} timed rows")
    opening = measured[0].opening
    # What a card has holds what the runtime takes for any network, too; a process that only opens a scene does not.
    opened = _figure(opening.resident_mib, "resident with a scene open and the runtime imported, most of a few")
    resident = max(opened, runtime.memory_mib, key=lambda figure: figure.value)
    figures = replace(
        runtime,
        unit=unit.id,
        efficiency=efficiency,
        op_overhead_us=overhead,
        memory_mib=resident,
        startup_ms=_figure(opening.milliseconds, "process start to an open scene, the least of a few"),
        error_band=_figure(
            max(_OTHERS, worst - 1),
            f"for encoders that were not timed: a factor of two, or the worst of the fit ({worst:.2f}); one that was "
            "carries the spread of its measurements",
        ),
        basis="measured",
    )
    runtimes = [figures if runtime.id == name else runtime for runtime in device.runtime]
    if known is None:
        runtimes.append(figures)
    units = tuple(unit if one.id == unit.id else one for one in device.unit)
    return replace(device, runtime=tuple(runtimes), unit=units)


def _like(runtime: RuntimeFigures, name: str) -> RuntimeFigures:
    """Another runtime of the processor, with what is not measured as of `runtime`."""

    def as_there(figure: Figure | None) -> Figure | None:
        return None if figure is None else Figure(figure.value, f"as {runtime.id}: {figure.source}")

    return replace(
        runtime,
        id=name,
        unit="cpu",
        efficiency={},
        startup_read_mb=as_there(runtime.startup_read_mb),
        weights_mb_s=as_there(runtime.weights_mb_s),
        band_pixel_ns=as_there(runtime.band_pixel_ns),
        window_us=as_there(runtime.window_us),
    )


def _peak(device: Device, unit: Unit, arithmetic: str, power_mode: str) -> Figure:
    """Peak in the power mode that was measured in; where the card has none, the fp32 one at the width of the values."""
    there, _ = device.in_mode(power_mode)
    peaks = next(one for one in there.unit if one.id == unit.id).peaks
    if arithmetic in peaks:
        return peaks[arithmetic]
    factor = VALUE_BYTES["fp32"] / VALUE_BYTES[arithmetic]
    return Figure(peaks["fp32"].value * factor, f"{factor:g} x that of fp32: as many more values in a register")


def _share(found: Fitted, relative: float, rows: int) -> Figure:
    how = "fitted" if relative == 1 else f"{relative:.3g} x gemm's, which was fitted"
    return _figure(found.efficiency * relative, f"{how} to {rows} timed rows")


def _figure(value: float, what: str) -> Figure:
    return Figure(float(f"{value:.4g}"), f"{_MEASURED}: {what}")
