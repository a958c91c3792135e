"""Engine: what TensorRT makes of a network for one chip, built before the flight and looked up in flight.

Building takes minutes, so a flight never builds: without an engine for exactly this machine it does not start. Engines
lie beside the artifact, in ARTIFACT.engines/KEY, one folder for each version of TensorRT and ONNX Runtime, chip,
precision and network; engine.json in it holds what they were built with and their hashes. The artifact itself is left
as it was exported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeslim import cost
from edgeslim.errors import InputError, UntrustedResult, one_line, shown
from edgeslim.jetpack import require_versions
from edgeslim.manifest import (
    ANY_BATCH,
    GOLDEN_NAME,
    Manifest,
    artifact_folder,
    read_standing,
    sha256_of,
    verify_files,
)
from edgeslim.onboard.machine import Machine, gpu, onnxruntime_module, this_machine
from edgeslim.onboard.runtimes.providers import CUDA, TENSORRT, Providers, require_available
from edgeslim.shelf import read_record, read_small_file
from edgeslim.units import ARITHMETIC, MOST_BATCH

RECORD_NAME = "engine.json"
SCHEMA = 1
_RECORD_BYTES = 1 << 20
_WORKSPACE_BYTES = 512 << 20
"""That TensorRT may take while it builds and tries kernels: boards share 8 GB between processor and GPU."""
_CUDA_BYTES = 1 << 30
"""Of the arena of what runs on CUDA beside TensorRT's parts."""


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What stands in engine.json."""

    schema: int
    """Of the record."""
    machine: Machine
    """What it was built on."""
    network_sha256: str
    """Of the network's files."""
    precision: str
    """Of the artifact."""
    largest_batch: int
    """Tiles at once, from 1 to this."""
    placement: dict[str, int]
    """Provider -> nodes that were seen to run on it."""
    seconds: float
    """That building took."""
    files: dict[str, str]
    """File -> hex SHA-256."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        if not 1 <= self.largest_batch <= MOST_BATCH:
            raise InputError(f"largest_batch: found {self.largest_batch}, expected 1 to {MOST_BATCH}")
        for name in self.files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise InputError(f"files: found {shown(name)}, expected names inside the folder")


@dataclass(frozen=True, slots=True)
class Built:
    """What `build_engine` made."""

    folder: Path
    """Of the engines."""
    record: EngineRecord
    """What stands beside them."""
    warnings: tuple[str, ...]
    """What a person should know."""


def flown_providers(folder: Path, manifest: Manifest) -> tuple[Providers, Callable[[], None]]:
    """Providers and options that an artifact flies with, and a check to make once it is loaded.

    Raises InputError where a provider or the engine is missing, the engine is another machine's, or a library is too
    old; UntrustedResult for a damaged engine.
    """
    engine: Path | None = None
    record: EngineRecord | None = None
    require_providers(folder, manifest)
    if TENSORRT in manifest.providers:
        machine = this_machine()
        require_machine(folder, manifest, machine)
        engine, record = find_engine(folder, manifest, machine)
    else:
        require_machine(folder, manifest, None)
    before = _looks(engine)

    def require_untouched() -> None:
        if engine is not None and _looks(engine) != before:
            raise InputError(
                f"{engine}: TensorRT built its engine anew instead of loading it, which takes minutes in flight; run "
                f"`edgeslim build {artifact_folder(folder)}`"
            )

    return provider_options(manifest, engine, None if record is None else record.largest_batch), require_untouched


def provider_options(manifest: Manifest, engines: Path | None, largest_batch: int | None) -> Providers:
    """Every option that matters, set rather than left to defaults.

    With a range of batches given, TensorRT builds one engine for all of them; without, it builds anew for each batch
    that it has not seen.
    """
    if ARITHMETIC[manifest.precision] == "fp32":
        # Ampere and later would round fp32's factors to 10 bits (TF32): another network than was proven.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    side, bands = manifest.tile_px, len(manifest.bands)
    options: dict[str, dict[str, Any]] = {}
    if CUDA in manifest.providers:
        options[CUDA] = {"device_id": 0, "gpu_mem_limit": _CUDA_BYTES, "arena_extend_strategy": "kSameAsRequested"}
    if TENSORRT in manifest.providers and engines is not None and largest_batch is not None:
        least, most = (f"{manifest.input_name}:{n}x{bands}x{side}x{side}" for n in (1, largest_batch))
        options[TENSORRT] = {
            "device_id": 0,
            "trt_fp16_enable": manifest.precision == "fp16",
            "trt_max_workspace_size": _WORKSPACE_BYTES,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(engines),
            "trt_profile_min_shapes": least,
            "trt_profile_opt_shapes": most,
            "trt_profile_max_shapes": most,
        }
    return Providers(manifest.providers, options, manifest.cpu_operators, largest_batch)


def require_providers(folder: Path, manifest: Manifest) -> None:
    """Raise InputError unless this ONNX Runtime has the artifact's providers, MissingExtra without one at all."""
    require_available(onnxruntime_module(), folder, manifest.providers)


def require_machine(folder: Path, manifest: Manifest, machine: Machine | None) -> tuple[str, ...]:
    """Raise InputError where a library is too old for the artifact; returns what a person should know."""
    opset, operators = manifest.graph.get("opset"), manifest.graph.get("operators", {})
    if not isinstance(opset, int):
        return ()
    version = onnxruntime_module().__version__
    names = operators if isinstance(operators, dict) else {}
    return require_versions(str(folder), opset, names, version, None if machine is None else machine.tensorrt)


def known_doubts(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """What a person should know of the libraries that an artifact is run by. Raises as `flown_providers` does."""
    return require_machine(folder, manifest, this_machine() if TENSORRT in manifest.providers else None)


def chip_of(manifest: Manifest) -> str:
    """The GPU that an artifact for one runs on, and what drives it there. Raises InputError where one is missing."""
    if TENSORRT in manifest.providers:
        return str(this_machine())
    name, capability = gpu()
    return f"{name} (sm_{capability.replace('.', '')})"


def network_sha256(manifest: Manifest) -> str:
    """Of the network: its file, and its weights where they lie beside it."""
    lines = [f"{digest} {name}\n" for name, digest in sorted(manifest.files.items()) if name != GOLDEN_NAME]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def engines_of(folder: Path) -> Path:
    """Where the engines of an artifact lie, also of one whose files `edgeslim apply` put inside its folder."""
    whole = artifact_folder(folder.resolve())
    return whole.with_name(f"{whole.name}.engines")


def engine_key(manifest: Manifest, machine: Machine) -> str:
    """Name of the folder of the engines for one machine."""
    chip, sm = machine.chip.replace(".", "-"), machine.compute_capability.replace(".", "")
    parts = f"trt{machine.tensorrt}", f"sm{sm}", chip, f"ort{machine.onnxruntime}", manifest.precision
    return "-".join(
        re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.")[:40] for part in (*parts, network_sha256(manifest)[:16])
    )


def find_engine(folder: Path, manifest: Manifest, machine: Machine) -> tuple[Path, EngineRecord]:
    """The engines of an artifact for this machine, verified.

    Raises InputError where there are none, UntrustedResult where they are not what was built.
    """
    place = engines_of(folder)
    engine = place / engine_key(manifest, machine)
    build = f"run `edgeslim build {artifact_folder(folder)}` on this board before the flight"
    if not (engine / RECORD_NAME).is_file():
        others = [read_engine_record(path.parent) for path in sorted(place.glob(f"*/{RECORD_NAME}"))]
        same = [record for record in others if record.network_sha256 == network_sha256(manifest)]
        if same:
            found = f"an engine for {same[-1].machine}, {same[-1].precision}"
        elif others:
            found = "engines of another network"
        else:
            found = "no engine"
        raise InputError(f"{folder}: found {found}, expected one for {machine}, {manifest.precision}; {build}")
    record = read_engine_record(engine)
    if record.machine != machine or record.network_sha256 != network_sha256(manifest):
        raise UntrustedResult(f"{engine / RECORD_NAME}: is of another machine or network than its folder says; {build}")
    for name, expected in record.files.items():
        path = engine / name
        if not path.is_file() or sha256_of(path) != expected:
            raise UntrustedResult(f"{path}: damaged or missing; {build}")
    return engine, record


def read_engine_record(engine: Path) -> EngineRecord:
    """Read engine.json. Raises UntrustedResult for a damaged one."""
    path = engine / RECORD_NAME
    try:
        return read_record(EngineRecord, json.loads(read_small_file(path, _RECORD_BYTES)), str(path))
    except (InputError, ValueError, RecursionError) as error:
        raise UntrustedResult(f"{path}: no record of an engine ({one_line(error)}); build it again") from None


def usual_batches(manifest: Manifest) -> tuple[int, int]:
    """Batch sizes that an engine is built for where nobody asks for others: 1 and the plan's."""
    planned = manifest.plan.get("batch")
    if isinstance(planned, int) and 1 <= planned <= MOST_BATCH:
        return 1, planned
    return 1, cost.default_batch(manifest.architecture)


def build_engine(
    folder: Path, batches: Sequence[int], threads: int, say: Callable[[str], None] = lambda _: None
) -> Built:
    """Build the engines of an artifact for this machine by running it once at each batch size, and look at them.

    Engines that stand there for this machine are replaced; others are left.
    Raises InputError for an artifact without TensorRT or a machine that lacks it, UntrustedResult for a damaged one.
    """
    from edgeslim.onboard.runtimes.onnx import OnnxRuntime

    home, manifest = read_standing(folder)
    if TENSORRT not in manifest.providers:
        raise InputError(
            f"{folder}: found an artifact for {', '.join(manifest.providers) or 'the CPU'}, which needs no engine; "
            "expected one that was exported with --target tensorrt"
        )
    if ANY_BATCH not in manifest.models:
        raise InputError(f"{folder}: models: found {', '.join(manifest.models)}, expected 'any'; export it again")
    verify_files(home, manifest)
    require_providers(folder, manifest)
    machine = this_machine()
    warnings = require_machine(folder, manifest, machine)
    place, key = engines_of(folder), engine_key(manifest, machine)
    try:
        place.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place))
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror}); engines lie beside the artifact") from None
    try:
        say(f"building for {machine}, {manifest.precision}, batches 1 to {max(batches)}: this takes minutes")
        start = time.monotonic()
        names = manifest.input_name, manifest.output_name, manifest.features_name
        providers = provider_options(manifest, work, max(batches))
        runtime = OnnxRuntime(home / manifest.models[ANY_BATCH], names, threads, providers=providers)
        for batch in sorted({1, *batches}):
            runtime.run(np.zeros((batch, len(manifest.bands), manifest.tile_px, manifest.tile_px), np.float32))
        seconds = time.monotonic() - start
        made = {path.name: sha256_of(path) for path in sorted(work.iterdir()) if path.is_file()}
        if not any(name.endswith(".engine") for name in made):
            raise InputError(
                f"{folder}: found {', '.join(made) or 'nothing'} in TensorRT's cache, expected an .engine; this ONNX "
                "Runtime kept none"
            )
        placement = dict(runtime.placement)
        del runtime
        record = EngineRecord(
            SCHEMA, machine, network_sha256(manifest), manifest.precision, max(batches), placement,
            round(seconds, 1), made,
        )  # fmt: skip
        (work / RECORD_NAME).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        work.chmod(0o755)
        shutil.rmtree(place / key, ignore_errors=True)
        os.replace(work, place / key)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            place.rmdir()
    return Built(place / key, record, warnings)


def require_engine(home: Path, manifest: Manifest, threads: int) -> Built | None:
    """Build the engine of an artifact that needs one and has none for this machine; None where nothing was built.

    Raises as `build_engine` does, and UntrustedResult for a damaged engine.
    """
    if TENSORRT not in manifest.providers:
        return None
    require_providers(home, manifest)
    machine = this_machine()
    if (engines_of(home) / engine_key(manifest, machine) / RECORD_NAME).is_file():
        find_engine(home, manifest, machine)
        return None
    return build_engine(home, usual_batches(manifest), threads)


def _looks(engine: Path | None) -> dict[str, tuple[int, int]]:
    """Size and time of each file of an engine."""
    if engine is None:
        return {}
    found = {path.name: path.stat() for path in engine.iterdir()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}
