"""Laws of healing, on tiny encoders of random weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.slimming import healed
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration, tiles_needed
from edgeslim.ground.slimming.healed import HELD_OUT, best_of, heal
from edgeslim.ground.slimming.healing import Healing
from edgeslim.ground.slimming.slim import slim, slim_by
from edgeslim.ground.slimming.taken import Calibrated
from edgeslim.ground.slimming.targets import VIEWS, Targets, make_targets, view
from edgeslim.ground.vit import Vit
from tests.ground.conftest import TINY, random_vit
from tests.ground.counter import count_flop
from tests.ground.slimming.test_calibrated import SHAPES, error, features, tiles_for
from tests.ground.slimming.test_slim import PLAIN


@pytest.fixture
def quick(tmp_path: Path) -> Healing:
    return Healing(tmp_path / "run", steps=6, batch=8, looks=3)


@pytest.fixture(autouse=True)
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healed, "VIEWS_WANTED", 100)


def by_healing(healing: Healing, arch: Architecture, width: float, depth: int | None = None) -> Vit:
    return slim(
        random_vit(arch), width, depth, method="healed", calibration=Calibration(tiles_for(arch)), healing=healing
    )


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES.keys())
def test_width_one_reproduces_the_features(arch: Architecture, quick: Healing) -> None:
    whole = by_healing(quick, arch, 1.0)
    expected = features(random_vit(arch), tiles_for(arch, 4))
    torch.testing.assert_close(features(whole, tiles_for(arch, 4)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", SHAPES.values(), ids=SHAPES.keys())
def test_the_shape_is_that_of_first(arch: Architecture, quick: Healing) -> None:
    made = by_healing(quick, arch, 0.4)
    assert made.arch == arch.at(0.4)
    assert not made.training
    assert sum(value.numel() for value in made.parameters()) == cost.parameters(arch.at(0.4))
    assert count_flop(made, tiles_for(arch)[:1]) == cost.flop(arch.at(0.4))
    assert features(made, tiles_for(arch)).isfinite().all()


def test_a_depth_is_cut_besides(quick: Healing) -> None:
    assert by_healing(quick, PLAIN, 0.5, depth=1).arch == PLAIN.at(0.5, 1)
    short, tiles = slim(random_vit(PLAIN), 1.0, depth=1), tiles_for(PLAIN, 4)
    torch.testing.assert_close(features(by_healing(quick, PLAIN, 1.0, depth=1), tiles), features(short, tiles))


def test_healing_mends_what_calibration_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tiles that neither has seen, features are nearer; and of the held-out ones more neighbours are kept."""
    monkeypatch.setattr(healed, "VIEWS_WANTED", 400)
    healing = Healing(tmp_path, steps=100, batch=32, looks=4, learning_rate=1e-2)
    encoder = random_vit(TINY)
    made = heal(encoder, TINY.at(0.125), Calibration(tiles_for(TINY, count=440)), healing)
    assert made.step > 0
    assert made.neighbours[made.step] > made.neighbours[0]
    unseen = tiles_for(TINY, 5, count=100)
    assert error(encoder, made.encoder, unseen) < 0.8 * error(encoder, made.start.encoder, unseen)


def test_what_healing_breaks_is_left_as_it_was_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    calibration = Calibration(tiles_for(TINY), say=said.append)
    monkeypatch.setattr(healed, "neighbours_kept", lambda found, expected: 0.5)
    made = slim_by("healed", random_vit(TINY), 0.5, None, calibration, Healing(tmp_path, steps=4, batch=4, looks=2))
    assert made.method == "calibrated"
    assert "no state was better than the calibrated weights" in said[-1]
    order = torch.randperm(len(calibration.tiles), generator=torch.Generator().manual_seed(0))
    some = calibration.tiles[order.sort().values]  # of few tiles the calibration needs all
    start = calibrate(random_vit(TINY), TINY.at(0.5), Calibration(some)).encoder.state_dict()
    assert all(torch.equal(value, start[key]) for key, value in made.encoder.state_dict().items())


def test_a_state_that_is_not_finite_is_never_kept(tmp_path: Path) -> None:
    healing = Healing(tmp_path, steps=3, batch=8, looks=3, learning_rate=0.99)
    made = heal(random_vit(TINY), TINY.at(0.5), Calibration(tiles_for(TINY)), healing)
    assert features(made.encoder, tiles_for(TINY)).isfinite().all()
    assert made.step == 0 or made.neighbours[made.step] > made.neighbours[0]


def test_of_equal_states_the_earliest_is_kept() -> None:
    assert best_of({0: 0.4, 5: 0.6, 10: 0.6, 15: 0.5}) == 5
    assert best_of({0: 0.4, 5: -1.0}) == 0


def test_a_seed_decides_all(tmp_path: Path) -> None:
    tiles = tiles_for(TINY, count=64)
    made = [
        heal(random_vit(TINY), TINY.at(0.5), Calibration(tiles, seed), Healing(tmp_path / name, 5, 8, looks=1))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert made[0].neighbours == made[1].neighbours
    one, other, third = (run.encoder.state_dict() for run in made)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert any(not torch.equal(value, third[key]) for key, value in one.items())


RUN = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from edgeslim.ground.slimming import healed, targets
    from edgeslim.ground.slimming.calibration import Calibration
    from edgeslim.ground.slimming.healing import Healing
    from tests.ground.conftest import TINY, random_vit
    from tests.ground.slimming.test_calibrated import tiles_for

    torch.set_num_threads(1)
    folder, dies_at = Path(sys.argv[1]), sys.argv[2]
    healed.VIEWS_WANTED, targets._SAY_EVERY = 100, 2

    def say(line):
        print(line, flush=True)
        if line.startswith(dies_at):
            os.kill(os.getpid(), signal.SIGKILL)

    made = healed.heal(
        random_vit(TINY), TINY.at(0.5), Calibration(tiles_for(TINY), 3, say), Healing(folder, 12, 8, looks=4)
    )
    torch.save({"weights": made.encoder.state_dict(), "kept": made.neighbours}, folder / "made.pt")
"""


def _in_a_process(folder: Path, dies_at: str) -> tuple[int, str]:
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(folder), dies_at]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    assert _in_a_process(tmp_path / "whole", "never")[0] == 0
    for dies_at in ("full encoder: 32 of", "step 9 of"):
        assert _in_a_process(tmp_path / "torn", dies_at)[0] == -signal.SIGKILL
        assert not (tmp_path / "torn" / "made.pt").exists()
    code, said = _in_a_process(tmp_path / "torn", "never")
    assert code == 0
    assert "calibrated already" in said
    assert "resuming after step 9 of 12" in said
    whole, torn = (torch.load(tmp_path / name / "made.pt", weights_only=True) for name in ("whole", "torn"))
    assert whole["kept"] == torn["kept"]
    assert all(torch.equal(value, torn["weights"][key]) for key, value in whole["weights"].items())


def test_a_folder_serves_several_widths_and_mixes_up_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration, healing = Calibration(tiles_for(TINY)), Healing(tmp_path / "shared", 4, 8, looks=1)
    encoder = random_vit(TINY)
    heal(encoder, TINY.at(0.5), calibration, healing)
    apart = heal(encoder, TINY.at(0.25), calibration, replace(healing, folder=tmp_path / "apart"))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the full encoder's features were there")

    monkeypatch.setattr(encoder, "encode", never)
    shared = heal(encoder, TINY.at(0.25), calibration, healing)
    for key, value in shared.encoder.state_dict().items():
        assert torch.equal(value, apart.encoder.state_dict()[key])
    longer = heal(encoder, TINY.at(0.25), calibration, replace(healing, steps=5))
    assert list(longer.neighbours) == [0, 5]


def test_targets_are_the_full_encoders_of_every_view(tmp_path: Path) -> None:
    encoder, tiles = random_vit(PLAIN), tiles_for(PLAIN, count=5)
    made = make_targets(encoder, tiles, torch.arange(5), VIEWS, 0, tmp_path)
    assert len(made) == 5 * VIEWS
    chosen = torch.tensor([0, 7, 39])
    with torch.no_grad():
        encoded = encoder.encode(encoder.embed(made.seen(chosen)))
    torch.testing.assert_close(made.features[chosen], encoder.pool(encoded))
    for row, example in enumerate(chosen.tolist()):
        torch.testing.assert_close(made.encoded(chosen)[row], encoded[row, made.index[example]], rtol=2e-3, atol=2e-3)
    assert (made.index[:, 0] == 0).all()
    assert int(made.index[:, 1:].min()) >= PLAIN.tokens - PLAIN.patches


def test_views_are_the_eight_symmetries_of_a_square() -> None:
    tile = torch.arange(9.0).view(1, 3, 3)
    seen = {tuple(view(tile, number).flatten().tolist()) for number in range(VIEWS)}
    assert len(seen) == VIEWS
    assert torch.equal(view(tile, 0), tile)
    turned = {tuple(view(view(tile, a), b).flatten().tolist()) for a in range(VIEWS) for b in range(VIEWS)}
    assert turned == seen  # closed: a group


def test_what_cannot_heal_is_refused(quick: Healing) -> None:
    encoder, tiles = random_vit(TINY), tiles_for(TINY)
    needed = tiles_needed(TINY)

    def refusal(some: Tensor, healing: Healing | None = quick, method: str = "healed") -> str:
        with pytest.raises(InputError) as caught:
            slim(encoder, 0.5, method=method, calibration=Calibration(some), healing=healing)
        return str(caught.value)

    assert f"found {needed - 1}, expected at least {needed}" in refusal(tiles[1:])
    assert "found (2, 16, 16), expected (bands, height, width) (3, 16, 16)" in refusal(tiles[:, :2])
    holed = tiles.clone()
    holed[4, 0, 3, 3] = float("nan")
    assert f"1 of {needed} hold NaN or infinity, the first is number 5" in refusal(holed)
    assert f"found 1 that differ among {needed}" in refusal(tiles[:1].expand_as(tiles))
    assert "method 'healed': found no healing, expected one" in refusal(tiles, None)
    assert "method 'calibrated': found a healing, expected none" in refusal(tiles, quick, "calibrated")
    assert not quick.folder.exists()
    file = quick.folder.parent / "file"
    file.write_text("mine")
    assert "give another folder by --run" in refusal(tiles, replace(quick, folder=file / "run"))
    with torch.no_grad():
        encoder.blocks[1].mlp.fc2.weight[3, 5] = float("nan")
    assert "calibration: " in refusal(tiles)


def test_values_out_of_their_range_are_refused(tmp_path: Path) -> None:
    for name, value, said in (
        ("steps", 0, "steps: found 0, expected at least 1"),
        ("batch", -1, "batch: found -1"),
        ("learning_rate", 1.5, "learning rate: found 1.5"),
        ("precision", "int8", "precision: found 'int8', expected fp32 or bf16"),
        ("device", "tpu", "device: found 'tpu', expected cpu or cuda"),
    ):
        with pytest.raises(InputError, match=said):
            replace(Healing(tmp_path), **{name: value})  # type: ignore[arg-type]


def test_a_trial_finds_a_rate_that_does_not_break_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healed, "RATES", (1e-8, 3e-3, 2.0))
    said: list[str] = []
    calibration = Calibration(tiles_for(TINY, count=80), say=said.append)
    heal(random_vit(TINY), TINY.at(0.25), calibration, Healing(tmp_path, 1, 8, looks=1))
    (line,) = [line for line in said if line.startswith("loss after 16 steps of a trial")]
    assert line.endswith("; learning rate 0.009")


def test_a_file_of_the_folder_that_is_damaged_is_named(tmp_path: Path, quick: Healing) -> None:
    by_healing(quick, TINY, 0.5)
    (path,) = quick.folder.glob("healed-*.pt")
    path.write_bytes(b"torn")
    with pytest.raises(InputError, match=rf"{path.name}: cannot be read .*; remove it"):
        by_healing(quick, TINY, 0.5)


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    healing = Healing(tmp_path, steps=200, warmup_share=0.1)
    rates = [healing.share(step) for step in range(200)]
    assert rates[19] == pytest.approx(1.0) == max(rates)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0.01 <= rates[-1] < 0.02
    assert sum(healing.looks_after(step) for step in range(1, 201)) == healing.looks
    assert healing.looks_after(200)
    assert [s for s in range(1, 8) if replace(healing, steps=7, looks=10).looks_after(s)] == list(range(1, 8))


def test_held_out_tiles_are_neither_taught_nor_calibrated_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = tiles_for(TINY, count=80)
    seen: dict[str, Tensor] = {}

    def calibrating(encoder: Vit, narrow: Architecture, calibration: Calibration) -> Calibrated:
        seen["calibrated"] = calibration.tiles
        return calibrate(encoder, narrow, calibration)

    def making(encoder: Vit, all_: Tensor, rows: Tensor, views: int, seed: int, folder: Path, **more: Any) -> Targets:
        seen["taught" if views > 1 else "held out"] = all_[rows]
        return make_targets(encoder, all_, rows, views, seed, folder, **more)

    monkeypatch.setattr(healed, "VIEWS_WANTED", 200)
    monkeypatch.setattr(healed, "calibrate", calibrating)
    monkeypatch.setattr(healed, "make_targets", making)
    heal(random_vit(TINY), TINY.at(0.5), Calibration(tiles), Healing(tmp_path, 1, 4, looks=1))
    names = {part: {tile.numpy().tobytes() for tile in some} for part, some in seen.items()}
    assert len(names["held out"]) == 80 // HELD_OUT
    assert len(names["taught"]) == 80 - 80 // HELD_OUT
    assert not names["held out"] & (names["taught"] | names["calibrated"])
