"""Memory of a run: one formula for the plan and for the run itself, and what holds of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim import scene_buffers, size
from edgeslim.device import Device, take_device
from edgeslim.figure import Figure
from edgeslim.grid import plan_axis
from edgeslim.planning.durations import Scene
from edgeslim.planning.estimate import Conditions, Memory, memory_of
from edgeslim.profile import take_profile
from edgeslim.run_memory import RunMemory, active_bytes, planned_memory, process_memory, usual_call
from edgeslim.scene_buffers import USUAL_FORM
from edgeslim.target import take_target
from edgeslim.units import MIB
from edgeslim.windows import Windows

HOST = take_device("x86-64-host")
EMBEDDED, VIT_S = take_profile("eurosat-rgb"), take_profile("vit-s-16")
TARGETS = [take_target(name) for name in ("onnx", "openvino", "tflite")]


def with_cores(cores: int) -> Device:
    return replace(HOST, unit=(replace(HOST.unit[0], cores=Figure(cores, "a test")),))


def planned(name: str, width: float, target: int, cores: int = 2, **asked: object) -> Memory:
    found = TARGETS[target]
    device = with_cores(cores)
    runtime = next(r for r in device.runtime if r.id in found.runtimes)
    conditions = Conditions(**asked)  # type: ignore[arg-type]
    return memory_of(take_profile(name), width, device, runtime, "fp32", found, conditions)


names = st.sampled_from(["eurosat-rgb", "vit-s-16", "vit-b-16"])
which = st.integers(0, 2)
batches = st.sampled_from([None, 1, 2, 8, 32])
sides = st.integers(1, 30_000)


@given(names, which, batches, st.integers(1, 16), st.one_of(st.none(), st.builds(Scene, sides, sides)))
def test_narrower_is_never_foretold_to_need_more(
    name: str, target: int, batch: int | None, cores: int, scene: Scene | None
) -> None:
    widths = take_profile(name).architecture.width_steps()[::4]
    found = [planned(name, w, target, cores, batch=batch, scene=scene) for w in widths]
    for narrow, wide in pairwise(found):
        assert narrow.total_mib <= wide.total_mib
        assert narrow.weights_mib < wide.weights_mib


@given(names, which, st.sampled_from([1, 2, 8]), st.integers(1, 12))
def test_more_cores_and_larger_batches_never_need_less(name: str, target: int, batch: int, cores: int) -> None:
    few, many = (planned(name, 0.5, target, count, batch=batch) for count in (cores, cores + 1))
    assert few.total_mib < many.total_mib
    # A file more and larger activations; how many tiles are cut at once is rounded to batches, by at most 1 MiB.
    small, large = (planned(name, 0.5, target, cores, batch=count) for count in (batch, 2 * batch))
    assert small.total_mib <= large.total_mib + cores


@given(which, sides, st.integers(512, 10_000))
def test_memory_hardly_grows_with_the_height(target: int, height: int, width: int) -> None:
    """Beyond a tile's rows of chunks; the panel of a small scene looks at every pixel."""
    low, high = max(height, 4096), 2 * max(height, 4096)
    flat, tall = (planned("eurosat-rgb", 1, target, scene=Scene(h, width)) for h in (low, high))
    assert tall.total_mib <= flat.total_mib + 3


@pytest.mark.parametrize("target", range(3))
def test_the_parts_are_all_of_it_and_none_is_negative(target: int) -> None:
    for name in ("eurosat-rgb", "vit-l-16"):
        for batch in (None, 1, 8):
            memory = planned(name, 1, target, 1, batch=batch)
            parts = (memory.weights_mib, memory.activations_mib, memory.buffers_mib, memory.runtime_mib)
            assert min(parts) > 0
            assert sum(parts) == pytest.approx(memory.total_mib)


def test_a_static_format_loads_a_file_for_one_tile_and_one_for_the_batch_on_every_worker() -> None:
    runtime = next(r for r in HOST.runtime if r.id == "litert-cpu")
    assert runtime.further_weight_copies is not None
    full, classes = EMBEDDED.architecture, EMBEDDED.num_classes
    stored = size.weights_bytes(full, classes, "fp32")
    for batch, calls, files in ((1, 1, 1), (1, 3, 3), (8, 1, 2), (8, 3, 6)):
        found = process_memory(full, 1, classes, runtime, "fp32", batch, calls, static=True)
        copies = runtime.weight_copies.value + runtime.further_weight_copies.value * (files - 1)
        assert found.weights == pytest.approx(stored * copies, abs=1)


def test_what_is_packed_of_fp16_weights_is_as_large_as_of_fp32_ones() -> None:
    full, classes = EMBEDDED.architecture, EMBEDDED.num_classes
    stored, widened = (size.weights_bytes(full, classes, precision) for precision in ("fp16", "fp32"))
    for runtime in HOST.runtime:
        found = process_memory(full, 1, classes, runtime, "fp16", 1, 1, static=False).weights
        fp32 = process_memory(full, 1, classes, runtime, "fp32", 1, 1, static=False).weights
        mapped = 0 if runtime.weight_copies.value < 2 else 1
        assert found == pytest.approx(fp32 - mapped * (widened - stored), abs=2)
    tensorrt = next(r for r in take_device("jetson-orin").runtime if r.id == "tensorrt")
    found = process_memory(full, 1, classes, tensorrt, "fp16", 1, 1, static=False).weights
    assert found == pytest.approx(stored * tensorrt.weight_copies.value, abs=1)


def test_unasked_the_batch_is_the_one_that_classify_takes_or_what_a_narrower_width_needs() -> None:
    full = VIT_S.architecture
    assert usual_call(full, 1.0)[0] >= active_bytes(full, 1)
    found = [usual_call(full, w)[0] for w in full.width_steps()]
    assert found == sorted(found)


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.sampled_from([32, 64, 224]), st.integers(1, 13))
def test_a_plan_keeps_the_rows_and_columns_that_a_run_keeps(height: int, width: int, tile: int, bands: int) -> None:
    sizes = scene_buffers.chunk_sizes((height, width), USUAL_FORM.block_px, bands * 2, tile)
    chunk = next(iter(sizes))
    for side, step in zip((height, width), chunk, strict=True):
        for stride in (1, tile // 2, tile):
            assert Windows(side, tile, stride).kept_px(step) == plan_axis(side, tile, stride).kept_px(step) < tile


def test_a_plan_and_a_run_add_up_the_same_way() -> None:
    """Whoever knows `process`: all else is one formula."""
    full = EMBEDDED.architecture
    runtime = HOST.runtime[0]
    process = process_memory(full, 1, 10, runtime, "fp32", 4, 2, static=False)
    run = planned_memory(process, full, 10, (2048, 2048), 32, 4, 2)
    assert isinstance(run, RunMemory)
    other = planned_memory(replace(process, runtime=process.runtime + MIB), full, 10, (2048, 2048), 32, 4, 2)
    assert other.total - run.total == MIB
    # Where the golden tiles need more than the scene, they decide.
    heavy = replace(process, replaying=10**9)
    assert planned_memory(heavy, full, 10, (2048, 2048), 32, 4, 2).total == heavy.starting
