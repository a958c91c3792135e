"""OpenVINO, on the CPU."""

from __future__ import annotations

import platform
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, MissingExtra, one_line
from edgeslim.onboard.quiet import forbid_telemetry
from edgeslim.onboard.runtimes.runtime import F32, as_float32

_ARM64 = ("aarch64", "arm64")
"""There OpenVINO's products of int8 by int8 are wrong (2026.4.1 on emulated Cortex-A72 and A76: logits 0.21 of their
range from torch's, and 0.03 with the same file on x86-64). Without them activations are still rounded to int8, as the
file says, and multiplied in fp32: right, but not faster for being int8."""


class OpenVino:
    """An OpenVINO IR. Takes calls from any number of threads; `callers` of them are computed at the same time."""

    def __init__(self, path: Path, names: tuple[str, str, str], threads: int, callers: int = 1) -> None:
        """Load `path` (.xml, its .bin beside it), whose tensors `names` are tiles, logits and features ("": none).

        Raises MissingExtra without openvino, InputError for a file that it cannot load or without these tensors.
        """
        forbid_telemetry()
        try:
            import openvino
        except ImportError:
            raise MissingExtra("openvino", "openvino") from None
        if not path.is_file():
            raise InputError(f"{path}: found no such file, expected an OpenVINO IR; `edgeslim export` makes one")
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads * callers,
            "NUM_STREAMS": callers,
            # Left to itself it computes in bfloat16 or float16 where the processor can: not what was proven.
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # others work on these cores too
        }
        if platform.machine() in _ARM64:
            settings["LP_TRANSFORMS_MODE"] = False
        self._path = path
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:  # its exceptions share no base class below Exception
            raise InputError(f"{path}: OpenVINO cannot load it ({one_line(error)}); export it again") from None
        found_in = [port.get_any_name() for port in self._compiled.inputs]
        found_out = [port.get_any_name() for port in self._compiled.outputs]
        # Its table of NumPy types is made at the first call, without regard to the interpreter's lock: two first calls
        # at the same time may wait for each other for ever (2026.4.1). Here nobody else calls.
        openvino.Tensor(np.zeros((1, 1), np.float32), shared_memory=True).element_type.to_dtype()
        tiles, logits, features = names
        if found_in != [tiles] or not {logits, features or logits} <= set(found_out):
            raise InputError(
                f"{path}: found inputs {', '.join(found_in)} and outputs {', '.join(found_out)}, expected {tiles} and "
                f"{logits}{' and ' if features else ''}{features} as its manifest says; export it again"
            )
        self._logits = found_out.index(logits)
        self._features = found_out.index(features) if features else None
        self._requests = threading.local()
        self._first = threading.Lock()
        self._seen: set[tuple[int, ...]] = set()
        self.version = f"openvino {openvino.__version__.split('-')[0]}"

    def run(self, tiles: NDArray[np.generic]) -> F32:
        """See `Runtime.run`."""
        return self._infer(tiles, self._logits)[0]

    def outputs(self, tiles: NDArray[np.generic]) -> tuple[F32, F32]:
        """See `Runtime.outputs`."""
        if self._features is None:
            return self.run(tiles), np.empty((len(tiles), 0), np.float32)
        logits, features = self._infer(tiles, self._logits, self._features)
        return logits, features

    def _infer(self, tiles: NDArray[np.generic], *wanted: int) -> list[F32]:
        # The first call of a shape packs the weights for it. Callers that all come first would each pack their own, and
        # how much memory that takes would be a matter of chance: one goes ahead, the others find what it packed.
        if tiles.shape not in self._seen:
            with self._first:
                if tiles.shape not in self._seen:
                    found = self._call(tiles, wanted)
                    self._seen.add(tiles.shape)
                    return found
        return self._call(tiles, wanted)

    def _call(self, tiles: NDArray[np.generic], wanted: tuple[int, ...]) -> list[F32]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        request = self._requests.own
        try:
            # Not in a list: looking through one costs 5 % of a small network's time.
            request.infer(as_float32(tiles), share_inputs=True, share_outputs=True)
            return [np.array(request.get_output_tensor(index).data, np.float32) for index in wanted]
        except InputError:
            raise
        except Exception as error:  # see above
            raise InputError(
                f"{self._path}: OpenVINO failed on tiles {tiles.shape} ({one_line(error)}); run `edgeslim check`"
            ) from None
