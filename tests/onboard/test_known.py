"""Distances to what a head was fitted on: the closed forms by plain numpy, the laws, and a damaged file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.known import KNOWN_NAME, Known
from edgeslim.manifest import Manifest, read_manifest, sha256_of
from edgeslim.onboard.known import ARRAYS, Distances, nearest, pixel_statistics, read_distances
from tests.onboard.artifacts import LABELS, make_artifact

CLIP = (0.0, 2750.0)


def arrays(dim: int = 4, bands: int = 3, classes: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = ((dim, dim), (classes, dim), (3 * bands, 3 * bands), (classes, 3 * bands))
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in zip(ARRAYS, shapes, strict=True)}


def test_pixel_statistics_are_what_numpy_counts() -> None:
    tiles = np.random.default_rng(1).uniform(-100, 3000, (4, 3, 40, 40)).astype(np.float32)
    levels = np.clip(tiles[:, :, ::2], *CLIP).astype(np.float64) / CLIP[1] * 255
    steps = np.abs(np.diff(levels, axis=3)).mean((2, 3))
    expected = np.log1p(np.concatenate([levels.mean((2, 3)), levels.std((2, 3)), steps], axis=1))
    assert pixel_statistics(tiles, CLIP) == pytest.approx(expected, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 2750), st.integers(0, 3))
def test_a_flat_tile_has_no_contrast_wherever_its_clip_begins(value: float, low: int) -> None:
    tile = np.full((1, 2, 8, 8), value + 100 * low, np.float32)
    found = pixel_statistics(tile, (100.0 * low, 2750.0 + 100 * low))
    assert found[0, :2] == pytest.approx(np.log1p(value / 2750 * 255), abs=1e-3)
    assert found[0, 2:] == pytest.approx(0, abs=0.15)  # single precision, of squares


def test_the_nearest_mean_decides() -> None:
    random = np.random.default_rng(2)
    values, whitening, means = random.normal(0, 1, (7, 5)), random.normal(0, 1, (5, 5)), random.normal(0, 1, (3, 5))
    expected = np.linalg.norm((values @ whitening)[:, None] - means, axis=2).min(1)
    single = [array.astype(np.float32) for array in (values, whitening, means)]
    assert nearest(*single) == pytest.approx(expected, rel=1e-4)


def test_the_larger_distance_counts_and_a_batch_changes_nothing() -> None:
    found = arrays()
    measure = Distances.of(found, CLIP)
    random = np.random.default_rng(3)
    tiles = random.integers(0, 3000, (6, 3, 8, 8)).astype(np.uint16)
    features = random.normal(0, 1, (6, 4)).astype(np.float32)
    whole = measure(tiles, features)
    one = np.concatenate([measure(tiles[i : i + 1], features[i : i + 1]) for i in range(6)])
    assert whole == pytest.approx(one, rel=1e-4)
    pixels = pixel_statistics(tiles.astype(np.float32), CLIP)
    parts = nearest(features, found[ARRAYS[0]], found[ARRAYS[1]]), nearest(pixels, found[ARRAYS[2]], found[ARRAYS[3]])
    assert (whole == np.maximum(*parts)).all()


def artifact_with(folder: Path, found: dict[str, np.ndarray]) -> Manifest:
    """The manifest of an artifact beside whose network such arrays lie. Its network gives no features."""
    manifest = read_manifest(make_artifact(folder))
    np.savez(folder / KNOWN_NAME, **found)
    files = manifest.files | {KNOWN_NAME: sha256_of(folder / KNOWN_NAME)}
    return replace(manifest, files=files, features_name="features", known=Known(KNOWN_NAME, 100, 0.05))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = artifact_with(tmp_path / "a", arrays())
    manifest.write(tmp_path / "a")
    again = read_manifest(tmp_path / "a")
    assert again == manifest
    assert [label.name for label in again.answers] == [*(label.name for label in LABELS), "unknown"]
    distances = read_distances(tmp_path / "a", again)
    assert distances is not None
    assert (distances.pixels_means == arrays()["pixels_means"]).all()


def test_a_manifest_without_limits_says_nothing_of_them(tmp_path: Path) -> None:
    manifest = read_manifest(make_artifact(tmp_path / "a"))
    assert "known" not in manifest.to_dict()
    assert manifest.answers == manifest.classes
    assert read_distances(tmp_path / "a", manifest) is None


@pytest.mark.parametrize(
    "change",
    [
        {"features_means": np.zeros((2, 4), np.float32)},
        {"features_means": np.zeros((3, 4), np.float64)},
        {"pixels_means": np.full((3, 9), np.nan, np.float32)},
        {"pixels_means": np.array([[{}]], object)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    manifest = artifact_with(tmp_path / "a", arrays() | change)
    with pytest.raises(InputError, match=r"known.npz: no class means .* export the artifact again"):
        read_distances(tmp_path / "a", manifest)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    manifest = artifact_with(tmp_path / "a", arrays())
    path = tmp_path / "a" / KNOWN_NAME
    for data in (b"", b"no archive", path.read_bytes()[:200]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="no class means"):
            read_distances(tmp_path / "a", manifest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features_name": ""}, "expected a network that gives its features"),
        ({"files": {"model.onnx": "0"}}, "known: found .* expected a file that has a hash"),
        ({"classes": (replace(LABELS[0], name="unknown"), *LABELS[1:])}, "no room for 'unknown'"),
    ],
)
def test_a_manifest_that_contradicts_itself(tmp_path: Path, change: dict[str, object], said: str) -> None:
    manifest = artifact_with(tmp_path / "a", arrays())
    with pytest.raises(InputError, match=said):
        replace(manifest, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(0, 0.05), (10, 0.0), (10, 1.0)])
def test_a_share_is_a_share(values: tuple[int, float]) -> None:
    with pytest.raises(InputError):
        Known(KNOWN_NAME, *values)
