"""Runtime: tiles in, logits out. One class a runtime, imported late."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, MissingExtra, UntrustedResult
from edgeslim.manifest import Manifest, verify_files

F32 = NDArray[np.float32]


class Runtime(Protocol):
    """What every runtime can do."""

    @property
    def version(self) -> str:
        """Name and version of the library that computes."""

    def run(self, tiles: F32) -> F32:
        """Logits (n, classes) of raw band values (n, bands, height, width)."""


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def one_line(error: BaseException | str) -> str:
    """An error of a foreign library as one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


class OnnxRuntime:
    """An ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load `path`.

        Raises MissingExtra without onnxruntime, InputError for a file that it cannot load.
        """
        # Its usage statistics (1.29 and later) would write to the home folder and look for a network.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("onnxruntime", "onnx") from None
        if not path.is_file():
            raise InputError(f"{path}: found no such file, expected an ONNX model; `edgeslim export` makes one")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its own messages would break the one-line rule; the exception says it all
        self._path = path
        self._planned: int | None = None
        self._shrink = onnxruntime.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class below Exception
            raise InputError(f"{path}: ONNX Runtime cannot load it ({one_line(error)}); export it again") from None
        self.inputs: dict[str, tuple[Any, ...]] = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self._input, self._output = next(iter(self.inputs)), self.outputs[0]
        self.version = f"onnxruntime {onnxruntime.__version__}"

    def bind(self, input_name: str, output_name: str) -> None:
        """Choose the tensors to feed and fetch. Raises InputError if the file has no such tensor."""
        if list(self.inputs) != [input_name] or output_name not in self.outputs:
            raise InputError(
                f"{self._path}: found inputs {', '.join(self.inputs)} and outputs {', '.join(self.outputs)}, "
                f"expected {input_name} and {output_name} as its manifest says; export it again"
            )
        self._input, self._output = input_name, output_name

    def _options(self, batch: int) -> Any:
        """The first run of a batch size plans its memory and leaves behind what it took; so does any odd size."""
        if batch == self._planned:
            return None
        if self._planned is None or batch > self._planned:
            self._planned = batch
        return self._shrink

    def run(self, tiles: F32) -> F32:
        """Logits (n, classes) of raw band values (n, bands, height, width). Raises InputError if the network fails."""
        try:
            (logits,) = self._session.run([self._output], {self._input: tiles}, self._options(len(tiles)))
        except Exception as error:  # see above
            raise InputError(
                f"{self._path}: ONNX Runtime failed on tiles {tiles.shape} ({one_line(error)}); run `edgeslim check`"
            ) from None
        result: F32 = logits
        return result


def open_runtime(folder: Path, manifest: Manifest, threads: int) -> OnnxRuntime:
    """Verify the hashes of an artifact, then load its network.

    Raises UntrustedResult for a damaged artifact, InputError for one that this runtime cannot serve, MissingExtra
    without the runtime.
    """
    if manifest.runtime != "onnxruntime":
        raise InputError(f"{folder}: runtime: found {manifest.runtime!r}, expected 'onnxruntime'; export for it")
    if manifest.model not in manifest.files or Path(manifest.model).name != manifest.model:
        raise UntrustedResult(f"{folder}: its manifest has no hash of {manifest.model!r}; export it again")
    verify_files(folder, manifest)
    runtime = OnnxRuntime(folder / manifest.model, threads)
    runtime.bind(manifest.input_name, manifest.output_name)
    return runtime
