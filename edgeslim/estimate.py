"""Estimate: what one width of an encoder is computed to cost on a device. No torch.

Latency of a tile = fixed + Σ over matrix products of (overhead + max(FLOP / (peak · efficiency), bytes / (bandwidth ·
sustained fraction))). Memory = weights (as often as the runtime holds them) + peak activations + buffers + runtime.

Start-up, from process start to the first finished batch of `edgeslim classify` on one thread a core, nothing in the
page cache (a board that has just booted):

    libraries   startup_ms: interpreter, libraries, opening the scene
    storage     (startup_read_mb + weights + golden tiles) / storage_mb_s
    weights     weights / weights_mb_s: hashed, loaded, packed
    golden      4 golden tiles replayed before the flight, shared out over the cores, each core's in one call
    batch       two warm-up batches on every core at the same time, then the first batch: 3 x t(batch)

A call there is the sum above with one core's share of the peak and, of the bandwidth, the share of each core that is at
work beside it. The batch is the largest that any width of the encoder takes: a narrower width, which may take larger
ones, is so never foretold to start later. Follows edgeslim/onboard/classify.py and integrity.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from edgeslim import cost, size
from edgeslim.architecture import Architecture
from edgeslim.device import Device, RuntimeFigures
from edgeslim.profile import Profile
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC, GIGA, KILO, MEGA, VALUE_BYTES, gflop, mib

BATCH = 1
"""Tiles a call that an estimate is for."""
REPLAYED_TILES = 4
"""Of them, replayed before a flight."""
_WARM_UPS = 2
"""Batches that every worker runs before the first one of the scene."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What an estimate is asked for beside a tile's costs."""

    uplink_kb_day: float | None = None
    """What the link takes up a day; None: no uplink is estimated."""


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory, split."""

    weights_mib: float
    """Parameters, as often as the runtime holds them at the peak."""
    activations_mib: float
    """Largest set of tensors alive at once."""
    buffers_mib: float
    """Tiles and outputs."""
    runtime_mib: float
    """Interpreter and libraries before a model is loaded."""

    @property
    def total_mib(self) -> float:
        """The sum."""
        return self.weights_mib + self.activations_mib + self.buffers_mib + self.runtime_mib


@dataclass(frozen=True, slots=True)
class Startup:
    """Time from process start to the first finished tile, cold, split."""

    libraries_ms: float
    """Interpreter, libraries, opening the scene."""
    storage_ms: float
    """Libraries, weights and golden tiles read from storage."""
    weights_ms: float
    """Weights hashed, loaded and packed."""
    golden_ms: float
    """Golden tiles replayed."""
    batch_ms: float
    """Warm-up and first batch."""
    low_ms: float
    """Sum, at the lower end of the error band."""
    high_ms: float
    """Sum, at the upper end of the error band; a start-up budget is held against it."""

    @property
    def total_ms(self) -> float:
        """The sum."""
        return self.libraries_ms + self.storage_ms + self.weights_ms + self.golden_ms + self.batch_ms


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one width step is computed to cost on the device."""

    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    head_dim: int
    """Kept dimensions of a head."""
    ffn_hidden: int
    """Kept hidden units."""
    aligned: bool
    """Whether both are multiples that the hardware likes."""
    gflop: float
    """A tile, encoder and head, 1 MAC = 2 FLOP; exact."""
    parameters: int
    """Encoder and head; exact."""
    memory: Memory
    """Peak memory."""
    latency_ms: float
    """Of a tile."""
    latency_low_ms: float
    """Lower end of the error band."""
    latency_high_ms: float
    """Upper end of the error band; a latency budget is held against it."""
    bound: str
    """What takes most of the time: "compute", "bandwidth" or "overhead"."""
    score: float | None
    """Measured score of this width; None: not measured."""
    score_basis: str | None
    """Metric, data set and source of the score."""
    startup: Startup | None = None
    """Time to the first finished tile; None: not known, as the device's card lacks figures for it."""
    artifact_mb: float | None = None
    """All files of the artifact; None: not known, as the export card lacks figures for it."""
    uplink_days: float | None = None
    """Time to uplink it; None: not asked for, or not known."""

    def found(self, budget: str) -> float:
        """The figure that is held against a budget of that name; infinite where it is not known."""
        figures = {
            "gflop": self.gflop,
            "memory_mib": self.memory.total_mib,
            "latency_ms": self.latency_high_ms,
            "startup_s": None if self.startup is None else self.startup.high_ms / 1e3,
            "artifact_mb": self.artifact_mb,
            "uplink_days": self.uplink_days,
        }
        figure = figures[budget]
        return math.inf if figure is None else figure


def estimate(
    profile: Profile,
    width_multiplier: float,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    target: Target | None = None,
    conditions: Conditions = NO_CONDITIONS,
) -> Estimate:
    """What an encoder with its head costs at a width on a device (at its power mode, see Device.in_mode).

    `precision` is the artifact's; its size is estimated where a `target` says what it is exported as.
    """
    arch, classes = profile.architecture.at(width_multiplier), profile.num_classes
    artifact_mb = None if target is None else size.artifact_mb(arch, classes, target, precision)
    rate, arithmetic = conditions.uplink_kb_day, ARITHMETIC[precision]
    value_bytes = VALUE_BYTES[arithmetic]
    seconds = _seconds(arch, classes, BATCH, device, runtime, arithmetic)
    latency_ms = sum(seconds.values()) * 1e3
    band = 1 + runtime.error_band.value
    need = cost.footprint(arch, classes, BATCH, value_bytes)
    multiples = device.multiples
    score = profile.score_at(width_multiplier)
    return Estimate(
        width_multiplier=width_multiplier,
        head_dim=arch.head_dim,
        ffn_hidden=arch.ffn_hidden,
        aligned=not (arch.head_dim % multiples.head_dim.value or arch.ffn_hidden % multiples.ffn_hidden.value),
        gflop=gflop(cost.flop(arch, classes, BATCH)),
        parameters=cost.parameters(arch, classes),
        memory=Memory(
            weights_mib=mib(need.weights_bytes * runtime.weight_copies.value),
            activations_mib=mib(need.activations_bytes),
            buffers_mib=mib(need.buffers_bytes),
            runtime_mib=runtime.memory_mib.value,
        ),
        latency_ms=latency_ms,
        latency_low_ms=latency_ms / band,
        latency_high_ms=latency_ms * band,
        bound=max(seconds, key=lambda part: seconds[part]),
        score=None if score is None else score.value,
        score_basis=None if score is None else f"{score.metric}, {score.dataset}; {score.source}",
        startup=_startup(profile, arch, device, runtime, arithmetic),
        artifact_mb=artifact_mb,
        uplink_days=None if artifact_mb is None or rate is None else artifact_mb * MEGA / (rate * KILO),
    )


def startup_lacks(device: Device, runtime: RuntimeFigures) -> tuple[str, ...]:
    """Keys without which a card's start-up is not known; empty where it is."""
    found = {
        "storage_mb_s": device.storage_mb_s,
        f"cores of unit {runtime.unit}": device.unit_of(runtime).cores,
        f"startup_ms of runtime {runtime.id}": runtime.startup_ms,
        f"startup_read_mb of runtime {runtime.id}": runtime.startup_read_mb,
        f"weights_mb_s of runtime {runtime.id}": runtime.weights_mb_s,
    }
    return tuple(key for key, figure in found.items() if figure is None)


def _startup(
    profile: Profile, arch: Architecture, device: Device, runtime: RuntimeFigures, precision: str
) -> Startup | None:
    """See the module's docstring."""
    cores, storage, read = device.unit_of(runtime).cores, device.storage_mb_s, runtime.startup_read_mb
    libraries, weights = runtime.startup_ms, runtime.weights_mb_s
    if cores is None or storage is None or libraries is None or read is None or weights is None:
        return None
    classes, full = profile.num_classes, profile.architecture
    batch = cost.default_batch(full.at(full.width_steps()[0]))
    weights_mb = cost.parameters(arch, classes) * VALUE_BYTES[precision] / MEGA
    golden_mb = size.golden_bytes(arch) / MEGA
    replaying = min(cores.value, REPLAYED_TILES)
    one_core = partial(_seconds, device=device, runtime=runtime, precision=precision, compute_share=1 / cores.value)
    replay = one_core(arch, classes, math.ceil(REPLAYED_TILES / replaying), bandwidth_share=1 / replaying)
    together = one_core(arch, classes, batch, bandwidth_share=1 / cores.value)
    parts = {
        "libraries_ms": libraries.value,
        "storage_ms": (read.value + weights_mb + golden_mb) / storage.value * 1e3,
        "weights_ms": weights_mb / weights.value * 1e3,
        "golden_ms": sum(replay.values()) * 1e3,
        "batch_ms": (_WARM_UPS + 1) * sum(together.values()) * 1e3,
    }
    total, band = sum(parts.values()), 1 + runtime.error_band.value
    return Startup(**parts, low_ms=total / band, high_ms=total * band)


def _seconds(
    arch: Architecture,
    classes: int,
    batch: int,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    *,
    compute_share: float = 1.0,
    bandwidth_share: float = 1.0,
) -> dict[str, float]:
    """Time of one call, by what bounds it, with a share of the unit's peak and of the memory's bandwidth."""
    peak = device.peak_gflop_s(runtime, precision).value * GIGA * compute_share
    bytes_s = device.memory.bandwidth_gb_s.value * device.memory.sustained_fraction.value * GIGA * bandwidth_share
    seconds = {"compute": 0.0, "bandwidth": 0.0, "overhead": runtime.fixed_overhead_ms.value / 1e3}
    for op in cost.ops(arch, classes, batch, VALUE_BYTES[precision]):
        compute = op.flop / (peak * runtime.efficiency[precision][op.op_class].value)
        moving = op.moved_bytes / bytes_s
        seconds["compute" if compute >= moving else "bandwidth"] += max(compute, moving)
        seconds["overhead"] += runtime.op_overhead_us.value / 1e6
    return seconds
