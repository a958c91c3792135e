from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, _seal, read_manifest, verify_files
from edgeslim.parity import CEILINGS, Certificate, Parity
from edgeslim.profile import Band
from tests.onboard.artifacts import SENTINEL2, make_artifact


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    manifest = read_manifest(folder)
    assert manifest.tile_px == 8
    assert [b.name for b in manifest.bands] == ["B04", "B03", "B02"]
    copy = tmp_path / "copy"
    copy.mkdir()
    manifest.write(copy)
    assert read_manifest(copy) == manifest
    verify_files(folder, manifest)


def test_ranges_of_bands_are_written_only_where_there_are_any(tmp_path: Path) -> None:
    manifest = read_manifest(make_artifact(tmp_path / "artifact"))
    assert "band_clip" not in manifest.to_dict()["radiometry"]
    low, high = manifest.radiometry.clip
    grouped = replace(manifest.architecture, band_groups=((0, 2), (1,)), stem_channels=())
    ranges = tuple((low, high / part) for part in (1, 2, 3))
    changed = replace(manifest, architecture=grouped, radiometry=replace(manifest.radiometry, band_clip=ranges))
    changed.write(tmp_path)
    assert read_manifest(tmp_path) == changed


def test_the_manifest_holds_what_a_catalogue_asks_for(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact", bands=(*SENTINEL2[:2], Band("VV", "vv")))
    data = json.loads((folder / MANIFEST_NAME).read_text())
    keys = {"name", "common_name", "wavelength_um"}
    assert [set(band) for band in data["bands"]] == [keys] * 3
    assert data["bands"][2]["wavelength_um"] is None
    assert {"unit", "scale", "offset", "levels", "mean", "std", "clip"} <= set(data["radiometry"])
    assert {"name", "title", "color"} <= set(data["classes"][0])
    assert {"depth", "tile_px", "head_dim", "ffn_hidden"} <= set(data["architecture"])
    asked = {"encoder", "source", "width_multiplier", "method", "checkpoint_sha256", "licence", "licence_accepted"}
    assert asked | {"gsd_m", "files", "plan", "certificate"} <= set(data)
    assert (data["source"], data["licence_accepted"]) == ("unknown", False)
    assert read_manifest(folder).bands[2].wavelength_um is None


def test_any_damaged_byte_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    path = folder / MANIFEST_NAME
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(UntrustedResult, match="damaged"):
            read_manifest(folder)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_damaged_and_missing_files_are_noticed(tmp_path: Path, name: str) -> None:
    folder = make_artifact(tmp_path / "artifact")
    manifest = read_manifest(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UntrustedResult, match="damaged"):
        verify_files(folder, manifest)
    (folder / name).unlink()
    with pytest.raises(UntrustedResult, match="missing"):
        verify_files(folder, manifest)


def test_no_artifact_and_other_schema_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgeslim export"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps([1, 2]), encoding="utf-8")
    with pytest.raises(UntrustedResult):
        read_manifest(tmp_path)


PROVEN = Parity(8, 1e-6, 1e-7, 1.0, 10.0, 0.99)
CERTIFIED = Certificate("numerics only", "seed 5", "torch", "onnxruntime", CEILINGS["fp32"], {"1": PROVEN}, PROVEN)


def sealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how it is sealed."""
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps({**data, "sha256": _seal(data)}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(total_parameters=-1), "total_parameters: found -1, expected no number below 0"),
        (lambda d: d.update(gflop_per_tile=-0.5), "gflop_per_tile: found -0.5, expected no number below 0"),
        (lambda d: d.update(width_multiplier=-0.5), "width multiplier: found -0.5, expected 0 < w <= 1"),
        (lambda d: d["golden"].update(tiles=-3), "golden: tiles: found -3, expected at least 1"),
        (lambda d: d["graph"]["operators"].update(Add=-2), "graph.operators.Add: found -2, expected no number below 0"),
        (lambda d: d["plan"].update(batch=-8), "plan.batch: found -8, expected no number below 0"),
        (lambda d: d["plan"]["chosen"].update(artifact_mb=-1.5), "plan.chosen.artifact_mb: found -1.5, expected no nu"),
        (lambda d: d["plan"].update(deep=[{"a": [1, -1]}]), "plan.deep 1.a 2: found -1, expected no number below 0"),
        (lambda d: d["models"].update({"-1": "model.onnx"}), "models: found batch '-1', expected 'any' or a number"),
        (lambda d: d["certificate"]["hostile"].update(tiles=-1), "certificate: hostile: tiles: found -1, expected at"),
        (lambda d: d["certificate"]["hostile"].update(max_abs=-1), "hostile: max_abs: found -1, expected at least 0"),
        (lambda d: d["certificate"]["batches"]["1"].update(logits_range=-1), "logits_range: found -1, expected at"),
        (lambda d: d["certificate"]["batches"]["1"].update(argmax_agreement=-1), "argmax_agreement: found -1, expec"),
        (lambda d: d["certificate"]["batches"].update({"-1": d["certificate"]["hostile"]}), "batches: found batch"),
        (lambda d: d["certificate"].update(score=[-1, 1]), "certificate: score: found -1, expected 0 to 1"),
    ],
)  # fmt: skip
def test_no_count_is_below_zero(tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    folder = make_artifact(tmp_path / "artifact")
    plan = {"batch": 8, "chosen": {"artifact_mb": 1.5, "score": None}, "device": "board"}
    graph = {"opset": 17, "operators": {"Add": 2}}
    whole = replace(read_manifest(folder), plan=plan, graph=graph, certificate=CERTIFIED)
    whole.write(folder)
    assert read_manifest(folder) == whole
    sealed(folder, change)
    with pytest.raises(InputError) as refused:
        read_manifest(folder)
    assert len(refused.value.problems) == 1
    message = str(refused.value)
    assert message.startswith(f"{folder / MANIFEST_NAME}: ")
    assert said in message
    assert message.endswith("; export again with this edgeslim")


@pytest.mark.parametrize("key", ["licence", "tiles"])
def test_a_key_that_is_there_twice_is_refused_though_the_seal_is_right(tmp_path: Path, key: str) -> None:
    folder = make_artifact(tmp_path / "artifact")
    path = folder / MANIFEST_NAME
    text = path.read_text()
    path.write_text(text.replace(f'"{key}": ', f'"{key}": 7, "{key}": ', 1))
    with pytest.raises(InputError, match=f"^{path}: '{key}': found more than once, expected each key once; leave one"):
        read_manifest(folder)
    path.write_text(path.read_text().replace('"tiny w1.0"', '"tiny w2.0"'))
    with pytest.raises(UntrustedResult, match="damaged"):  # that it is not the one that was written comes first
        read_manifest(folder)
