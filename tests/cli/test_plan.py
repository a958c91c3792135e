"""`edgeslim plan` as it is typed. EDGESLIM_GOLDEN=write rewrites the golden texts."""

import json
import os
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgeslim.cli.plan import plan as verb
from edgeslim.errors import EdgeslimError, InputError, NothingFits, UnknownName, UsageError
from edgeslim.planning.plan import read_plan
from edgeslim.shelf import shelf_folder

GOLDEN = Path(__file__).parent.parent / "golden"
CARD = """
schema = 1
id = "small"
name = "Small"
licence = "Apache-2.0"
source = "a test"
[architecture]
depth = 5
dim = 160
attention_heads = 5
head_dim = 32
ffn_hidden = 512
patch_size = 8
tile_px = 64
bands = 3
class_token = false
pool = "mean"
stem_channels = [16, 32, 64]
[[score]]
width_multiplier = 0.75
metric = "accuracy"
dataset = "test part"
value = 0.953
source = "a test"
[[class]]
name = "A"
title = "A"
color = "FF0000"
[[class]]
name = "B"
title = "B"
color = "00FF00"
"""

SCORED = CARD.replace('id = "small"', 'id = "scored"') + "".join(
    f"""
[[score]]
width_multiplier = {width}
metric = "accuracy"
dataset = "test part"
value = {value}
source = "a test"
"""
    for width, value in ((1.0, 0.951), (0.5, 0.942), (0.25, 0.88))
)

DEEP = SCORED.replace('id = "scored"', 'id = "deep"') + "".join(
    f"""
[[score]]
width_multiplier = {width}
depth = {depth}
metric = "accuracy"
dataset = "test part"
value = {value}
source = "a test"
"""
    for width, depth, value in ((1.0, 4, 0.953), (1.0, 3, 0.949), (0.5, 4, 0.938), (0.5, 3, 0.94), (0.6, 2, 0.9))
)

app = typer.Typer()
app.command()(verb)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.toml").write_text(CARD)
    (tmp_path / "profiles" / "scored.toml").write_text(SCORED)
    (tmp_path / "profiles" / "deep.toml").write_text(DEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "dumb")
    return tmp_path


def typed(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--cards", "."], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plan-jetson-orin", ["--device", "jetson-orin", "--encoder", "small"]),
        ("plan-raspberry-pi-4b-20ms", ["--device", "raspberry-pi-4b-4gb", "--encoder", "small", "--latency-ms", "20"]),
        (
            "plan-start-up",
            ["--device", "jetson-orin-nx", "--encoder", "vit-s-16", "--startup-s", "12", "--power-mode", "25W"],
        ),
        (
            "plan-scene-and-link",
            [
                *("--device", "rpi4", "--encoder", "small", "--scene", "4096x4096", "--deadline-s", "300"),
                *("--artifact-mb", "4", "--uplink-kb-day", "300", "--uplink-days", "14"),
            ],
        ),
        (
            "plan-energy",
            ["--device", "rpi4", "--encoder", "small", "--scene", "4096x4096", "--energy-j", "1500", "--max-w", "8"],
        ),
        ("plan-tensorrt", ["--device", "jetson-orin", "--encoder", "vit-s-16", "--latency-ms", "100"]),
        ("plan-batch", ["--device", "rpi5", "--encoder", "small", "--batch", "8", "--latency-ms", "60"]),
        ("plan-score", ["--device", "rpi4", "--encoder", "scored", "--objective", "score", "--min-score", "0.9"]),
        ("plan-depth", ["--device", "rpi4", "--encoder", "deep", "--latency-ms", "17"]),
        ("plan-depth-asked", ["--device", "rpi4", "--encoder", "deep", "--depth", "2", "--latency-ms", "17"]),
        ("plan-vit-l-16-raspberry-pi-4b", ["--device", "raspberry-pi-4b-4gb", "--encoder", "vit-l-16"]),
        ("plan-unaligned", ["--device", "rpi4", "--encoder", "small", "--gflop", "0.05", "--memory-mib", "220"]),
        ("plan-7w", ["--device", "jetson-orin", "--encoder", "small", "--power-mode", "7W", "--memory-mib", "208"]),
    ],
)
def test_printed_text(here: Path, name: str, arguments: list[str]) -> None:
    text = typed(*arguments)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("EDGESLIM_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert all(len(line) <= 90 for line in text.splitlines())
    assert read_plan(here / "plan.json").encoder in text


def test_json_on_stdout_is_the_file(here: Path) -> None:
    printed = json.loads(typed("--device", "rpi5", "--encoder", "small", "--json", "-o", "p.json"))
    assert printed == json.loads((here / "p.json").read_text())
    assert printed["device"] == "raspberry-pi-5-8gb"


def test_nothing_fits_leaves_no_file_and_keeps_an_older_plan(here: Path) -> None:
    arguments = ["--device", "rpi4", "--encoder", "small", "--latency-ms", "1"]
    with pytest.raises(NothingFits, match="the nearest"):
        typed(*arguments)
    assert not (here / "plan.json").exists()
    typed("--device", "rpi4", "--encoder", "small")
    before = (here / "plan.json").read_bytes()
    with pytest.raises(NothingFits):
        typed(*arguments)
    assert (here / "plan.json").read_bytes() == before


def test_an_older_card_is_planned_but_not_for_a_start_up(here: Path) -> None:
    text = (shelf_folder("devices") / "raspberry-pi-5-8gb.toml").read_text(encoding="utf-8")
    (here / "devices").mkdir()
    older = re.sub(r"(?m)^(storage_mb_s|cores|startup_\w+|weights_mb_s) = .*\n", "", text)
    (here / "devices" / "raspberry-pi-5-8gb.toml").write_text(older, encoding="utf-8")
    arguments = ["--device", "raspberry-pi-5-8gb", "--encoder", "small"]
    lines = " ".join(typed(*arguments).split())
    assert "start-up not limited not known give --startup-s to limit it" in lines
    assert "start-up not known: the device's card has no storage_mb_s, no cores of unit cpu, no startup_ms of" in lines
    with pytest.raises(InputError, match="its card has no storage_mb_s, no cores of unit cpu, no startup_ms of"):
        typed(*arguments, "--startup-s", "5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scene", "10980"], "--scene: found '10980', expected height x width in px, such as 10980x10980"),
        (["--scene", "-5x5"], "--scene: found '-5x5', expected height x width"),
        (["--scene", "0x5"], "--scene: found a side of 0 px, expected 1 to"),
        (["--scene", "100x100", "--stride", "0"], "--stride: found 0, expected a whole number of at least 1"),
        (["--stride", "32"], "--stride: found 32 without --scene, expected both"),
        (["--deadline-s", "60"], "--deadline-s: found 60 without --scene, expected both"),
        (["--uplink-days", "3"], "--uplink-days: found 3 without --uplink-kb-day, expected both"),
        (["--artifact-mb", "nan"], "--artifact-mb: found nan, expected a number of more than 0"),
    ],
)
def test_contradictions_are_said_in_one_line(here: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        typed("--device", "rpi4", "--encoder", "small", *arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not (here / "plan.json").exists()


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["--device", "jetson-orim", "--encoder", "small"], "jetson-orin"),
        (["--device", "rpi4", "--encoder", "smal"], "small"),
        (["--device", "RPI4", "--encoder", "small"], "one of rpi4, rpi5, rpi3$"),
        (["--device", "rpi4", "--encoder", "EuroSAT-RGB"], "one of eurosat-rgb, "),
        (["--device", "rpi4", "--encoder", "small", "--power-mode", "fast"], "default"),
    ],
)
def test_unknown_names_list_the_nearest(here: Path, arguments: list[str], near: str) -> None:
    with pytest.raises((UnknownName, UsageError), match=near) as error:
        typed(*arguments)
    assert error.value.exit_code == 2
    assert not (here / "plan.json").exists()


def test_a_file_that_is_no_plan_is_kept_unless_asked(here: Path) -> None:
    (here / "notes.json").write_text("notes")
    arguments = ["--device", "rpi4", "--encoder", "small", "-o", "notes.json"]
    with pytest.raises(EdgeslimError, match="--overwrite"):
        typed(*arguments)
    assert (here / "notes.json").read_text() == "notes"
    typed(*arguments, "--overwrite")
    assert read_plan(here / "notes.json").encoder == "small"


def test_all_blocks_on_request(here: Path) -> None:
    printed = typed("--device", "rpi4", "--encoder", "deep", "--latency-ms", "17", "--depth", "all")
    assert "Wider steps, all refused" in printed
    assert read_plan(here / "plan.json").depth is None
    # No device: every board is asked the same.
    assert json.loads(typed("--encoder", "deep", "--depth", "all", "--json"))["asked"]["depth"] == 5


@pytest.mark.parametrize("depth", ["0", "-1", "half", "1.5"])
def test_a_depth_that_is_none(here: Path, depth: str) -> None:
    with pytest.raises(UsageError, match=r"--depth: found .*, expected a number of blocks of at least 1, or all"):
        typed("--device", "rpi4", "--encoder", "deep", f"--depth={depth}")
