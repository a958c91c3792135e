"""Machine: which computer this is, and which TensorRT, ONNX Runtime and GPU, asked of the libraries themselves."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeslim.errors import InputError, MissingExtra, one_line

MOST_THREADS = 1024
"""More are a slip of the keyboard."""


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Host:
    """The computer, as its operating system tells it."""

    board: str
    """As its firmware calls it: "Raspberry Pi 5 Model B Rev 1.0"; empty where it does not say."""
    processor: str
    """Name of the processor; empty where it is not told, as on most ARM boards."""
    architecture: str
    """Instruction set: "x86_64", "aarch64"."""
    cores: int | None
    """Logical ones."""
    usable_cores: int
    """Of them, those that this process may use."""
    system: str
    """Operating system."""
    release: str
    """Of its kernel."""
    python: str
    """Version."""

    def __str__(self) -> str:
        names = [name for name in (self.board, self.processor) if name] or [self.system]
        cores = self.usable_cores if self.usable_cores == self.cores else f"{self.usable_cores} of {self.cores}"
        return f"{', '.join(names)} ({self.architecture}, {cores} core{'s' if self.cores != 1 else ''})"


def this_host(root: Path = Path("/proc")) -> Host:
    """The computer that this process runs on."""
    processor = re.search(r"^model name\s*:(.*)$", _text(root / "cpuinfo"), re.MULTILINE)
    return Host(
        board=" ".join(_text(root / "device-tree" / "model").replace("\0", " ").split()),
        processor=" ".join(processor[1].split()) if processor else "",
        architecture=platform.machine(),
        cores=os.cpu_count(),
        usable_cores=available_threads(),
        system=platform.system(),
        release=platform.release(),
        python=platform.python_version(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine is made for: it runs nowhere else."""

    tensorrt: str
    """Version."""
    onnxruntime: str
    """Version."""
    chip: str
    """Name of the GPU."""
    compute_capability: str
    """Of the GPU: "8.7"."""

    def __str__(self) -> str:
        sm = self.compute_capability.replace(".", "")
        return f"TensorRT {self.tensorrt}, onnxruntime {self.onnxruntime}, {self.chip} (sm_{sm})"


def this_machine() -> Machine:
    """TensorRT, ONNX Runtime and GPU of this machine. Raises InputError where one of them is missing."""
    onnxruntime = onnxruntime_module()
    name, capability = gpu()
    return Machine(tensorrt_version(Path(onnxruntime.__file__).parent), onnxruntime.__version__, name, capability)


def onnxruntime_module() -> Any:
    """ONNX Runtime. Raises MissingExtra without it."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "onnx") from None
    return onnxruntime


def tensorrt_version(package: Path, load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Version of the TensorRT that the ONNX Runtime installed in `package` loads: not of another one beside it.

    Raises InputError where there is none.
    """
    library = package / "capi" / "libonnxruntime_providers_tensorrt.so"
    try:
        needed = re.search(rb"libnvinfer\.so(\.\d+)?", library.read_bytes())
        if needed is None:
            raise OSError("it names no libnvinfer")
        number = int(load(needed.group().decode()).getInferLibVersion())
    except (OSError, AttributeError) as error:
        raise InputError(
            f"{library}: found no TensorRT behind it ({one_line(error)}), expected JetPack's; `apt install tensorrt`"
        ) from None
    return version_from_number(number)


def version_from_number(number: int) -> str:
    """TensorRT's version as its library gives it: 8602 is 8.6.2, 100300 is 10.3.0 (NvInferVersion.h)."""
    major, rest = divmod(number, 10000) if number >= 100000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def gpu(load: Callable[[str], Any] = ctypes.CDLL, device: int = 0) -> tuple[str, str]:
    """Name and compute capability of a GPU, from its driver. Raises InputError where there is none."""
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(100)
    try:
        driver = load("libcuda.so.1")
        codes = [
            driver.cuInit(0),
            driver.cuDeviceGet(ctypes.byref(handle), device),
            driver.cuDeviceGetName(name, len(name), handle),
            driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle),  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
            driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle),
        ]
    except (OSError, AttributeError) as error:
        raise InputError(
            f"libcuda.so.1: found no NVIDIA driver ({one_line(error)}), expected a Jetson's, or another GPU's"
        ) from None
    if any(codes):
        raise InputError(f"libcuda.so.1: found no GPU (CUDA error {max(codes)}), expected one; is it visible here?")
    return name.value.decode(errors="replace"), f"{major.value}.{minor.value}"
