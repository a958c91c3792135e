"""What a machine says of its memory, and what storage gives."""

from pathlib import Path

import pytest

from edgeslim.onboard.calibrating import hardware
from edgeslim.onboard.calibrating.hardware import copy_gb_s, gemm_gflop_s, memory_mib, storage_mb_s

MEMINFO = "MemTotal:        8388608 kB\nMemFree:  1 kB\nMemAvailable:    6291456 kB\nnonsense\n"


def machine(root: Path, limit: str | None = None, version: int = 2) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(MEMINFO)
    name = "memory.max" if version == 2 else "memory/memory.limit_in_bytes"
    if limit is not None:
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("limit", "version", "expected"),
    [
        (None, 2, (8192, 6144)),
        ("max", 2, (8192, 6144)),
        (str(256 << 20), 2, (256, 256)),
        (str(7 << 30), 2, (7168, 6144)),
        (str(256 << 20), 1, (256, 256)),
        (str((1 << 63) - 4096), 1, (8192, 6144)),  # no limit, as version 1 writes it
    ],
)
def test_the_cgroup_counts(tmp_path: Path, limit: str | None, version: int, expected: tuple[float, float]) -> None:
    assert memory_mib(machine(tmp_path, limit, version)) == expected


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert memory_mib(tmp_path) == (None, None)


def test_processor_and_memory_give_something() -> None:
    assert gemm_gflop_s() > 0.1
    assert copy_gb_s(1) > 0.05


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a large file beside it."""
    name = "module_with_a_library"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "large.so").write_bytes(bytes(8 << 20))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_storage_is_read_by_the_largest_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CACHED_MB_S", float("inf"))
    rate = storage_mb_s(library)
    assert rate is not None
    assert rate > 0.1


def test_what_only_the_page_cache_can_give_is_not_believed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CACHED_MB_S", 1e-9)
    assert storage_mb_s(library) is None


def test_storage_is_not_known_where_there_is_no_large_file(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_LEAST_READ_BYTES", 9 << 20)
    assert storage_mb_s(library) is None
    assert storage_mb_s("json") is None
    assert storage_mb_s("no_such_module_anywhere") is None
