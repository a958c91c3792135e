"""Is the ground installed?"""

from __future__ import annotations

import importlib.util

from edgeslim.errors import MissingExtra


def need_ground() -> None:
    """Raise MissingExtra unless torch and the converters are installed."""
    for module in ("torch", "safetensors", "PIL", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "ground")
