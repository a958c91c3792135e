"""Memory: what a run will need, foretold before it starts, and the chunks and batch that keep it within a limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.grid import Axis
from edgeslim.onboard.chunks import ChunkPlan
from edgeslim.onboard.reading.scene import Scene
from edgeslim.units import mib

_CHUNK_BYTES = 4 << 20
"""New pixels of a chunk that is not cut down: enough to keep workers busy, little beside the libraries."""
_ROWS_BYTES = 8 << 20
"""The same where blocks are as wide as the scene: each chunk copies a tile's rows from the one above."""
_LEAST_PX = (16, 64)
"""Rows and columns below which chunks are not cut."""
LATE_BYTES = {"litert": 2 << 20, "openvino": 1 << 20}
"""Runtime -> bytes a worker that it takes after its warm-up; up to 1 MiB was seen of LiteRT 2.3."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Chunks of a run and the memory that it needs."""

    plan: ChunkPlan
    """How the scene is cut."""
    memory: cost.RunMemory
    """Foretold."""


def batch_within(architecture: Architecture, classes: int, asked: int | None, workers: int, limit_bytes: int) -> int:
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


def fit(
    scene: Scene,
    rows: Axis,
    columns: Axis,
    *,
    classes: int,
    batch: int,
    workers: int,
    process_bytes: int,
    writing_bytes: int,
    finishing_bytes: int,
    probabilities: bool,
    max_ram_mib: float | None,
    cut: tuple[int, int] | None = None,
) -> Fit:
    """The largest chunks that keep a run within `max_ram_mib`, or those of an earlier run (`cut`).

    Raises InputError, with the figure that it needs, where even the smallest do not.
    """

    def foretell(height_px: int, width_px: int) -> Fit:
        plan = ChunkPlan(rows, columns, height_px, width_px)
        memory = cost.run_memory(
            process=process_bytes,
            reading=scene.read_bytes(min(height_px, rows.size), min(width_px, columns.size)),
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

    found = [foretell(*cut)] if cut else [foretell(*size) for size in _sizes(scene, rows.tile_px)]
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


def _sizes(scene: Scene, tile_px: int) -> Iterator[tuple[int, int]]:
    """Heights and widths of chunks, px, largest first: whole blocks, then parts of them, which decode blocks again."""
    block_height, block_width = min(scene.block_px[0], scene.height), min(scene.block_px[1], scene.width)
    pixel = len(scene.bands) * np.dtype(scene.dtype).itemsize
    height, width, whole = block_height, _eight(block_width), _eight(block_width)
    # Many blocks a chunk where they are small: rows first, to a tile's height, then columns.
    while height < min(scene.height, tile_px) and (height + block_height) * width * pixel <= _ROWS_BYTES:
        height += block_height
    while width < scene.width and height * (width + whole) * pixel <= _CHUNK_BYTES:
        width += whole
    yield height, width
    while width > whole:
        width = max(whole, _eight(width // 2))
        yield height, width
    while height > _LEAST_PX[0] or width > _LEAST_PX[1]:
        if height > _LEAST_PX[0]:
            height = max(_LEAST_PX[0], height // 2)
        else:
            width = max(_LEAST_PX[1], _eight(width // 2))
        yield height, width


def _eight(pixels: int) -> int:
    return -(-pixels // 8) * 8


def _split(memory: cost.RunMemory) -> str:
    parts = {
        "libraries and network": memory.process + cost.SLACK_BYTES,
        "pixels": memory.chunks + memory.tiles,
        "decoding": memory.reading,
        "blending": memory.blending,
        "results": max(memory.writing, memory.finishing - memory.chunks - memory.reading - memory.tiles),
    }
    return ", ".join(f"{name} {math.ceil(mib(value))}" for name, value in parts.items())
