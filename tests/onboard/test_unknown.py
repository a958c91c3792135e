"""Unknown windows in a flight: what the map, the cells and the summary say, held against plain numpy; and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from edgeslim.cli.classify import print_summary
from edgeslim.errors import InputError, UntrustedResult
from edgeslim.known import KNOWN_NAME, UNKNOWN, Known
from edgeslim.manifest import read_manifest, read_standing, sha256_of
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.unfinished import Unfinished
from tests.onboard.artifacts import LABELS, TILE_PX, bands_named, make_artifact, make_scene, reference_logits, smooth
from tests.onboard.artifacts import weights as tiny_weights
from tests.onboard.tiny_onnx import linear_of_means

BANDS = ("B04", "B03", "B02", "B08")
LIMIT = 900.0
CENTRES = np.array([[800, 900, 1000, 1100], [2000, 1500, 1500, 2000], [1500, 2000, 1000, 1200]], np.float32)


def limited(folder: Path, scale: float = 1.0, features: bool = True) -> Path:
    """An artifact of four bands, whose features are the bands' means: known within LIMIT of CENTRES."""
    make_artifact(folder, bands=bands_named(*BANDS), synthetic=False)
    (folder / "model.onnx").write_bytes(linear_of_means(*tiny_weights(4, 3), TILE_PX, features=features))
    np.savez(
        folder / KNOWN_NAME,
        features_middle=np.zeros(4, np.float32),
        features_scale=np.full(4, scale, np.float32),
        features_means=CENTRES,
        features_axes=np.zeros((4, 3), np.float32),
        features_limits=np.array([1 / LIMIT**2, 0], np.float32),
        pixels_whitening=np.zeros((19, 19), np.float32),
        pixels_means=np.zeros((3, 19), np.float32),
    )
    manifest = read_manifest(folder)
    files = {name: sha256_of(folder / name) for name in (*manifest.files, KNOWN_NAME)}
    known = Known(KNOWN_NAME, 100, 0.05)
    replace(manifest, files=files, features_name="means", known=known).write(folder)
    return folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return limited(tmp_path_factory.mktemp("limited") / "artifact")


def test_windows_beyond_the_limit_are_unknown(artifact: Path, tmp_path: Path) -> None:
    rows, columns = 5, 4
    values = smooth(rows * TILE_PX, columns * TILE_PX, bands=4)
    scene = make_scene(tmp_path / "scene.tif", values, descriptions=BANDS)
    options = ClassifyOptions(stride_px=TILE_PX, probabilities=True)
    summary = classify_scene(scene, artifact, tmp_path / "out", options)
    assert not isinstance(summary, Unfinished)
    tiles = values.reshape(4, rows, TILE_PX, columns, TILE_PX).transpose(1, 3, 0, 2, 4).reshape(-1, 4, TILE_PX, TILE_PX)
    means = tiles.mean((2, 3))
    far = np.linalg.norm(means[:, None] - CENTRES, axis=2).min(1) > LIMIT
    assert 0 < far.sum() < len(far)
    expected = np.where(far, 3, reference_logits(tiles, 4).argmax(1)).reshape(rows, columns)
    with rasterio.open(tmp_path / "out" / "classes.tif") as dataset:
        assert (dataset.read(1) == expected.repeat(TILE_PX, 0).repeat(TILE_PX, 1)).all()
        assert dataset.tags(1).get("class_3", dataset.tags().get("class_3")) == "unknown"
    with rasterio.open(tmp_path / "out" / "probabilities.tif") as dataset:
        assert dataset.count == 4
        assert (dataset.read(4).reshape(rows, TILE_PX, columns, TILE_PX)[:, 0, :, 0] == 254 * (expected == 3)).all()
    assert summary.unknown_tiles == far.sum()
    assert summary.tiles == {"classified": 20, "skipped": 0}
    assert [row.name for row in summary.classes] == [*(label.name for label in LABELS), "unknown"]
    assert summary.classes[3].share == pytest.approx(far.mean())
    assert summary.classes[3].color == UNKNOWN.color
    cells = json.loads((tmp_path / "out" / "cells.geojson").read_text())["features"]
    assert sum(cell["properties"]["name"] == "unknown" for cell in cells) == far.sum()
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["unknown_tiles"] == far.sum()


def test_a_resumed_run_counts_and_writes_the_same(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(90, 20, bands=4), descriptions=BANDS, blockysize=8)
    asked = iter([None, None, "SIGTERM"])
    found = classify_scene(scene, artifact, tmp_path / "out", None, None, lambda: next(asked, "SIGTERM"))
    assert isinstance(found, Unfinished)
    assert 0 < found.bands_done < found.bands
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(resume=True))
    whole = classify_scene(scene, artifact, tmp_path / "whole")
    assert summary == whole
    assert not isinstance(whole, Unfinished)
    assert whole.unknown_tiles
    for name in whole.files:
        if name != "run.json":
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    again = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(resume=True))
    assert again == whole


def test_the_table_says_how_many(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = make_scene(tmp_path / "scene.tif", np.full((4, 16, 16), 2700, np.uint16), descriptions=BANDS)
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=8))
    print_summary(summary.to_dict(), tmp_path / "out")
    printed = capsys.readouterr().out
    assert "Unknown      100.0%" in printed
    assert "4 tiles classified, 4 of them unlike any that the head was fitted on, 0 skipped" in printed


def test_distances_that_are_no_numbers_end_the_run(tmp_path: Path) -> None:
    folder, manifest = read_standing(limited(tmp_path / "huge", scale=1e38))
    guard = Guard(folder, manifest, open_runtime(folder, manifest, 1), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        answers = guard.answers(np.full((1, 4, TILE_PX, TILE_PX), 2000, np.float32), 1)
    with pytest.raises(UntrustedResult, match="distances that are not finite"):
        guard.require_answers(answers)


def test_a_network_without_features_is_refused(tmp_path: Path) -> None:
    folder, manifest = read_standing(limited(tmp_path / "none", features=False))
    with pytest.raises(InputError, match="export it again"):
        open_runtime(folder, manifest, 1)
