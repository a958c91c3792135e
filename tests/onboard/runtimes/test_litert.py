"""LiteRT behind a stand-in for its interpreter: which files serve how many tiles, and who may compute at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError, MissingExtra
from edgeslim.onboard.runtimes.litert import LiteRt

NAMES = ("tiles:0", "logits:0", "features:0")
SHAPE = (2, 3, 3)
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((18, 4)).astype(np.float32)


class Interpreter:
    """A linear network of the batch that its file's name says; one call at a time, as the real one."""

    calls: list[int] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, model_path: str, num_threads: int) -> None:
        text = Path(model_path).read_text()
        if text == "damaged":
            raise ValueError("Model provided has model identifier 'dama', should be 'TFL3'\nand more")
        self.batch, self.threads, self._busy = int(text), num_threads, threading.Lock()
        self._tensors: dict[int, np.ndarray] = {}

    def allocate_tensors(self) -> None:
        pass

    def get_signature_runner(self) -> Interpreter:
        return self

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        return {NAMES[0]: {"index": 7, "shape": np.array([self.batch, *SHAPE])}}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return {NAMES[2]: {"index": 9}, NAMES[1]: {"index": 8}}

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        if value.shape != (self.batch, *SHAPE):
            raise ValueError(f"Dimension mismatch. Got {value.shape}")
        self._tensors[index] = value.copy()

    def invoke(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("two callers at once")
        tiles = self._tensors[7].reshape(self.batch, -1)
        self._tensors[9] = tiles
        self._tensors[8] = (tiles[:, None, :] * WEIGHT.T).sum(axis=2)
        Interpreter.calls.append(self.batch)
        self._busy.release()

    def get_tensor(self, index: int) -> np.ndarray:
        return self._tensors[index].copy()


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")


def files(folder: Path, *batches: int) -> dict[int, Path]:
    found = {}
    for batch in batches:
        found[batch] = folder / f"model.b{batch}.tflite"
        found[batch].write_text(str(batch))
    return found


def tiles_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, *SHAPE)).astype(np.float32)


def expected(tiles: np.ndarray) -> np.ndarray:
    flat = tiles.reshape(len(tiles), -1)
    result: np.ndarray = (flat[:, None, :] * WEIGHT.T).sum(axis=2)
    return result


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from([1, 2, 3, 4, 8]), min_size=1), st.integers(1, 30))
def test_any_number_of_tiles_by_any_files(
    tmp_path_factory: pytest.TempPathFactory, batches: set[int], count: int
) -> None:
    runtime = LiteRt(files(tmp_path_factory.mktemp("m"), *batches), NAMES, threads=1)
    tiles = tiles_of(count)
    Interpreter.calls.clear()
    logits, features = runtime.outputs(tiles)
    assert np.array_equal(logits, expected(tiles))
    assert np.array_equal(features, tiles.reshape(count, -1))
    assert np.array_equal(runtime.run(tiles), logits)
    calls = Interpreter.calls[: len(Interpreter.calls) // 2]
    assert sum(calls) - count < min(batches)  # no more is filled up than must be
    assert calls == sorted(calls, reverse=True)  # the largest first


def test_callers_get_an_interpreter_each(tmp_path: Path) -> None:
    runtime = LiteRt(files(tmp_path, 2), NAMES, threads=1, callers=3)
    tiles = [tiles_of(n) for n in range(1, 60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(runtime.run, tiles))
    assert all(np.array_equal(a, expected(b)) for a, b in zip(found, tiles, strict=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_raw_band_values_of_other_types_are_taken(tmp_path: Path, dtype: type) -> None:
    tiles = np.random.default_rng(0).integers(0, 200, (3, *SHAPE)).astype(dtype)
    runtime = LiteRt(files(tmp_path, 1), NAMES, threads=1)
    assert np.array_equal(runtime.run(tiles), expected(tiles.astype(np.float32)))
    with pytest.raises(InputError, match="tiles: found float64, expected one of float32, uint8"):
        runtime.run(tiles.astype(np.float64))


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        LiteRt({1: tmp_path / "none.tflite"}, NAMES, 1)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_text("damaged")
    with pytest.raises(InputError, match=r"cannot load it \(Model provided .* and more\)") as caught:
        LiteRt({1: damaged}, NAMES, 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="at batch 2, expected tiles:0, logits:0, features:0 at batch 1"):
        LiteRt({1: files(tmp_path, 2)[2]}, NAMES, 1)
    with pytest.raises(InputError, match=r"expected tiles:0, classes:0"):
        LiteRt(files(tmp_path, 1), ("tiles:0", "classes:0", ""), 1)
    with pytest.raises(InputError, match=r"failed on tiles \(1, 2, 4, 4\)"):
        LiteRt(files(tmp_path, 1), NAMES, 1).run(np.zeros((1, 2, 4, 4), np.float32))


def test_without_it_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(MissingExtra, match=r"edgeslim\[tflite\]"):
        LiteRt(files(tmp_path, 1), NAMES, 1)


@pytest.fixture
def predecessor(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tflite_runtime.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)


@pytest.mark.usefixtures("predecessor")
def test_its_predecessor_is_used_where_only_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert LiteRt(files(tmp_path, 1), NAMES, 1).version == "tflite-runtime 0.0"


@pytest.mark.usefixtures("predecessor")
@pytest.mark.parametrize("numpy", ["2.0.0", "2.4.6", "2.5.0rc1"])
def test_its_predecessor_beside_numpy_2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numpy: str) -> None:
    monkeypatch.setattr(np, "__version__", numpy)
    expected = rf"found tflite-runtime 0\.0 beside NumPy {numpy}, expected NumPy below 2 .*edgeslim\[tflite\]"
    with pytest.raises(MissingExtra, match=expected):
        LiteRt(files(tmp_path, 1), NAMES, 1)
