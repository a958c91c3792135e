"""Memory: what a run will need, foretold before it starts, and the chunks and batch that keep it within a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeslim import cost
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.grid import Axis
from edgeslim.onboard.chunks import ChunkPlan
from edgeslim.onboard.reading.scene import Scene
from edgeslim.run_memory import REPLAYED_TILES, SLACK_BYTES, RunMemory, active_bytes, run_memory
from edgeslim.scene_buffers import chunk_sizes
from edgeslim.units import mib

_LATE_BYTES = {"litert": 2 << 20, "openvino": 1 << 20}
"""Runtime -> bytes a worker that it takes after its warm-up; up to 1 MiB was seen of LiteRT 2.3."""
_ANEW = 8
"""One part in so many of a batch's activations: up to 14 MiB more were seen of two batches of eight of a ViT-B."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Chunks of a run and the memory that it needs."""

    plan: ChunkPlan
    """How the scene is cut."""
    memory: RunMemory
    """Foretold."""


def batch_within(architecture: AnyArchitecture, classes: int, asked: int | None, workers: int, limit_bytes: int) -> int:
    """The batch asked for, or the default made smaller until its activations take at most half of `limit_bytes`."""
    if asked is not None:
        return asked
    batch = cost.default_batch(architecture)
    while batch > 1:
        need = cost.footprint(architecture, classes, batch)
        if workers * (need.activations_bytes + need.buffers_bytes) <= limit_bytes / 2:
            break
        batch //= 2
    return batch


def late_bytes(runtime: str, architecture: AnyArchitecture, batch: int, workers: int) -> int:
    """What workers take beyond what is resident after their warm-up.

    ONNX Runtime lays a batch out anew once it has seen it, and gives back what a batch took that is smaller than the
    largest it has run: here, a share of the golden tiles.
    """
    late = workers * _LATE_BYTES.get(runtime, 0)
    if runtime == "onnxruntime":
        active = workers * active_bytes(architecture, batch)
        late += active // _ANEW
        if batch < -(-REPLAYED_TILES // min(workers, REPLAYED_TILES)):
            late += active
    return late


def fit(
    scene: Scene,
    rows: Axis,
    columns: Axis,
    *,
    classes: int,
    batch: int,
    workers: int,
    process_bytes: int,
    starting_bytes: int = 0,
    writing_bytes: int,
    finishing_bytes: int,
    probabilities: bool,
    max_ram_mib: float | None,
    cut: tuple[int, int] | None = None,
) -> Fit:
    """The largest chunks that keep a run within `max_ram_mib`, or those of an earlier run (`cut`).

    `starting_bytes` is the highest so far, `process_bytes` what is resident now.

    Raises InputError, with the figure that it needs, where even the smallest do not.
    """

    def foretell(height_px: int, width_px: int) -> Fit:
        plan = ChunkPlan(rows, columns, height_px, width_px)
        memory = run_memory(
            starting=starting_bytes,
            process=process_bytes,
            reading=scene.read_bytes(min(height_px, rows.size), min(width_px, columns.size)) - scene.held_bytes,
            writing=writing_bytes,
            finishing=finishing_bytes,
            bands=len(scene.bands),
            value_bytes=np.dtype(scene.dtype).itemsize,
            masked=not scene.always_valid,
            in_place=scene.fills,
            tile_px=rows.tile_px,
            stride_px=rows.stride_px,
            classes=classes,
            size_px=(rows.size, columns.size),
            chunk_px=(height_px, width_px),
            kept_px=plan.kept_px,
            batch=batch,
            workers=workers,
            probabilities=probabilities,
        )
        return Fit(plan, memory)

    pixel_bytes = len(scene.bands) * np.dtype(scene.dtype).itemsize
    sizes = chunk_sizes((scene.height, scene.width), scene.block_px, pixel_bytes, rows.tile_px)
    found = [foretell(*cut)] if cut else [foretell(*size) for size in sizes]
    limit = math.inf if max_ram_mib is None else max_ram_mib * (1 << 20)
    for candidate in found:
        if candidate.memory.total <= limit:
            return candidate
    least = min(found, key=lambda f: f.memory.total).memory
    raise InputError(
        f"{scene.path}: needs {math.ceil(mib(least.total))} MiB, found --max-ram {max_ram_mib:g}MiB; allow that much"
        + (", or give it fewer threads or a smaller batch" if workers * batch > 1 else "")
        + f" ({_split(least)})"
    )


def _split(memory: RunMemory) -> str:
    parts = {
        "libraries and network": memory.process + SLACK_BYTES,
        "pixels": memory.chunks + memory.tiles,
        "decoding": memory.reading,
        "blending": memory.blending,
        "quicklook": memory.panel,
        "results": max(memory.writing, memory.finishing - memory.chunks - memory.reading - memory.tiles - memory.panel),
    }
    return ", ".join(f"{name} {math.ceil(mib(value))}" for name, value in parts.items())
