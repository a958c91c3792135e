"""Sources: every figure of a device's card that a plan rests on, beside where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from edgeslim.device import Device
from edgeslim.figure import Figure
from edgeslim.planning.plan import Plan
from edgeslim.report.tables import number


def sources_of(plan: Plan, device: Device) -> Iterator[tuple[str, str, str]]:
    """Name, value and source of figures of the plan's card at its power mode.

    Of the board, of the plan's runtime, of the unit that it runs on, and what was measured of the encoder in that way.
    """
    planned = device.in_mode(plan.power_mode)[0]
    unit = next((runtime.unit for runtime in planned.runtime if runtime.id == plan.runtime), "")
    left_out = {f"unit {one.id}" for one in planned.unit if one.id != unit}
    left_out |= {f"runtime {one.id}" for one in planned.runtime if one.id != plan.runtime}
    left_out |= {f"power_mode {one.id}" for one in planned.power_mode if one.id != plan.power_mode}
    for name, figure in _walk(planned, ""):
        if not any(name.startswith(f"{start}: ") for start in left_out):
            yield name, f"{figure.value:,.6g}", figure.source
    way = (plan.encoder, plan.runtime, plan.precision, plan.power_mode)
    for row in device.measurement:
        if (row.encoder, row.runtime, row.precision, row.power_mode) == way:
            name = f"measured ms a tile: width {row.cut}, batch {row.batch}, {row.workers} at a time"
            yield name, f"{number(row.p50_ms)} to {number(row.p95_ms)}", row.source


def _walk(value: Any, name: str) -> Iterator[tuple[str, Figure]]:
    """Every figure of a card, named as in it."""
    if isinstance(value, Figure):
        yield name, value
    elif is_dataclass(value):
        for field in fields(value):
            joined = f"{name}: {field.name}" if " " in name else f"{name}.{field.name}".lstrip(".")
            yield from _walk(getattr(value, field.name), joined)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f"{name}.{key}")
    elif isinstance(value, tuple):
        for item in value:
            yield from _walk(item, f"{name} {getattr(item, 'id', '')}".strip())
