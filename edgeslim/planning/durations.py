"""Durations: how long a call, the start and a scene are computed to take on a device. No torch.

Call = fixed + Σ over matrix products of (overhead + max(FLOP / (peak · efficiency), bytes / (bandwidth · sustained
fraction))).

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

What was timed on the board (Device.measurement) replaces a call's time, or sets it right: see call_time.py.

Scene = start-up + (tiles x t(batch) / batch + beside) / cores, on one thread a core as above, in the batches that
`classify` takes of that width. Tiles are all windows: none is left out as empty. What goes on beside the network takes
the same cores: pixels x bands x band_pixel_ns + tiles x window_us. A GPU counts as one core, as its calls go one after
the other, and nothing is taken to overlap with them: nobody measured how much does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from edgeslim import cost, size
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.cost import Op
from edgeslim.cuts import Cut
from edgeslim.device import Device
from edgeslim.errors import InputError, UsageError
from edgeslim.measurement import Measurement
from edgeslim.planning.call_time import ESTIMATED, CallTime, Timed, call_time
from edgeslim.profile import Profile
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.units import ARITHMETIC, GIGA, MEGA, VALUE_BYTES, gflop
from edgeslim.windows import Windows

REPLAYED_TILES = 4
"""Of the golden tiles, replayed before a flight."""
_WARM_UPS = 2
"""Batches that every worker runs before the first one of the scene."""
_SAME_WORK = 1e-3
"""How far the FLOP of a measurement may be from those of the encoder's card: six digits are written."""
_ALIKE = 2
"""Batches whose sizes differ by this factor at most take about as long a tile."""
_LARGEST_PX = 1 << 31
"""Of a side of a scene: no raster has more."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene to be classified."""

    height_px: int
    """Rows."""
    width_px: int
    """Columns."""
    stride_px: int | None = None
    """Step between windows; None: half a tile."""

    def __post_init__(self) -> None:
        for side in (self.height_px, self.width_px):
            if not 1 <= side < _LARGEST_PX:
                raise UsageError(f"--scene: found a side of {side} px, expected 1 to {_LARGEST_PX - 1}")
        if self.stride_px is not None and self.stride_px < 1:
            raise UsageError(f"--stride: found {self.stride_px}, expected a whole number of at least 1")

    def tiles(self, tile_px: int) -> int:
        """How many windows cover it. Raises UsageError where the stride is longer than a tile."""
        stride = self.stride_px or max(1, tile_px // 2)
        if stride > tile_px:
            raise UsageError(f"--stride: found {stride} px, expected 1 to {tile_px} (the tile)")
        down, across = (len(Windows(side, tile_px, stride)) for side in (self.height_px, self.width_px))
        return down * across


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
class SceneTime:
    """Time from process start to the last finished tile of a scene, split."""

    tiles: int
    """Windows of the scene."""
    batch: int
    """Tiles a call."""
    cores: int
    """Calls at the same time."""
    startup_s: float
    """To the first finished tile."""
    network_s: float
    """Calls."""
    beside_s: float
    """What the same cores do beside the network: decoding, cutting, blending, writing."""
    low_s: float
    """Sum, at the lower end of the error band."""
    high_s: float
    """Sum, at the upper end of the error band; a deadline is held against it."""
    basis: str = ESTIMATED
    """What the time of a call is: "measured", "rescaled" or "estimated"."""

    @property
    def total_s(self) -> float:
        """The sum."""
        return self.startup_s + self.network_s + self.beside_s


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


def startup_of(
    profile: Profile,
    arch: AnyArchitecture,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    batch: int | None = None,
) -> Startup | None:
    """Of an encoder slimmed to `arch`; None where the card lacks figures for it.

    `batch` are the tiles of a call; None: see the module's docstring.
    """
    cores, storage, read = device.unit_of(runtime).cores, device.storage_mb_s, runtime.startup_read_mb
    libraries, weights = runtime.startup_ms, runtime.weights_mb_s
    if cores is None or storage is None or libraries is None or read is None or weights is None:
        return None
    classes, full = profile.num_classes, profile.architecture
    batch = batch or cost.default_batch(full.at(full.width_steps()[0]))
    weights_mb = size.weights_bytes(arch, classes, precision) / MEGA
    golden_mb = size.golden_bytes(arch) / MEGA
    workers = int(cores.value)
    replaying = min(workers, REPLAYED_TILES)
    one_core = partial(timed_call, profile, arch, device=device, runtime=runtime, precision=precision, workers=workers)
    replay = one_core(batch=math.ceil(REPLAYED_TILES / replaying), beside=replaying)
    together = one_core(batch=batch).times(_WARM_UPS + 1)
    parts = {
        "libraries_ms": libraries.value,
        "storage_ms": (read.value + weights_mb + golden_mb) / storage.value * 1e3,
        "weights_ms": weights_mb / weights.value * 1e3,
    }
    loading, band = sum(parts.values()), 1 + runtime.error_band.value
    return Startup(
        **parts,
        golden_ms=replay.seconds * 1e3,
        batch_ms=together.seconds * 1e3,
        low_ms=loading / band + (replay.low_s + together.low_s) * 1e3,
        high_ms=loading * band + (replay.high_s + together.high_s) * 1e3,
    )


def scene_time(
    scene: Scene,
    startup: Startup | None,
    profile: Profile,
    arch: AnyArchitecture,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    batch: int | None = None,
) -> SceneTime | None:
    """Of an encoder slimmed to `arch`, which takes `startup` to start; None where that is not known."""
    figure = device.unit_of(runtime).cores
    if startup is None or figure is None:
        return None
    tiles, batch, cores = scene.tiles(arch.tile_px), batch or cost.default_batch(arch), int(figure.value)
    call = timed_call(profile, arch, batch, device, runtime, precision, workers=cores)
    network = call.times(tiles / batch / cores)
    beside_s = _beside_s(scene, tiles, arch.bands, runtime) / cores
    band = 1 + runtime.error_band.value
    return SceneTime(
        tiles,
        batch,
        cores,
        startup_s=startup.total_ms / 1e3,
        network_s=network.seconds,
        beside_s=beside_s,
        low_s=startup.low_ms / 1e3 + network.low_s + beside_s / band,
        high_s=startup.high_ms / 1e3 + network.high_s + beside_s * band,
        basis=call.basis,
    )


def _beside_s(scene: Scene, tiles: int, bands: int, runtime: RuntimeFigures) -> float:
    """Processor time of a scene beside its calls, s; what the card does not say is not counted."""
    pixels = scene.height_px * scene.width_px * bands
    each = ((pixels, runtime.band_pixel_ns, 1e-9), (tiles, runtime.window_us, 1e-6))
    return sum(count * figure.value * unit for count, figure, unit in each if figure is not None)


def timed_call(
    profile: Profile,
    arch: AnyArchitecture,
    batch: int,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    *,
    workers: int = 1,
    beside: int | None = None,
) -> CallTime:
    """Time of a call of an encoder slimmed to `arch`, on a device at its power mode, where `workers` share the cores.

    So many call at the same time and share the bandwidth; fewer, if `beside` says so. Measured where that was measured
    on the board. Raises InputError where a measurement is of another encoder than the card.
    """
    modelled = call_seconds(
        arch,
        profile.num_classes,
        batch,
        device,
        runtime,
        precision,
        compute_share=1 / workers,
        bandwidth_share=1 / (beside or workers),
    )
    timed = _timed(profile, arch, batch, device, runtime, precision, workers)
    return call_time(sum(modelled.values()), batch, runtime.error_band.value, timed, bound_of(modelled))


def _timed(
    profile: Profile,
    arch: AnyArchitecture,
    batch: int,
    device: Device,
    runtime: RuntimeFigures,
    precision: str,
    workers: int,
) -> list[Timed]:
    """What was timed of an encoder in a runtime and precision: in as many calls at a time, or else in any.

    Of each cut the row in batches of the nearest size.
    """
    what = (profile.id, runtime.id, precision)
    rows = [r for r in device.measurement if (r.encoder, r.runtime, r.precision) == what]
    rows = [r for r in rows if r.workers == workers] or rows
    nearest: dict[Cut, Measurement] = {}
    for row in sorted(rows, key=lambda row: abs(math.log(row.batch / batch))):
        nearest.setdefault(row.cut, row)
    found = []
    for row in nearest.values():
        cut, classes = profile.architecture.at(row.width_multiplier, row.depth), profile.num_classes
        expected = gflop(cost.flop(cut, classes))
        if abs(row.gflop / expected - 1) > _SAME_WORK:
            raise InputError(
                f"device card {device.id}: measurement of {profile.id} at {row.width_multiplier:g}: found "
                f"{row.gflop:g} GFLOP, expected {expected:.6g}: another encoder of that name was timed; calibrate again"
            )
        same = (row.batch, row.workers, cut) == (batch, workers, arch)
        found.append(
            Timed(
                modelled_s=modelled_tile_s(row, cut, classes, device, runtime),
                p50_s=row.p50_ms / 1e3,
                p95_s=row.p95_ms / 1e3,
                alike=row.workers == workers and batch / _ALIKE <= row.batch <= batch * _ALIKE,
                same=same,
            )
        )
    return found


def modelled_tile_s(
    row: Measurement, arch: AnyArchitecture, classes: int, device: Device, runtime: RuntimeFigures
) -> float:
    """What is computed of a tile, called as it was timed; `arch` is the row's cut."""
    share = 1 / row.workers
    seconds = call_seconds(
        arch, classes, row.batch, device, runtime, row.precision, compute_share=share, bandwidth_share=share
    )
    return sum(seconds.values()) / row.batch


def call_seconds(
    arch: AnyArchitecture,
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
    arithmetic = ARITHMETIC[precision]
    efficiency = runtime.efficiency[arithmetic]
    peak = device.peak_gflop_s(runtime, arithmetic).value * GIGA * compute_share
    ops, count = cost.merged_ops(arch, classes, batch, VALUE_BYTES[arithmetic], fused_attention=runtime.fused_attention)
    return roofline(
        ops,
        {op_class: peak * share.value for op_class, share in efficiency.items()},
        device.memory.bandwidth_gb_s.value * device.memory.sustained_fraction.value * GIGA * bandwidth_share,
        op_overhead_s=0.0,
        fixed_s=runtime.fixed_overhead_ms.value / 1e3 + count * runtime.op_overhead_us.value / 1e6,
    )


def roofline(
    ops: Iterable[Op], flop_s: Mapping[str, float], bytes_s: float, *, op_overhead_s: float, fixed_s: float
) -> dict[str, float]:
    """Time of matrix products that run one after the other, by what bounds each of them.

    `flop_s` is what each op class reaches; the time is the sum of the values. After Williams et al., "Roofline"
    (Communications of the ACM 52(4), 2009), op by op, with an overhead each.
    """
    seconds = {"compute": 0.0, "bandwidth": 0.0, "overhead": fixed_s}
    for op in ops:
        compute, moving = op.flop / flop_s[op.op_class], op.moved_bytes / bytes_s
        seconds["compute" if compute >= moving else "bandwidth"] += max(compute, moving)
        seconds["overhead"] += op_overhead_s
    return seconds


def bound_of(seconds: Mapping[str, float]) -> str:
    """What takes most of a time that `roofline` split: "compute", "bandwidth" or "overhead"."""
    return max(seconds, key=lambda part: seconds[part])
