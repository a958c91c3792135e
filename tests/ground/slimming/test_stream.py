"""Streaming: the file is that of the encoder slimmed in memory, and no tensor outlives its turn."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import read_header
from edgeslim.ground.checkpoints.checkpoint import (
    Checkpoint,
    OpenCheckpoint,
    open_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from edgeslim.ground.slimming.first import slim_state
from edgeslim.ground.slimming.stream import slim_file
from edgeslim.manifest import read_manifest
from edgeslim.profile import take_profile
from tests.ground.checkpoints.test_branches import FUSED
from tests.ground.conftest import TINY, random_vit
from tests.ground.slimming.test_slim import PLAIN, SATMAE, SWIGLU


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([TINY, PLAIN, SWIGLU, FUSED, SATMAE]), st.floats(0.001, 1.0))
def test_the_file_is_that_of_the_slimmed_encoder(tmp_path: Path, arch: Architecture, width: float) -> None:
    state = random_vit(arch).state_dict()
    kept = arch.at(width).head_dim
    head = torch.randn(3, arch.dim), torch.randn(3)
    write_checkpoint(Checkpoint(arch, state, {kept: head}), tmp_path / "full.safetensors", {}, torch.float32)
    done = slim_file(open_checkpoint(tmp_path / "full.safetensors", arch), width, tmp_path / "slim.safetensors", {})
    expected = slim_state(state, arch, width)
    assert done.architecture == arch.at(width)
    assert done.parameters == sum(value.numel() for value in expected.values())
    assert done.before == sum(value.numel() for value in state.values())
    found = read_checkpoint(tmp_path / "slim.safetensors", arch.at(width))
    assert found.encoder.keys() == expected.keys()
    assert all(torch.equal(found.encoder[name], value) for name, value in expected.items())
    assert all(torch.equal(a, b) for a, b in zip(found.head(kept), head, strict=True))
    # The library reads it, too, and it says what it is.
    assert load_file(tmp_path / "slim.safetensors").keys() == {
        *(f"encoder.{name}" for name in expected),
        f"heads.{kept:02d}.weight",
        f"heads.{kept:02d}.bias",
    }
    _, metadata = read_header(tmp_path / "slim.safetensors")
    assert Architecture.from_dict(json.loads(metadata["architecture"])) == arch.at(width)


def test_no_tensor_outlives_its_turn(tmp_path: Path) -> None:
    state = random_vit(TINY).state_dict()
    alive: list[weakref.ref[Tensor]] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, value in state.items():
            gc.collect()
            assert [one for one in alive if one() is not None] == []
            copy = value.clone()
            alive.append(weakref.ref(copy))
            yield name, copy
            del copy

    slim_file(OpenCheckpoint(TINY, {}, tensors), 0.5, tmp_path / "slim.safetensors", {})
    assert len(alive) == len(state)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    state = random_vit(TINY).state_dict()

    def torn() -> Iterator[tuple[str, Tensor]]:
        yield from list(state.items())[:5]
        raise InputError("full.safetensors: torn")

    with pytest.raises(InputError, match="torn"):
        slim_file(OpenCheckpoint(TINY, {}, torn), 0.5, tmp_path / "slim.safetensors", {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "no").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        slim_file(OpenCheckpoint(TINY, {}, lambda: iter(state.items())), 0.5, tmp_path / "no" / "a.safetensors", {})
    # Two runs write the same bytes.
    for name in ("a", "b"):
        slim_file(
            OpenCheckpoint(TINY, {}, lambda: iter(state.items())), 0.5, tmp_path / f"{name}.safetensors", {"x": "1"}
        )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_slimmed_file_keeps_what_its_card_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["slim", "--encoder", "tiny", "-w", "0.5", "--cards", str(tiny_cards)]) == 0
    whole, slimmed = take_profile("tiny", tiny_cards), encoder_of("slimmed.safetensors")
    assert slimmed.architecture == whole.architecture.at(0.5)
    for field in ("licence", "gsd_m", "bands", "radiometry", "classes", "land_share_source"):
        assert getattr(slimmed, field) == getattr(whole, field), field
    # It flies like any other encoder: nothing has to be said again.
    assert main(["export", "--encoder", "slimmed.safetensors", "-w", "1", "-o", "artifact"]) == 0
    manifest = read_manifest(tmp_path / "artifact")
    assert (manifest.classes, manifest.method) == (whole.classes, "first")
    with safe_open("slimmed.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, "other.safetensors", metadata={**metadata, "method": "calibrated"})
    assert main(["export", "--encoder", "other.safetensors", "-w", "1", "-o", "other"]) == 0
    assert read_manifest(tmp_path / "other").method == "calibrated"
    capsys.readouterr()
    for card, said in (
        ("[", "its own card is not JSON"),
        ('{"licence": 3}', "licence: found 3"),
        ('{"checkpoint": "/etc/passwd"}', "unknown key 'checkpoint'"),
        ('{"band": [{"name": "B04", "common_name": "red"}]}', "found 1 bands, expected 3"),
    ):
        save_file(tensors, "bad.safetensors", metadata={**metadata, "card": card})
        assert main(["plan", "--device", "rpi4", "--encoder", "bad.safetensors"]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert said in line
