"""Runtime: tiles in, logits out, behind one small surface; the classes are in edgeslim/onboard/runtimes.

A runtime computes each call on `threads` threads and takes calls from `callers` threads at the same time: a flight runs
one batch on each core, which is faster than one batch on all of them and gives the same answers for any number of
cores.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.manifest import ANY_BATCH, Manifest, verify_files

F32 = NDArray[np.float32]
TILE_TYPES = ("float32", "uint8", "uint16", "int16")
"""Types of raw band values that every runtime takes; float32 holds each of them exactly."""
MOST_THREADS = 1024
"""More are a slip of the keyboard."""


class Runtime(Protocol):
    """What every runtime can do."""

    @property
    def version(self) -> str:
        """Name and version of the library that computes."""

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """Logits (n, classes) of raw band values (n, bands, height, width), of one of TILE_TYPES.

        Raises InputError if the network fails.
        """

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """Logits (n, classes), and the features (n, d) that the head was given; no columns where it has no output."""


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def one_line(error: BaseException | str) -> str:
    """An error of a foreign library as one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


def as_float32(tiles: NDArray[np.generic]) -> F32:
    """Tiles as the network takes them, copied only where they must be. Raises InputError for another type."""
    if tiles.dtype == np.float32:  # the name of a type takes longer to make than a batch to hand over
        return np.ascontiguousarray(tiles, np.float32)
    if tiles.dtype.name not in TILE_TYPES:
        raise InputError(f"tiles: found {tiles.dtype.name}, expected one of {', '.join(TILE_TYPES)}; convert them")
    return np.ascontiguousarray(tiles, np.float32)


def open_runtime(folder: Path, manifest: Manifest, threads: int, callers: int = 1) -> Runtime:
    """Verify the hashes of an artifact, then load its network.

    Raises UntrustedResult for a damaged artifact, InputError for one that this runtime cannot serve, MissingExtra
    without the runtime.
    """
    for name in manifest.models.values():
        if name not in manifest.files or Path(name).name != name:
            raise UntrustedResult(f"{folder}: its manifest has no hash of {name!r}; export it again")
    verify_files(folder, manifest)
    return load_runtime(folder, manifest, threads, callers)


def load_runtime(folder: Path, manifest: Manifest, threads: int, callers: int = 1) -> Runtime:
    """Load the network of an artifact, unverified: `open_runtime` does that. Raises InputError or MissingExtra."""
    names = manifest.input_name, manifest.output_name, manifest.features_name
    if manifest.runtime == "litert":
        from edgeslim.onboard.runtimes.litert import LiteRt

        models = {batch: folder / manifest.models[str(batch)] for batch in manifest.batches}
        if not models:
            raise InputError(f"{folder}: models: found batch 'any', expected numbers for litert; export it again")
        return LiteRt(models, names, threads, callers)
    if ANY_BATCH not in manifest.models:
        raise InputError(f"{folder}: models: found {', '.join(manifest.models)}, expected 'any'; export it again")
    path = folder / manifest.models[ANY_BATCH]
    if manifest.runtime == "onnxruntime":
        from edgeslim.onboard.runtimes.onnx import OnnxRuntime

        if not manifest.providers:
            return OnnxRuntime(path, names, threads)
        from edgeslim.onboard.engine import flown_providers

        providers, require_untouched = flown_providers(folder, manifest)
        runtime = OnnxRuntime(path, names, threads, providers=providers)
        require_untouched()
        return runtime
    if manifest.runtime == "openvino":
        from edgeslim.onboard.runtimes.openvino import OpenVino

        return OpenVino(path, names, threads, callers)
    raise InputError(
        f"{folder}: runtime: found {manifest.runtime!r}, expected onnxruntime, openvino or litert; export it again"
    )
