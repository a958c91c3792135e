"""Classify: a scene and an artifact into maps, cells, a summary and a quicklook, in flat memory, through power cuts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeslim.errors import UsageError
from edgeslim.grid import plan_axis
from edgeslim.manifest import read_standing
from edgeslim.onboard.classify_options import ClassifyOptions
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.machine import available_threads
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.progress import Observer
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from edgeslim.onboard.resident import LOADING_BLOCK_BYTES, RUNNING_BLOCK_BYTES, give_back, map_blocks_from
from edgeslim.onboard.run import Run
from edgeslim.onboard.unfinished import Unfinished
from edgeslim.onboard.writing.summary import Summary


def classify_scene(
    scene_path: Path,
    artifact: Path,
    out: Path,
    options: ClassifyOptions | None = None,
    observe: Observer | None = None,
    stop: Callable[[], str | None] | None = None,
    disk: Disk | None = None,
) -> Summary | Unfinished:
    """Classify a scene into the folder `out`.

    `observe` is told of events (edgeslim.onboard.progress); `stop` is asked now and then for a reason to stop early.
    Results appear in `out` once all of them are written and synced; until then what is done lies in its folder
    `unfinished`.

    Raises InputError or UsageError for a scene, artifact, folder or option that cannot be used, UntrustedResult for a
    damaged artifact or logits that cannot be right, MissingExtra without the runtime.
    """
    options = options or ClassifyOptions()
    map_blocks_from(LOADING_BLOCK_BYTES)
    artifact, manifest = read_standing(artifact)
    stride = options.stride_px or max(1, manifest.tile_px // 2)
    if stride > manifest.tile_px:
        raise UsageError(f"--stride: found {stride} px, expected 1 to {manifest.tile_px} (the tile)")
    with gdal_environment(options.scene.allow_network), Scene(scene_path, manifest, options.scene) as scene:
        axes = (plan_axis(scene.height, manifest.tile_px, stride), plan_axis(scene.width, manifest.tile_px, stride))
        run = Run(scene, artifact, manifest, axes, out, options, observe, stop, disk or Disk())
        workers = options.threads or available_threads()
        guard = Guard(artifact, manifest, open_runtime(artifact, manifest, 1, workers), workers)
        if (finished := run.look_back(guard)) is not None:
            return finished
        batch = run.choose_batch(workers)
        # The first of a shape only plans. A static format runs what is left of a chunk in its smallest file.
        _warm_up(guard, (batch, batch, *manifest.batches[:1]), workers)
        map_blocks_from(RUNNING_BLOCK_BYTES)
        give_back()
        return run.classify(workers)


def _warm_up(guard: Guard, batches: tuple[int, ...], workers: int) -> None:
    """Batches on every worker at the same time, so that the memory they need is there to be measured."""
    together = threading.Barrier(workers)

    def once() -> None:
        for batch in batches:
            together.wait()  # each time, so that no runtime gets by with what one worker needs
            guard.warm(batch)

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(once) for _ in range(workers)]:
            future.result()


__all__ = ["ClassifyOptions", "SceneOptions", "Summary", "Unfinished", "classify_scene"]
