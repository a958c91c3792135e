"""What runs print and leave behind for machines is what the published schemas allow, key for key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeslim.cli import main
from edgeslim.onboard.progress import Event
from tests.cli.runs import call, finish, start, until
from tests.onboard.artifacts import make_artifact, make_scene, smooth
from tests.onboard.uplink.updates import with_head
from tests.report.test_schema import closed, hold, jsonschema, published

FLAGS = ["--stride", "1", "--threads", "1", "--vector", "none"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_artifact(tmp_path / "artifact")
    make_scene(tmp_path / "scene.tif", smooth(40, 44))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def of_file(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_scene_and_the_files_beside_its_maps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--cells", "--probabilities"]):
        words = ["classify", "scene.tif", "-o", "out", "--overwrite", *FLAGS, *flags, "--progress", "json", "--json"]
        assert main(words) == 0
        captured = capsys.readouterr()
        hold("classify", json.loads(captured.out))
        hold("summary", json.loads(captured.out))
        assert [event["event"] for event in lines(captured.err)][:1] == ["start"]
        for event in lines(captured.err):
            hold("events", event)
        for schema, name in (("summary", "summary.json"), ("run", "run.json"), ("item", "stac-item.json")):
            hold(schema, of_file(here / "out" / name))


def test_a_scene_without_a_place_on_earth(here: Path) -> None:
    make_scene(here / "bare.tif", smooth(40, 44), crs=None)
    assert main(["classify", "bare.tif", "-o", "out", *FLAGS, "--accept-gsd"]) == 0
    for schema, name in (("summary", "summary.json"), ("run", "run.json"), ("item", "stac-item.json")):
        hold(schema, of_file(here / "out" / name))


def test_what_fails_and_what_is_stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "none.tif", "-o", "out", "--progress", "json"]) == 1
    (error,) = lines(capsys.readouterr().err)
    hold("events", error)
    assert error["event"] == "error"
    make_scene(here / "large.tif", smooth(220, 200), tiled=True, blockxsize=64, blockysize=64)
    code, out, err = call(["classify", "large.tif", "-o", "out", *FLAGS, "--deadline-s", "1e-9", "--json"], here)
    assert code == 124, err
    hold("classify", json.loads(out))
    assert json.loads(out)["unfinished"]


def test_a_folder_of_scenes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in").mkdir()
    (here / "scene.tif").rename(here / "in/a.tif")
    (here / "in/b.tif").write_bytes(b"no scene")
    assert main(["classify", "in", "-o", "out", *FLAGS, "--json"]) == 1
    hold("classify", printed(capsys))


def test_a_watch(here: Path) -> None:
    (here / "in").mkdir()
    (here / "out").mkdir()
    (here / "in/bad.tif").write_bytes(b"no scene")
    (here / "scene.tif").rename(here / "in/good.tif")
    words = ["watch", "in", "out", "--settle-s", "0.05", "--poll-s", "0.05", "--heartbeat-s", "0.05", *FLAGS]
    process = start([*words, "--json", "--progress", "json"], here)
    until((here / "out/good/summary.json").exists, process)
    until((here / "in/quarantine/bad.tif").exists, process)
    process.terminate()
    code, out, err = finish(process)
    assert code == 0, err
    assert sorted(line["state"] for line in lines(out)) == ["delivered", "quarantined"]
    for line in lines(out):
        hold("watch", line)
    kinds = set()
    for event in lines(err):
        hold("events", event)
        kinds.add(event["event"])
    assert {"start", "band", "check", "finishing", "done", "state", "delivered", "quarantined"} <= kinds
    beat = of_file(here / "out/heartbeat.json")
    hold("heartbeat", beat)
    assert beat["last"]


def test_an_update_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("artifact", "next"), 1):
        with_head(tmp_path / name, number, 40_000)
    (tmp_path / "next/extra.txt").write_bytes(b"x")
    assert main(["diff", "artifact", "next", "-o", "next.delta", "--json"]) == 0
    hold("diff", printed(capsys))
    for words in (["next.delta"], ["--rollback"], ["next.delta"]):
        assert main(["apply", *words, "--json"]) == 0
        hold("apply", printed(capsys))


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Event("band", {"band": 1}), "a field is missing"),
        (Event("landed", {}), "there is no such kind"),
        (Event("done", {"seconds": "8", "tiles": 6}), "a number is text"),
    ],
)
def test_what_is_no_event_is_refused(event: Event, why: str) -> None:
    validator = jsonschema.Draft202012Validator(published("events"))
    assert not validator.is_valid(json.loads(event.line())), why
    assert validator.is_valid(json.loads(Event("finishing").line()))


def test_a_later_version_may_add_keys_that_the_closed_form_refuses() -> None:
    line = json.loads(Event("finishing").line(later=1))
    assert jsonschema.Draft202012Validator(published("events")).is_valid(line)
    assert not jsonschema.Draft202012Validator(closed(published("events"))).is_valid(line)
