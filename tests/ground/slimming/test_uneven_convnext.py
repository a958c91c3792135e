"""Hidden channels for each block of a ConvNeXt V2: laws on tiny encoders, and a file with them up to what flies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgeslim import cost
from edgeslim.cli import main
from edgeslim.cli.encoder import encoder_of
from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.convnext import Block, ConvNext
from edgeslim.ground.slimming import uneven
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.slim import slim, slim_by
from edgeslim.ground.slimming.uneven import allotted, calibrate_uneven
from edgeslim.manifest import read_manifest
from edgeslim.planning.plan import read_plan
from tests.ground.checkpoints.test_convnext_families import ARCH as FILE_ARCH
from tests.ground.checkpoints.test_convnext_families import timm_state
from tests.ground.counter import count_flop
from tests.ground.slimming.test_calibrated_convnext import card_of, error, features, lively
from tests.ground.slimming.test_healed_convnext import TINY
from tests.ground.test_convnext import tiles
from tests.tiles import image_folder

FOUR = replace(TINY, depths=(2, 2))
BEFORE_STEM = replace(FOUR, stem_stride=2, conv_before_stem=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads wait for each other longer than networks this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def calibration(arch: ConvNextArchitecture, seed: int = 0) -> Calibration:
    return Calibration(tiles(arch, 60), seed)


def block(encoder: ConvNext, stage: int, number: int) -> Block:
    found = encoder.stages[stage].blocks[number]  # type: ignore[union-attr,index]
    assert isinstance(found, Block)
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=4, max_size=4), st.sampled_from([FOUR, BEFORE_STEM]), st.integers(3, 4))
def test_the_closed_forms_hold_on_the_module(sizes: list[int], full: ConvNextArchitecture, depth: int) -> None:
    arch = full.sized(sizes).at(1.0, depth)
    made = ConvNext(arch).eval()
    assert [part.mlp.fc1.out_channels for part in made.modules() if isinstance(part, Block)] == sizes[:depth]
    assert sum(value.numel() for value in made.parameters()) == cost.parameters(arch)
    assert count_flop(made, tiles(arch)) == cost.flop(arch, batch=2)


def test_an_uneven_encoder_is_cut_by_first_as_it_runs_narrow() -> None:
    arch = FOUR.sized([24, 10, 7, 40])
    encoder, given_ = lively(arch), tiles(arch, 3)
    for width in (0.5, 0.25, 1.0):
        narrow = ConvNext(arch.at(width)).eval()
        narrow.load_state_dict(first_of(encoder.state_dict(), arch, arch.at(width)))
        with torch.no_grad():
            torch.testing.assert_close(features(narrow, given_), encoder(given_, width))
    assert slim(encoder, 0.5, depth=3).arch == arch.at(0.5, 3)


@pytest.mark.parametrize("arch", [FOUR, BEFORE_STEM], ids=["usual", "convolution before the stem"])
@pytest.mark.parametrize(("width", "depth"), [(0.5, None), (0.2, None), (0.5, 3)])
def test_sizes_keep_to_the_budget_and_to_the_steps(arch: ConvNextArchitecture, width: float, depth: int | None) -> None:
    even = arch.at(width, depth)
    found = allotted(lively(arch), even, calibration(arch))
    assert isinstance(found, ConvNextArchitecture)
    assert cost.flop(found) <= cost.flop(even)
    assert (found.depths, found.dims) == (even.depths, even.dims)
    full = arch.at(1.0, depth)
    for size, one, most in zip(found.inner_sizes, even.inner_sizes, full.inner_sizes, strict=True):
        assert size % next(step for step in (8, 4, 2, 1) if not one % step and not most % step) == 0
        assert size <= most


def test_what_adds_nothing_is_cut_first() -> None:
    """One block is silent: what it has goes to the others, and held-out features are nearer for it."""
    encoder = lively(FOUR)
    with torch.no_grad():
        block(encoder, 1, 0).mlp.fc2.weight.zero_()
    even = FOUR.at(0.5)
    shape = allotted(encoder, even, calibration(FOUR))
    assert shape.inner_sizes[2] == 4  # a step, of 20 and 40
    assert cost.flop(even) - cost.flop(shape) < 0.05 * cost.flop(even)
    fresh = tiles(FOUR, 160)[60:]
    one, other = (calibrate(encoder, arch, calibration(FOUR)).encoder for arch in (shape, even))
    assert error(encoder, one, fresh) < error(encoder, other, fresh)


def test_what_is_not_felt_is_cut_first() -> None:
    """Behind a block that adds a hundred times as much, what the next one loses is as large, and yet nothing."""
    encoder = lively(FOUR)
    with torch.no_grad():
        block(encoder, 0, 0).mlp.fc2.weight.mul_(100)
    before, after = (allotted(one, FOUR.at(0.5), calibration(FOUR)).inner_sizes for one in (lively(FOUR), encoder))
    assert after[1] == 4 < before[1]


def test_a_seed_decides_the_sizes_and_all_of_it_is_no_choice() -> None:
    encoder = lively(FOUR)
    one, other = (allotted(encoder, FOUR.at(0.5), calibration(FOUR, 1)) for _ in range(2))
    assert one == other
    assert allotted(encoder, FOUR, calibration(FOUR)) is FOUR
    whole = slim(encoder, 1.0, method="calibrated", calibration=calibration(FOUR), uneven=True)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(("margin", "taken"), [(-2.0, True), (2.0, False)])
def test_where_it_does_not_pay_one_width_is_kept(monkeypatch: pytest.MonkeyPatch, margin: float, taken: bool) -> None:
    monkeypatch.setattr(uneven, "MARGIN", margin)
    encoder, lines = lively(FOUR), list[str]()
    made = calibrate_uneven(encoder, FOUR.at(0.3), replace(calibration(FOUR), say=lines.append))
    assert (made.encoder.arch != FOUR.at(0.3)) == taken
    assert ("taken: uneven" if taken else "one width is kept") in lines[-1]
    one = slim(encoder, 0.3, method="calibrated", calibration=calibration(FOUR)).state_dict()
    if not taken:
        assert all(torch.equal(value, one[key]) for key, value in made.encoder.state_dict().items())


def test_what_cannot_be_uneven_is_refused() -> None:
    encoder = lively(FOUR)
    with pytest.raises(InputError, match="depth: found 2, expected at least 3"):
        slim_by("calibrated", encoder, 0.5, 2, calibration(FOUR), uneven=True)
    with pytest.raises(InputError, match="found 20, expected at least 40 for 40 hidden units"):
        slim_by("calibrated", encoder, 0.5, None, Calibration(tiles(FOUR, 20)), uneven=True)
    with pytest.raises(InputError, match="found uneven widths, expected them of calibrated only"):
        slim_by("first", encoder, 0.5, uneven=True)


def test_a_file_with_them_is_an_encoder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`slim --uneven`, then `head`, `export`, which proves it, and `plan` of that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(uneven, "MARGIN", -2.0)
    save_file(timm_state(), "a.safetensors")
    card_of(FILE_ARCH, Path("a.safetensors"), Path("cards"))
    images, cards = str(image_folder(tmp_path / "images", count=45, tile_px=64)), ["--cards", "cards"]
    asked = ["slim", "--encoder", "own", "-w", "0.5", "--tiles", images, "-o", "uneven.safetensors", *cards]
    assert main([*asked, "--method", "calibrated", "--uneven"]) == 0
    captured = capsys.readouterr()
    assert "own at width 0.5: hidden channels 32/64/96/128 -> " in captured.out
    assert "looked at block 6 of 6" in captured.err
    (each,) = [line for line in captured.out.splitlines() if line.startswith("hidden channels of each block: ")]
    shape = replace(FILE_ARCH, tile_px=64).sized([int(size) for size in each.split(": ")[1].split(", ")])
    assert shape.is_uneven
    assert cost.flop(shape) <= cost.flop(replace(FILE_ARCH, tile_px=64).at(0.5))
    assert encoder_of("uneven.safetensors").architecture == shape

    assert main(["head", "uneven.safetensors", "--tiles", images, "--kind", "ridge", *cards]) == 0
    assert main(["export", "--accept-licence", "--head", "head.safetensors", "--tiles", images, *cards]) == 0
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest.architecture == shape
    assert manifest.total_parameters == cost.parameters(shape, classes=3)
    budget = ["--device", "raspberry-pi-5-8gb", "--gflop", "1"]
    assert main(["plan", *budget, "--encoder", "uneven.safetensors"]) == 0
    assert read_plan(tmp_path / "plan.json").slim_architecture == shape
