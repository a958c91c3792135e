"""Opening: how long `edgeslim classify` takes to get to an open scene, and what memory it has then.

python -m edgeslim.onboard.calibrating.opening SCENE LIBRARY     prints a line of JSON once it is there
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import InputError, one_line
from edgeslim.onboard.watching.scene_process import child_environment

_RUNS = 4
"""The first fills the page cache."""
_SCENE_PX = 64
_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Opening:
    """The start of a flight, without a network and without a tile; everything in the page cache."""

    milliseconds: float
    """From process start: the least of a few."""
    resident_mib: float
    """Most memory resident by then: the most of a few."""


def measure_opening(library: str) -> Opening:
    """Measure with `library`, the module of a runtime. Raises InputError where a process fails."""
    import numpy as np
    import rasterio

    times, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        size = {"width": _SCENE_PX, "height": _SCENE_PX, "count": 3, "dtype": "uint16"}
        placed = rasterio.Affine(10, 0, 600000, 0, -10, 4800000)
        with rasterio.open(scene, "w", driver="GTiff", crs="EPSG:32632", transform=placed, **size) as file:
            file.write(np.ones((3, _SCENE_PX, _SCENE_PX), np.uint16))
        for _ in range(_RUNS):
            start = time.perf_counter()
            peaks.append(_run(scene, library))
            times.append(time.perf_counter() - start)
    return Opening(min(times[1:]) * 1e3, max(peaks))


def _run(scene: Path, library: str) -> float:
    command = [sys.executable, "-m", "edgeslim.onboard.calibrating.opening", str(scene), library]
    environment = {"OPENBLAS_NUM_THREADS": "1", **child_environment()}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_LIMIT_S, check=False)
        return float(json.loads(done.stdout)["resident_mib"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"calibrate: a scene could not be opened in a process of its own ({one_line(error)})"
        ) from None


def main() -> None:
    """Import what a flight imports, open the scene, and print the memory that this took."""
    from importlib import import_module

    import rasterio
    import typer  # noqa: F401

    from edgeslim.onboard.reading.gdal import gdal_environment
    from edgeslim.onboard.resident import highest_bytes
    from edgeslim.units import mib

    import_module(sys.argv[2])
    with gdal_environment(), rasterio.open(sys.argv[1]) as scene:
        scene.read(1)
        print(json.dumps({"resident_mib": mib(highest_bytes())}), flush=True)


if __name__ == "__main__":
    main()
