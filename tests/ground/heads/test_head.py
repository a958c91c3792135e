"""`edgeslim head` from tiles to a map: what it prints, writes and refuses, and that its head is the one that flies."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from edgeslim.cli import main
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.golden import golden_tiles
from edgeslim.ground.heads.head_file import read_head
from edgeslim.manifest import read_manifest
from edgeslim.onboard.check import read_golden
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.profile import load_profile
from tests.ground.conftest import TINY
from tests.tiles import geotiff_folder, image_folder, pixels, write


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images"), count=30)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 1) -> str:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return line


def test_head_export_classify(here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert main(["head", "tiny", "--tiles", str(images), "-w", "0.5", "--kind", "ridge", *cards]) == 0
    out = capsys.readouterr().out
    assert re.search(r"score +accuracy (9\d\.\d|100\.0)%, 95 % interval", out)
    assert "Wilson; " in out
    head = read_head(here / "head.safetensors")
    assert head.card.width_multiplier == 0.5
    assert (head.card.classes[0].name, head.card.classes[0].color) == ("Forest", "1E6B33")
    assert sum(c.trained_share or 0 for c in head.card.classes) == pytest.approx(1, abs=1e-4)
    picture = (here / "head.svg").read_text()
    assert picture.startswith("<svg")
    assert picture.count('class="count') == 9
    assert main(["export", "--head", "head.safetensors", "--tiles", str(images), *cards]) == 0
    manifest = read_manifest(here / "artifact")
    assert manifest.name == "tiny-w0.5"
    assert [c.name for c in manifest.classes] == ["Forest", "Highway", "River"]
    tiles, logits = read_golden(here / "artifact", manifest)
    _, features = open_runtime(here / "artifact", manifest, 1).outputs(tiles)
    expected = features @ head.tensors["weight"].numpy().T + head.tensors["bias"].numpy()
    assert logits == pytest.approx(expected, abs=2e-3)
    white = np.full((3, 64, 64), 255, np.uint8)
    parts = [*(np.tile(pixels(name, 3), (1, 4, 4)) for name in ("Forest", "River")), white]
    scene = np.concatenate(parts, axis=2)
    write(here / "scene.tif", np.rint(scene.astype(float) * 2750 / 255).astype(np.uint16), "GTiff", photometric="RGB")
    capsys.readouterr()
    assert main(["classify", "scene.tif", "-o", "map", "--accept-gsd", "--stride", "16", "--training-prior"]) == 0
    assert (
        "48 tiles classified, 16 of them unlike any that the head was fitted on, 0 skipped" in capsys.readouterr().out
    )
    summary = json.loads((here / "map" / "summary.json").read_text())
    shares = {row["name"]: row["share"] for row in summary["classes"]}
    assert shares == pytest.approx({"Forest": 1 / 3, "Highway": 0, "River": 1 / 3, "unknown": 1 / 3})
    assert summary["unknown_tiles"] == 16
    with gdal_environment(), rasterio.open(here / "map" / "classes.tif") as dataset:
        assert (dataset.read(1)[:, 128:] == 3).all()
        assert dataset.tags()["class_3"] == "unknown"
    item = json.loads((here / "map" / "stac-item.json").read_text())
    assert "unknown" in json.dumps(item)
    for index in range(3):
        write(here / "others" / "Snow" / f"{index}.png", white[:, :16, :16] - np.uint8(index), "PNG")
        write(here / "others" / "River" / f"{index}.png", pixels("River", index), "PNG")
    assert main(["evaluate", "--tiles", "others", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tiles"], found["other_tiles"], found["other_unknown"]) == (3, 3, 3)
    assert found["labels"] == ["Forest", "Highway", "River", "other classes"]
    assert found["answers"] == ["Forest", "Highway", "River", "unknown"]
    assert found["confusion"][3] == [0, 0, 0, 3]
    assert found["named_accuracy"] == 1


def test_geotiffs_are_split_by_blocks_of_ground(
    here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = geotiff_folder(here / "tif")
    assert main(["head", "tiny", "--tiles", str(folder), "--block-m", "1600", "--cards", str(tiny_cards)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "spatial blocks of 1,600 m, " in out
    assert "bootstrap over " in out
    card = read_head(here / "head.safetensors").card
    assert card.interval[0] <= card.score <= card.interval[1]
    assert card.gsd_m == pytest.approx(10, abs=0.1)
    profile, _ = read_head(here / "head.safetensors").at_work(
        load_profile(tiny_cards / "profiles" / "tiny.toml"),
        read_checkpoint(tiny_cards / "profiles" / "tiny.safetensors", TINY),
        card.checkpoint_sha256,
    )
    golden = golden_tiles(profile, folder)  # GeoTIFFs prove an export as images do
    assert len(golden) == 16
    assert golden.labels is not None
    assert golden.tiles.max() <= 2750
    line = fails(capsys, ["head", "tiny", "--tiles", str(folder), "-o", "b.safetensors", "--block-m", "90000",
                          "--cards", str(tiny_cards)])  # fmt: skip
    assert "all lie in one block" in line


def test_neighbours_are_scored_and_do_not_fly(
    here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert main(["head", "tiny", "--tiles", str(images), "--kind", "knn", *cards]) == 0
    assert "nearest neighbours by cosine" in capsys.readouterr().out
    line = fails(capsys, ["export", "--head", "head.safetensors", *cards])
    assert "found knn, expected logistic or ridge" in line
    assert not (here / "artifact").exists()


def test_several_classes_a_tile(here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(images.rglob("*.png"))]
    rows += [row.replace(",River", ",wet") for row in rows if row.endswith(",River")]
    (here / "labels.csv").write_text("file,class\n" + "\n".join(rows) + "\n")
    arguments = ["head", "tiny", "--tiles", str(images), "--labels", "labels.csv", "--cards", str(tiny_cards)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "micro F1" in out
    assert "several a tile" in out
    card = read_head(here / "head.safetensors").card
    assert card.multi_label
    assert [c.name for c in card.classes] == ["Forest", "Highway", "River", "wet"]
    assert not (here / "head.svg").exists()


def test_an_encoder_without_a_card_takes_the_tiles_own_statistics(
    here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tiny_cards / "profiles" / "tiny.safetensors", here / "found.safetensors")
    arguments = ["head", "found.safetensors", "--tiles", str(images), "-w", "0.5", "-o", "own.safetensors"]
    assert main(arguments) == 0
    told = capsys.readouterr().err
    assert "uint8 values are normalised by the mean and deviation of these tiles, clipped to 0 … 255" in told
    card = read_head(here / "own.safetensors").card
    assert card.radiometry.clip == (0, 255)
    grey = np.stack([pixels(p.parent.name, int(p.stem.split("_")[1])) for p in sorted(images.rglob("*.png"))])
    assert card.radiometry.mean == pytest.approx(grey.mean((0, 2, 3), dtype=np.float64), abs=1e-4)
    assert card.radiometry.std == pytest.approx(grey.std((0, 2, 3), dtype=np.float64), abs=1e-3)
    line = fails(capsys, ["export", "--head", "own.safetensors"])
    assert "licence of the weights: found 'unknown'" in line
    assert main(["export", "--head", "own.safetensors", "--tiles", str(images), "--accept-licence"]) == 0
    assert read_manifest(here / "artifact").name == "found-w0.5"


def test_a_head_flies_on_its_own_encoder_alone(
    here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert main(["head", "tiny", "--tiles", str(images), "-w", "0.5", *cards]) == 0
    capsys.readouterr()
    export = ["export", "--head", "head.safetensors", *cards]
    assert "fitted at width 0.5, found 0.25" in fails(capsys, [*export, "-w", "0.25"], 2)
    assert "another encoder (tiny) than eurosat-rgb" in fails(capsys, [*export, "--encoder", "eurosat-rgb"], 2)
    other = {k: v + 1 for k, v in torch_state(tiny_cards).items()}
    from safetensors.torch import save_file

    save_file(other, here / "other.safetensors")
    assert "was fitted on weights with SHA-256" in fails(capsys, [*export, "--checkpoint", "other.safetensors"])
    assert "exists already" in fails(capsys, ["head", "tiny", "--tiles", str(images), *cards])
    assert "found suffix '.pt'" in fails(capsys, ["head", "tiny", "--tiles", str(images), "-o", "x.pt", *cards])
    Path("file").write_text("mine")
    assert "found a file at" in fails(capsys, ["head", "tiny", "--tiles", "x", "-o", "file/x.safetensors", *cards])
    (here / "mine.svg").write_text("<svg/>")
    taken = ["head", "tiny", "--tiles", "x", "-o", "mine.safetensors", "--overwrite", *cards]
    assert "is no confusion matrix, kept it" in fails(capsys, taken)
    assert "is no head" in fails(capsys, ["export", "--head", "other.safetensors"])
    assert "found no such file" in fails(capsys, ["export", "--head", "gone.safetensors"])


def torch_state(cards: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(cards / "profiles" / "tiny.safetensors")


def test_a_plan_gives_encoder_and_width(
    here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = ["--cards", str(tiny_cards)]
    assert main(["plan", "--device", "raspberry-pi-5-8gb", "--encoder", "tiny", *cards, "--gflop", "0.0003"]) == 0
    assert main(["head", "plan.json", "--tiles", str(images), *cards]) == 0
    width = read_head(here / "head.safetensors").card.width_multiplier
    assert width < 1
    assert main(["export", "plan.json", "--head", "head.safetensors", "-o", "planned", *cards]) == 0
    assert read_manifest(here / "planned").plan["device"] == "raspberry-pi-5-8gb"
    capsys.readouterr()
    again = ["head", "plan.json", "--tiles", str(images), "-o", "again.safetensors", *cards]
    assert "found both the plan" in fails(capsys, [*again, "-w", "1"], 2)


def test_a_real_encoder_that_had_no_head_flies(
    here: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, zipped = shared_data / "weights" / "vit_s14_imgfocus_fp16.safetensors", shared_data / "eurosat"
    if not weights.exists() or not (zipped / "eurosat_rgb_train.zip").exists():
        pytest.skip("no ViT-S/14 or no EuroSAT in shared/data: the test on a real encoder is left out")
    with zipfile.ZipFile(zipped / "eurosat_rgb_train.zip") as archive:
        for name in ("Forest", "Residential"):
            for entry in [n for n in sorted(archive.namelist()) if f"/{name}/" in n and n.endswith(".jpg")][:10]:
                path = here / "tiles" / name / Path(entry).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(entry))
    head = ["head", str(weights), "--tiles", "tiles", "-w", "0.1", "--tile-px", "112", "--resample"]
    assert main([*head, "--gsd-m", "10", "--scale", str(0.275 / 255)]) == 0
    card = read_head(here / "head.safetensors").card
    assert card.gsd_m == pytest.approx(10 * 64 / 112)
    assert card.architecture.tile_px == 112
    assert main(["export", "--head", "head.safetensors", "--accept-licence", "--tiles", "tiles"]) == 1
    assert "Forest_1.jpg is 64x64 px, expected 112x112" in capsys.readouterr().err
    assert main(["export", "--head", "head.safetensors", "--accept-licence", "--tiles", "tiles", "--resample"]) == 0
    certificate = read_manifest(here / "artifact").certificate
    assert certificate is not None
    assert certificate.verdict == "proven on 20 real tiles, fewer than 1000"
    assert certificate.score is not None
    assert read_manifest(here / "artifact").name == "vit_s14_imgfocus_fp16-w0.1"
    capsys.readouterr()
    assert main(["evaluate", "--tiles", "tiles", "--resample", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one", "found one class (Forest), expected at least 2"),
        ("few", "too few tiles of River 2; expected at least 5 of each class"),
        ("size", "is 8x8 px, expected 16x16 px"),
        ("grey", "found 1 band (gray), expected 3 bands"),
        ("torn", "none of 10 tiles can be used (10: cannot be read)"),
        ("gone", "found neither a folder nor a zip"),
    ],
)
def test_tiles_that_cannot_do(
    name: str, said: str, here: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = here / "tiles"
    if name == "one":
        image_folder(folder, 6, classes=("Forest",))
    elif name == "few":
        image_folder(folder, 6, classes=("Forest",))
        image_folder(folder, 2, classes=("River",))
    elif name == "size":
        image_folder(folder, 6, tile_px=8)
    elif name in ("grey", "torn"):
        for label in ("a", "b"):
            for index in range(5):
                write(folder / label / f"{index}.png", pixels("Forest", index)[:1], "PNG")
                if name == "torn":
                    (folder / label / f"{index}.png").write_bytes(b"torn")
    assert said in fails(capsys, ["head", "tiny", "--tiles", str(folder), "--cards", str(tiny_cards)])
    assert not (here / "head.safetensors").exists()


def test_features_that_make_other_tiles_unknown_leave_no_artifact(
    here: Path, images: Path, tiny_cards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeslim.ground.exporting import export as stages

    cards = ["--cards", str(tiny_cards)]
    assert main(["head", "tiny", "--tiles", str(images), "-w", "0.5", *cards]) == 0
    whole = stages.run_all

    def coarse(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        logits, features = whole(*arguments)  # type: ignore[arg-type]
        return logits, features + np.float32(3)

    monkeypatch.setattr(stages, "run_all", coarse)
    capsys.readouterr()
    line = fails(capsys, ["export", "--head", "head.safetensors", "--tiles", str(images), *cards], 4)
    assert re.search(r"calls 100\.0% of 90 tiles unknown where torch calls \d\.\d%", line)
    assert not (here / "artifact").exists()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["head", "tiny", "--tiles", str(images), "--unknown-share", "0", "-o", "all.safetensors", *cards]) == 0
    assert read_head(here / "all.safetensors").known() is None
    assert "expected a share from 0" in fails(capsys, ["head", "tiny", "--tiles", "x", "--unknown-share", "1"], 2)
