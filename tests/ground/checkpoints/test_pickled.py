"""Checkpoints as people have them: what stands around and beside the weights; and hostile ones, which run nothing."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.checkpoints.pickled import pickled_tensors
from tests.ground.conftest import random_vit

ARCH = Architecture(2, 64, 1, 64, 96, 8, 32, 3)
STATE = {name: value.detach().clone() for name, value in random_vit(ARCH).state_dict().items()}
OTHER = {name: value + 1 for name, value in STATE.items()}


def under(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def same(path: Path) -> bool:
    found = read_checkpoint(path, ARCH).encoder
    return all(torch.equal(value, STATE[name]) for name, value in found.items())


LIGHTNING = {
    "state_dict": under("model."),
    "callbacks": {"best": {"score": torch.tensor(0.5)}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    "hyper_parameters": {"data": Path("data"), "lr": 0.1},
    "pytorch-lightning_version": "2.4.0",
}
AS_PEOPLE_HAVE_THEM: dict[str, Any] = {
    "lightning": LIGHTNING,
    "options with a path": {"model": STATE, "args": Namespace(out=Path("out"))},
    "a number of NumPy": {"model": STATE, "best": np.float64(0.9), "mean": np.zeros(3)},
    "teacher and student": {
        "student": under("module.backbone.", OTHER),
        "teacher": under("backbone."),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "epoch": 3,
    },
    "an average beside": {"model": STATE, "model_ema": OTHER, "epoch": 3},
    **{name: {name: STATE, "epoch": 1} for name in ("model_state_dict", "net", "target_encoder", "state_dict_ema")},
    "a history of losses": {"model": STATE, "history": defaultdict(list, loss=[0.5]), "seen": frozenset({1})},
    "an epoch among the names": {**STATE, "epoch": 3},
    "compiled": under("_orig_mod."),
    "compiled in parallel": under("module._orig_mod."),
    "compiled inside": {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in STATE.items()},
    "parameters": {name: torch.nn.Parameter(value) for name, value in STATE.items()},
}


@pytest.mark.parametrize("saved", AS_PEOPLE_HAVE_THEM.values(), ids=AS_PEOPLE_HAVE_THEM)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_weights_are_found_among_what_stands_beside_them(saved: Any, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth.tar"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert encoder_of(str(path)).architecture == ARCH
    assert same(path)


class Calls:
    """What, unpickled by pickle itself, makes a folder."""

    def __init__(self, call: Callable[..., object], argument: object) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object]]:
        return self.call, (self.argument,)


def hostile(mark: Path) -> dict[str, object]:
    return {
        "system": Calls(os.system, f"mkdir {mark}"),
        "nested": {"model": STATE, "x": (1, [{"a": Calls(os.mkdir, str(mark))}])},
        "builtin": {"model": STATE, "x": Calls(exec, f"import os; os.mkdir({str(mark)!r})")},
        "subprocess": {"model": STATE, "x": Calls(__import__("subprocess").getoutput, f"mkdir {mark}")},
    }


@pytest.mark.parametrize("name", hostile(Path("mark")))
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_is_named_and_never_run(name: str, how: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "a.pth"
    saved = hostile(mark)[name]
    if how == "pickle":
        path.write_bytes(pickle.dumps(saved, 2))
    else:
        torch.save(saved, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(InputError, match="not a plain state dict") as caught:
        pickled_tensors(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    if how != "pickle":
        assert "which no weights need: do not trust it" in str(caught.value)


def test_a_class_of_the_users_own_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "own_module_of_a_checkpoint.py"
    source.write_text("class Own:\n    def __setstate__(self, state):\n        raise SystemExit\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = __import__("own_module_of_a_checkpoint").Own
    torch.save({"model": STATE, "x": own()}, tmp_path / "a.pth")
    assert pickled_tensors(tmp_path / "a.pth").keys() == STATE.keys()


def test_compressed_tensors_are_not_taken_for_weights(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(InputError, match=r"in it is compressed, which torch\.save does not do"):
        pickled_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.int8), "blocks.1.mlp.fc1.weight: found int8, expected weights in floating point"),
        (lambda value: value > 0, "found bool, expected weights"),
        (lambda value: value.to(torch.complex64), "found complex64, expected weights"),
        (lambda value: value.to_sparse(), "found float32, sparse_coo, expected weights"),
        (lambda value: value * float("nan"), "blocks.1.mlp.fc1.weight: found NaN or infinite weights"),
    ],
    ids=["int8", "bool", "complex", "sparse", "nan"],
)
def test_what_is_no_weight_is_refused(change: Callable[[Tensor], Tensor], message: str, tmp_path: Path) -> None:
    state = {**STATE, "blocks.1.mlp.fc1.weight": change(STATE["blocks.1.mlp.fc1.weight"])}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "a.pth", ARCH)


def test_a_suffix_does_not_hide_what_a_file_is(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "pytorch_model.bin")
    assert same(tmp_path / "pytorch_model.bin")
    torch.save(STATE, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"one of torch\.save; call it \.pth"):
        encoder_of(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_pointer_says_how_to_fetch_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 12\n", encoding="utf-8")
    with pytest.raises(InputError, match="git lfs pull"):
        encoder_of(str(tmp_path / name))


def test_a_folder_as_a_hub_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    assert main(["plan", "--encoder", str(snapshot), "--device", "raspberry-pi-5"]) == 1
    assert "found a folder without model.safetensors or pytorch_model.bin" in capsys.readouterr().err
    save_file(STATE, snapshot / "model.safetensors")
    assert encoder_of(str(snapshot)).checkpoint == snapshot / "model.safetensors"


def test_damage_is_told_in_one_line_without_advice_to_load_code(tmp_path: Path) -> None:
    written = io.BytesIO()
    torch.save(STATE, written)
    for content in (
        b"",
        b"hello",
        b"hello\nworld\n",
        bytes(5000),
        pickle.dumps(3, 4),
        written.getvalue()[:-3000],
        written.getvalue()[3000:],
    ):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(InputError, match="not a plain state dict") as caught:
            pickled_tensors(tmp_path / "a.pth")
        assert "\n" not in str(caught.value)
        assert re.search(r"\((empty|damaged, or written by something else); copy it again", str(caught.value))
