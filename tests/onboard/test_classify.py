from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_origin

from edgeslim.errors import InputError, UsageError
from edgeslim.onboard.classify import ClassifyOptions, SceneOptions, classify_scene
from edgeslim.onboard.progress import Event
from edgeslim.onboard.unfinished import Unfinished
from edgeslim.profile import Band, ClassLabel
from tests.onboard.artifacts import LABELS, RGB, TILE_PX, UTM, make_artifact, make_scene, reference_map, smooth


def read(path: Path) -> np.ndarray:
    with open_quietly(path) as dataset:
        return dataset.read(1)


def assert_map(out: Path, raw: np.ndarray, valid: np.ndarray, stride: int, tile: int = TILE_PX) -> None:
    """The class map and confidence are those of the slow reference, ties and rounding aside."""
    chances, known = reference_map(raw.astype(np.float64), valid, tile, stride)
    classes, confidence = read(out / "classes.tif"), read(out / "confidence.tif")
    assert ((classes == 255) == ~known).all()
    assert ((confidence == 255) == ~known).all()
    ordered = np.sort(chances, axis=0)
    clear = known & (ordered[-1] - ordered[-2] > 1e-4)
    assert (classes == chances.argmax(0))[clear].all()
    assert (np.abs(confidence - chances.max(0) * 100) <= 0.51)[known].all()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 29),
    width=st.integers(1, 29),
    stride=st.integers(1, TILE_PX),
    holes=st.booleans(),
    batch=st.sampled_from([1, 3, 16]),
)
def test_maps_of_every_odd_size_are_the_slow_reference(
    artifact: Path, tmp_path: Path, height: int, width: int, stride: int, holes: bool, batch: int
) -> None:
    values = smooth(height, width, seed=height * 31 + width)
    if holes:
        values[:, height // 3 : height // 3 + 5, width // 4 : width // 4 + 9] = 0
    scene = make_scene(tmp_path / "scene.tif", values, nodata=0)
    options = ClassifyOptions(stride_px=stride, batch=batch, threads=1, overwrite=True)
    summary = classify_scene(scene, artifact, tmp_path / "out", options)
    assert_map(tmp_path / "out", values, (values > 0).all(0), stride)
    assert sum(c.pixels for c in summary.classes) + summary.nodata_pixels == height * width


@pytest.mark.parametrize("stride", [3, 8])
def test_cells_are_means_of_the_blended_probabilities(artifact: Path, tmp_path: Path, stride: int) -> None:
    values = smooth(26, 31)
    values[:, 5:20, 2:14] = 0
    scene = make_scene(tmp_path / "scene.tif", values, nodata=0)
    summary = classify_scene(
        scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=stride, cells=True, threads=1)
    )
    chances, known = reference_map(values.astype(float), (values > 0).all(0), TILE_PX, stride)
    found = read(tmp_path / "out" / "classes.tif")
    assert found.shape == (-(-26 // stride), -(-31 // stride))
    for y in range(found.shape[0]):
        for x in range(found.shape[1]):
            here = np.s_[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
            inside = known[here]
            mean = chances[:, here[0], here[1]][:, inside].mean(1) if inside.any() else None
            assert found[y, x] == (255 if mean is None else mean.argmax())
    with rasterio.open(tmp_path / "out" / "classes.tif") as dataset:
        assert (dataset.transform.c, dataset.transform.f) == (UTM.c, UTM.f)
        assert dataset.res == (10 * stride, 10 * stride)
    pixels = sum(c.pixels for c in summary.classes)
    assert sum(c.area_km2 or 0 for c in summary.classes) == pytest.approx(pixels * stride**2 * 1e-4)


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"blockysize": 1},
        {"blockysize": 61},
        {"interleave": "pixel", "compress": "lzw"},
        {"interleave": "band", "compress": "zstd"},
    ],
)
def test_the_layout_of_the_file_does_not_matter(artifact: Path, tmp_path: Path, layout: dict[str, object]) -> None:
    values = smooth(61, 40)
    scene = make_scene(tmp_path / "scene.tif", values, **layout)
    classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=5, threads=1))
    assert_map(tmp_path / "out", values, np.ones((61, 40), bool), 5)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_types_and_scales_mean_the_same_reflectance(artifact: Path, tmp_path: Path, dtype: str) -> None:
    values = smooth(20, 20)
    raw, scale = values.astype(dtype), None
    if dtype.startswith("float"):
        raw, scale = (values / 10000).astype(dtype), 1.0
    scene = make_scene(tmp_path / "scene.tif", raw)
    options = ClassifyOptions(stride_px=4, threads=1, scene=SceneOptions(scale=scale))
    classify_scene(scene, artifact, tmp_path / "out", options)
    assert_map(tmp_path / "out", values, np.ones((20, 20), bool), 4)


def test_scale_tags_of_the_scene_are_used(artifact: Path, tmp_path: Path) -> None:
    values = smooth(20, 20)
    scene = make_scene(tmp_path / "scene.tif", (values + 1000).astype(np.uint16), scale=(1e-4, -0.1))
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=4, threads=1))
    assert summary.radiometry["basis"] == "tags"
    assert_map(tmp_path / "out", values, np.ones((20, 20), bool), 4)


def test_bands_are_found_by_name_in_any_order(artifact: Path, tmp_path: Path) -> None:
    values = smooth(20, 20)
    shuffled = np.stack([values[2], np.full_like(values[0], 9000), values[0], values[1]])
    scene = make_scene(tmp_path / "scene.tif", shuffled, descriptions=("B2", "B08", "b04", "Green"))
    classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=4, threads=1))
    assert_map(tmp_path / "out", values, np.ones((20, 20), bool), 4)


@pytest.mark.parametrize("kind", ["nodata", "nan", "mask", "alpha", "one band"])
def test_invalid_pixels_come_out_as_nodata(artifact: Path, tmp_path: Path, kind: str) -> None:
    values, valid = smooth(24, 24), np.ones((24, 24), bool)
    valid[3:9, 10:24] = False
    path = tmp_path / "scene.tif"
    options = SceneOptions()
    if kind == "nodata":
        make_scene(path, np.where(valid, values, 65535).astype(np.uint16), nodata=65535)
    elif kind == "nan":
        make_scene(path, np.where(valid, values / 10000, np.nan).astype(np.float32))
        options = SceneOptions(scale=1)
    elif kind == "mask":
        make_scene(path, values, mask=valid)
    elif kind == "alpha":
        alpha = np.where(valid, 65535, 0).astype(np.uint16)[None]
        make_scene(path, np.concatenate([values, alpha]), photometric="rgb", alpha="yes", descriptions=())
    else:
        values[1][~valid] = 0
        make_scene(path, values, nodata=0)
    summary = classify_scene(path, artifact, tmp_path / "out", ClassifyOptions(stride_px=4, threads=1, scene=options))
    filled = values.copy()
    assert_map(tmp_path / "out", filled, valid, 4)
    assert summary.nodata_pixels >= (~valid).sum()


def test_a_scene_without_valid_pixels_is_all_nodata(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", np.zeros((3, 20, 20), np.uint16), nodata=0)
    summary = classify_scene(scene, artifact, tmp_path / "out")
    assert summary.nodata_pixels == 400
    assert summary.mean_confidence is None
    assert any("nothing was classified" in w for w in summary.warnings)


def test_files_carry_place_names_and_colours(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(30, 40))
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(summary.files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scene.tif"]
    with rasterio.open(tmp_path / "out" / "classes.tif") as dataset:
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32630, UTM, 255)
        assert dataset.tags()["class_1"] == "SeaLake"
        assert dataset.tags(1)["class_1_title"] == "Sea or lake"
        assert dataset.colormap(1)[0] == (0x1B, 0x78, 0x37, 255)
        assert dataset.compression.name == "deflate"
        assert dataset.descriptions == ("class",)
    stored = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(summary.to_dict()))
    assert re.fullmatch("[0-9a-f]{64}", stored["artifact"]["sha256"]["model.onnx"])
    assert sum(c["area_km2"] for c in stored["classes"]) == pytest.approx(30 * 40 * 1e-4)
    assert sum(c["share"] for c in stored["classes"]) == pytest.approx(1)
    with open_quietly(tmp_path / "out" / "quicklook.png") as dataset:
        assert dataset.count == 3
        assert 400 < dataset.width < 1000


def test_same_inputs_give_the_same_bytes_whatever_the_threads(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(90, 70), tiled=True, blockxsize=16, blockysize=16)
    for threads in (1, 3):
        summary = classify_scene(scene, artifact, tmp_path / str(threads), ClassifyOptions(threads=threads))
    for name in summary.files:
        if name != "run.json":
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["rotated", "south-up", "geographic", "gcps", "none"])
def test_the_grid_of_the_scene_is_kept(artifact: Path, tmp_path: Path, kind: str) -> None:
    values, path = smooth(20, 24), tmp_path / "scene.tif"
    corners = [(0, 0), (0, 24), (20, 0), (20, 24)]
    gcps = [GroundControlPoint(r, c, 600000 + 10 * c, 4800000 - 10 * r, 0) for r, c in corners]
    if kind == "rotated":
        make_scene(path, values, transform=Affine(8, 6, 600000, 6, -8, 4800000))
    elif kind == "south-up":
        make_scene(path, values, transform=Affine(10, 0, 600000, 0, 10, 4800000))
    elif kind == "geographic":
        make_scene(path, values, crs="EPSG:4326", transform=from_origin(3, 45, 10 / 78847, 10 / 111132))
    elif kind == "gcps":
        make_scene(path, values, crs="EPSG:32630", transform=None, gcps=gcps)
    else:
        make_scene(path, values, crs=None, transform=None)
    options = ClassifyOptions(stride_px=4, threads=1, scene=SceneOptions(accept_gsd=kind == "none"))
    summary = classify_scene(path, artifact, tmp_path / "out", options)
    area = sum(c.area_km2 or 0 for c in summary.classes)
    assert area == pytest.approx(0 if kind == "none" else 480 * 1e-4, rel=2e-3)
    assert any("no CRS" in w for w in summary.warnings) == (kind == "none")
    with open_quietly(path) as scene, open_quietly(tmp_path / "out" / "classes.tif") as result:
        assert result.crs == scene.crs
        assert result.transform == scene.transform
        assert [(g.row, g.col, g.x, g.y) for g in result.gcps[0]] == [(g.row, g.col, g.x, g.y) for g in scene.gcps[0]]
        assert result.gcps[1] == scene.gcps[1]
    assert_map(tmp_path / "out", values, np.ones((20, 24), bool), 4)


def open_quietly(path: Path) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


def test_thirteen_bands_and_many_classes(tmp_path: Path) -> None:
    bands = tuple(Band(f"B{i:02d}", f"band{i}", 0.5) for i in range(1, 14))
    labels = tuple(ClassLabel(f"c{i}", f"Class {i}", f"{i * 7:06X}") for i in range(40))
    artifact = make_artifact(tmp_path / "artifact", bands=bands, labels=labels, gsd_m=None)
    scene = make_scene(
        tmp_path / "scene.tif",
        smooth(20, 20, bands=13),
        descriptions=tuple(b.name for b in bands),
        crs=None,
        transform=None,
    )
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1))
    assert sum(c.pixels for c in summary.classes) == 400


def test_foreign_files_in_the_folder_are_kept(artifact: Path, tmp_path: Path) -> None:
    scene, out = make_scene(tmp_path / "scene.tif", smooth(20, 20)), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    classify_scene(scene, artifact, out)
    with pytest.raises(InputError, match="--overwrite"):
        classify_scene(scene, artifact, out)
    (out / "classes.tif").write_text("old", encoding="utf-8")
    classify_scene(scene, artifact, out, ClassifyOptions(overwrite=True))
    assert read(out / "classes.tif").shape == (20, 20)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "scene.tif"]


def test_resume_does_not_replace_what_no_run_left(artifact: Path, tmp_path: Path) -> None:
    scene, out = make_scene(tmp_path / "scene.tif", smooth(20, 20)), tmp_path / "out"
    out.mkdir()
    (out / "classes.tif").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="--overwrite"):
        classify_scene(scene, artifact, out, ClassifyOptions(resume=True))
    assert (out / "classes.tif").read_text(encoding="utf-8") == "mine"


def test_an_early_end_leaves_nothing_and_a_late_one_what_is_done(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(80, 20), blockysize=8)
    out = tmp_path / "deep" / "out"

    def interrupt_at(kind: str) -> None:
        def observe(event: Event) -> None:
            if event.kind == kind:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            classify_scene(scene, artifact, out, ClassifyOptions(threads=1), observe)

    interrupt_at("start")
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]
    interrupt_at("band")
    assert [p.name for p in out.iterdir()] == ["unfinished"]
    assert [p.name for p in (out / "unfinished").iterdir()] == ["journal"]
    with pytest.raises(InputError, match="--resume"):
        classify_scene(scene, artifact, out)
    classify_scene(scene, artifact, out, ClassifyOptions(threads=1, resume=True))
    summary = classify_scene(scene, artifact, tmp_path / "whole", ClassifyOptions(threads=1))
    assert sorted(p.name for p in out.iterdir()) == sorted(summary.files)
    for name in summary.files:
        if name != "run.json":
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_stop_keeps_what_is_done_and_a_resumed_run_ends_alike(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(90, 20), blockysize=8)
    asked = iter([None, None, "SIGTERM"])
    found = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(), None, lambda: next(asked, "SIGTERM"))
    assert isinstance(found, Unfinished)
    assert 3 <= found.bands_done < found.bands
    starts: list[Event] = []
    options = ClassifyOptions(resume=True)
    classify_scene(scene, artifact, tmp_path / "out", options, starts.append)
    assert starts[0].data["resumed_bands"] == found.bands_done
    summary = classify_scene(scene, artifact, tmp_path / "whole")
    for name in summary.files:
        if name != "run.json":
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert classify_scene(scene, artifact, tmp_path / "out", options) == summary  # finished: nothing is done again


@pytest.mark.parametrize("change", ["scene", "stride", "artifact"])
def test_a_changed_run_is_not_resumed(artifact: Path, tmp_path: Path, change: str) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(90, 20), blockysize=8)
    classify_scene(scene, artifact, tmp_path / "out", None, None, lambda: "SIGTERM")
    kept = (tmp_path / "out" / "unfinished" / "journal").read_bytes()
    options = ClassifyOptions(resume=True)
    if change == "scene":
        data = bytearray(scene.read_bytes())
        data[-1] ^= 1
        scene.write_bytes(data)
        found = "changed since"
    elif change == "stride":
        options, found = replace(options, stride_px=3), "options.stride_px: found 4, asked 3"
    else:
        artifact, found = make_artifact(tmp_path / "other", synthetic=False), "artifact.manifest.json: found"
    with pytest.raises(InputError, match=found):
        classify_scene(scene, artifact, tmp_path / "out", options)
    assert (tmp_path / "out" / "unfinished" / "journal").read_bytes() == kept


@pytest.mark.parametrize(("name", "value"), [("stride_px", 0), ("batch", 0), ("threads", -1)])
def test_impossible_options_cannot_be_built(name: str, value: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        ClassifyOptions(**{name: value})


def test_a_stride_beyond_the_tile_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the tile"):
        classify_scene(tmp_path / "x.tif", artifact, tmp_path / "out", ClassifyOptions(stride_px=TILE_PX + 1))


def test_real_scene_on_its_own_grid(shared_data: Path, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", tile_px=64, bands=RGB, labels=LABELS)
    scene = shared_data / "scenes" / "s2_t30typ_20181023_10m_b2b3b4b8.tif"
    summary = classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(stride_px=64, threads=1))
    assert [b["scene_band"] for b in summary.scene["bands"]] == [3, 2, 1]
    assert summary.tiles == {"classified": 19 * 19, "skipped": 0}
    with rasterio.open(scene) as before, rasterio.open(tmp_path / "out" / "classes.tif") as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert_map(tmp_path / "out", before.read([3, 2, 1]), np.ones(before.shape, bool), 64, tile=64)


def test_classes_are_as_frequent_as_on_land_unless_asked_otherwise(tmp_path: Path) -> None:
    trained, land = (0.2, 0.3, 0.5), (0.9, 0.02, 0.08)
    labels = tuple(
        replace(label, trained_share=a, land_share=b) for label, a, b in zip(LABELS, trained, land, strict=True)
    )
    artifact = make_artifact(tmp_path / "artifact", labels=labels)
    values = smooth(4 * TILE_PX, 5 * TILE_PX, seed=8)
    scene = make_scene(tmp_path / "scene.tif", values)
    chances, _ = reference_map(values.astype(float), np.ones(values.shape[1:], bool), TILE_PX, TILE_PX)
    # At stride = tile every pixel has one tile's probabilities, so Bayes' rule can be applied to the map.
    weighted = chances * (np.array(land) / np.array(trained))[:, None, None]
    for flag, expected in ((False, weighted / weighted.sum(0)), (True, chances)):
        options = ClassifyOptions(stride_px=TILE_PX, training_prior=flag, threads=1)
        summary = classify_scene(scene, artifact, tmp_path / f"out-{flag}", options)
        assert summary.prior == ("training set" if flag else "land")
        assert (read(tmp_path / f"out-{flag}" / "classes.tif") == expected.argmax(0)).all()
        confidence = read(tmp_path / f"out-{flag}" / "confidence.tif")
        assert (np.abs(confidence - expected.max(0) * 100) <= 0.51).all()
    assert (weighted.argmax(0) != chances.argmax(0)).any()


def test_classes_without_shares_are_left_alone(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(16, 16))
    assert classify_scene(scene, artifact, tmp_path / "out").prior == "training set"


def test_too_little_memory_is_one_line_and_leaves_nothing(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("edgeslim.onboard.run.Recorder", full)
    scene = make_scene(tmp_path / "scene.tif", smooth(20, 30))
    with pytest.raises(InputError, match=r"scene.tif: needs \d+ MiB"):
        classify_scene(scene, artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_result_replaces_its_own_scene(artifact: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "classes.tif", smooth(20, 30))
    before = scene.read_bytes()
    with pytest.raises(InputError, match="the scene itself"):
        classify_scene(scene, artifact, tmp_path, ClassifyOptions(overwrite=True))
    assert scene.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["classes.tif"]
