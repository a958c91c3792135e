"""Stopping and going on, by signals to a real process."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from edgeslim.cli import main
from tests.cli.runs import call, events, finish, start, until
from tests.onboard.artifacts import make_artifact, make_scene, smooth

GOLDEN = Path(__file__).parents[1] / "golden"
# Stride 1: long enough to be stopped half way; the limit makes many row bands.
CLASSIFY = ("classify", "scene.tif", "--stride", "1", "--threads", "1", "--vector", "none", "--progress", "json")
MAPS = ("classes.tif", "confidence.tif", "summary.json", "quicklook.png")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact, a scene of several seconds, and what an undisturbed run makes of it. Read only."""
    folder = tmp_path_factory.mktemp("stop")
    make_artifact(folder / "artifact")
    make_scene(folder / "scene.tif", smooth(640, 320), tiled=True, blockxsize=64, blockysize=64)
    code, _, err = call([*CLASSIFY, "-o", "whole"], folder)
    assert code == 0, err
    assert max(e["bands"] for e in events(err) if e["event"] == "band") > 3
    return folder


def same_as_whole(work: Path, out: str) -> None:
    for name in MAPS:
        assert (work / out / name).read_bytes() == (work / "whole" / name).read_bytes(), name


def first_band(process_folder: Path) -> bool:
    journal = process_folder / "unfinished" / "journal"
    return journal.is_file() and journal.stat().st_size > 10_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_order_and_resume_gives_the_same_bytes(work: Path, number: signal.Signals) -> None:
    out = f"stopped-{number.name}"
    process = start([*CLASSIFY, "-o", out, "--json"], work)
    until(lambda: first_band(work / out), process)
    process.send_signal(number)
    code, stdout, err = finish(process)
    assert code == 0, err
    last = events(err)[-1]
    assert (last["event"], last["reason"]) == ("stopped", number.name)
    printed = json.loads(stdout)
    assert (printed["unfinished"], printed["bands_done"], printed["bands"]) == (True, last["band"], last["bands"])
    assert 0 < last["band"] < last["bands"]
    assert [p.name for p in (work / out).iterdir()] == ["unfinished"]
    code, _, err = call([*CLASSIFY, "-o", out, "--resume"], work)
    assert code == 0, err
    assert events(err)[0]["resumed_bands"] == last["band"]
    same_as_whole(work, out)


def test_said_in_one_line_without_events(work: Path) -> None:
    arguments = [a for a in CLASSIFY if a not in ("--progress", "json")]
    process = start([*arguments, "-o", "said"], work)
    until(lambda: first_band(work / "said"), process)
    process.terminate()
    code, out, err = finish(process)
    assert (code, out) == (0, "")
    text = (
        r"stopped \(SIGTERM\) after row band \d+ of \d+, all kept in said; go on with the same command and --resume\n"
    )
    assert re.fullmatch(text, err)
    code, out, err = call([*arguments, "-o", "said"], work)
    assert (code, out) == (1, "")
    assert "--resume" in err
    assert err.count("\n") == 1


def test_a_second_signal_ends_at_once_and_is_resumable(work: Path) -> None:
    process = start([*CLASSIFY, "-o", "twice"], work)
    until(lambda: first_band(work / "twice"), process)
    process.terminate()
    process.terminate()
    code, _, err = finish(process)
    last = events(err)[-1]
    # The second may come when the orderly end is already done.
    assert (code, last["event"]) in ((130, "error"), (0, "stopped"))
    assert "Traceback" not in err
    assert call([*CLASSIFY, "-o", "twice", "--resume"], work)[0] == 0
    same_as_whole(work, "twice")


def test_a_missed_deadline_has_its_own_exit_code(work: Path) -> None:
    code, out, err = call([*CLASSIFY, "-o", "late", "--deadline-s", "0.01", "--json"], work)
    assert code == 124
    assert (events(err)[-1]["event"], events(err)[-1]["reason"]) == ("stopped", "deadline")
    assert json.loads(out)["reason"] == "deadline"
    assert call([*CLASSIFY, "-o", "late", "--resume", "--deadline-s", "100"], work)[0] == 0
    same_as_whole(work, "late")


def test_resuming_what_is_finished_prints_it_again(work: Path) -> None:
    code, out, err = call([*CLASSIFY, "-o", "whole", "--resume"], work)
    assert code == 0
    assert "Forest" in out
    assert [e["event"] for e in events(err) if e["event"] != "warning"] == ["done"]


def test_the_events_and_the_table_of_a_run(work: Path) -> None:
    make_scene(work / "small.tif", smooth(40, 50))
    command = ["classify", "small.tif", "-o", "small", "--threads", "1", "--progress", "json"]
    code, out, err = call(command, work)
    assert code == 0
    assert out == (GOLDEN / "classify-table.txt").read_text(encoding="utf-8")
    masked = re.sub(r'"time":"[^"]*"', '"time":"TIME"', err)
    masked = re.sub(r'"(tiles_per_s|eta_s|memory_mib|seconds|difference)":[-0-9.e]+', r'"\1":0', masked)
    assert masked == (GOLDEN / "classify-events.ndjson").read_text(encoding="utf-8")


def test_an_error_among_events_is_an_event(work: Path) -> None:
    code, out, err = call(["classify", "none.tif", "-o", "none", "--progress", "json"], work)
    assert (code, out) == (1, "")
    (event,) = events(err)
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert "no such file" in event["text"]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--max-ram", "256"], "256MiB"),
        (["--max-ram", "lots"], "1GiB"),
        (["--max-ram", "0MiB"], "500MB"),
        (["--deadline-s", "0"], "above 0"),
        (["--check-every-s", "nan"], "above 0"),
        (["--overlap", "8"], "less than the tile"),
        (["--overlap", "-1"], "0 or more"),
        (["--overlap", "2", "--stride", "2"], "one of them"),
        (["--resume", "--overwrite"], "replace it"),
        (["--image", "0"], "at least 1"),
        (["--progress", "loud"], "loud"),
        (["--vector", "dxf"], "dxf"),
    ],
)
def test_flags_that_make_no_sense(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], word: str
) -> None:
    monkeypatch.chdir(work)
    assert main(["classify", "scene.tif", "-o", "never", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert captured.err.count("\n") == 1
    assert not (work / "never").exists()


def test_overlap_is_the_stride_said_otherwise(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    make_scene(work / "over.tif", smooth(20, 20))
    assert main(["classify", "over.tif", "-o", "over", "--overlap", "6", "--max-ram", "2GiB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stride_px"] == 2
