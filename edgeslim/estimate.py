"""Estimate: what one width of an encoder is computed to cost on a device. No torch.

Latency of a tile = fixed + Σ over matrix products of (overhead + max(FLOP / (peak · efficiency), bytes / (bandwidth ·
sustained fraction))). Memory = weights (as often as the runtime holds them) + peak activations + buffers + runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim import cost
from edgeslim.device import Device, RuntimeFigures
from edgeslim.profile import Profile
from edgeslim.units import GIGA, VALUE_BYTES, gflop, mib

BATCH = 1
"""Tiles a call that an estimate is for."""


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

    def found(self, budget: str) -> float:
        """The figure that is held against a budget of that name."""
        figures = {"gflop": self.gflop, "memory_mib": self.memory.total_mib, "latency_ms": self.latency_high_ms}
        return figures[budget]


def estimate(
    profile: Profile, width_multiplier: float, device: Device, runtime: RuntimeFigures, precision: str
) -> Estimate:
    """What an encoder with its head costs at a width on a device (at its power mode, see Device.in_mode)."""
    arch, classes = profile.architecture.at(width_multiplier), profile.num_classes
    value_bytes = VALUE_BYTES[precision]
    ops = cost.ops(arch, classes, BATCH, value_bytes)
    peak = device.peak_gflop_s(runtime, precision).value * GIGA
    bytes_s = device.memory.bandwidth_gb_s.value * device.memory.sustained_fraction.value * GIGA
    seconds = {"compute": 0.0, "bandwidth": 0.0, "overhead": runtime.fixed_overhead_ms.value / 1e3}
    for op in ops:
        compute = op.flop / (peak * runtime.efficiency[precision][op.op_class].value)
        moving = op.moved_bytes / bytes_s
        seconds["compute" if compute >= moving else "bandwidth"] += max(compute, moving)
        seconds["overhead"] += runtime.op_overhead_us.value / 1e6
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
        gflop=gflop(sum(op.flop for op in ops)),
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
    )
