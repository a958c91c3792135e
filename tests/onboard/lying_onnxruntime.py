"""A stand-in for the onnxruntime module that says one thing and does another, as the real one does on a bad day.

It computes the closed-form artifact's logits, keeps an engine cache as TensorRT does, and writes profiles as ONNX
Runtime 1.20 does.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeslim.onboard.runtimes.providers import CPU, CUDA, TENSORRT
from tests.onboard.artifacts import TILE_PX, reference_logits

ENGINE = "TensorrtExecutionProvider_TRTKernel_graph_tiny_1_0_sm87.engine"


@dataclass
class Behaviour:
    """What the module claims and what it does."""

    available: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    """`get_available_providers`."""
    registered: tuple[str, ...] | None = None
    """`get_providers` of a session; None: those that were asked for, and the CPU's."""
    nodes: tuple[tuple[str, str, str], ...] = (("TRTKernel_graph_tiny_1_0", TENSORRT, "float"),)
    """Operator, provider, type of its output: of each node that runs."""
    assigned: tuple[tuple[str, str], ...] | None = None
    """Operator, provider, as `get_provider_graph_assignment_info` has it; None: it has no such function."""
    fails_at: str = ""
    """"load" or "run"."""
    replaces: bool = False
    """On a failure at "load": prints a few lines and takes the CPU instead, whatever `enable_fallback` says."""
    profile: str | None = None
    """Instead of a profile."""
    version: str = "1.20.0"
    """Of ONNX Runtime."""
    keeps_engines: bool = True
    """Whether TensorRT's cache is written."""
    rebuilds: bool = False
    """Builds an engine although there is one."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """Provider -> options of each session that was asked for."""
    fallbacks: list[bool] = field(default_factory=list)
    """Whether each session, and then each run, may fall back."""
    batches: list[int] = field(default_factory=list)
    """Of every run."""


def module(does: Behaviour, file: str = "onnxruntime/__init__.py") -> types.ModuleType:
    """The module; put it into sys.modules."""

    severity = [2]

    class SessionOptions:
        def __init__(self) -> None:
            self.entries: dict[str, str] = {}
            self.enable_profiling, self.profile_file_prefix = False, "onnxruntime_profile"

        def add_session_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value

    class RunOptions:
        def add_run_config_entry(self, key: str, value: str) -> None:
            pass

    class Plain:
        """Without `get_provider_graph_assignment_info`, as before 1.24."""

        def __init__(self, path: str, options: SessionOptions, providers: Sequence[Any], **flags: Any) -> None:
            assert Path(path).is_file()
            self.options = options
            self.wanted = dict(p if isinstance(p, tuple) else (p, {}) for p in providers)
            does.sessions.append(self.wanted)
            does.fallbacks.append(bool(flags.get("enable_fallback", 1)))
            if does.registered is not None and severity[0] < 4:
                print("[E:onnxruntime:Default] Failed to load library", file=sys.stderr)
            self.may_fall_back = True  # older versions have no such flag
            if does.fails_at == "load" and does.replaces:
                print("*************** EP Error ***************")
                print(f"EP Error libnvinfer.so.10 is not here when using {providers}")
                print("Falling back to ['CPUExecutionProvider'] and retrying.")
                self.wanted = {}
            elif does.fails_at == "load":
                raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL :\n libnvinfer.so.10: cannot open shared object file")

        def disable_fallback(self) -> None:
            self.may_fall_back = False

        def get_providers(self) -> list[str]:
            return [*self.wanted, CPU] if does.registered is None else list(does.registered)

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="tiles", shape=["batch", 3, TILE_PX, TILE_PX])]

        def get_outputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="logits", shape=["batch", 3])]

        def run(self, _: Any, feed: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
            does.fallbacks.append(self.may_fall_back)
            if does.fails_at == "run":
                raise RuntimeError("CUDA failure 209: no kernel image is available for execution on the device")
            tiles = feed["tiles"]
            does.batches.append(len(tiles))
            cache = self.wanted.get(TENSORRT, {}).get("trt_engine_cache_path")
            if cache and does.keeps_engines:
                path = Path(cache) / ENGINE
                if does.rebuilds and path.exists():
                    path.write_bytes(b"another engine")
                elif not path.exists():
                    path.write_bytes(b"engine")
            return [reference_logits(tiles).astype(np.float32)]

        def end_profiling(self) -> str:
            assert self.options.enable_profiling
            path = Path(self.options.profile_file_prefix + "_2024.json")
            events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "args": {}}]
            for operator, provider, kind in does.nodes:
                args = {"op_name": operator, "provider": provider, "output_type_shape": [{kind: [1]}]}
                events.append({"cat": "Node", "name": f"{operator}_fence_before", "args": {"op_name": operator}})
                events.append({"cat": "Node", "name": f"{operator}_kernel_time", "args": args})
            path.write_text(json.dumps(events) if does.profile is None else does.profile, encoding="utf-8")
            return str(path)

    class Telling(Plain):
        def get_provider_graph_assignment_info(self) -> list[Any]:
            assert self.options.entries["session.record_ep_graph_assignment_info"] == "1"
            return [
                types.SimpleNamespace(
                    ep_name=provider,
                    get_nodes=lambda operator=operator: [types.SimpleNamespace(op_type=operator)],
                )
                for operator, provider in does.assigned or ()
            ]

    made = types.ModuleType("onnxruntime")
    made.__file__, made.__version__ = file, does.version
    made.SessionOptions, made.RunOptions = SessionOptions, RunOptions
    made.InferenceSession = Plain if does.assigned is None else Telling
    made.GraphOptimizationLevel = types.SimpleNamespace(ORT_ENABLE_ALL=99)
    made.set_default_logger_severity = lambda level: severity.__setitem__(0, level)
    made.get_available_providers = lambda: list(does.available)
    return made
