"""ONNX Runtime: on the CPU, or on other execution providers and then nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, MissingExtra, one_line
from edgeslim.onboard.quiet import forbid_telemetry
from edgeslim.onboard.runtimes.providers import CPU, Providers, open_proven
from edgeslim.onboard.runtimes.runtime import F32, as_float32


class OnnxRuntime:
    """An ONNX file in ONNX Runtime. Takes calls from any number of threads."""

    placement: dict[str, int]
    """Provider -> nodes that were seen to run on it; empty on the CPU, where nothing else can."""

    def __init__(
        self,
        path: Path,
        names: tuple[str, str, str],
        threads: int,
        level: str = "all",
        providers: Providers | None = None,
    ) -> None:
        """Load `path`, whose tensors `names` are tiles, logits and features ("": none).

        `level` of graph optimisation: "disabled", "basic", "extended" or "all". `providers`: where it is to run, and
        is proven to; None: on the CPU.
        Raises MissingExtra without onnxruntime, InputError for a file that it cannot load or without these tensors, or
        for providers that do not take it.
        """
        forbid_telemetry()
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
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel,
            f"ORT_{'DISABLE_ALL' if level == 'disabled' else 'ENABLE_' + level.upper()}",
        )
        self._path = path
        self._before: int | None = None
        self._shrink = onnxruntime.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._largest = None if providers is None else providers.largest_batch
        self.placement = {}
        if providers is None:
            try:
                self._session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
            except Exception as error:  # its exceptions share no base class below Exception
                raise InputError(f"{path}: ONNX Runtime cannot load it ({one_line(error)}); export it again") from None
        else:
            self._session, self.placement = open_proven(onnxruntime, path, options, names[0], providers)
        found_in = [i.name for i in self._session.get_inputs()]
        found_out = [o.name for o in self._session.get_outputs()]
        self._input, self._output, self._features = names
        if found_in != [self._input] or not {self._output, self._features or self._output} <= set(found_out):
            raise InputError(
                f"{path}: found inputs {', '.join(found_in)} and outputs {', '.join(found_out)}, expected "
                f"{self._input} and {self._output}{' and ' if self._features else ''}{self._features} as its manifest "
                "says; export it again"
            )
        self.version = f"onnxruntime {onnxruntime.__version__}"
        if self.placement:
            self.version += f" on {', '.join(f'{name} ({count} nodes)' for name, count in self.placement.items())}"

    def _options(self, batch: int) -> Any:
        """A run of another batch size than the one before plans its memory anew, and gives back what that took.

        The size that streams is there again and again, and keeps its memory; golden tiles and what is left of a chunk
        come between.
        """
        if self.placement:  # other providers keep their own memory
            return None
        before, self._before = self._before, batch
        if batch == before:
            return None
        return self._shrink

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """See `Runtime.run`."""
        logits: F32 = self._run([self._output], tiles)[0]
        return logits

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """See `Runtime.outputs`."""
        if not self._features:
            return self.run(tiles), np.empty((len(tiles), 0), np.float32)
        logits, features = self._run([self._output, self._features], tiles)
        return logits, features

    def _run(self, names: list[str], tiles: NDArray[np.generic]) -> list[F32]:
        if self._largest is not None and len(tiles) > self._largest:
            starts = range(0, len(tiles), self._largest)
            parts = [self._run(names, tiles[start : start + self._largest]) for start in starts]
            return [np.concatenate(found) for found in zip(*parts, strict=True)]
        try:
            found: list[F32] = self._session.run(names, {self._input: as_float32(tiles)}, self._options(len(tiles)))
        except InputError:
            raise
        except Exception as error:  # see above
            raise InputError(
                f"{self._path}: ONNX Runtime failed on tiles {tiles.shape} ({one_line(error)}); run `edgeslim check`"
            ) from None
        return found
