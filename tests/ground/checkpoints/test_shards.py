"""Checkpoints in several files, as Hugging Face's own library writes them, and indexes that are not to be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint, shapes_of
from tests.ground.conftest import random_vit

ARCH = Architecture(2, 64, 1, 64, 96, 8, 32, 3)
STATE = {name: value.detach().clone() for name, value in random_vit(ARCH).state_dict().items()}
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin.index.json"


@pytest.fixture(params=[INDEX, PICKLED], ids=["safetensors", "pickled"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    folder.mkdir()
    save_torch_state_dict(STATE, folder, max_shard_size="40KB", safe_serialization=request.param == INDEX)
    assert len([path for path in folder.iterdir() if path.suffix != ".json"]) > 2
    path: Path = folder / request.param
    assert path.is_file()
    return path


def same(path: Path) -> bool:
    found = read_checkpoint(path, ARCH).encoder
    return found.keys() == STATE.keys() and all(torch.equal(value, STATE[name]) for name, value in found.items())


def rewrite(index: Path, weight_map: Any) -> None:
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def weight_map(index: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return found


def test_the_folder_and_the_index_stand_for_all_files(index: Path) -> None:
    assert encoder_of(str(index.parent)).checkpoint == index
    assert encoder_of(str(index)).architecture == ARCH
    assert shapes_of(index) == {name: tuple(value.shape) for name, value in STATE.items()}
    assert same(index)


def test_slimmed_alike_from_one_file_and_from_several(index: Path, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "whole.safetensors")
    for name, encoder in (("several", index.parent), ("one", tmp_path / "whole.safetensors")):
        out = tmp_path / f"{name}.safetensors"
        assert main(["slim", "--encoder", str(encoder), "-w", "0.5", "-o", str(out)]) == 0
    assert shapes_of(tmp_path / "several.safetensors") == shapes_of(tmp_path / "one.safetensors")
    several, one = (read_own(tmp_path / f"{name}.safetensors") for name in ("several", "one"))
    assert all(torch.equal(several[name], one[name]) for name in one)


def read_own(path: Path) -> Mapping[str, torch.Tensor]:
    return read_checkpoint(path, encoder_of(str(path)).architecture).encoder


def test_files_may_be_links_as_in_the_hubs_own_cache(index: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in index.parent.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert same(snapshot / index.name)


def test_a_file_that_is_missing_is_named(index: Path) -> None:
    lost = sorted(set(weight_map(index).values()))[1]
    (index.parent / lost).unlink()
    with pytest.raises(InputError, match=rf"found \d+ of its \d+ files, missing {lost}; copy those"):
        encoder_of(str(index.parent))


def test_a_torn_file_is_named(index: Path) -> None:
    torn = index.parent / sorted(set(weight_map(index).values()))[1]
    torn.write_bytes(torn.read_bytes()[:-2000])
    with pytest.raises(InputError, match=torn.name):
        encoder_of(str(index.parent))


def test_an_index_of_another_version_is_refused(index: Path) -> None:
    places = weight_map(index)
    files = sorted(set(places.values()))
    moved = next(name for name, file in places.items() if file == files[0])
    rewrite(index, {**places, moved: files[1]})
    with pytest.raises(InputError, match=rf"{moved} is not in {files[1]}, where it says; copy all files"):
        encoder_of(str(index))


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "a\0b"])
def test_no_file_outside_the_folder_is_opened(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    folder = tmp_path / "encoder"
    folder.mkdir()
    rewrite(folder / INDEX, dict.fromkeys(STATE, name))
    with pytest.raises(InputError, match="expected names of files beside it; do not trust it") as caught:
        encoder_of(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "nonsense", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000],
)
def test_what_is_no_index_is_refused_in_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / INDEX).write_text(text, encoding="utf-8")
    assert main(["plan", "--encoder", str(tmp_path), "--device", "raspberry-pi-5"]) == 1
    said = capsys.readouterr().err
    assert f"{INDEX}: no index of a checkpoint in several files; copy it again" in said.replace("\n", " ")
    assert "Traceback" not in said
