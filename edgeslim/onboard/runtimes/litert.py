"""LiteRT (TensorFlow Lite), on the CPU; its predecessor tflite-runtime where only that is installed.

tflite-runtime 2.14, the last one, computes dynamic int8 wrongly and says nothing: the golden tiles refuse such an
artifact.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, MissingExtra, one_line
from edgeslim.onboard.quiet import quiet_libraries
from edgeslim.onboard.runtimes.runtime import F32, as_float32


def interpreter_class() -> tuple[Any, str]:
    """The interpreter's class, and name and version of its library. Raises MissingExtra where none works here."""
    from importlib.metadata import version

    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, f"ai-edge-litert {version('ai-edge-litert')}"
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter as Legacy
    except ImportError:
        raise MissingExtra("ai_edge_litert", "tflite") from None
    legacy = f"tflite-runtime {version('tflite-runtime')}"
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # it is imported, and fails when it loads a network
        raise MissingExtra(
            "NumPy below 2 beside it, or ai-edge-litert in its place",
            "tflite",
            found=f"{legacy} beside NumPy {np.__version__}",
        )
    return Legacy, legacy


class LiteRt:
    """TFLite files, one a batch size. Takes calls from any number of threads; `callers` of them at the same time."""

    def __init__(self, models: dict[int, Path], names: tuple[str, str, str], threads: int, callers: int = 1) -> None:
        """Load `models` (batch size -> file), whose signature calls tiles, logits and features `names` ("": none).

        Raises MissingExtra without an interpreter, InputError for a file that it cannot load or without these tensors.
        """
        interpreter, self.version = interpreter_class()
        self._idle: queue.SimpleQueue[dict[int, _Network]] = queue.SimpleQueue()
        for _ in range(callers):  # an interpreter computes one call at a time
            self._idle.put(
                {batch: _Network(interpreter, path, batch, names, threads) for batch, path in models.items()}
            )

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """See `Runtime.run`. A batch that no file is made for is run in parts; the last one is filled up."""
        values = as_float32(tiles)
        networks = self._idle.get()
        try:
            # As little Python as can be: its objects have left the processor's cache when a network comes back, and it
            # took 4 % of a small one's time.
            whole = networks.get(len(values))
            return _in_parts(networks, values)[0] if whole is None else whole.logits(values)
        finally:
            self._idle.put(networks)

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """See `Runtime.outputs`."""
        values = as_float32(tiles)
        networks = self._idle.get()
        try:
            return _in_parts(networks, values)
        finally:
            self._idle.put(networks)


def _in_parts(networks: dict[int, _Network], tiles: F32) -> tuple[F32, F32]:
    """Logits and features by the largest files that can be filled; the last part is filled up."""
    parts: list[tuple[F32, F32]] = []
    sizes, start = sorted(networks, reverse=True), 0
    while start < len(tiles):
        left = len(tiles) - start
        size = next((size for size in sizes if size <= left), sizes[-1])
        part = tiles[start : start + size]
        if len(part) < size:
            part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        logits, features = networks[size].outputs(part)
        parts.append((logits[:left], features[:left]))
        start += size
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


class _Network:
    """One interpreter: one file, one caller at a time."""

    def __init__(self, interpreter: Any, path: Path, batch: int, names: tuple[str, str, str], threads: int) -> None:
        self._path = path
        if not path.is_file():
            raise InputError(f"{path}: found no such file, expected a TFLite model; `edgeslim export` makes one")
        try:
            with quiet_libraries():
                self._interpreter = interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
            signature = self._interpreter.get_signature_runner()
            inputs, outputs = signature.get_input_details(), signature.get_output_details()
        except Exception as error:  # ValueError and RuntimeError, by what is wrong
            raise InputError(f"{path}: LiteRT cannot load it ({one_line(error)}); export it again") from None
        found = {str(name): int(tensor["index"]) for name, tensor in (*inputs.items(), *outputs.items())}
        wanted = [name for name in names if name]
        held = [int(tensor["shape"][0]) for tensor in inputs.values()]
        if held != [batch] or not set(wanted) <= set(found):
            raise InputError(
                f"{path}: found tensors {', '.join(found)} at batch {' and '.join(map(str, held))}, expected "
                f"{', '.join(wanted)} at batch {batch} as its manifest says; export it again"
            )
        self._input, self._logits = found[names[0]], found[names[1]]
        self._features = found[names[2]] if names[2] else None

    def logits(self, tiles: F32) -> F32:
        try:
            self._interpreter.set_tensor(self._input, tiles)
            self._interpreter.invoke()
            found: F32 = self._interpreter.get_tensor(self._logits)
            return found
        except Exception as error:  # see above
            raise self._failed(tiles, error) from None

    def outputs(self, tiles: F32) -> tuple[F32, F32]:
        logits = self.logits(tiles)
        if self._features is None:
            return logits, np.empty((len(tiles), 0), np.float32)
        try:
            return logits, self._interpreter.get_tensor(self._features)
        except Exception as error:  # see above
            raise self._failed(tiles, error) from None

    def _failed(self, tiles: F32, error: Exception) -> InputError:
        return InputError(
            f"{self._path}: LiteRT failed on tiles {tiles.shape} ({one_line(error)}); run `edgeslim check`"
        )
