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
from edgeslim.onboard.known import (
    Distances,
    FeatureDistances,
    array_shapes,
    nearest,
    pixel_statistics,
    rank_of,
    read_distances,
)
from tests.onboard.artifacts import LABELS, make_artifact

CLIP = (0.0, 2750.0)


def arrays(dim: int = 4, bands: int = 3, classes: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = array_shapes(dim, classes, bands)
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def test_pixel_statistics_are_what_numpy_counts() -> None:
    tiles = np.random.default_rng(1).uniform(-100, 3000, (4, 3, 40, 40)).astype(np.float32)
    levels = np.clip(tiles[:, :, ::2], *CLIP).astype(np.float64) / CLIP[1] * 255
    steps = np.diff(levels, axis=3)
    sizes = [np.abs(some).mean((2, 3)) for some in (steps, np.diff(levels, n=2, axis=3), np.diff(steps, axis=1))]
    expected = np.log1p(np.concatenate([levels.mean((2, 3)), levels.std((2, 3)), *sizes], axis=1))
    assert pixel_statistics(tiles, CLIP) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 1, 1), (2, 2, 3, 2)])
def test_statistics_of_few_bands_and_pixels_are_numbers(shape: tuple[int, ...]) -> None:
    found = pixel_statistics(np.full(shape, 700, np.uint16), CLIP)
    assert found.shape == (2, 4 * shape[1] + shape[1] - 1)
    assert np.isfinite(found).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(2, 24), st.integers(2, 5))
def test_features_are_measured_by_the_whole_covariance_and_by_direction(seed: int, dim: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    orthonormal = np.linalg.qr(random.normal(0, 1, (dim, dim)))[0]
    rank, rest = rank_of(dim), 0.5
    variances = np.concatenate([rest + random.uniform(0, 30, rank), np.full(dim - rank, rest)])
    middle, scale = random.normal(0, 3, dim), random.uniform(0.2, 4, dim)
    means, features = random.normal(0, 2, (classes, dim)), random.normal(0, 4, (6, dim))
    axes = orthonormal[:, :rank] * np.sqrt(1 / rest - 1 / variances[:rank])
    single = [np.asarray(array, np.float32) for array in (middle, scale, means, axes, [1 / rest, 2])]
    far, turned = FeatureDistances.of(*single)(features.astype(np.float32))
    y = (features - middle) * scale
    inverse = orthonormal @ np.diag(1 / variances) @ orthonormal.T
    apart = y[:, None] - means
    expected = np.sqrt(np.einsum("nci,ij,ncj->nc", apart, inverse, apart).min(1))
    assert far == pytest.approx(expected, rel=1e-3, abs=2e-2)
    cosines = y @ means.T / np.linalg.norm(y, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    assert turned == pytest.approx(2 * (1 - cosines.max(1)), abs=1e-4)


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


@pytest.mark.parametrize("dim", [4, 160, 768])
def test_the_largest_distance_counts_and_other_tiles_change_nothing(dim: int) -> None:
    found = arrays(dim)
    measure = Distances.of(found, CLIP)
    random = np.random.default_rng(3)
    tiles = random.integers(0, 3000, (6, 3, 8, 8)).astype(np.uint16)
    features = random.normal(0, 1, (6, dim)).astype(np.float32)
    whole = measure(tiles, features)
    for count in (1, 2, 4):
        parts = [measure(tiles[i : i + count], features[i : i + count]) for i in range(0, 6, count)]
        assert (whole == np.concatenate(parts)).all(), count
    pixels = nearest(pixel_statistics(tiles, CLIP), found["pixels_whitening"], found["pixels_means"])
    assert (whole == np.maximum.reduce([pixels, *measure.features(features)])).all()


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
        {"pixels_means": np.full((3, 14), np.nan, np.float32)},
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
