from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import InputError, MissingExtra, ParityError, UntrustedResult
from edgeslim.manifest import read_manifest, sha256_of
from edgeslim.onboard.check import check_artifact
from edgeslim.onboard.runtimes.onnx import OnnxRuntime
from tests.onboard.artifacts import make_artifact

NAMES = ("tiles", "logits", "")


def test_golden_tiles_agree_at_batch_one_and_all(artifact: Path) -> None:
    report = check_artifact(artifact, threads=1)
    assert list(report.batches) == [1, 5]
    assert all(p.max_abs <= report.tolerance for p in report.batches.values())
    assert report.to_dict()["batches"]["5"]["tiles"] == 5


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_tiles_are_said_loudly(tmp_path: Path, synthetic: bool) -> None:
    report = check_artifact(make_artifact(tmp_path / "artifact", synthetic=synthetic), threads=1)
    assert any("SYNTHETIC" in w for w in report.warnings) == synthetic


def test_a_network_that_disagrees_must_not_fly(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", wrong_logit=0.01)
    with pytest.raises(ParityError, match="do not fly") as caught:
        check_artifact(folder, threads=1)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_a_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = make_artifact(tmp_path / "artifact") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 0xFF]) + whole[len(whole) // 2 + 1 :])
    with pytest.raises(UntrustedResult, match="damaged") as caught:
        check_artifact(path.parent, threads=1)
    assert caught.value.exit_code == 5


def reseal(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and hash it again: what the manifest says is then true, but the file is not of use."""
    (folder / name).write_bytes(content)
    manifest = read_manifest(folder)
    replace(manifest, files={**manifest.files, name: sha256_of(folder / name)}).write(folder)


@pytest.mark.parametrize("content", [b"", b"not a network", bytes(range(256))])
def test_a_file_that_is_no_network(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_artifact(tmp_path / "artifact")
    reseal(folder, "model.onnx", content)
    with pytest.raises(InputError, match="cannot load it") as caught:
        check_artifact(folder, threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_golden_tiles_of_another_shape(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    reseal(folder, "golden.npz", b"PK no zip")
    with pytest.raises(InputError, match="no golden tiles"):
        check_artifact(folder, threads=1)
    np.savez(folder / "other.npz", tiles=np.zeros((5, 3, 8, 8), np.float32), logits=np.zeros((4, 3), np.float32))
    reseal(folder, "golden.npz", (folder / "other.npz").read_bytes())
    with pytest.raises(InputError, match="expected float32"):
        check_artifact(folder, threads=1)


def test_manifests_that_name_other_tensors_or_runtimes(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    manifest = read_manifest(folder)
    replace(manifest, input_name="pixels").write(folder)
    with pytest.raises(InputError, match="expected pixels"):
        check_artifact(folder, threads=1)
    replace(manifest, runtime="tensorflow").write(folder)
    with pytest.raises(InputError, match="found 'tensorflow', expected onnxruntime, openvino or litert"):
        check_artifact(folder, threads=1)
    replace(manifest, runtime="litert").write(folder)
    with pytest.raises(InputError, match="found batch 'any', expected numbers for litert"):
        check_artifact(folder, threads=1)
    files = {name: digest for name, digest in manifest.files.items() if name != "golden.npz"}
    replace(manifest, files=files).write(folder)
    with pytest.raises(UntrustedResult, match=r"no hash of golden\.npz"):
        check_artifact(folder, threads=1)
    with pytest.raises(InputError, match=r"models: found 'model\.onnx', expected a file that has a hash"):
        replace(manifest, files={})


def test_a_missing_runtime_names_the_pip_line(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"edgeslim\[onnx\]"):
        OnnxRuntime(artifact / "model.onnx", NAMES, 1)


def test_tiles_of_another_shape_are_one_line(artifact: Path) -> None:
    runtime = OnnxRuntime(artifact / "model.onnx", NAMES, 1)
    with pytest.raises(InputError, match="failed on tiles") as caught:
        runtime.run(np.zeros((1, 2, 8, 8), np.float32))
    assert "\n" not in str(caught.value)
