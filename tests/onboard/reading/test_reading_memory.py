"""What a scene says that reading costs, against what it costs in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from tests.onboard.artifacts import UTM, make_scene, smooth
from tests.onboard.reading.test_raster import claims, tiff

MIB = 1 << 20
PROCESS_BYTES = 100 * MIB
"""Least that the process itself takes: what is foretold is the whole of it."""
ROOT = Path(__file__).resolve().parents[3]
SIZE = 2048

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak memory from")


def measure(folder: Path, path: Path, *arguments: object) -> tuple[int, int]:
    """What reading costs, said and needed; what an open scene is said to hold already is looked at on the way."""
    warm = make_scene(folder / "warm.tif", smooth(16, 16), compress="deflate")
    done = subprocess.run(
        [sys.executable, "-m", "tests.onboard.reading.reading_memory", str(warm), str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert not done.stderr
    said, needed, held, seen = map(int, done.stdout.split())
    assert held <= seen  # it is resident, so whoever measured the process has counted it
    return said, needed


TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}


@pytest.mark.parametrize(
    ("dtype", "bands", "cut", "layout"),
    [
        ("uint16", 3, (0, 0), {**TILED, "interleave": "pixel", "nodata": 0}),
        ("uint16", 3, (0, 0), {**TILED, "interleave": "band"}),
        ("uint16", 3, (512, 512), {**TILED, "interleave": "pixel"}),
        ("float32", 1, (100, 300), {**TILED, "interleave": "band", "nodata": -1}),
        ("uint16", 3, (128, 2048), {"compress": "lzw", "interleave": "pixel", "blockysize": 1}),
        ("uint16", 3, (2048, 2048), {"compress": "deflate", "interleave": "pixel", "blockysize": SIZE}),
        ("uint16", 3, (64, 2048), {"compress": "deflate", "interleave": "band", "blockysize": SIZE}),
        ("uint8", 3, (64, 2048), {"compress": "deflate", "interleave": "band", "blockysize": SIZE}),
        ("uint8", 3, (0, 0), {**TILED, "compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}),
        ("float32", 1, (0, 0), {**TILED, "compress": "lerc"}),
        ("uint16", 3, (0, 0), {"blockysize": 256, "interleave": "pixel"}),
    ],
)
def test_reading_costs_what_it_says(
    tmp_path: Path, dtype: str, bands: int, cut: tuple[int, int], layout: dict[str, Any]
) -> None:
    values = (smooth(SIZE, SIZE, bands=bands) % 250).astype(dtype)
    path = make_scene(tmp_path / "s.tif", values, descriptions=(), **layout)
    said, needed = measure(tmp_path, path, bands, *cut, 0)
    assert said + PROCESS_BYTES >= needed + PROCESS_BYTES - MIB  # pages of the allocator
    assert said + PROCESS_BYTES <= 1.15 * (needed + PROCESS_BYTES)


@pytest.mark.parametrize(("gsd_m", "cut"), [(20, (256, 256)), (7, (64, 1024)), (0, (256, 256))])
def test_another_grid_costs_what_it_says(tmp_path: Path, gsd_m: int, cut: tuple[int, int]) -> None:
    path = make_scene(tmp_path / "s.tif", smooth(SIZE, SIZE), descriptions=(), interleave="pixel", **TILED)
    stack, bands = [], 3
    if not gsd_m:
        coarse = UTM @ Affine.scale(2)
        half = smooth(SIZE // 2, SIZE // 2)
        stack, bands = [make_scene(tmp_path / "t.tif", half, descriptions=(), transform=coarse, **TILED)], 6
    said, needed = measure(tmp_path, path, bands, *cut, gsd_m, *stack)
    assert said + PROCESS_BYTES >= needed + PROCESS_BYTES - MIB
    assert said + PROCESS_BYTES <= 1.15 * (needed + PROCESS_BYTES)


@pytest.mark.parametrize(
    "tags",
    [
        claims(65535, 65535, _259=(3, 1, 8)),
        claims(1 << 30, 2, _259=(3, 1, 5)),
        claims(1, 1 << 24, _278=(4, 1, 1), _273=(4, 1 << 24, 8), _279=(4, 1 << 24, 8)),
        claims(30000, 30000, _322=(4, 1, 30000), _323=(4, 1, 30000), _324=(4, 1, 0), _325=(4, 1, 0)),
        claims(200, 200, _277=(3, 1, 65535), _284=(3, 1, 2)),
    ],
)
def test_a_small_file_costs_little_whatever_it_claims(tmp_path: Path, tags: dict[int, tuple[int, int, int]]) -> None:
    path = tmp_path / "s.tif"
    path.write_bytes(tiff(tags))
    _, needed = measure(tmp_path, path, 1, 64, 64, 0)
    assert needed < 64 * MIB


def test_a_scene_of_zeros_in_one_block_is_read(tmp_path: Path) -> None:
    values = np.zeros((1, 6000, 6000), np.uint8)  # packs 1000 to 1: no reason to doubt it
    path = make_scene(tmp_path / "s.tif", values, descriptions=(), compress="deflate", blockysize=6000)
    assert path.stat().st_size < 6000 * 6000 / 900
    said, _ = measure(tmp_path, path, 1, 500, 6000, 0)
    assert said > 0
