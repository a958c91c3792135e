"""`edgeslim calibrate` as a user runs it: a card of this machine, or one line and nothing written."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.cli import main
from edgeslim.device import load_device
from edgeslim.manifest import read_manifest
from edgeslim.units import gflop
from tests.cli.runs import child_of, finish, start, until
from tests.onboard.artifacts import make_artifact

SHORT = ("--seconds", "0.01")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two widths of one encoder, which take the same time: their networks are the same."""
    folder = tmp_path_factory.mktemp("calibrate")
    full = Architecture(
        depth=1, dim=4, attention_heads=1, head_dim=4, ffn_hidden=4, patch_size=8, tile_px=8, bands=3
    )  # fmt: skip
    made = []
    for width in (1.0, 0.5):
        path = make_artifact(folder / f"w{width:g}", synthetic=False)
        manifest = replace(read_manifest(path), width_multiplier=width, architecture=full.at(width))
        manifest.write(path)
        made.append(path)
    return made


def words(artifacts: list[Path], *more: object) -> list[str]:
    return ["calibrate", *map(str, artifacts), "--device", "x86-64-host", *SHORT, *map(str, more)]


def test_a_card_of_this_machine(artifacts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cards" / "devices" / "mine.toml"
    assert main(words(artifacts, "-o", out)) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}; plan with: edgeslim plan --cards {tmp_path / 'cards'} --device mine" in printed
    assert re.search(r"gives      [0-9.,]+ GFLOP/s of float32 products, [0-9.,]+ GB/s copied; storage ", printed)
    device = load_device(out)
    assert {row.width_multiplier for row in device.measurement} == {1.0, 0.5}
    for row in device.measurement:
        arch = read_manifest(artifacts[0 if row.width_multiplier == 1 else 1]).architecture
        assert row.gflop == pytest.approx(gflop(cost.flop(arch, 3)), rel=1e-5)
        assert (row.encoder, row.runtime, row.precision) == ("tiny", "onnxruntime-cpu", "fp32")
        assert "onnxruntime" in row.source
    runtime = device.runtime[0]
    assert runtime.basis == "measured"
    assert runtime.startup_ms is not None
    assert runtime.startup_ms.value > 50
    assert 20 < runtime.memory_mib.value < 1000
    assert all(0 < share.value <= 1 for share in runtime.efficiency["fp32"].values())
    assert list(out.parent.iterdir()) == [out]


def test_json_holds_every_row(artifacts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.toml"
    assert main(words(artifacts[:1], "-o", out, "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["device"] == "mine"
    assert record["hardware"]["gemm_gflop_s"] > 0
    assert [row["p50_ms"] for row in record["rows"]] == [row.p50_ms for row in load_device(out).measurement]
    assert all(row["estimated_before_ms"] > 0 for row in record["rows"])


def test_more_rows_are_added_to_a_card_that_was_calibrated(artifacts: list[Path], tmp_path: Path) -> None:
    first, second = tmp_path / "devices" / "one.toml", tmp_path / "devices" / "two.toml"
    assert main(words(artifacts[:1], "-o", first)) == 0
    again = ["calibrate", str(artifacts[1]), "--cards", str(tmp_path), "--device", "one", *SHORT, "-o", str(second)]
    assert main(again) == 0
    before, after = load_device(first), load_device(second)
    assert after.measurement[: len(before.measurement)] == before.measurement
    assert {row.width_multiplier for row in after.measurement} == {1.0, 0.5}


def test_a_board_keeps_what_its_card_knows_better(artifacts: list[Path], tmp_path: Path) -> None:
    from edgeslim.device import take_device

    out = tmp_path / "mine.toml"
    command = ["calibrate", str(artifacts[0]), "--device", "raspberry-pi-5-8gb", *SHORT, "-o", str(out)]
    assert main(command) == 0
    base, device = take_device("raspberry-pi-5-8gb"), load_device(out)
    assert (device.memory, device.power_mode) == (base.memory, base.power_mode)
    assert device.unit[0].cores == base.unit[0].cores


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "mine.json"], "-o mine.json: expected a card's name that ends in .toml"),
        (["-o", "there.toml"], "-o there.toml: found it there already, kept it; give another name, or --overwrite"),
        (["--seconds", "0"], "--seconds: found 0, expected more than 0 and at most an hour"),
        (["--device", "x86-64-hots"], "unknown device 'x86-64-hots'"),
        (["--power-mode", "7W"], "unknown power mode '7W' of x86-64-host"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_timed(
    artifacts: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.toml").write_text("mine\n")
    assert main([*words(artifacts), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.toml"]
    assert Path("there.toml").read_text() == "mine\n"


def test_the_same_artifact_twice_is_refused(
    artifacts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words([artifacts[0], artifacts[0]], "-o", tmp_path / "mine.toml")) == 2
    assert "found tiny at 1 as onnx in fp32 a second time, expected different artifacts" in capsys.readouterr().err
    assert not (tmp_path / "mine.toml").exists()


def test_a_damaged_artifact_writes_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = make_artifact(tmp_path / "artifact", wrong_logit=5.0)
    assert main(words([artifact], "-o", tmp_path / "mine.toml")) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "mine.toml").exists()


def test_ctrl_c_writes_nothing(artifacts: list[Path], tmp_path: Path) -> None:
    arguments = ["calibrate", str(artifacts[0]), "--device", "x86-64-host", "--seconds", "60", "-o", "mine.toml"]
    process = start(arguments, tmp_path)
    until(lambda: child_of(process.pid, "timing.measuring"), process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 1
    assert "calibrate: stopped (SIGINT) before all was measured; nothing was written" in err
    assert list(tmp_path.iterdir()) == []
