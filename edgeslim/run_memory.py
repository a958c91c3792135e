"""Run memory: peak resident memory of `edgeslim classify`, as `plan` foretells it and as the run itself does. No numpy.

    peak    = process + blending + max(pixels + decoding + panel + results, page) + slack
    process = runtime + weights x (copies + calls x copies a call) + calls x activations

A run measures `process`, after one batch on every worker; a plan computes it from the device's card: one call on every
core, in the batches that `classify` takes. All else is the same formula for both, from the scene's size and form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from edgeslim import cost, scene_buffers, size
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.scene_buffers import USUAL_FORM, SceneForm
from edgeslim.units import MIB
from edgeslim.windows import Windows

SLACK_BYTES = 17 << 19
"""Stacks of threads, queues, and what the allocator cannot hand out again."""
USUAL_SCENE_PX = (10980, 10980)
"""Height and width of the scene that a plan assumes unless one is asked: a Sentinel-2 tile at 10 m."""
_SCORES_HELD = 3
"""Of attention: measured where they are the largest, in ONNX Runtime; the other runtimes hold fewer of everything."""
_REMEMBERED = 1024
"""Results kept of what does not depend on the device: a plan over all boards asks for each on every one of them."""
REPLAYED_TILES = 4
"""Of the golden tiles, replayed before a flight and kept for replays during it."""


@dataclass(frozen=True, slots=True)
class RunMemory:
    """Peak resident memory of classifying one scene, bytes, split. None of it grows with the scene's height."""

    starting: int
    """Highest before the first tile of the scene: loading the network, replaying golden tiles."""
    process: int
    """Interpreter, libraries and network, after one batch on every worker: measured, where it runs."""
    tiles: int
    """Tiles being cut, by every worker."""
    chunks: int
    """Two chunks of pixels, the one being read, and what is carried over from one to the next."""
    reading: int
    """What decoding needs beside that."""
    panel: int
    """A chunk's part of the quicklook's panel."""
    blending: int
    """Lines of class probabilities, and rows being finished."""
    writing: int
    """Buffers of the results while rows come."""
    finishing: int
    """What the results take when all rows have come and the pixels are gone."""

    @property
    def total(self) -> int:
        """The largest of what starting, streaming and finishing take, and what threads and the allocator do."""
        streaming = self.tiles + self.chunks + self.reading + self.panel + self.writing
        return max(self.starting, self.process + self.blending + max(streaming, self.finishing) + SLACK_BYTES)


def run_memory(
    *,
    process: int,
    reading: int,
    writing: int,
    finishing: int,
    bands: int,
    value_bytes: int,
    masked: bool,
    in_place: bool,
    tile_px: int,
    stride_px: int,
    classes: int,
    size_px: tuple[int, int],
    chunk_px: tuple[int, int],
    kept_px: tuple[int, int],
    batch: int,
    workers: int,
    probabilities: bool,
    starting: int = 0,
) -> RunMemory:
    """Peak resident memory of classifying a scene of `size_px` (height, width) in chunks of `chunk_px`.

    `process`, `starting`, `reading`, `writing` and `finishing` are bytes as RunMemory says, `value_bytes` one value as
    the scene holds it, `masked` whether validity is kept beside it, `in_place` whether pixels are decoded to where they
    are kept, and `kept_px` the rows and columns that a chunk keeps of earlier ones. Follows the buffers of
    edgeslim/onboard/{chunks,stream,blend}.py.
    """
    height, width = size_px
    new = min(chunk_px[0], height) * min(chunk_px[1], width)
    talls, wides = (_largest(*axis) for axis in zip(size_px, chunk_px, kept_px, strict=True))
    tall, wide = talls[0], wides[0]
    pixel = bands * value_bytes + (1 if masked else 0)
    # Two buffers by turns, of which a scene of few chunks fills less, and the strips carried over.
    carried = (kept_px[0] * width if talls[1] else 0) + (tall * kept_px[1] if wides[1] else 0)
    filled = tall * wide + max(talls[1] * wide, tall * wides[1])
    chunks = (filled + carried) * pixel + (3 * new if masked else 0)
    # Where it must be, a chunk is read beside its place first.
    chunks += 0 if in_place else new * bands * value_bytes
    # What each worker cuts at once; beside it a plane of float64 of wide values, or a tile's valid pixels.
    beside = 2 if value_bytes > 2 else int(masked)
    tiles = workers * (cost.tiles_at_once(batch, bands, tile_px) + beside) * bands * tile_px**2 * 4
    lines = -(-tile_px // stride_px) + 1
    rows = min(stride_px, height)
    blending = lines * (classes + 1) * (width + tile_px) * 4 + 2 * rows * width
    blending += classes * width * 4 + 4 * rows * min(width, 2048) * 4
    blending += (rows * width * classes if probabilities else 0) + (rows * width if masked else 0)
    windows = (min(chunk_px[0], height) // stride_px + 2) * (width // stride_px + 2)
    blending += 4 * windows * classes * 4 + (tall + rows) * (width // 8 + 1) * (2 if masked else 0)
    panel = scene_buffers.panel_bytes(size_px, chunk_px, bands)
    return RunMemory(starting, process, tiles, chunks, reading, panel, blending, writing, finishing)


def _largest(size: int, step: int, kept: int) -> tuple[int, int]:
    """The two largest spans along an axis, px, with what they keep of earlier ones; the second is 0 if one is all."""
    count = -(-size // step)
    if count == 1:
        return size, 0
    spans = step, *[step + kept] * min(2, count - 2), size - (count - 1) * step + kept
    largest, second, *_ = sorted((min(size, span) for span in spans), reverse=True)
    return largest, second


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Interpreter, libraries and network once every worker has run a batch, bytes, as computed from a device's card."""

    runtime: int
    """Interpreter and libraries with an open scene, without a network."""
    weights: int
    """Parameters, as often as the runtime holds them."""
    activations: int
    """Of all calls at the same time, and the golden tiles that are kept."""
    replaying: int
    """Activations and tiles while golden tiles are replayed, before the first tile of the scene."""

    @property
    def total(self) -> int:
        """What a run measures before it starts to stream."""
        return self.runtime + self.weights + self.activations

    @property
    def starting(self) -> int:
        """Highest before that."""
        return self.runtime + self.weights + self.replaying


def process_memory(
    full: AnyArchitecture,
    width_multiplier: float,
    classes: int,
    runtime: RuntimeFigures,
    precision: str,
    batch: int | None,
    calls: int,
    static: bool,
    depth: int | None = None,
) -> ProcessMemory:
    """Of an encoder (`full` at width 1) slimmed to a width and a depth, run by `calls` workers at the same time.

    `batch` are the tiles a call; None: what `classify` takes. A `static` format has a file for one tile and one for the
    batch, each worker loads both, and without a batch there is the one for one tile only.
    """
    arch = full.at(width_multiplier, depth)
    batches = sorted({1, batch or 1}) if static else [batch]
    copies = runtime.weight_copies.value
    if runtime.further_weight_copies is not None:
        copies += runtime.further_weight_copies.value * (calls * len(batches) - 1)
    live = 1.0 if runtime.activation_copies is None else runtime.activation_copies.value
    own = runtime.memory_mib.value
    own += 0.0 if runtime.call_mib is None else runtime.call_mib.value * (calls - 1)
    if runtime.block_mib is not None:
        own += runtime.block_mib.value * arch.depth * (calls * len(batches) if static else 1)
    active = sum(usual_call(full, width_multiplier)[0] if b is None else active_bytes(arch, b) for b in batches)
    golden = size.golden_bytes(arch)
    replayed = calls * active if static else active_bytes(arch, REPLAYED_TILES)
    return ProcessMemory(
        runtime=round(own * MIB),
        weights=_weights(arch, classes, runtime, precision, copies),
        activations=round(live * calls * active) + golden * REPLAYED_TILES // size.GOLDEN_TILES,
        replaying=round(live * replayed) + 2 * golden,
    )


def _weights(arch: AnyArchitecture, classes: int, runtime: RuntimeFigures, precision: str, copies: float) -> int:
    """Weights held so many times. Processors multiply fp16 weights in fp32: what is not mapped is widened for that."""
    stored = size.weights_bytes(arch, classes, precision)
    if precision != "fp16" or runtime.unit != "cpu":
        return round(stored * copies)
    first = runtime.weight_copies.value
    widened = copies * (1.0 if first < 2 else (first - 1) / first)
    return round(size.weights_bytes(arch, classes, "fp32") * widened + stored * (copies - widened))


def planned_memory(
    process: ProcessMemory,
    arch: AnyArchitecture,
    classes: int,
    size_px: tuple[int, int],
    stride_px: int,
    batch: int,
    calls: int,
    form: SceneForm = USUAL_FORM,
) -> RunMemory:
    """Of a scene of `size_px` (height, width) and a form, classified into maps and cells: `run_memory` of its chunks.

    `batch` are the tiles a call of which most are cut at once.
    """
    without = _streamed(arch.bands, arch.tile_px, classes, size_px, stride_px, batch, calls, form)
    return replace(without, starting=process.starting, process=process.total)


@lru_cache(_REMEMBERED)
def _streamed(
    bands: int,
    tile_px: int,
    classes: int,
    size_px: tuple[int, int],
    stride_px: int,
    batch: int,
    calls: int,
    form: SceneForm,
) -> RunMemory:
    """What `planned_memory` says of a scene, without the process."""
    chunk_px = next(iter(scene_buffers.chunk_sizes(size_px, form.block_px, bands * form.value_bytes, tile_px)))
    kept = [Windows(side, tile_px, stride_px).kept_px(step) for side, step in zip(size_px, chunk_px, strict=True)]
    return run_memory(
        process=0,
        reading=scene_buffers.block_reading_bytes(form, bands, chunk_px),
        writing=scene_buffers.appending_bytes(size_px, -(-size_px[1] // stride_px), classes),
        finishing=scene_buffers.finishing_bytes(size_px),
        bands=bands,
        value_bytes=form.value_bytes,
        masked=form.masked,
        in_place=True,
        tile_px=tile_px,
        stride_px=stride_px,
        classes=classes,
        size_px=size_px,
        chunk_px=chunk_px,
        kept_px=(kept[0], kept[1]),
        batch=batch,
        workers=calls,
        probabilities=False,
    )


@lru_cache(_REMEMBERED)
def _steps(full: AnyArchitecture) -> tuple[tuple[float, int, int], ...]:
    """Of each width: the multiplier, the batch that `classify` takes, and the activations of a call, bytes."""
    steps = []
    for width_multiplier in full.width_steps():
        arch = full.at(width_multiplier)
        batch = cost.default_batch(arch)
        steps.append((width_multiplier, batch, active_bytes(arch, batch)))
    return tuple(steps)


@lru_cache(_REMEMBERED)
def usual_call(full: AnyArchitecture, width_multiplier: float) -> tuple[int, int]:
    """Activations of a call, bytes, and the batch of which most tiles are cut at once, in the batches of `classify`.

    Each is the largest among a width and all narrower ones: these may take more tiles a call, and narrower is never to
    be foretold to need more. Of every depth they are the same: one block's tensors are alive at a time.
    """
    arch = full.at(width_multiplier)
    batch = cost.default_batch(arch)
    steps = [(batch, active_bytes(arch, batch)), *((b, a) for w, b, a in _steps(full) if w <= width_multiplier)]
    cut = max((b for b, _ in steps), key=lambda b: cost.tiles_at_once(b, arch.bands, arch.tile_px))
    return max(active for _, active in steps), cut


def active_bytes(arch: AnyArchitecture, batch: int) -> int:
    """Activations of one call, and its tiles normalised beside those that it is given."""
    live = cost.footprint(arch, 0, batch, scores_held=_SCORES_HELD).activations_bytes
    return live + batch * arch.bands * arch.tile_px**2 * 4
