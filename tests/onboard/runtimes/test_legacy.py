"""tflite-runtime itself, in the environment of tflite-legacy: run by `make onboard-legacy`, left out elsewhere.

It is accepted where the golden tiles pass, which is where its answers are right: not in dynamic int8, which 2.14
computes wrongly without a word.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import rasterio

from edgeslim.cli import main
from edgeslim.manifest import read_manifest
from edgeslim.onboard.open_runtime import load_runtime

ONBOARD = Path(__file__).parents[3] / ".venv-onboard"
ARTIFACTS = ONBOARD / "artifacts"
SCENE, MAP = ONBOARD / "legacy" / "scene.tif", ONBOARD / "legacy" / "map"
"""A scene, and what LiteRT made of it with tflite-fp32: by the Makefile."""


@pytest.fixture(scope="module", autouse=True)
def in_its_environment() -> None:
    if importlib.util.find_spec("tflite_runtime") is None or importlib.util.find_spec("ai_edge_litert") is not None:
        pytest.skip("not the environment of tflite-legacy: `make onboard-legacy` tests tflite-runtime")
    if not ARTIFACTS.is_dir():
        pytest.skip(f"no {ARTIFACTS.relative_to(ONBOARD.parent)}: `make onboard` exports them")


def exit_code(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_agrees_with_torch_is_accepted(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", ARTIFACTS / f"tflite-{precision}", "--threads", 1) == 0
    assert "tflite-runtime 2." in capsys.readouterr().out


def test_dynamic_int8_is_refused_by_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", ARTIFACTS / "tflite-int8-dynamic", "--threads", 1) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "tflite-runtime 2." in line
    assert "do not fly this artifact" in line


def test_dynamic_int8_does_not_fly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert exit_code("classify", SCENE, "--artifact", ARTIFACTS / "tflite-int8-dynamic", "-o", out) == 5
    assert "do not fly this artifact" in capsys.readouterr().err
    assert not list(out.glob("*.tif"))


def test_it_is_the_golden_tiles_that_know() -> None:
    """Nothing else does: it loads, and gives finite logits of the right shape."""
    folder = ARTIFACTS / "tflite-int8-dynamic"
    manifest = read_manifest(folder)
    tile = np.full((1, len(manifest.bands), manifest.tile_px, manifest.tile_px), 100, np.uint8)
    logits = load_runtime(folder, manifest, threads=1).run(tile)
    assert logits.shape == (1, len(manifest.classes))
    assert np.isfinite(logits).all()


def test_the_map_is_litert_s(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert exit_code("classify", SCENE, "--artifact", ARTIFACTS / "tflite-fp32", "-o", out) == 0
    with rasterio.open(out / "classes.tif") as found, rasterio.open(MAP / "classes.tif") as expected:
        assert np.array_equal(found.read(1), expected.read(1))
    with rasterio.open(out / "confidence.tif") as found, rasterio.open(MAP / "confidence.tif") as expected:
        apart = found.read(1).astype(int) - expected.read(1)
        assert np.abs(apart).max() <= 1
        assert np.ptp(expected.read(1)[expected.read(1) != expected.nodata]) > 20  # it is no map of one answer
