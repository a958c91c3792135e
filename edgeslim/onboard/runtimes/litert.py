"""LiteRT (TensorFlow Lite), on the CPU; its predecessor tflite-runtime where only that is installed.

tflite-runtime 2.14, the last one, computes dynamic int8 wrongly and says nothing: the golden tiles refuse such an
artifact.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
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
        self._names = names
        self._sizes = sorted(models, reverse=True)
        self._idle: queue.SimpleQueue[dict[int, _Network]] = queue.SimpleQueue()
        for _ in range(callers):  # an interpreter computes one call at a time
            self._idle.put(
                {batch: _Network(interpreter, path, batch, names, threads) for batch, path in models.items()}
            )

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """See `Runtime.run`. A batch that no file is made for is run in parts; the last one is filled up."""
        return self._run(tiles, features=False)[0]

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """See `Runtime.outputs`."""
        logits, features = self._run(tiles, features=bool(self._names[2]))
        return logits, features

    def _run(self, tiles: NDArray[np.generic], features: bool) -> tuple[F32, F32]:
        parts: list[tuple[F32, F32]] = []
        start, values = 0, as_float32(tiles)
        with self._borrowed() as networks:
            while start < len(values):
                left = len(values) - start
                size = next((size for size in self._sizes if size <= left), self._sizes[-1])
                part = values[start : start + size]
                if len(part) < size:
                    part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
                found = networks[size].run(part, features)
                parts.append((found[0][:left], found[1][:left]))
                start += size
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    @contextmanager
    def _borrowed(self) -> Iterator[dict[int, _Network]]:
        networks = self._idle.get()
        try:
            yield networks
        finally:
            self._idle.put(networks)


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

    def run(self, tiles: F32, features: bool) -> tuple[F32, F32]:
        try:
            self._interpreter.set_tensor(self._input, tiles)
            self._interpreter.invoke()
            logits: F32 = self._interpreter.get_tensor(self._logits)
            none: F32 = np.empty((len(tiles), 0), np.float32)
            return logits, self._interpreter.get_tensor(self._features) if features and self._features else none
        except Exception as error:  # see above
            raise InputError(
                f"{self._path}: LiteRT failed on tiles {tiles.shape} ({one_line(error)}); run `edgeslim check`"
            ) from None
