from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeslim.errors import InputError, MissingExtra
from edgeslim.onboard.machine import (
    gpu,
    onnxruntime_module,
    tensorrt_version,
    this_host,
    this_machine,
    version_from_number,
)


@pytest.mark.parametrize(
    ("number", "version"), [(8201, "8.2.1"), (8502, "8.5.2"), (8602, "8.6.2"), (100300, "10.3.0"), (101602, "10.16.2")]
)
def test_versions_as_the_library_numbers_them(number: int, version: str) -> None:
    assert version_from_number(number) == version


def package(folder: Path, content: bytes) -> Path:
    (folder / "capi").mkdir()
    (folder / "capi" / "libonnxruntime_providers_tensorrt.so").write_bytes(content)
    return folder


def test_the_tensorrt_that_onnx_runtime_was_linked_with(tmp_path: Path) -> None:
    asked: list[str] = []

    def load(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(getInferLibVersion=lambda: 100300)

    content = b"\x7fELF\0libcudart.so.12\0libnvinfer_plugin.so.10\0libnvinfer.so.10\0libnvonnxparser.so.10\0"
    assert tensorrt_version(package(tmp_path, content), load) == "10.3.0"
    assert asked == ["libnvinfer.so.10"]


def no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize("content", [b"\x7fELF\0libnvinfer.so.8\0", b"\x7fELF nothing", None])
def test_no_tensorrt(tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path if content is None else package(tmp_path, content)
    with pytest.raises(InputError, match="found no TensorRT behind it") as caught:
        tensorrt_version(folder, no_library)
    assert "\n" not in str(caught.value)


class Driver:
    """libcuda.so.1 of an Orin."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def _code(self, name: str) -> int:
        return 100 if name == self.fails else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._code("cuInit")

    def cuDeviceGet(self, handle: Any, device: int) -> int:  # noqa: N802
        return self._code("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return self._code("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value: Any, which: int, handle: Any) -> int:  # noqa: N802
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = {75: 8, 76: 7}[which]
        return self._code("cuDeviceGetAttribute")


def test_the_gpu_as_its_driver_names_it() -> None:
    assert gpu(lambda _: Driver()) == ("Orin", "8.7")


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"])
def test_a_driver_without_a_gpu(call: str) -> None:
    with pytest.raises(InputError, match=r"found no GPU \(CUDA error 100\)"):
        gpu(lambda _: Driver(call))


def test_no_driver() -> None:
    with pytest.raises(InputError, match="found no NVIDIA driver"):
        gpu(no_library)
    with pytest.raises(InputError, match="found no NVIDIA driver"):
        gpu(lambda _: object())


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeslim.onboard.machine.gpu", lambda: ("Orin", "8.7"))
    monkeypatch.setattr("edgeslim.onboard.machine.tensorrt_version", lambda package: f"10.3.0 in {package}")
    fake = SimpleNamespace(__file__="/opt/onnxruntime/__init__.py", __version__="1.20.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    found = this_machine()
    assert (found.tensorrt, found.onnxruntime) == ("10.3.0 in /opt/onnxruntime", "1.20.0")
    assert str(found).endswith("Orin (sm_87)")


def test_no_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"edgeslim\[onnx\]"):
        onnxruntime_module()


def test_the_host_as_a_board_and_as_a_pc_tell_it(tmp_path: Path) -> None:
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 108.00\n")
    board = this_host(tmp_path)
    assert (board.board, board.processor) == ("Raspberry Pi 5 Model B Rev 1.0", "")
    (tmp_path / "device-tree" / "model").unlink()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7B13\nmodel name\t: AMD EPYC 7B13\n")
    pc = this_host(tmp_path)
    assert (pc.board, pc.processor) == ("", "AMD EPYC 7B13")
    assert 1 <= pc.usable_cores <= (pc.cores or pc.usable_cores)
    text = str(replace(pc, architecture="x86_64", cores=8, usable_cores=2))
    assert text == "AMD EPYC 7B13 (x86_64, 2 of 8 cores)"
    assert str(replace(board, architecture="aarch64", cores=4, usable_cores=4)).endswith("Rev 1.0 (aarch64, 4 cores)")
