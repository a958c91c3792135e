from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, read_manifest, verify_files
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
