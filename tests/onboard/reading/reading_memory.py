"""In a process of its own: what reading a scene costs beside the arrays that it returns, in bytes.

Prints four figures: said and needed of all of it, then said and seen of what an open scene holds already.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio

from edgeslim.errors import InputError
from edgeslim.onboard.reading.scene import Scene, SceneOptions, gdal_environment
from edgeslim.onboard.resident import LOADING_BLOCK_BYTES, give_back, map_blocks_from
from edgeslim.profile import Band, Radiometry


class Wanted:
    def __init__(self, count: int, gsd_m: float | None) -> None:
        self.bands = tuple(Band(f"X{i}", f"x{i}", 0.5) for i in range(count))
        self.gsd_m = gsd_m
        self.radiometry = Radiometry(("L1C",), 1e-4, 0.0, (0.0, 1.0), (0.0,) * count, (1.0,) * count, 1.0)


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main(warm: str, path: str, count: int, rows: int, columns: int, gsd_m: float, *stack: str) -> None:
    map_blocks_from(LOADING_BLOCK_BYTES)
    with gdal_environment():
        with rasterio.open(warm) as dataset:  # what GDAL allocates once
            dataset.read()
        before = resident("VmRSS")
        options = SceneOptions(
            bands=",".join(str(i + 1) for i in range(count)),
            scale=1e-4,
            stack=tuple(map(Path, stack)),
            resample=gsd_m > 0,
        )
        try:
            with Scene(Path(path), Wanted(count, gsd_m or None), options) as scene:
                give_back()
                seen = resident("VmRSS") - before
                rows, columns = (
                    min(rows or scene.block_px[0], scene.height),
                    min(columns or scene.block_px[1], scene.width),
                )
                for row in range(0, scene.height, rows):
                    for column in range(0, scene.width, columns):
                        scene.read(row, column, min(rows, scene.height - row), min(columns, scene.width - column))
                returned = rows * columns * (count * np.dtype(scene.dtype).itemsize + (not scene.always_valid))
                needed = resident("VmHWM") - before - returned
                print(scene.read_bytes(rows, columns), needed, scene.held_bytes, seen)
        except InputError:
            print(0, resident("VmHWM") - before, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]), float(sys.argv[6]), *sys.argv[7:])
