"""Plan: the widest width of an encoder that a device's budget allows. The join of the three shelves; no torch."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeslim.architecture import Architecture
from edgeslim.device import Device, RuntimeFigures
from edgeslim.errors import InputError, NothingFits, UsageError
from edgeslim.estimate import BATCH, Estimate, estimate, startup_lacks
from edgeslim.profile import Profile
from edgeslim.shelf import read_record
from edgeslim.target import Target

SCHEMA = 1
KEY = "edgeslim_plan"
"""Its presence in a JSON file marks that file as a plan, its value is the schema."""

METHOD = "first"
"""Slimming method: the first channels of each head and of each hidden layer (arXiv 2601.22841)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget."""

    value: float
    """In the unit of the field that holds it."""
    basis: str
    """"asked", or how it follows from the device's card."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a tile may cost on the device."""

    gflop: Limit
    """GFLOP a tile, 1 MAC = 2 FLOP."""
    memory_mib: Limit
    """Peak memory of the process."""
    latency_ms: Limit | None
    """Time of a tile, held against the upper end of the estimate; None: not limited."""
    startup_s: Limit | None = None
    """From process start to the first finished tile, held against the upper end of the estimate; None: not limited."""

    def limits(self) -> Iterator[tuple[str, Limit]]:
        """The budgets that are set, with the name of their field."""
        for name in ("gflop", "memory_mib", "latency_ms", "startup_s"):
            if (limit := getattr(self, name)) is not None:
                yield name, limit


@dataclass(frozen=True, slots=True)
class Miss:
    """One budget that a step does not meet."""

    budget: str
    """"gflop", "memory_mib", "latency_ms" or "startup_s"."""
    limit: float
    """What was allowed."""
    found: float
    """What the step needs."""
    over: float
    """found / limit - 1: 0.25 is a quarter too much."""


@dataclass(frozen=True, slots=True)
class Step:
    """One width step and what became of it."""

    verdict: str
    """"chosen", "over budget", "unaligned" (fits, but an aligned one fits too) or "narrower" (than the chosen one)."""
    misses: tuple[Miss, ...]
    """Budgets missed; empty unless "over budget"."""
    estimate: Estimate
    """What it costs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which width of an encoder flies on a device, why, and why no wider one."""

    encoder: str
    """Profile card."""
    architecture: Architecture
    """At width multiplier 1.0."""
    classes: int
    """Of the head; 0 without one."""
    method: str
    """Slimming method."""
    chosen: Estimate
    """The chosen width, and what it is computed to cost."""
    slim_architecture: Architecture
    """After slimming to the chosen width."""
    device: str
    """Device card."""
    device_name: str
    """For people."""
    power_mode: str
    """Of the device."""
    power_mode_basis: str
    """"asked", or why it is the device's default."""
    target: str
    """Export card."""
    runtime: str
    """Of the device card."""
    runtime_basis: str
    """What its efficiencies rest on: "measured", "related" or "assumed"."""
    precision: str
    """Of weights and activations."""
    batch: int
    """Tiles a call."""
    multiples: tuple[int, ...]
    """Multiples of head_dim and of ffn_hidden that the hardware likes."""
    budget: Budget
    """What a tile may cost."""
    steps: tuple[Step, ...]
    """All width steps, widest first."""
    startup_lacks: tuple[str, ...] = ()
    """Keys that the device's card lacks for the start-up to be known."""

    @property
    def width_multiplier(self) -> float:
        """The chosen one."""
        return self.chosen.width_multiplier

    def summary(self) -> dict[str, Any]:
        """What crosses to the device with an artifact: all but the architectures and the steps not chosen."""
        left_out = ("architecture", "slim_architecture", "steps", "multiples", "startup_lacks")
        return {key: value for key, value in self.to_dict().items() if key not in left_out}

    def to_dict(self) -> dict[str, Any]:
        """Plain types; read back by `from_dict`."""
        data: dict[str, Any] = asdict(self)
        data["architecture"] = self.architecture.to_dict()
        data["slim_architecture"] = self.slim_architecture.to_dict()
        return {KEY: SCHEMA, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "plan") -> Plan:
        """Read what `to_dict` wrote. Raises InputError naming `where`, the key and what was expected."""
        if data.get(KEY) != SCHEMA:
            found = f"{KEY} = {data[KEY]!r}" if KEY in data else f"no key {KEY!r}"
            raise InputError(f"{where}: found {found}, expected {KEY} = {SCHEMA}; `edgeslim plan` writes one")
        plan = read_record(cls, {k: v for k, v in data.items() if k != KEY}, where)
        slim, expected = plan.slim_architecture, plan.architecture.at(plan.width_multiplier)
        if slim != expected or (plan.chosen.head_dim, plan.chosen.ffn_hidden) != (slim.head_dim, slim.ffn_hidden):
            raise InputError(
                f"{where}: slim_architecture: found head_dim {slim.head_dim}, ffn_hidden {slim.ffn_hidden}, "
                f"expected {expected.head_dim} and {expected.ffn_hidden} of width multiplier "
                f"{plan.width_multiplier:g}; plan again"
            )
        return plan

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the plan as JSON, whole or not at all. A file that is no plan is replaced only with `overwrite`.

        Raises InputError if `path` cannot be written or holds something else.
        """
        if path.is_dir():
            raise InputError(f"{path}: found a folder, expected a file's name for the plan; give one by -o")
        if path.exists() and not overwrite and not _is_plan(path):
            raise InputError(f"{path}: found a file that is no plan, kept it; give another name by -o or --overwrite")
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another name by -o") from None
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            # mkstemp makes the file private; a plan is as readable as any new file.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, path)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another name by -o") from None


def _is_plan(path: Path) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and KEY in data


def read_plan(path: Path) -> Plan:
    """Read a plan.json. Raises InputError naming the file and what is wrong with it."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); `edgeslim plan` writes one") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); `edgeslim plan` writes one") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found no JSON object, expected a plan; `edgeslim plan` writes one")
    return Plan.from_dict(data, str(path))


def make_plan(
    profile: Profile,
    device: Device,
    target: Target,
    *,
    gflop: float | None = None,
    memory_mib: float | None = None,
    latency_ms: float | None = None,
    startup_s: float | None = None,
    power_mode: str | None = None,
) -> Plan:
    """The widest aligned width step that meets every budget; an unaligned one only if no aligned one does.

    Budgets that are None come from the device's card; none of latency and start-up stands there, its tile period gives
    GFLOP. Raises NothingFits naming the nearest miss, UsageError for a budget that is not more than 0 or a power mode
    that the device does not have, InputError if the device has no figures for a runtime of the target or for a start-up
    that is to be limited.
    """
    asked = {"--gflop": gflop, "--memory-mib": memory_mib, "--latency-ms": latency_ms, "--startup-s": startup_s}
    for flag, value in asked.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{flag}: found {value:g}, expected a number of more than 0")
    planned, mode = device.in_mode(power_mode)
    precision = target.precisions[0]
    runtime = _runtime(planned, target, precision)
    lacks = startup_lacks(planned, runtime)
    if startup_s is not None and lacks:
        raise InputError(
            f"--startup-s: the start-up of {device.id} is not known, its card has no {', no '.join(lacks)}; add that "
            "to a card of your own (--cards), or leave --startup-s out"
        )
    budget = _budget(planned, runtime, precision, gflop, memory_mib, latency_ms, startup_s)
    multiples = (int(device.multiples.head_dim.value), int(device.multiples.ffn_hidden.value))
    widths = sorted(profile.architecture.width_steps(), reverse=True)
    estimates = [estimate(profile, w, planned, runtime, precision) for w in widths]
    held = [(e, _misses(e, budget)) for e in estimates]
    fitting = [e for e, misses in held if not misses]
    if not fitting:
        raise NothingFits(_nearest_miss(profile, device, mode.id, held))
    chosen = next((e for e in fitting if e.aligned), fitting[0])
    return Plan(
        encoder=profile.id,
        architecture=profile.architecture,
        classes=profile.num_classes,
        method=METHOD,
        chosen=chosen,
        slim_architecture=profile.architecture.at(chosen.width_multiplier),
        device=device.id,
        device_name=device.name,
        power_mode=mode.id,
        power_mode_basis="asked" if power_mode is not None else device.power_mode_reason,
        target=target.id,
        runtime=runtime.id,
        runtime_basis=runtime.basis,
        precision=precision,
        batch=BATCH,
        multiples=multiples,
        budget=budget,
        steps=tuple(Step(_verdict(e, m, chosen), m, e) for e, m in held),
        startup_lacks=lacks,
    )


def miss_text(miss: Miss) -> str:
    """A missed budget for people: "latency up to 28 ms > 20 (+40 %)"."""
    what, unit = {
        "gflop": ("FLOP", "GFLOP"),
        "memory_mib": ("memory", "MiB"),
        "latency_ms": ("latency up to", "ms"),
        "startup_s": ("start-up up to", "s"),
    }[miss.budget]
    return f"{what} {miss.found:.3g} {unit} > {miss.limit:.3g} ({over_text(miss.over)})"


def over_text(over: float) -> str:
    """By how much a budget is missed: a percentage, or a factor from twice on; never rounded down to nothing."""
    if over >= 1:
        return f"{1 + over:.1f} times" if over < 99 else f"{1 + over:.0f} times"
    return f"+{max(math.ceil(over * 100), 1)} %"


def _runtime(device: Device, target: Target, precision: str) -> RuntimeFigures:
    for name in target.runtimes:
        for runtime in device.runtime:
            if runtime.id == name and precision in runtime.precisions:
                return runtime
    found = ", ".join(f"{r.id} ({'/'.join(r.precisions)})" for r in device.runtime) or "none"
    raise InputError(
        f"{device.id}: runtime: found {found}, expected one that {target.id} runs on in {precision}: "
        f"{', '.join(target.runtimes)}; add its figures to a card of your own (--cards)"
    )


def _budget(
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    gflop: float | None,
    memory_mib: float | None,
    latency_ms: float | None,
    startup_s: float | None,
) -> Budget:
    peak = device.peak_gflop_s(runtime, precision).value
    share = runtime.efficiency[precision]["gemm"].value
    period_ms, memory = device.tile_period_ms.value, device.memory
    return Budget(
        gflop=Limit(gflop, "asked")
        if gflop is not None
        else Limit(
            peak * share * period_ms / 1e3,
            f"{peak:g} GFLOP/s x {share:g} efficiency x {period_ms:g} ms",
        ),
        memory_mib=Limit(memory_mib, "asked")
        if memory_mib is not None
        else Limit(
            memory.usable_mib, f"{memory.total_mib.value:g} MiB - {memory.reserve_mib.value:g} MiB left to the system"
        ),
        latency_ms=None if latency_ms is None else Limit(latency_ms, "asked"),
        startup_s=None if startup_s is None else Limit(startup_s, "asked"),
    )


def _misses(estimate: Estimate, budget: Budget) -> tuple[Miss, ...]:
    return tuple(
        Miss(name, limit.value, found, found / limit.value - 1)
        for name, limit in budget.limits()
        if (found := estimate.found(name)) > limit.value
    )


def _verdict(estimate: Estimate, misses: tuple[Miss, ...], chosen: Estimate) -> str:
    if estimate is chosen:
        return "chosen"
    if misses:
        return "over budget"
    return "narrower" if estimate.width_multiplier < chosen.width_multiplier else "unaligned"


def _nearest_miss(profile: Profile, device: Device, mode: str, missed: list[tuple[Estimate, tuple[Miss, ...]]]) -> str:
    nearest, misses = min(missed, key=lambda pair: max(miss.over for miss in pair[1]))
    flags = " and ".join("--" + miss.budget.replace("_", "-") for miss in misses)
    return (
        f"no width multiplier of {profile.id} fits {device.id} ({mode}): the nearest, {nearest.width_multiplier:.3g} "
        f"(head_dim {nearest.head_dim}), misses {'; '.join(miss_text(miss) for miss in misses)}; "
        f"raise {flags}, or take a smaller encoder or a stronger device"
    )
