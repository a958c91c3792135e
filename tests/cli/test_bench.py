"""What `bench` prints, in which words it refuses, and how signals end it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from rich.console import Console

from edgeslim.cli import main
from edgeslim.cli.bench import print_bench
from edgeslim.onboard.bench import Bench, Planned
from edgeslim.onboard.machine import Host
from edgeslim.onboard.timing.calls import Timing
from edgeslim.onboard.timing.sustained import Sustained, Window
from tests.cli.runs import child_of, finish, start, until
from tests.onboard.artifacts import make_artifact

GOLDEN = Path(__file__).parents[1] / "golden"
SHORT = ("--threads", "1", "--batch", "1", "--seconds", "0.01")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("bench") / "artifact", synthetic=False)


def made() -> Bench:
    """A record of a board that got too warm."""
    timings = (
        Timing(1, 1, 4, 651, 3.0, 4.61234, 5.2, 6.0, 216.4, 412.0, 9.31, 75.2, 0.04),
        Timing(1, 4, 1, 1040, 3.01, 11.4, 12.9, 14.0, 349.5, 398.0, 12.0, 78.4, 0.04),
        Timing(8, 4, 1, 44, 3.4, 9.61, 10.9, None, 414.0, 400.0, 83.3, 91.0, None),
    )
    hot = (Window(10.0, 414.0, 61.3, 2400.0), Window(20.0, 402.0, 79.0, 2400.0), Window(30.0, 331.0, 84.9, 1800.0))
    return Bench(
        name="eurosat-rgb-w0.75",
        encoder="eurosat-rgb",
        width_multiplier=0.75,
        format="onnx",
        precision="fp32",
        gflop_per_tile=0.1445,
        tile_px=64,
        synthetic=False,
        manifest_sha256="0" * 64,
        edgeslim_version="0.1.0",
        runtime="onnxruntime 1.31.1",
        chip="",
        machine=Host("Raspberry Pi 5 Model B Rev 1.0", "", "aarch64", 4, 4, "Linux", "6.6.31", "3.11.2"),
        timings=timings,
        sustained=Sustained(
            8, 4, 1, 600.1, 352.2, 60.0, 413.6, 331.4, 329.9, 590.0, 0.19874, True, 91.4, 0.05, 10.0, hot
        ),
        planned=Planned("raspberry-pi-5-8gb", "default", "onnxruntime-cpu", "fp32", 1, 4.1, 2.05, 8.2),
        stopped=None,
        warnings=(),
    )


def alone(err: str) -> str:
    """What was said, but for what else this machine does: it must not decide a test."""
    return re.sub(r"warning: other processes kept .*\n", "", err)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_bench(made(), Console(width=100, highlight=False, soft_wrap=True))
    printed = "".join(line.rstrip() + "\n" for line in capsys.readouterr().out.splitlines())
    assert printed == (GOLDEN / "bench.txt").read_text(encoding="utf-8")


def test_a_real_run_has_the_same_lines(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(artifact), *SHORT]) == 0
    captured = capsys.readouterr()
    assert alone(captured.err) == ""
    masked = re.sub(r"[0-9][0-9.,]*|–", "N", captured.out)  # few calls have no p99
    assert [line.split() for line in masked.splitlines()[:2]] == [
        ["Batch", "Workers", "pN", "ms", "pN", "pN", "Tiles/s", "Peak", "MiB", "Open", "ms", "First"],
        ["N", "N", "×", "N", "N", "N", masked.splitlines()[1].split()[6], "N", "N", "N", "N"],
    ]
    assert [line.split()[0] for line in masked.splitlines()[2:]] == ["timed", "on"]
    assert "real golden tiles" in captured.out


def test_json(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(artifact), *SHORT, "--sustained-s", "0.2", "--json"]) == 0
    captured = capsys.readouterr()
    assert alone(captured.err) == ""
    found = Bench.from_dict(json.loads(captured.out))
    assert [timing.batch for timing in found.timings] == [1]
    assert found.sustained is not None


def test_a_loud_warning_of_synthetic_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(make_artifact(tmp_path / "artifact")), *SHORT]) == 0
    captured = capsys.readouterr()
    assert "SYNTHETIC" in captured.out
    assert "SYNTHETIC" in captured.err


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_damage_is_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = make_artifact(tmp_path / "artifact") / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    assert main(["check", str(path.parent)]) == 5
    checked = capsys.readouterr()
    assert main(["bench", str(path.parent), *SHORT]) == 5
    assert capsys.readouterr() == checked


def test_wrong_answers_are_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_artifact(tmp_path / "artifact", wrong_logit=0.5)
    assert main(["check", str(folder)]) == 4
    checked = capsys.readouterr()
    assert main(["bench", str(folder), *SHORT]) == 4
    assert capsys.readouterr() == checked


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing"], 1, "expected an artifact; `edgeslim export` makes one"),
        (["artifact", "--batch", "0"], 2, "--batch: found 0"),
        (["artifact", "--threads", "0"], 2, "--threads: found 0"),
        (["artifact", "--seconds", "-1"], 2, "--seconds: found -1"),
        (["artifact", "--sustained-s", "0"], 2, "--sustained-s: found 0"),
        (["artifact", "--sustained", "--sustained-s", "5"], 2, "give one of them"),
    ],
)
def test_one_line_on_bad_input(
    artifact: Path,
    arguments: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(artifact.parent)
    assert main(["bench", *arguments]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert said in captured.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_early_with_what_was_seen(artifact: Path, number: signal.Signals) -> None:
    process = start(["bench", "artifact", *SHORT, "--sustained", "--json"], artifact.parent)
    until(lambda: child_of(process.pid, '"window_s": 10.0'), process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert code == 0, err
    assert alone(err) == f"stopped ({number.name}): this is what was seen before\n"
    found = Bench.from_dict(json.loads(out))
    assert (found.stopped, len(found.timings)) == (number.name, 1)
    assert found.sustained is None or found.sustained.seconds < 100


def test_a_signal_before_there_is_anything(artifact: Path) -> None:
    process = start(["bench", "artifact", "--seconds", "1000"], artifact.parent)
    until(lambda: child_of(process.pid, "timing.measuring"), process)
    process.terminate()
    assert finish(process) == (130, "", "stopped (SIGTERM) before anything was timed\n")
