"""Stream: reading and inference side by side, results in order, two chunks in memory.

Each worker runs whole batches on one thread of the runtime, so a result depends on the batch alone, never on how many
workers there are.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgeslim import cost
from edgeslim.errors import EdgeslimError, UntrustedResult
from edgeslim.onboard.assemble import ChunkResult, result_of
from edgeslim.onboard.chunks import Chunk, ChunkPlan, ChunkReader
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.reading.scene import Scene
from edgeslim.onboard.writing.thumbnail import Thumbnail

F32 = NDArray[np.float32]
_SHARES = 2
"""Parts that each worker gets of a chunk: handing over costs, and the next chunk waits behind this one anyway."""
_SWITCH_S = 0.0003
"""How long a worker waits for the interpreter's lock before the reader or the writer is asked for it. With Python's
own 5 ms, workers of two threads stood still for one part in a hundred of the run."""


class Stream:
    """The chunks of a scene from `first` on, classified."""

    def __init__(
        self,
        scene: Scene,
        plan: ChunkPlan,
        guard: Guard,
        thumbnail: Thumbnail,
        classes: int,
        batch: int,
        workers: int,
    ) -> None:
        """`guard` runs the network, from `workers` threads at once; `classes` are what a tile may be called."""
        self._scene, self._plan, self._guard, self._thumbnail = scene, plan, guard, thumbnail
        self._classes, self._batch, self._workers = classes, batch, workers
        side = plan.rows.tile_px
        self._tiles = (cost.tiles_at_once(batch, len(scene.bands), side), len(scene.bands), side, side)
        self._room = threading.local()
        self._stopping = False

    def stop(self) -> None:
        """Read no more: what was read is finished and handed on, then the results end."""
        self._stopping = True

    def results(self, first: int) -> Generator[ChunkResult, None, None]:
        """Results in order. An error of reading is raised after all that was read before it is handed on."""
        source = ChunkReader(self._scene, self._plan, first)
        under_way: deque[tuple[Chunk, list[Future[F32]]]] = deque()
        failure: EdgeslimError | None = None
        number = first
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(self._workers, "worker") as workers:
            try:
                upcoming: Future[Chunk] | None = (
                    reader.submit(source.read, number) if number < self._plan.count else None
                )
                while upcoming or under_way:
                    if upcoming:
                        try:
                            chunk = upcoming.result()
                            under_way.append((chunk, self._submit(workers, chunk)))
                        except EdgeslimError as error:
                            failure = error
                        number += 1
                        upcoming = None
                    more = failure is None and not self._stopping and number < self._plan.count
                    # A third chunk would need a third buffer: the oldest of two is waited for, the other keeps busy.
                    result = (
                        self._collect(*under_way.popleft()) if under_way and (len(under_way) > 1 or not more) else None
                    )
                    if more:
                        upcoming = reader.submit(source.read, number)
                    if result is not None:
                        yield result
                if failure is not None:
                    raise failure
            finally:
                workers.shutdown(cancel_futures=True)
                sys.setswitchinterval(switch_s)

    def _submit(self, workers: ThreadPoolExecutor, chunk: Chunk) -> list[Future[F32]]:
        numbers = np.flatnonzero(chunk.taken)
        batches = -(-len(numbers) // self._batch)
        # Handing over costs as much as cutting a tile: a few batches go at once, few enough to keep all workers busy.
        step = self._batch * max(1, batches // (self._workers * _SHARES))
        return [
            workers.submit(self._classify, chunk, numbers[start : start + step])
            for start in range(0, len(numbers), step)
        ]

    def _classify(self, chunk: Chunk, numbers: NDArray[np.intp]) -> F32:
        """In a worker's thread. Batches are cut the same way however they are shared out."""
        logits = np.empty((len(numbers), self._classes), np.float32)
        if not hasattr(self._room, "tiles"):
            self._room.tiles = np.empty(self._tiles, np.float32)
        for start in range(0, len(numbers), self._tiles[0]):
            tiles = chunk.tiles(numbers[start : start + self._tiles[0]], self._room.tiles)
            logits[start : start + len(tiles)] = self._guard.answers(tiles, self._batch)
        try:
            self._guard.require_answers(logits)
        except UntrustedResult:
            chunk.require_earthly(numbers)  # a nodata value that the scene keeps to itself, most often
            raise
        return logits

    def _collect(self, chunk: Chunk, parts: list[Future[F32]]) -> ChunkResult:
        logits = [part.result() for part in parts]
        empty = np.empty((0, self._classes), np.float32)
        return result_of(chunk, np.concatenate(logits) if logits else empty, self._thumbnail)
