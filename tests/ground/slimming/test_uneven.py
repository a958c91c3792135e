"""Inner sizes for each block: laws on tiny encoders, and a file with them from `slim` to what flies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.errors import InputError
from edgeslim.ground.slimming import uneven
from edgeslim.ground.slimming.allotment import Curve
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.first import first_of
from edgeslim.ground.slimming.slim import slim, slim_by
from edgeslim.ground.slimming.uneven import allotted, calibrate_uneven, shape_of, steps_of
from edgeslim.ground.vit import Vit
from edgeslim.manifest import read_manifest
from edgeslim.planning.plan import read_plan
from tests.ground.conftest import TINY, random_vit
from tests.ground.counter import count_flop
from tests.ground.slimming.test_calibrated import SHAPES, error, features, tiles_for
from tests.ground.slimming.test_slim import PLAIN
from tests.tiles import image_folder

FOUR = replace(TINY, depth=4)


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(list(SHAPES.values())), st.floats(0.05, 0.99), st.booleans())
def test_sizes_keep_to_the_budget_and_to_the_steps(arch: Architecture, width: float, shallow: bool) -> None:
    even = arch.at(width, 1 if shallow else None)
    found = allotted(random_vit(arch), even, Calibration(tiles_for(arch)))
    assert cost.flop(found) <= cost.flop(even)
    assert found.depth == even.depth
    full = arch.at(1.0, even.depth)
    for sizes, steps, whole in zip(found.inner_sizes, steps_of(full, even), full.inner_sizes, strict=True):
        assert all(size % step == 0 for size, step in zip(sizes, steps, strict=True))
        assert all(size <= most for size, most in zip(sizes, whole, strict=True))
    made = Vit(found)
    assert sum(value.numel() for value in made.parameters()) == cost.parameters(found)
    assert count_flop(made, tiles_for(arch, count=1)) == cost.flop(found)


def test_a_seed_decides_the_sizes_and_all_of_it_is_no_choice() -> None:
    encoder, calibration = random_vit(TINY), Calibration(tiles_for(TINY), 1)
    one, other = (allotted(encoder, TINY.at(0.5), calibration) for _ in range(2))
    assert one == other
    assert allotted(encoder, TINY, calibration) is TINY
    whole = slim(encoder, 1.0, method="calibrated", calibration=calibration, uneven=True)
    assert whole.arch == TINY
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in encoder.state_dict().items())


def test_steps_are_those_of_the_even_width_up_to_eight() -> None:
    full = replace(TINY, head_dim=64, ffn_hidden=96)
    for width, expected in ((0.25, (8, 8)), (0.375, (8, 4)), (3 / 64, (1, 4)), (0.3, (1, 4))):
        assert steps_of(full, full.at(width)) == (expected,) * full.depth
    fused = replace(full, branches=3)
    assert steps_of(fused, fused.at(0.5)) == ((8, 24),) * full.depth  # sixteen units of each of three branches


def curves_of(full: Architecture, even: Architecture) -> list[Curve]:
    """Of each block the same; what a step saves falls with its share of the whole, in proportion to its FLOP."""
    (step_dk, step_dh), (dk, dh) = steps_of(full, even)[0], full.inner_sizes[0]
    one = full.sized([(dk, dh)])
    found = []
    for fewer, step, whole in (
        (full.sized([(dk - step_dk, dh)]), step_dk, dk),
        (full.sized([(dk, dh - step_dh)]), step_dh, dh),
    ):
        flop, sizes = cost.flop(one) - cost.flop(fewer), tuple(range(step, whole + 1, step))
        found.append(Curve(sizes, tuple(flop * len(sizes) * (1 - size / whole) ** 2 for size in sizes), flop))
    return found * full.depth


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75])
def test_equal_curves_give_one_width(width: float) -> None:
    even = FOUR.at(width)
    assert shape_of(FOUR, even, curves_of(FOUR, even)) == even


@settings(deadline=None)
@given(st.data(), st.integers(1, 8), st.integers(1, 8))
def test_a_wider_encoder_has_no_narrower_block(data: st.DataObject, one: int, other: int) -> None:
    """Whatever the curves, of the same steps."""
    curves = []
    for _ in range(FOUR.depth):
        for sizes in (tuple(range(1, 9)), tuple(range(5, 41, 5))):
            losses = data.draw(st.lists(st.floats(0, 9), min_size=8, max_size=8))
            curves.append(Curve(sizes, tuple(losses), 1000 * sizes[0]))
    narrow, wide = (shape_of(FOUR, FOUR.at(j / 8), _priced(FOUR, curves)) for j in sorted((one, other)))
    assert cost.flop(narrow) <= cost.flop(FOUR.at(min(one, other) / 8))
    for before, after in zip(narrow.inner_sizes, wide.inner_sizes, strict=True):
        assert all(a <= b for a, b in zip(before, after, strict=True))


def _priced(full: Architecture, curves: list[Curve]) -> list[Curve]:
    """The curves at what their steps do cost."""
    whole, (dk, dh) = cost.flop(full), (full.head_dim, full.ffn_hidden)
    rest = [(dk, dh)] * (full.depth - 1)
    flops = [whole - cost.flop(full.sized([(dk - 1, dh), *rest])), whole - cost.flop(full.sized([(dk, dh - 5), *rest]))]
    return [replace(curve, step_flop=flops[number % 2]) for number, curve in enumerate(curves)]


def test_what_adds_nothing_is_cut_first() -> None:
    """One block's network and another's attention are silent: what they have goes to the others."""
    arch = replace(PLAIN, depth=3)
    encoder = random_vit(arch)
    with torch.no_grad():
        encoder.blocks[1].mlp.fc2.weight.zero_()
        encoder.blocks[2].attn.proj.weight.zero_()
    even = arch.at(0.5)
    shape = allotted(encoder, even, Calibration(tiles_for(arch)))
    (step_dk, step_dh) = steps_of(arch, even)[0]
    assert shape.block_ffn_hidden[1] == step_dh
    assert shape.block_head_dims[2] == step_dk
    assert cost.flop(even) - cost.flop(shape) < 0.1 * cost.flop(even)
    some = Calibration(tiles_for(arch))
    kept = uneven.calibrate(encoder, shape, some).encoder, uneven.calibrate(encoder, even, some).encoder
    assert error(encoder, kept[0], tiles_for(arch, 4)) < error(encoder, kept[1], tiles_for(arch, 4))


@pytest.mark.parametrize(("margin", "taken"), [(-2.0, True), (2.0, False)])
def test_where_it_does_not_pay_one_width_is_kept(monkeypatch: pytest.MonkeyPatch, margin: float, taken: bool) -> None:
    monkeypatch.setattr(uneven, "MARGIN", margin)
    encoder, lines = random_vit(TINY), list[str]()
    calibration = Calibration(tiles_for(TINY), say=lines.append)
    made = calibrate_uneven(encoder, TINY.at(0.5), calibration)
    assert made.encoder.arch.is_uneven == taken
    assert ("taken: uneven" if taken else "uneven does not pay by more than 200%: one width is kept") in lines[-1]
    if not taken:
        one = slim(encoder, 0.5, method="calibrated", calibration=Calibration(tiles_for(TINY)))
        assert all(torch.equal(value, one.state_dict()[key]) for key, value in made.encoder.state_dict().items())


def test_only_calibration_says_where_it_pays() -> None:
    with pytest.raises(InputError, match="found uneven widths, expected them of calibrated only"):
        slim_by("first", random_vit(TINY), 0.5, uneven=True)


def test_an_uneven_encoder_is_cut_by_first_as_it_runs_narrow() -> None:
    """Of each block its own share, and the module that runs at a width is the one that is cut to it."""
    arch = PLAIN.sized([(4, 30), (10, 12)])
    encoder, tiles = random_vit(arch), tiles_for(arch, count=3)
    for width in (0.5, 0.25, 1.0):
        narrow = Vit(arch.at(width)).eval()
        narrow.load_state_dict(first_of(encoder.state_dict(), arch, arch.at(width)))
        with torch.no_grad():
            torch.testing.assert_close(features(narrow, tiles), encoder(tiles, width))
    assert slim(encoder, 0.5, depth=1).arch == PLAIN.sized([(2, 15)])
    made = slim(encoder, 0.5, method="calibrated", calibration=Calibration(tiles_for(arch)))
    assert made.arch == arch.at(0.5)


def test_a_file_with_them_is_an_encoder_of_its_own(
    tiny_cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`slim --uneven`, then `head`, `export`, `check` and `plan` of that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(uneven, "MARGIN", -2.0)
    images, cards = str(image_folder(tmp_path / "images", count=30)), ["--cards", str(tiny_cards)]
    asked = ["slim", "--encoder", "tiny", "-w", "0.5", "--tiles", images, "-o", "uneven.safetensors", *cards]
    assert main([*asked, "--uneven"]) == 2
    assert "--method first: found --uneven, expected it for calibrated only" in capsys.readouterr().err
    assert main([*asked, "--method", "calibrated", "--uneven"]) == 0
    captured = capsys.readouterr()
    assert "tiny at width 0.5: head_dim 8 -> " in captured.out
    assert "looked at block 2 of 2" in captured.err
    (each,) = [line for line in captured.out.splitlines() if line.startswith("head_dim/ffn_hidden of each block: ")]
    sizes = [tuple(map(int, one.split("/"))) for one in each.split(": ")[1].split(", ")]
    shape = TINY.sized(sizes)
    assert shape.is_uneven
    assert cost.flop(shape) <= cost.flop(TINY.at(0.5))

    assert main(["head", "uneven.safetensors", "--tiles", images, "--kind", "ridge", *cards]) == 0
    assert main(["export", "--head", "head.safetensors", "--tiles", images, *cards]) == 0
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest.architecture == shape
    assert manifest.total_parameters == cost.parameters(shape, classes=3)
    assert manifest.gflop_per_tile == cost.flop(shape, classes=3) / 1e9
    assert main(["check"]) == 0
    capsys.readouterr()
    assert main(["encoders", "show", "uneven.safetensors", "--json"]) == 0
    assert shape.to_dict().items() <= json.loads(capsys.readouterr().out)["architecture"].items()
    assert main(["plan", "--device", "raspberry-pi-5-8gb", "--encoder", "uneven.safetensors", "--gflop", "1"]) == 0
    plan = read_plan(tmp_path / "plan.json")
    assert plan.slim_architecture == shape
