"""OpenVINO behind a stand-in for its library: what it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeslim.onboard.runtimes.openvino import OpenVino

NAMES = ("tiles", "logits", "features")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the last network that was compiled."""
    settings: dict[str, Any] = {}

    def port(name: str) -> SimpleNamespace:
        return SimpleNamespace(get_any_name=lambda: name)

    class Core:
        def read_model(self, path: Path) -> Path:
            return path

        def compile_model(self, model: Path, device: str, wanted: dict[str, Any]) -> SimpleNamespace:
            settings.update(wanted)
            return SimpleNamespace(inputs=[port(NAMES[0])], outputs=[port(NAMES[2]), port(NAMES[1])])

    module = ModuleType("openvino")
    tensor = SimpleNamespace(element_type=SimpleNamespace(to_dtype=lambda: np.dtype(np.float32)))
    module.Tensor = lambda *values, **options: tensor  # type: ignore[attr-defined]
    module.Core, module.__version__ = Core, "0.0-stand-in"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", module)
    return settings


@pytest.mark.parametrize(("machine", "by_int8"), [("x86_64", True), ("aarch64", False), ("arm64", False)])
def test_int8_products_are_left_to_processors_that_get_them_right(
    machine: str, by_int8: bool, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    path = tmp_path / "model.xml"
    path.touch()
    assert OpenVino(path, NAMES, threads=1).version == "openvino 0.0"
    assert asked.get("LP_TRANSFORMS_MODE", True) is by_int8
    assert asked["INFERENCE_PRECISION_HINT"] == "f32"
