from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint, shapes_of, write_checkpoint
from tests.ground.conftest import TINY, random_vit


def _state() -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in random_vit(TINY).state_dict().items()}


def test_round_trip(tmp_path: Path) -> None:
    head = (torch.randn(3, 24), torch.randn(3))
    write_checkpoint(Checkpoint(TINY, _state(), {8: head, 2: head}), tmp_path / "a.safetensors", {}, torch.float32)
    read = read_checkpoint(tmp_path / "a.safetensors", TINY)
    assert sorted(read.heads) == [2, 8]
    assert torch.equal(read.head(8)[1], head[1])
    assert torch.equal(read.head(2)[0], head[0])
    assert all(torch.equal(read.encoder[key], value) for key, value in _state().items())
    with pytest.raises(InputError, match=r"no head for 5 dimensions a head \(has: 2, 8\)"):
        read.head(5)


def test_timm_keys_and_plain_pth(tmp_path: Path) -> None:
    torch.save(
        {"model": {**_state(), "head.weight": torch.randn(3, 24), "head.bias": torch.randn(3)}}, tmp_path / "a.pth"
    )
    read = read_checkpoint(tmp_path / "a.pth", TINY)
    assert list(read.heads) == [8]


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": Hostile(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="not a plain state dict"):
        read_checkpoint(tmp_path / "bad.pth", TINY)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), "nearest is timm: norm.weight: found none"),
        (lambda s: s.update({"norm.weight": torch.ones(7)}), r"norm.weight has shape \(7,\), expected \(24,\)"),
        (lambda s: s.update({"decoder.x": torch.ones(7)}), "nearest is timm: decoder.x: not known"),
    ],
)
def test_another_encoder_is_named(tmp_path: Path, change: object, message: str) -> None:
    state = _state()
    change(state)  # type: ignore[operator]
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "a.safetensors", TINY)


def test_missing_truncated_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        read_checkpoint(tmp_path / "none.safetensors", TINY)
    write_checkpoint(Checkpoint(TINY, _state(), {}), tmp_path / "a.safetensors", {}, torch.float16)
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_checkpoint(tmp_path / "cut.safetensors", TINY)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(InputError, match="not a plain state dict"):
        read_checkpoint(tmp_path / "text.pth", TINY)


def test_nothing_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(Checkpoint(TINY, _state(), {}), tmp_path / "no" / "a.safetensors", {}, torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["no"]


def test_a_state_dict_for_each_part_is_read_under_the_parts_names(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(2), "b": torch.ones(3)}
    torch.save({"s1_encoder": state, "step": {"deep": {"x": torch.ones(1)}}}, tmp_path / "a.pth")
    assert shapes_of(tmp_path / "a.pth") == {"s1_encoder.a.weight": (2,), "s1_encoder.b": (3,), "step.deep.x": (1,)}
    torch.save({"a": {"b": {"c": {"d": torch.ones(1)}}}}, tmp_path / "deep.pth")
    torch.save({"s1_encoder": [*state.values()], "epoch": 3}, tmp_path / "other.pth")
    for name in ("deep", "other"):
        with pytest.raises(InputError, match="found no state dict, expected names and tensors"):
            shapes_of(tmp_path / f"{name}.pth")
