"""Memory: foretold before a run starts, never less than what it takes, and kept within what was allowed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.grid import plan_axis
from edgeslim.onboard import run
from edgeslim.onboard.chunks import ChunkPlan
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.memory import Fit, fit, late_bytes
from edgeslim.onboard.progress import Event
from edgeslim.profile import take_profile
from edgeslim.run_memory import active_bytes, run_memory
from tests.onboard.artifacts import RGB, make_artifact, make_scene, smooth

MIB = 1 << 20
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")


class Sizes:
    """What `fit` needs of a Scene."""

    def __init__(self, height: int, width: int, block: tuple[int, int], bands: int, dtype: str) -> None:
        self.path, self.height, self.width, self.block_px = Path("scene.tif"), height, width, block
        self.bands, self.dtype, self.always_valid, self.fills = tuple(range(bands)), dtype, True, True
        self.held_bytes = MIB // 2

    def read_bytes(self, rows: int, columns: int) -> int:
        return MIB + rows * columns


@st.composite
def scenes(draw: st.DrawFn) -> Sizes:
    sizes = st.integers(1, 50_000)
    block = (draw(st.sampled_from([1, 16, 99, 512, 50_000])), draw(st.sampled_from([1, 16, 99, 171, 256, 50_000])))
    return Sizes(draw(sizes), draw(sizes), block, draw(st.integers(1, 13)), draw(st.sampled_from(["uint8", "float64"])))


def fitted(scene: Sizes, limit: float | None, tile: int = 64) -> Fit:
    return fit(
        scene,  # type: ignore[arg-type]
        plan_axis(scene.height, tile, tile // 2),
        plan_axis(scene.width, tile, tile // 2),
        classes=10,
        batch=4,
        workers=2,
        process_bytes=100 * MIB,
        writing_bytes=5 * MIB,
        finishing_bytes=9 * MIB,
        probabilities=False,
        max_ram_mib=limit,
    )


@given(scenes(), st.floats(100, 2000))
def test_what_fits_is_taken_and_what_does_not_names_a_figure_that_does(scene: Sizes, limit: float) -> None:
    freely = fitted(scene, None)
    try:
        found = fitted(scene, limit)
    except InputError as error:
        needed = int(re.search(r"needs (\d+) MiB", str(error))[1])  # type: ignore[index]
        assert needed > limit
        assert fitted(scene, needed).memory.total <= needed * MIB
        return
    assert found.memory.total <= limit * MIB
    assert found.memory.total <= freely.memory.total
    if freely.memory.total <= limit * MIB:
        assert found.plan == freely.plan


def test_onnx_runtime_is_granted_again_what_it_gives_back_after_its_warm_up() -> None:
    """A batch smaller than a worker's share of the four golden tiles is no largest one: its memory is given back."""
    arch = take_profile("vit-s-16").architecture
    granted = {(b, w): late_bytes("onnxruntime", arch, b, w) for b in (1, 2, 4) for w in (1, 2, 4, 8)}
    # A batch that is laid out anew takes a little more in any case.
    assert all(value >= workers * active_bytes(arch, batch) // 8 for (batch, workers), value in granted.items())
    again = {(b, w) for (b, w), value in granted.items() if value >= w * active_bytes(arch, b)}
    assert again == {(1, 1), (2, 1), (1, 2)}
    assert late_bytes("litert", arch, 1, 2) == 4 * MIB


@given(scenes(), st.integers(1, 20))
def test_memory_does_not_grow_with_the_height(scene: Sizes, times: int) -> None:
    taller = Sizes(scene.height * times, scene.width, scene.block_px, len(scene.bands), scene.dtype)
    if scene.height >= max(1024, 2 * scene.block_px[0]):  # both buffers are full
        # Where the last window is pulled back decides whether a tile's rows, at most, have to be carried over.
        row = (scene.width + 64) * len(scene.bands) * np.dtype(scene.dtype).itemsize
        high, low = (fitted(s, None).memory for s in (taller, scene))
        assert abs(high.total - low.total) <= 3 * 63 * row + abs(high.panel - low.panel)
        # The quicklook's panel looks at fewer of its pixels.
        assert high.panel <= low.panel


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    cut=st.tuples(st.integers(1, 40), st.sampled_from([8, 16, 24, 96])),
    tile=st.integers(1, 12),
    data=st.data(),
)
def test_two_buffers_hold_what_chunks_fill_of_them(
    size: tuple[int, int], cut: tuple[int, int], tile: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, tile))
    plan = ChunkPlan(*(plan_axis(side, tile, stride) for side in size), *cut)
    memory = run_memory(
        process=0, reading=0, writing=0, finishing=0, bands=1, value_bytes=1, masked=False, in_place=True, tile_px=tile,
        stride_px=stride, classes=1, size_px=size, chunk_px=cut, kept_px=plan.kept_px, batch=1, workers=1,
        probabilities=False,
    )  # fmt: skip
    filled, tallest = [0, 0], 0
    for number in range(plan.count):
        height, width = (span.stop - span.keep for span in plan.spans(number))
        filled[number % 2], tallest = max(filled[number % 2], height * width), max(tallest, height)
    down, across = plan.kept_px
    carried = (down * size[1] if plan.bands > 1 else 0) + (tallest * across if plan.across > 1 else 0)
    assert sum(filled) + carried <= memory.chunks <= 2 * plan.largest_px[0] * plan.largest_px[1] + carried
    if plan.count == 1:
        assert memory.chunks == size[0] * size[1]


RUN = """
import json, sys
from edgeslim.cli import main
code = main(sys.argv[1:])
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"code": code, "peak_mib": int(peak) / 1024}))
"""


@LINUX
@pytest.mark.parametrize(
    ("shape", "options", "flags"),
    [
        ((3, 900, 700), {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}, []),
        ((3, 1500, 2000), {"blockysize": 1, "compress": "lzw"}, ["--stride", "16"]),
        ((3, 1024, 4096), {"tiled": True, "blockxsize": 512, "blockysize": 512, "nodata": 0}, ["--probabilities"]),
        ((13, 1200, 2100), {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "pixel"}, []),
        ((3, 2048, 2048), {"tiled": True, "blockxsize": 512, "blockysize": 512}, ["--max-ram", "least"]),
    ],
)
def test_a_run_stays_within_what_was_foretold(
    tmp_path: Path, shape: tuple[int, int, int], options: dict[str, Any], flags: list[str]
) -> None:
    bands = RGB if shape[0] == 3 else tuple(type(RGB[0])(f"B{i:02d}", f"b{i}", 0.5) for i in range(1, 14))
    artifact = make_artifact(tmp_path / "artifact", bands=bands, tile_px=32)
    values = np.broadcast_to(smooth(64, shape[2], bands=shape[0])[:, np.arange(shape[1]) % 64], shape)
    scene = make_scene(tmp_path / "scene.tif", values, descriptions=tuple(b.name for b in bands), **options)
    command = ["classify", str(scene), "-o", str(tmp_path / "out"), "--artifact", str(artifact), "--threads", "2"]
    if flags == ["--max-ram", "least"]:
        refused = subprocess.run(
            [sys.executable, "-m", "edgeslim", *command, "--max-ram", "20MiB"], capture_output=True, text=True
        )
        needed = int(re.search(r"needs (\d+) MiB", refused.stderr)[1])  # type: ignore[index]
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
        assert not (tmp_path / "out").exists()
        flags = ["--max-ram", f"{needed * 1.03:.0f}MiB"]  # the libraries' own share differs a little from run to run
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command, *flags, "--progress", "json"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr
    start = next(json.loads(line) for line in done.stderr.splitlines() if '"event":"start"' in line)
    assert result["peak_mib"] <= start["memory_mib"], "an underestimate"
    assert start["memory_mib"] <= 1.15 * result["peak_mib"], "more than 15 % over"


@pytest.mark.parametrize(("over_mib", "given_back"), [(-1.0, True), (-20.0, False)])
def test_heaps_that_grow_are_given_back_band_by_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_mib: float, given_back: bool
) -> None:
    artifact = make_artifact(tmp_path / "artifact", tile_px=32)
    scene = make_scene(tmp_path / "scene.tif", smooth(400, 64), blockysize=16)
    foretold: list[float] = []
    bands, calls = 0, 0

    def observe(event: Event) -> None:
        nonlocal bands
        foretold.extend([event.data["memory_mib"]] if event.kind == "start" else [])
        bands += event.kind == "band"

    def count() -> None:
        nonlocal calls
        calls += 1

    monkeypatch.setattr(run, "resident_mib", lambda: foretold[0] + over_mib if foretold else 100.0)
    monkeypatch.setattr(run, "give_back", count)
    classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=32, threads=1), observe)
    assert bands > 3
    assert calls == (bands if given_back else 0)
