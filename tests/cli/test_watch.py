"""`edgeslim watch` with real processes: killed at random, stopped, looked at."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from edgeslim.cli import main
from tests.cli.runs import call, events, finish, start, until
from tests.onboard.artifacts import make_artifact, make_scene, smooth

QUICK = ("--settle-s", "0.05", "--poll-s", "0.05", "--heartbeat-s", "0.2")
FLAGS = ("--stride", "1", "--threads", "1", "--vector", "none")
KILLS = 12


@pytest.fixture
def work(tmp_path: Path) -> Path:
    make_artifact(tmp_path / "artifact")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def results(work: Path) -> list[str]:
    return sorted(p.parent.name for p in (work / "out").glob("*/summary.json") if p.parent.name != ".edgeslim")


def heartbeat(work: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((work / "out/heartbeat.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killed_at_random_nothing_is_lost_and_nothing_done_twice(work: Path) -> None:
    rng = random.Random(3)
    names = [f"s{i}" for i in range(3)]
    for number, name in enumerate(names):
        make_scene(
            work / "in" / f"{name}.tif",
            smooth(220, 200 + number, seed=number),
            tiled=True,
            blockxsize=64,
            blockysize=64,
        )
        (work / "in" / f"{name}.tfw").write_text("beside", encoding="utf-8")
        code, _, err = call(["classify", f"in/{name}.tif", "-o", f"whole/{name}", *FLAGS], work)
        assert code == 0, err
    (work / "in" / "bad.tif").write_text("hello", encoding="utf-8")
    command = ["watch", "in", "out", "--once", *QUICK, *FLAGS, "--attempts", "1000"]
    made: dict[str, int] = {}
    kills = 0
    while kills < KILLS:
        process = start(command, work)
        time.sleep(rng.uniform(0.05, 1.5))
        if process.poll() is None:
            kills += 1
        process.kill()
        finish(process)
        for name in results(work):  # delivered results are never made anew
            made.setdefault(name, (work / "out" / name / "run.json").stat().st_ino)
            assert (work / "out" / name / "run.json").stat().st_ino == made[name]
        if not list((work / "in").glob("*.tif")):
            break
    assert kills >= 4
    code, _, err = call(command, work)
    assert code in (0, 1), err
    assert results(work) == names
    for name in names:
        for file in ("classes.tif", "confidence.tif", "summary.json"):
            assert (work / "out" / name / file).read_bytes() == (work / "whole" / name / file).read_bytes()
    found = sorted(str(p.relative_to(work / "in")) for p in (work / "in").rglob("*") if p.is_file())
    expected = [f"done/{n}.{e}" for n in names for e in ("tfw", "tif")]
    assert found == sorted([*expected, "quarantine/bad.tif", "quarantine/bad.tif.txt"])
    assert not list((work / "out/.edgeslim/work").iterdir())
    assert not list((work / "out/.edgeslim/ledger").iterdir())


def test_a_killed_watch_takes_its_scene_process_with_it_and_a_stopped_one_goes_on(work: Path) -> None:
    make_scene(work / "in/a.tif", smooth(600, 400), tiled=True, blockxsize=64, blockysize=64)
    process = start(["watch", "in", "out", *QUICK, *FLAGS, "--progress", "json"], work)
    until(lambda: heartbeat(work).get("state") == "classifying", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if children.exists():
        (child,) = map(int, children.read_text(encoding="utf-8").split())
        process.kill()
        finish(process)
        until(lambda: not alive(child))
        process = start(["watch", "in", "out", *QUICK, *FLAGS, "--progress", "json"], work)
    journals = work / "out/.edgeslim/work"
    until(lambda: any(p.stat().st_size > 10_000 for p in journals.glob("*/unfinished/journal")), process)
    process.terminate()
    code, out, err = finish(process)
    assert (code, out) == (0, "")
    said = events(err)
    assert [e["event"] for e in said][-2:] == ["stopped", "state"] or results(work) == ["a"]
    beat = heartbeat(work)
    assert (beat["state"], beat["scene"], beat["counts"]["done"]) == ("stopped", None, 0)
    assert (work / "in/a.tif").is_file()
    code, out, err = call(["watch", "in", "out", "--once", *QUICK, *FLAGS, "--progress", "json", "--json"], work)
    assert code == 0
    over = json.loads(out)
    assert (over["schema"], over["state"], over["file"], over["out"]) == (1, "delivered", "a.tif", str(work / "out/a"))
    (begun,) = (e for e in events(err) if e["event"] == "start")
    assert begun["resumed_bands"] > 0
    assert begun["file"] == "a.tif"


def test_a_scene_that_arrives_is_classified_and_told_to_the_service_manager(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0edgeslim-watch-test-" + str(os.getpid()))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", "@edgeslim-watch-test-" + str(os.getpid()))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        process = start(["watch", "in", "out", *QUICK, "--heartbeat", "beat.json"], work)
        told: list[str] = []
        while "READY=1" not in told:
            told.append(listener.recv(4096).decode())
        make_scene(work / "a.tif", smooth(20, 20))
        (work / "a.tif").rename(work / "in/a.tif")
        until(lambda: (work / "in/done/a.tif").is_file(), process)
        process.terminate()
        while "STOPPING=1" not in told:
            told.append(listener.recv(4096).decode())
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"done         a\.tif  \S*/out/a\n", out)
    assert "WATCHDOG=1" in told
    assert "STATUS=idle" in told
    assert any(text.startswith("STATUS=classifying a.tif") for text in told)
    assert json.loads((work / "beat.json").read_text(encoding="utf-8"))["counts"]["done"] == 1


def test_what_it_says_of_a_quarantined_scene(work: Path) -> None:
    make_scene(work / "in/one.tif", smooth(20, 20)[:1], descriptions=())
    odd = os.fsdecode(b"\xff\n.tif")
    make_scene(work / "odd.tif", smooth(20, 20)).rename(work / "in" / odd)
    code, out, err = call(["watch", "in", "out", "--once", *QUICK], work)
    assert (code, err) == (1, "")
    assert (work / "in/quarantine" / odd).is_file()
    reason = (work / "in/quarantine/one.tif.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"[^\n]*expected 3 bands[^\n]*\n", reason)
    lines = sorted(out.splitlines())
    assert lines == [
        "quarantined  ??.tif  its file name is no valid UTF-8; rename it",
        f"quarantined  one.tif  {reason[:-1]}",
    ]


def test_a_second_watch_is_refused(work: Path) -> None:
    process = start(["watch", "in", "out", *QUICK], work)
    until(lambda: heartbeat(work).get("state") == "idle", process)
    code, out, err = call(["watch", "in", "out", "--once", *QUICK], work)
    process.terminate()
    assert (code, out) == (1, "")
    assert "another `edgeslim watch`" in err
    assert err.count("\n") == 1
    assert finish(process)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["in", "in"], 2, "two folders"),
        (["in", "nowhere"], 1, "make it first"),
        (["in", "out", "--artifact", "nowhere"], 1, "edgeslim export"),
        (["in", "out", "--max-outbox", "10"], 2, "10"),
        (["in", "out", "--settle-s", "-1"], 2, "--settle-s"),
        (["in", "out", "--stride", "9"], 2, "--stride"),
        (["in", "out", "--overlap", "8"], 2, "--overlap"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    monkeypatch.chdir(work)
    assert main(["watch", *arguments, "--once"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_a_damaged_artifact_starts_no_watch(work: Path) -> None:
    model = work / "artifact/model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    make_scene(work / "in/a.tif", smooth(20, 20))
    code, out, err = call(["watch", "in", "out", "--once", *QUICK], work)
    assert (code, out) == (5, "")
    assert "damaged" in err
    assert (work / "in/a.tif").is_file()
