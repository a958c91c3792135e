"""Libraries: which runtimes and which GDAL work here, each imported in a process of its own.

A wheel that was built for another processor ends the process that imports it (SIGILL), and a driver may wait forever:
that is told, and harms nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LIMIT_S = 30.0
"""Of one import, of all at the same time, on a cold card: more than any takes."""
_PROGRAM = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # nothing of the working folder
import importlib.metadata, importlib.util, json
name, package = sys.argv[1:]
if importlib.util.find_spec(name.partition(".")[0]) is None:
    print("null")
    sys.exit()
sys.modules["openvino_telemetry"] = None  # edgeslim/onboard/quiet.py says why
module = importlib.import_module(name)
offers = {
    "onnxruntime": lambda: module.get_available_providers(),
    "openvino": lambda: module.Core().available_devices,
    "rasterio": lambda: ["GDAL " + module.__gdal_version__],
}
try:
    version = importlib.metadata.version(package)
except importlib.metadata.PackageNotFoundError:  # onnxruntime-gpu and other names of the same module
    version = getattr(module, "__version__", "of an unknown version")
print(json.dumps([version, offers.get(name, list)()]))
"""
_LIBRARIES = (
    ("onnxruntime", "onnxruntime", "onnx"),
    ("openvino", "openvino", "openvino"),
    ("ai_edge_litert.interpreter", "ai-edge-litert", "tflite"),
    ("tflite_runtime.interpreter", "tflite-runtime", "tflite-legacy"),
    ("rasterio", "rasterio", ""),
    ("numpy", "numpy", ""),
)
"""Module, package, and the extra of edgeslim that brings it."""
RUNTIMES = tuple(package for _, package, extra in _LIBRARIES if extra)
"""Of them, those that run a network."""


@dataclass(frozen=True, slots=True)
class Library:
    """An installed library, or the lack of one."""

    name: str
    """As pip calls it."""
    extra: str
    """Of edgeslim that brings it; empty: edgeslim itself does."""
    version: str
    """Empty: not installed, or it could not be imported."""
    offers: tuple[str, ...]
    """Execution providers, devices or drivers that it says it has; whether they work only a network shows."""
    trouble: str
    """Why it cannot be used; empty: it was imported."""

    @property
    def works(self) -> bool:
        """Whether it was imported."""
        return not self.trouble


def libraries(limit_s: float = LIMIT_S, program: str = _PROGRAM) -> tuple[Library, ...]:
    """What is installed, all looked at together within `limit_s`; `program` is given a module and a package."""
    started = [(package, extra, _start(program, module, package)) for module, package, extra in _LIBRARIES]
    end = time.monotonic() + limit_s
    return tuple(_end(package, extra, process, max(0.1, end - time.monotonic())) for package, extra, process in started)


def _start(program: str, *arguments: str) -> subprocess.Popen[bytes] | None:
    # Statistics of use (ONNX Runtime 1.29 and later) would write to the home folder and look for a network.
    quiet = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **quiet}
    try:
        return subprocess.Popen(
            (sys.executable, "-c", program, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except (OSError, ValueError):  # too many processes, too little memory
        return None


def _end(package: str, extra: str, process: subprocess.Popen[bytes] | None, limit_s: float) -> Library:
    if process is None:
        return Library(package, extra, "", (), "not looked at: no process could be started for it")
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Library(package, extra, "", (), "its import did not end within the time allowed")
    if process.returncode < 0:
        return Library(package, extra, "", (), _died(-process.returncode))
    try:
        found: Any = json.loads(out.decode("utf-8", "replace").splitlines()[-1])
        if found is None:
            return Library(package, extra, "", (), "not installed")
        version, offers = found
        return Library(package, extra, str(version)[:60], tuple(str(one)[:60] for one in offers), "")
    except (ValueError, TypeError, IndexError):
        return Library(package, extra, "", (), f"its import fails ({next(_last(err), 'it says nothing')})")


def _died(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = ", as of a wheel that was built for another processor" if name == "SIGILL" else ""
    return f"its import crashes ({name}{why})"


def _last(err: bytes) -> Iterator[str]:
    """The last line of a traceback, without machine paths."""
    for line in reversed(err.decode("utf-8", "replace").splitlines()):
        words = [word if "/" not in word else word.rstrip("':,)").rpartition("/")[2] for word in line.split()]
        if text := "".join(c for c in " ".join(words) if c.isprintable()):
            yield text if len(text) <= 160 else text[:159] + "…"
