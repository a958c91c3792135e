"""Estimate: what one cut of an encoder, in width and depth, is computed to cost on a device. No torch.

What the whole of `edgeslim classify` takes of memory is in run_memory.py, how long a call, the start and a scene take
in durations.py, how large an artifact is in size.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim import cost, size
from edgeslim.cuts import Cut
from edgeslim.device import Device
from edgeslim.planning.call_time import ESTIMATED
from edgeslim.planning.durations import Scene, SceneTime, Startup, scene_time, startup_of, timed_call
from edgeslim.profile import Profile
from edgeslim.run_memory import SLACK_BYTES, USUAL_SCENE_PX, planned_memory, process_memory, usual_call
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC, KILO, MEGA, gflop, mib

BATCH = 1
"""Tiles a call that an estimate is for, unless another is asked."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What an estimate is asked for beside a tile's costs."""

    uplink_kb_day: float | None = None
    """What the link takes up a day; None: no uplink is estimated."""
    scene: Scene | None = None
    """To be classified; None: no scene is estimated."""
    power_w: float | None = None
    """Drawn by the board in its power mode; None: nobody measured it."""
    batch: int | None = None
    """Tiles a call; None: BATCH, and for start-up and scene what `classify` takes."""
    score_on: str | None = None
    """Data set whose scores count; None: the first of the encoder's card."""


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident memory of `edgeslim classify` on a scene, split."""

    weights_mib: float
    """Parameters, as often as the runtime holds them."""
    activations_mib: float
    """Largest set of tensors alive at once, of a call on every core."""
    buffers_mib: float
    """Pixels being read, tiles being cut, results being written."""
    runtime_mib: float
    """Interpreter, libraries and what their threads and allocators hold."""
    calls: int = 1
    """Of the network at the same time: one on every core."""

    @property
    def total_mib(self) -> float:
        """The sum."""
        return self.weights_mib + self.activations_mib + self.buffers_mib + self.runtime_mib


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one cut is computed to cost on the device."""

    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    head_dim: int
    """Kept dimensions of a head, of the widest block where they differ; 0: a ConvNeXt V2, which has none."""
    ffn_hidden: int
    """Kept hidden units, of the widest block where they differ; of a ConvNeXt V2, channels of a block in its narrowest
    stage."""
    aligned: bool
    """Whether both are multiples that the hardware likes, in every block."""
    gflop: float
    """A tile, encoder and head, 1 MAC = 2 FLOP; exact."""
    parameters: int
    """Encoder and head; exact."""
    memory: Memory
    """Peak memory."""
    latency_ms: float
    """Of a tile: a call's time / batch."""
    latency_low_ms: float
    """Lower end of the error band."""
    latency_high_ms: float
    """Upper end of the error band; a latency budget is held against that of a call."""
    bound: str
    """What takes most of the time: "compute", "bandwidth" or "overhead"."""
    score: float | None
    """Measured score of this cut; None: not measured."""
    score_basis: str | None
    """Metric, data set, probe, interval and source of the score."""
    startup: Startup | None = None
    """Time to the first finished tile; None: not known, as the device's card lacks figures for it."""
    artifact_mb: float | None = None
    """All files of the artifact; None: not known, as the export card lacks figures for it."""
    uplink_days: float | None = None
    """Time to uplink it; None: not asked for, or not known."""
    scene: SceneTime | None = None
    """Time of a scene; None: not asked for, or not known."""
    power_w: float | None = None
    """Drawn by the board with every core at work, measured, at any width; None: nobody measured it."""
    batch: int = BATCH
    """Tiles a call."""
    latency_basis: str = ESTIMATED
    """What latency_ms is: "measured" on this board, "rescaled" by other widths that were, or "estimated"."""
    score_interval: tuple[float, float] | None = None
    """95 % confidence interval of the score; None: not measured, or nobody gave one."""
    depth: int | None = None
    """Blocks that are kept, the first ones; None: all."""

    @property
    def cut(self) -> Cut:
        """What is kept of the encoder."""
        return Cut(self.width_multiplier, self.depth)

    @property
    def size(self) -> tuple[float, float]:
        """By which cuts are ordered: GFLOP, then the width multiplier. Of one depth that is the order of widths."""
        return self.gflop, self.width_multiplier

    @property
    def energy_j(self) -> float | None:
        """Of the board for the scene, at the upper end of its time; None: not asked for, or not known."""
        return None if self.scene is None or self.power_w is None else self.scene.high_s * self.power_w

    def found(self, budget: str) -> float | None:
        """The figure that is held against a budget of that name; None where it is not known."""
        figures = {
            "gflop": self.gflop,
            "memory_mib": self.memory.total_mib,
            "latency_ms": self.latency_high_ms * self.batch,
            "startup_s": None if self.startup is None else self.startup.high_ms / 1e3,
            "artifact_mb": self.artifact_mb,
            "uplink_days": self.uplink_days,
            "deadline_s": None if self.scene is None else self.scene.high_s,
            "energy_j": self.energy_j,
            "max_w": self.power_w,
            "min_score": self.score,
        }
        return figures[budget]


def estimate(
    profile: Profile,
    width_multiplier: float,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    target: Target | None = None,
    conditions: Conditions = NO_CONDITIONS,
    depth: int | None = None,
) -> Estimate:
    """What an encoder with its head costs at a width on a device (at its power mode, see Device.in_mode).

    `precision` is the artifact's; its size is estimated where a `target` says what it is exported as. Of its first
    `depth` blocks, where that is not None.
    """
    arch, classes = profile.architecture.at(width_multiplier, depth), profile.num_classes
    batch = conditions.batch or BATCH
    artifact_mb = None if target is None else size.artifact_mb(arch, classes, target, precision, batch)
    rate, arithmetic = conditions.uplink_kb_day, ARITHMETIC[precision]
    tile = timed_call(profile, arch, batch, device, runtime, precision).times(1 / batch)
    multiples = device.multiples
    startup = startup_of(profile, arch, device, runtime, precision, conditions.batch)
    scene = conditions.scene
    # int8 is another network than the one whose score was measured; fp16 is proven to be the same at export.
    score = None if arithmetic == "int8" else profile.score_at(width_multiplier, conditions.score_on, depth)
    return Estimate(
        width_multiplier=width_multiplier,
        head_dim=arch.told_sizes[0],
        ffn_hidden=arch.told_sizes[1],
        aligned=arch.is_aligned(multiples.head_dim.value, multiples.ffn_hidden.value),
        gflop=gflop(cost.flop(arch, classes)),
        parameters=cost.parameters(arch, classes),
        memory=memory_of(profile, width_multiplier, device, runtime, precision, target, conditions, depth),
        latency_ms=tile.seconds * 1e3,
        latency_low_ms=tile.low_s * 1e3,
        latency_high_ms=tile.high_s * 1e3,
        bound=tile.bound,
        score=None if score is None else score.value,
        score_basis=None if score is None else score.basis,
        startup=startup,
        artifact_mb=artifact_mb,
        uplink_days=None if artifact_mb is None or rate is None else artifact_mb * MEGA / (rate * KILO),
        scene=None
        if scene is None
        else scene_time(scene, startup, profile, arch, device, runtime, precision, conditions.batch),
        power_w=conditions.power_w,
        batch=batch,
        latency_basis=tile.basis,
        score_interval=None if score is None else score.interval,
        depth=depth,
    )


def memory_of(
    profile: Profile,
    width_multiplier: float,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    target: Target | None = None,
    conditions: Conditions = NO_CONDITIONS,
    depth: int | None = None,
) -> Memory:
    """Peak resident memory of `edgeslim classify` on the scene that is asked for, otherwise on USUAL_SCENE_PX.

    A call on every core of the runtime's unit (one, where their number is not known), in the batches that `classify`
    takes unless one is asked.
    """
    full, classes, batch = profile.architecture, profile.num_classes, conditions.batch
    arch, scene = full.at(width_multiplier, depth), conditions.scene
    cores = device.unit_of(runtime).cores
    calls = 1 if cores is None else int(cores.value)
    static = target is not None and target.batch == "static"
    process = process_memory(full, width_multiplier, classes, runtime, precision, batch, calls, static, depth)
    size_px = USUAL_SCENE_PX if scene is None else (scene.height_px, scene.width_px)
    stride_px = (scene.stride_px if scene is not None else None) or max(1, arch.tile_px // 2)
    cut = batch or usual_call(full, width_multiplier)[1]
    run = planned_memory(process, arch, classes, size_px, stride_px, cut, calls)
    own = process.runtime + SLACK_BYTES
    return Memory(
        weights_mib=mib(process.weights),
        activations_mib=mib(process.activations),
        buffers_mib=mib(run.total - process.weights - process.activations - own),
        runtime_mib=mib(own),
        calls=calls,
    )
