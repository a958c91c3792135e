"""Open a runtime: which class serves an artifact, and its network loaded into it; the classes are in runtimes."""

from __future__ import annotations

from pathlib import Path

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.manifest import ANY_BATCH, Manifest, verify_files
from edgeslim.onboard.runtimes.runtime import Runtime


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
