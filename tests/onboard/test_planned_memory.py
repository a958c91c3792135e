"""What `plan` foretells of memory is what `classify` takes, of the embedded encoder in every runtime that is here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeslim.device import take_device
from edgeslim.figure import Figure
from edgeslim.planning.durations import Scene
from edgeslim.planning.estimate import Conditions, memory_of
from edgeslim.profile import take_profile
from edgeslim.target import take_target
from tests.onboard.artifacts import RGB, make_scene, smooth
from tests.onboard.test_memory import LINUX, RUN

PAGE_CACHE_MIB = {"onnx": 22, "openvino": 0, "tflite": 0}
"""By how much the same run of ONNX Runtime differed on one machine. Where its libraries had just been installed it took
163 to 171 MiB, hours later, when the page cache held them in smaller pieces, 141: a page that a process touches comes
with the piece that holds it. A plan foretells the larger."""
pytest.importorskip("torch", reason="the artifact is exported here; the formula itself needs no torch")


@LINUX
@pytest.mark.parametrize("name", ["onnx", "openvino", "tflite"])
def test_classify_takes_what_plan_foretells(name: str, tmp_path: Path) -> None:
    """Never more; at most 15 % less, but for what the page cache alone decides, see PAGE_CACHE_MIB.

    OpenVINO took 199 to 205 MiB in one environment and 235 in another: at most 25 % less.
    """
    target, profile = take_target(name), take_profile("eurosat-rgb")
    if importlib.util.find_spec(target.module) is None:
        pytest.skip(f"{target.module} is not installed")
    artifact, scene = tmp_path / "artifact", tmp_path / "scene.tif"
    exported = ["export", "--encoder", profile.id, "-w", "1", "--target", name, "--batch", "1", "-o", str(artifact)]
    subprocess.run([sys.executable, "-m", "edgeslim", *exported], check=True, capture_output=True)
    values = np.broadcast_to(smooth(64, 2048, bands=3)[:, np.arange(2048) % 64], (3, 2048, 2048))
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "pixel"}
    make_scene(scene, values, descriptions=tuple(b.name for b in RGB), nodata=0, **blocks)
    command = ["classify", str(scene), "-o", str(tmp_path / "out"), "--artifact", str(artifact)]
    command += ["--threads", "2", "--batch", "1", "--stride", "64"]
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", RUN, *command], capture_output=True, text=True, env=environment)
    peak_mib = json.loads(done.stdout.splitlines()[-1])["peak_mib"]

    host = take_device("x86-64-host")
    device = replace(host, unit=(replace(host.unit[0], cores=Figure(2, "--threads 2")),))
    runtime = next(r for r in device.runtime if r.id in target.runtimes)
    conditions = Conditions(scene=Scene(2048, 2048, 64), batch=1)
    foretold = memory_of(profile, 1.0, device, runtime, "fp32", target, conditions).total_mib
    assert peak_mib <= foretold, f"an underestimate: {foretold:.1f} MiB foretold, {peak_mib:.1f} taken"
    most = 1.25 if name == "openvino" else 1.15
    assert foretold <= most * (peak_mib + PAGE_CACHE_MIB[name]), (
        f"more than {most - 1:.0%} over: {foretold:.1f} MiB foretold, {peak_mib:.1f} taken"
    )
