"""OpenVINO behind a stand-in for its library: what it is asked for, and how many ask it at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.runtimes.openvino import OpenVino

NAMES = ("tiles", "logits", "features")


CALLERS = 4


class Request:
    """Keeps the first call of a shape busy for a while, and of the others each until all of them are inside."""

    inside = 0
    """Calls at this moment."""
    most: dict[tuple[int, ...], list[int]]
    """Shape -> calls inside as each one left, in order."""
    guard, others = threading.Lock(), threading.Barrier(CALLERS - 1)

    def infer(self, tiles: Any, **_: Any) -> None:
        kind = type(self)
        with self.guard:
            kind.inside += 1
            first = tiles.shape not in self.most
            self.most.setdefault(tiles.shape, [])
        if first:
            time.sleep(0.2)
        else:
            self.others.wait(10)
        with self.guard:
            self.most[tiles.shape].append(kind.inside)
        if not first:
            self.others.wait(10)
        with self.guard:
            kind.inside -= 1

    def get_output_tensor(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(data=np.zeros((1, 2), np.float32))


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
            ports = {"inputs": [port(NAMES[0])], "outputs": [port(NAMES[2]), port(NAMES[1])]}
            return SimpleNamespace(**ports, create_infer_request=Request)

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


def test_the_first_call_of_a_shape_goes_ahead_alone(asked: dict[str, Any], tmp_path: Path) -> None:
    """Of those that come first together each would pack the weights for itself: how much that takes were chance."""
    Request.most = {}
    path = tmp_path / "model.xml"
    path.touch()
    runtime = OpenVino(path, NAMES, threads=1, callers=CALLERS)
    together = threading.Barrier(CALLERS)

    def call(batch: int) -> None:
        together.wait(10)
        runtime.run(np.zeros((batch, 3, 8, 8), np.float32))

    with ThreadPoolExecutor(CALLERS) as pool:
        for batch in (4, 1):
            for done in [pool.submit(call, batch) for _ in range(CALLERS)]:
                done.result()
    alone, rest = [1], [CALLERS - 1] * (CALLERS - 1)
    assert Request.most == {(4, 3, 8, 8): alone + rest, (1, 3, 8, 8): alone + rest}


def test_a_first_call_that_fails_leaves_the_next_one_to_try(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of something")

    monkeypatch.setattr(Request, "infer", fails)
    path = tmp_path / "model.xml"
    path.touch()
    runtime = OpenVino(path, NAMES, threads=1)
    for _ in range(2):
        with pytest.raises(InputError, match=r"OpenVINO failed on tiles .*out of something"):
            runtime.run(np.zeros((1, 3, 8, 8), np.float32))


def test_it_reports_nothing_home(tmp_path: Path) -> None:
    """The library itself: by its import it would send statistics of use, under an identity kept in the home folder."""
    pytest.importorskip("openvino")
    code = """
import sys
from pathlib import Path
from edgeslim.errors import InputError
from edgeslim.onboard.runtimes.openvino import OpenVino
try:
    OpenVino(Path("none.xml"), ("tiles", "logits", ""), 1)
except InputError:
    print(sys.modules["openvino"].__name__, sys.modules["openvino_telemetry"])
"""
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "openvino None\n"
    assert not list(tmp_path.iterdir())
