"""A provider that lies is an error: on the fake that can lie in every way, and on the one that really does."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as real
import pytest

from edgeslim.errors import InputError
from edgeslim.manifest import read_manifest
from edgeslim.onboard.machine import gpu
from edgeslim.onboard.open_runtime import load_runtime
from edgeslim.onboard.runtimes.onnx import OnnxRuntime
from edgeslim.onboard.runtimes.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Placed,
    Providers,
    assigned_nodes,
    open_proven,
    read_profile,
    require_placement,
)
from tests.onboard.artifacts import make_artifact, reference_logits
from tests.onboard.lying_onnxruntime import Behaviour, module

AZURE = "AzureExecutionProvider"
"""In every build for the CPU: available, registered, and never takes a node of ours."""
NAMES = ("tiles", "logits", "")
SHAPES = ("Concat", "Gather", "Shape")
BOTH = Providers((TENSORRT, CUDA), {TENSORRT: {"device_id": 0}, CUDA: {"device_id": 0}}, SHAPES)


def load(monkeypatch: pytest.MonkeyPatch, artifact: Path, does: Behaviour, providers: Providers = BOTH) -> OnnxRuntime:
    monkeypatch.setitem(sys.modules, "onnxruntime", module(does))
    return OnnxRuntime(artifact / "model.onnx", NAMES, threads=1, providers=providers)


def refusal(monkeypatch: pytest.MonkeyPatch, artifact: Path, does: Behaviour, providers: Providers = BOTH) -> str:
    with pytest.raises(InputError) as caught:
        load(monkeypatch, artifact, does, providers)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(artifact / "model.onnx"))
    assert "expected" in message or "(" in message
    return message


def test_an_honest_one_flies_and_says_where(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    does = Behaviour(
        nodes=(
            ("TRTKernel_graph_tiny_1_0", TENSORRT, "float"),
            ("LayerNormalization", CUDA, "float"),
            ("MemcpyToHost", CUDA, "float"),
            ("Shape", CPU, "int64"),
        ),
        assigned=(("Gemm", TENSORRT), ("LayerNormalization", CUDA), ("Shape", CPU)),
    )
    runtime = load(monkeypatch, artifact, does)
    assert runtime.placement == {TENSORRT: 1, CUDA: 2, CPU: 1}
    assert "onnxruntime 1.20.0 on TensorrtExecutionProvider (1 nodes)" in runtime.version
    tiles = np.random.default_rng(1).uniform(0, 2750, (3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(runtime.run(tiles), reference_logits(tiles), atol=1e-4)
    assert does.sessions == [{TENSORRT: {"device_id": 0}, CUDA: {"device_id": 0}}]
    assert does.fallbacks == [False, False, False], "neither loading, nor the proof, nor a flight may fall back"


def test_one_that_was_not_built_in(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    does = Behaviour(available=(CUDA, CPU))
    message = refusal(monkeypatch, artifact, does)
    assert "found onnxruntime 1.20.0 with CUDAExecutionProvider, CPUExecutionProvider, expected TensorrtE" in message
    assert does.sessions == []


@pytest.mark.parametrize("left", [(CPU,), (CUDA, CPU), (CUDA, TENSORRT, CPU), (TENSORRT, CUDA, AZURE, CPU)])
def test_one_that_is_left_out_of_the_session(
    monkeypatch: pytest.MonkeyPatch, artifact: Path, left: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(monkeypatch, artifact, Behaviour(registered=left))
    assert "expected TensorrtExecutionProvider, CUDAExecutionProvider: ONNX Runtime left one out" in message
    assert capsys.readouterr() == ("", "")


def test_one_that_is_replaced_with_a_few_printed_lines(
    monkeypatch: pytest.MonkeyPatch, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    does = Behaviour(available=(AZURE, CPU), fails_at="load", replaces=True)
    message = refusal(monkeypatch, artifact, does, Providers((AZURE,)))
    assert "found a session on CPUExecutionProvider, expected AzureExecutionProvider" in message
    assert "(EP Error libnvinfer.so.10 is not here" in message
    assert capsys.readouterr() == ("", "")


def test_a_provider_whose_library_is_not_there(monkeypatch: pytest.MonkeyPatch, artifact: Path, tmp_path: Path) -> None:
    """What the system's loader says is the reason, where it is one."""
    does = Behaviour(registered=(CPU,))
    monkeypatch.setitem(sys.modules, "onnxruntime", module(does, str(tmp_path / "onnxruntime" / "__init__.py")))
    with pytest.raises(InputError, match=r"libonnxruntime_providers_tensorrt\.so: cannot open shared object file"):
        OnnxRuntime(artifact / "model.onnx", NAMES, threads=1, providers=BOTH)
    silent = Behaviour(available=(AZURE, CPU), registered=(CPU,))
    assert "it gives no reason" in refusal(monkeypatch, artifact, silent, Providers((AZURE,)))


@pytest.mark.parametrize(("moment", "word"), [("load", "cannot load it on"), ("run", "no kernel image")])
def test_one_that_fails(monkeypatch: pytest.MonkeyPatch, artifact: Path, moment: str, word: str) -> None:
    """The second: `get_available_providers` lists CUDA, but the build has no code for this chip."""
    assert word in refusal(monkeypatch, artifact, Behaviour(fails_at=moment))


@pytest.mark.parametrize(
    "nodes",
    [
        (("MatMul", CPU, "float"), ("Softmax", CPU, "float")),
        (("TRTKernel_graph_tiny_1_0", TENSORRT, "float"), ("MatMul", CPU, "float")),
        (("TRTKernel_graph_tiny_1_0", TENSORRT, "float"), ("FusedMatMul", CPU, "float")),
        (("TRTKernel_graph_tiny_1_0", TENSORRT, "float"), ("Gather", CPU, "float")),
    ],
)
def test_nodes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, artifact: Path, nodes: tuple[tuple[str, str, str], ...]
) -> None:
    """The last: the operator of a shape, but it gives pixels."""
    message = refusal(monkeypatch, artifact, Behaviour(nodes=nodes))
    assert f"1 {nodes[-1][0]}" in message
    assert "ran on CPUExecutionProvider, expected all of them on TensorrtExecutionProvider" in message
    assert "fell back" in message


def test_shapes_on_the_cpu_only_where_the_card_allows_it(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    nodes = (("TRTKernel_graph_tiny_1_0", TENSORRT, "float"), ("Shape", CPU, "int64"))
    assert load(monkeypatch, artifact, Behaviour(nodes=nodes)).placement[CPU] == 1
    strict = replace(BOTH, cpu_operators=())
    assert "1 Shape ran on CPUExecutionProvider" in refusal(monkeypatch, artifact, Behaviour(nodes=nodes), strict)


def test_the_best_provider_must_take_something(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    does = Behaviour(nodes=(("Gemm", CUDA, "float"),))
    assert "none of 1 nodes ran on TensorrtExecutionProvider" in refusal(monkeypatch, artifact, does)


def test_a_second_witness_is_heard(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    does = Behaviour(assigned=(("Gemm", CPU), ("Conv", TENSORRT)))
    assert "1 Gemm are assigned on CPUExecutionProvider" in refusal(monkeypatch, artifact, does)
    assert "found no word on which nodes are assigned" in refusal(monkeypatch, artifact, Behaviour(assigned=()))


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[{"cat": "Node", "name": "a_kernel_time", "args": {}}]', "{}"])
def test_no_proof_is_no_flight(monkeypatch: pytest.MonkeyPatch, artifact: Path, text: str) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module(Behaviour(profile=text)))
    with pytest.raises(InputError, match=r"no profile of ONNX Runtime|found no word on which nodes ran"):
        OnnxRuntime(artifact / "model.onnx", NAMES, threads=1, providers=BOTH)


def test_larger_batches_run_in_parts(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    does = Behaviour()
    runtime = load(monkeypatch, artifact, does, replace(BOTH, largest_batch=4))
    tiles = np.random.default_rng(1).uniform(0, 2750, (10, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(runtime.run(tiles), reference_logits(tiles), atol=1e-4)
    assert does.batches == [1, 4, 4, 2]


def test_no_folder_for_the_proof(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    def no_folder(**_: Any) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("edgeslim.onboard.runtimes.providers.tempfile.TemporaryDirectory", no_folder)
    assert "set TMPDIR" in refusal(monkeypatch, artifact, Behaviour())


# On the real ONNX Runtime, whose builds for the CPU hold one provider that is available and takes nothing.


@pytest.mark.skipif(AZURE not in real.get_available_providers(), reason="this ONNX Runtime has no such provider")
def test_the_real_one_that_falls_back(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    manifest = replace(read_manifest(folder), providers=(AZURE,))
    before = set(os.listdir())
    with pytest.raises(InputError, match=r"(Gemm|GlobalAveragePool).* on CPUExecutionProvider, expected all .*Azure"):
        load_runtime(folder, manifest, threads=1)
    assert set(os.listdir()) == before, "the profile goes away"


@pytest.mark.parametrize("name", [TENSORRT, CUDA])
def test_the_real_one_without_a_gpu(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a build for the CPU it is not there; of one for GPUs it is, and leaves the provider out where none is."""
    with contextlib.suppress(InputError):
        gpu()
        pytest.skip("this machine has a GPU")
    folder = make_artifact(tmp_path / "artifact")
    built_in = name in real.get_available_providers()
    message = "left one out .*lib.*: cannot open shared object" if built_in else f"expected {name}; install a build"
    with pytest.raises(InputError, match=message):
        OnnxRuntime(folder / "model.onnx", NAMES, threads=1, providers=Providers((name,)))
    assert capfd.readouterr() == ("", "")


def test_the_real_profile_says_where_each_node_ran(artifact: Path, tmp_path: Path) -> None:
    """With the CPU's own provider asked for by name, the proof holds, and every node of the file is in it."""
    options = real.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "nodes")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.graph_optimization_level = real.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = real.InferenceSession(str(artifact / "model.onnx"), options, providers=[CPU], enable_fallback=0)
    session.run(None, {"tiles": np.zeros((1, 3, 8, 8), np.float32)})
    ran = read_profile(Path(session.end_profiling()))
    assert ran == [Placed(kind, CPU, False) for kind in ("GlobalAveragePool", "Flatten", "Gemm")]
    require_placement(artifact, ran, Providers((CPU,)), "ran")
    assigned = assigned_nodes(session)
    if assigned is not None:  # 1.24 and later
        assert sorted(node.operator for node in assigned) == ["Flatten", "Gemm", "GlobalAveragePool"]
        assert {node.provider for node in assigned} == {CPU}


def test_a_network_whose_size_is_not_fixed_cannot_be_proven(monkeypatch: pytest.MonkeyPatch, artifact: Path) -> None:
    fake = module(Behaviour())
    monkeypatch.setattr(
        fake.InferenceSession, "get_inputs", lambda _: [type("Input", (), {"name": "tiles", "shape": ["b", 3, "h", 8]})]
    )
    with pytest.raises(InputError, match="expected fixed bands, height and width"):
        open_proven(fake, artifact / "model.onnx", fake.SessionOptions(), "tiles", BOTH)
