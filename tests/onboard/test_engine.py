"""The engine is built before the flight, for one machine; a flight without it does not start."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeslim.errors import InputError, ParityError, UntrustedResult
from edgeslim.manifest import Manifest, read_manifest, sha256_of
from edgeslim.onboard import engine as engines
from edgeslim.onboard.check import check_artifact
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.engine import (
    RECORD_NAME,
    build_engine,
    engine_key,
    engines_of,
    network_sha256,
    read_engine_record,
)
from edgeslim.onboard.machine import Machine
from edgeslim.onboard.runtimes.providers import CPU, CUDA, TENSORRT
from edgeslim.onboard.uplink.apply import apply, rollback
from edgeslim.onboard.uplink.bundle import write_bundle
from tests.onboard.artifacts import make_artifact, make_scene, smooth
from tests.onboard.lying_onnxruntime import ENGINE, Behaviour, module
from tests.onboard.uplink.updates import seal

ORIN = Machine("10.3.0", "1.20.0", "Orin", "8.7")
GRAPH = {"opset": 17, "operators": {"Gemm": 1, "LayerNormalization": 1}}


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """A Jetson Orin whose ONNX Runtime behaves."""
    does = Behaviour()
    monkeypatch.setitem(sys.modules, "onnxruntime", module(does))
    monkeypatch.setattr(engines, "this_machine", lambda: ORIN)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return does


def artifact_for(folder: Path, **changes: Any) -> Path:
    """An artifact that flies on TensorRT."""
    make_artifact(folder)
    manifest = replace(read_manifest(folder), providers=(TENSORRT, CUDA), graph=GRAPH, cpu_operators=("Shape",))
    replace(manifest, **changes).write(folder)
    return folder


def only_engine(folder: Path) -> Path:
    (found,) = engines_of(folder).iterdir()
    return found


def test_built_then_flown(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said: list[str] = []
    built = build_engine(folder, (1, 5), 1, said.append)
    assert built.folder == only_engine(folder)
    assert built.folder.name == f"trt10.3.0-sm87-Orin-ort1.20.0-fp32-{network_sha256(read_manifest(folder))[:16]}"
    assert built.record == read_engine_record(built.folder)
    assert built.record.files == {ENGINE: sha256_of(built.folder / ENGINE)}
    assert (built.record.largest_batch, built.record.placement) == (5, {TENSORRT: 1})
    assert "TensorRT 10.3.0, onnxruntime 1.20.0, Orin (sm_87), fp32, batches 1 to 5" in said[0]
    assert board.batches == [1, 1, 5], "the proof, then each batch once"
    options = board.sessions[0][TENSORRT]
    assert options["trt_profile_min_shapes"] == "tiles:1x3x8x8"
    assert options["trt_profile_opt_shapes"] == options["trt_profile_max_shapes"] == "tiles:5x3x8x8"
    assert (options["trt_engine_cache_enable"], options["trt_fp16_enable"]) == (True, False)
    assert list(board.sessions[0]) == [TENSORRT, CUDA]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "the artifact is left as it was"
    report = check_artifact(folder, threads=1)
    assert "on TensorrtExecutionProvider" in report.runtime
    assert board.sessions[-1][TENSORRT] == {**options, "trt_engine_cache_path": str(built.folder)}


def test_fp32_is_no_tf32(board: Behaviour, tmp_path: Path) -> None:
    build_engine(artifact_for(tmp_path / "half", precision="fp16"), (2,), 1)
    assert board.sessions[-1][TENSORRT]["trt_fp16_enable"] is True
    assert "NVIDIA_TF32_OVERRIDE" not in engines.os.environ
    build_engine(artifact_for(tmp_path / "whole"), (2,), 1)
    assert engines.os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_a_flight_without_an_engine_does_not_start(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    scene = make_scene(tmp_path / "scene.tif", smooth(24, 24))
    build = f"run `edgeslim build {folder}` on this board before the flight"
    for fly in (
        lambda: check_artifact(folder, threads=1),
        lambda: classify_scene(scene, folder, tmp_path / "map", ClassifyOptions(threads=1)),
    ):
        with pytest.raises(InputError, match=r"found no engine, expected one for TensorRT 10\.3\.0") as caught:
            fly()
        assert build in str(caught.value)
        assert "\n" not in str(caught.value)
    assert board.sessions == []
    assert not (tmp_path / "map" / "classes.tif").exists()


def test_classify_flies_in_parts_of_the_largest_batch(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    scene = make_scene(tmp_path / "scene.tif", smooth(64, 64))
    build_engine(folder, (4,), 1)
    board.batches.clear()
    classify_scene(scene, folder, tmp_path / "map", ClassifyOptions(threads=1, batch=16))
    assert (tmp_path / "map" / "classes.tif").exists()
    assert max(board.batches) == 4


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (replace(ORIN, tensorrt="10.7.0"), "TensorRT 10.3.0"),
        (replace(ORIN, onnxruntime="1.23.0"), "onnxruntime 1.20.0"),
        (replace(ORIN, chip="NVIDIA Thor", compute_capability="11.0"), "Orin (sm_87)"),
    ],
)
def test_an_engine_of_another_machine(
    board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Machine, found: str
) -> None:
    folder = artifact_for(tmp_path / "artifact")
    build_engine(folder, (1,), 1)
    monkeypatch.setattr(engines, "this_machine", lambda: other)
    with pytest.raises(InputError) as caught:
        check_artifact(folder, threads=1)
    message = str(caught.value)
    assert f"found an engine for {ORIN}, fp32, expected one for {other}, fp32; run `edgeslim build" in message
    assert found in message
    build_engine(folder, (1,), 1)
    check_artifact(folder, threads=1)
    assert len(list(engines_of(folder).iterdir())) == 2, "the other machine's stays"


def test_an_engine_of_another_network_or_precision(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    build_engine(folder, (1,), 1)
    manifest = read_manifest(folder)
    replace(manifest, precision="fp16").write(folder)
    with pytest.raises(InputError, match=r"found an engine for .*, fp32, expected one for .*, fp16"):
        check_artifact(folder, threads=1)
    (folder / "weights.bin").write_bytes(b"other weights")
    changed = replace(manifest, files={**manifest.files, "weights.bin": sha256_of(folder / "weights.bin")})
    changed.write(folder)
    with pytest.raises(InputError, match="found engines of another network"):
        check_artifact(folder, threads=1)


def test_a_damaged_engine_is_not_loaded(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    built = build_engine(folder, (1,), 1)
    (built.folder / ENGINE).write_bytes(b"engime")
    sessions = len(board.sessions)
    with pytest.raises(UntrustedResult, match=r"\.engine: damaged or missing; run `edgeslim build"):
        check_artifact(folder, threads=1)
    assert len(board.sessions) == sessions
    (built.folder / ENGINE).unlink()
    with pytest.raises(UntrustedResult, match="damaged or missing"):
        check_artifact(folder, threads=1)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"largest_batch": 0},
        {"files": {"../model.onnx": "0"}},
        {"machine": {"tensorrt": "10.3.0"}},
        {"extra": 1},
    ],
)
def test_a_record_that_is_none(board: Behaviour, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = artifact_for(tmp_path / "artifact")
    built = build_engine(folder, (1,), 1)
    path = built.folder / RECORD_NAME
    path.write_text(json.dumps({**asdict(built.record), **change}))
    with pytest.raises(UntrustedResult, match="no record of an engine"):
        check_artifact(folder, threads=1)
    path.write_bytes(b"\xff{")
    with pytest.raises(UntrustedResult, match="no record of an engine"):
        check_artifact(folder, threads=1)


def test_a_record_moved_to_another_key(board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = artifact_for(tmp_path / "artifact")
    built = build_engine(folder, (1,), 1)
    newer = replace(ORIN, tensorrt="10.7.0")
    built.folder.rename(built.folder.with_name(engine_key(read_manifest(folder), newer)))
    monkeypatch.setattr(engines, "this_machine", lambda: newer)
    with pytest.raises(UntrustedResult, match="another machine or network than its folder says"):
        check_artifact(folder, threads=1)


def test_an_engine_built_again_in_flight_is_an_error(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    build_engine(folder, (1,), 1)
    board.rebuilds = True
    with pytest.raises(InputError, match="built its engine anew instead of loading it"):
        check_artifact(folder, threads=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keeps_engines": False}, "found nothing in TensorRT's cache, expected an .engine"),
        ({"nodes": (("Gemm", CPU, "float"),)}, "1 Gemm ran on CPUExecutionProvider"),
        ({"registered": (CUDA, CPU)}, "left one out"),
        ({"available": (CPU,)}, "expected TensorrtExecutionProvider, CUDAExecutionProvider"),
        ({"fails_at": "run"}, "failed on one tile"),
    ],
)
def test_a_failed_build_leaves_nothing(board: Behaviour, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = artifact_for(tmp_path / "artifact")
    for name, value in changes.items():
        setattr(board, name, value)
    with pytest.raises(InputError, match=message):
        build_engine(folder, (1,), 1)
    assert not engines_of(folder).exists()


def test_an_older_engine_stands_until_the_new_one_does(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    first = build_engine(folder, (1,), 1)
    board.fails_at = "run"
    with pytest.raises(InputError, match="failed on one tile"):
        build_engine(folder, (8,), 1)
    assert read_engine_record(first.folder) == first.record
    board.fails_at = ""
    assert build_engine(folder, (8,), 1).record.largest_batch == 8
    check_artifact(folder, threads=1)


@pytest.mark.parametrize(
    ("machine", "opset", "message"),
    [
        (
            replace(ORIN, tensorrt="8.6.2"),
            18,
            "opset 18 for onnxruntime 1.20.0 and TensorRT 8.6.2, expected at most 17",
        ),
        (replace(ORIN, tensorrt="8.5.2"), 17, "LayerNormalization for onnxruntime 1.20.0 and TensorRT 8.5.2"),
        (replace(ORIN, tensorrt="7.1.3"), 17, "expected TensorRT 8.2.1 or later"),
        (ORIN, 22, "opset 22 for onnxruntime 1.20.0 and TensorRT 10.3.0"),
    ],
)
def test_libraries_too_old_for_the_network(
    board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, opset: int, message: str
) -> None:
    folder = artifact_for(tmp_path / "artifact", graph={**GRAPH, "opset": opset})
    monkeypatch.setattr(engines, "this_machine", lambda: machine)
    for call in (lambda: build_engine(folder, (1,), 1), lambda: check_artifact(folder, threads=1)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "JetPack" in str(caught.value)
    assert board.sessions == []


def test_libraries_that_no_card_is_of_are_doubted(
    board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artifact_for(tmp_path / "artifact", graph={**GRAPH, "opset": 21})
    monkeypatch.setattr(engines, "this_machine", lambda: replace(ORIN, tensorrt="10.9.0"))
    built = build_engine(folder, (1,), 1)
    assert ["at most 20 for TensorRT 10.3.0" in line for line in built.warnings] == [True]
    assert any("at most 20 for TensorRT 10.3.0" in line for line in check_artifact(folder, threads=1).warnings)


def test_other_artifacts_need_no_engine(board: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="found an artifact for the CPU, which needs no engine"):
        build_engine(make_artifact(tmp_path / "plain"), (1,), 1)
    folder = artifact_for(tmp_path / "cuda", providers=(CUDA,))
    with pytest.raises(InputError, match="found an artifact for CUDAExecutionProvider"):
        build_engine(folder, (1,), 1)
    board.nodes = (("Gemm", CUDA, "float"),)
    assert "on CUDAExecutionProvider" in check_artifact(folder, threads=1).runtime
    assert list(board.sessions[-1]) == [CUDA]
    monkeypatch.setattr(engines, "gpu", lambda: ("H100", "9.0"))
    assert engines.chip_of(read_manifest(folder)) == "H100 (sm_90)"  # and no TensorRT is asked for


def test_a_manifest_whose_providers_make_no_sense(tmp_path: Path) -> None:
    manifest = read_manifest(make_artifact(tmp_path / "artifact"))
    with pytest.raises(InputError, match="for onnxruntime only"):
        replace(manifest, runtime="litert", providers=(TENSORRT,))
    with pytest.raises(InputError, match="expected each once"):
        replace(manifest, providers=(CUDA, CUDA))


def test_older_manifests_are_read(tmp_path: Path) -> None:
    """`cpu_operators` came later: a manifest without it is one without any."""
    folder = make_artifact(tmp_path / "artifact")
    assert read_manifest(folder).cpu_operators == ()
    assert isinstance(read_manifest(folder), Manifest)


def test_a_place_that_cannot_be_written(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    engines_of(folder).write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        build_engine(folder, (1,), 1)


def test_the_logits_of_the_engine_are_compared(board: Behaviour, tmp_path: Path) -> None:
    folder = artifact_for(tmp_path / "artifact")
    build_engine(folder, (5,), 1)
    assert all(p.max_abs < 1e-4 for p in check_artifact(folder, threads=1).batches.values())
    assert np.isfinite(check_artifact(folder, threads=1).tolerance)


def test_an_update_is_built_before_it_stands_and_flies(board: Behaviour, tmp_path: Path) -> None:
    place, two, wrong = (artifact_for(tmp_path / name) for name in ("artifact", "two", "wrong"))
    for number, folder in enumerate((two, wrong)):
        (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + bytes([number]))
    with np.load(wrong / "golden.npz") as golden:
        np.savez(tmp_path / "golden.npz", tiles=golden["tiles"], logits=golden["logits"] + 1)
    (tmp_path / "golden.npz").replace(wrong / "golden.npz")
    for folder in (two, wrong):
        write_bundle(seal(folder, name=folder.name, plan={"batch": 3}), tmp_path / f"{folder.name}.tar.xz")
    first = build_engine(place, (1, 5), 1).folder
    with pytest.raises(ParityError):
        apply(tmp_path / "wrong.tar.xz", place, threads=1)
    assert only_engine(place) == first
    assert apply(tmp_path / "two.tar.xz", place, threads=1).name == "two"
    (second,) = set(engines_of(place).iterdir()) - {first}
    assert read_engine_record(second).largest_batch == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".engines")) == ["artifact.engines"]
    assert list(place.glob("*.engines")) == []
    check_artifact(place, 1)
    assert build_engine(place, (1, 2), 1).folder == second
    rollback(place, threads=1)
    check_artifact(place, 1)
    shutil.rmtree(engines_of(place))
    rollback(place, threads=1)
    assert only_engine(place) == second
    shutil.rmtree(second)
    with pytest.raises(InputError, match=rf"found no engine, .*; run `edgeslim build {place}` on this board"):
        check_artifact(place, 1)
