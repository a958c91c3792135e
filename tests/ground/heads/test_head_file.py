"""A head's file: written whole or not at all, read as it was written or refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import read_header
from edgeslim.ground.heads.head_file import KEY, read_head, write_head
from edgeslim.head_card import HeadCard
from edgeslim.profile import Radiometry
from edgeslim.whole import new_file
from tests.onboard.artifacts import LABELS, RGB

CARD = HeadCard(
    encoder="tiny",
    checkpoint_sha256="0" * 64,
    width_multiplier=1.0,
    architecture=Architecture(
        depth=1, dim=4, attention_heads=1, head_dim=4, ffn_hidden=4, patch_size=8, tile_px=8, bands=3
    ),
    kind="ridge",
    multi_label=False,
    classes=LABELS,
    land_share_source=None,
    bands=RGB,
    gsd_m=10.0,
    radiometry=Radiometry(("L2A",), 1e-4, 0.0, (0.0, 2750.0), (1000.0,) * 3, (500.0,) * 3, 2750 / 255),
    strength=1.0,
    temperature=1.0,
    dataset="tiles",
    split="by tile",
    fitted_tiles=8,
    scored_tiles=4,
    metric="accuracy",
    score=0.75,
    interval=(0.3, 0.95),
    interval_basis="Wilson",
    calibration_error=0.1,
)


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((4, 3), value).T, "bias": torch.zeros(3)}


def test_what_is_written_is_read_and_only_a_head_is_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "new" / "head.safetensors", tmp_path / "link.safetensors"
    write_head(CARD, tensors(), path, overwrite=False)
    found = read_head(path)
    assert found.card == CARD
    assert torch.equal(found.tensors["weight"], tensors()["weight"])
    with pytest.raises(InputError, match="exists already; choose another name or add --overwrite"):
        write_head(CARD, tensors(), path, overwrite=False)
    link.symlink_to(path)
    write_head(CARD, tensors(2.0), link, overwrite=True)
    assert link.is_symlink()
    assert torch.equal(read_head(path).tensors["weight"], tensors(2.0)["weight"])
    assert [one.name for one in path.parent.iterdir()] == ["head.safetensors"]


def test_a_users_part_stays_and_two_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    (tmp_path / "head.safetensors.part").write_text("mine")
    with new_file(path, "-o") as other:  # as if another `edgeslim head` were half-way
        other.write(b"half")
        write_head(CARD, tensors(), path, overwrite=False)
        assert read_head(path).card == CARD
    assert (tmp_path / "head.safetensors.part").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["head.safetensors", "head.safetensors.part"]


def test_a_full_disk_is_one_line_and_the_old_head_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "head.safetensors"
    write_head(CARD, tensors(), path, overwrite=False)
    whole = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=f"^-o {path}: cannot be written .No space left on device.; choose another"):
        write_head(CARD, tensors(2.0), path, overwrite=True)
    assert path.read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir()] == ["head.safetensors"]


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    write_head(CARD, tensors(), path, overwrite=False)
    text = read_header(path)[1][KEY]
    twice = text.replace('"kind": ', '"kind": "knn", "kind": ', 1)
    assert json.loads(twice) == json.loads(text)
    save_file({name: tensor.contiguous() for name, tensor in tensors().items()}, path, metadata={KEY: twice})
    with pytest.raises(InputError, match=f"^--head {path}: 'kind': found more than once, expected each key once"):
        read_head(path)
