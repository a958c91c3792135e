"""Scripts of benchmarks/, which are no package, as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(monkeypatch: pytest.MonkeyPatch, name: str, *beside: str) -> ModuleType:
    """benchmarks/NAME.py, read anew, as are those `beside` it that it imports."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for one in (*beside, name):
        monkeypatch.delitem(sys.modules, one, raising=False)
    return importlib.import_module(name)
