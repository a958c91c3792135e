"""The watch with a stand-in for a scene's process; with the real one in tests/cli/test_watch.py."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeslim.errors import EdgeslimError, InputError, UsageError
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.progress import Event
from edgeslim.onboard.watching.room import disk_bytes
from edgeslim.onboard.watching.scene_process import Outcome
from edgeslim.onboard.watching.watch import Watch
from edgeslim.onboard.watching.watch_options import WatchOptions
from tests.onboard.power import CutDisk, PowerCut

BANDS = 3


class FakeProcess:
    """Classifies in no time: the results of a scene are its own bytes. What the bytes say, it does."""

    def __init__(self, arguments: Sequence[str], keep_open: Sequence[int], disk: Disk, log: list[list[str]]) -> None:
        self.pid, self._disk, self._asked, self._killed = os.getpid(), disk, False, False
        self._scene, self._out = Path(arguments[0]), Path(arguments[2])
        self._resume = "--resume" in arguments
        self._text = self._scene.read_text(encoding="utf-8")
        self._outcome: Outcome | None = None
        self._band = 0
        log.append(list(arguments))
        assert keep_open

    def _tick(self) -> None:
        if isinstance(self._disk, CutDisk):
            self._disk.tick()

    def events(self, timeout_s: float) -> list[Event]:
        journal = self._out / "unfinished"
        if self._killed:
            self._outcome = Outcome("crashed", -9, "its process was killed (SIGKILL)")
            return []
        if self._text.startswith("bad"):
            return self._end("refused", 1, "not a GeoTIFF")
        if self._text.startswith("crash"):
            return self._end("crashed", -11, "its process crashed (SIGSEGV)")
        if self._text.startswith("full"):
            return self._end("refused", 1, "classes.tif: No space left on device")
        if self._text.startswith("untrusted"):
            return self._end("refused", 5, "logits are not finite")
        if not self._band:
            self._tick()
            if self._text.startswith("other flags") and journal.is_dir():
                return self._end("refused", 1, "found an unfinished run of something else")
            journal.mkdir(parents=True, exist_ok=True)
            self._band = len(list(journal.iterdir())) + 1
            done = self._band - 1
            return [Event("start", {"scene": str(self._scene), "bands": BANDS, "resumed_bands": done})]
        if self._asked:
            self._outcome = Outcome("stopped", 0, "SIGTERM")
            return []
        if self._text.startswith("hang"):
            return []
        if self._band <= BANDS:
            self._tick()
            (journal / str(self._band)).write_bytes(b"")
            self._band += 1
            return [Event("band", {"band": self._band - 1, "bands": BANDS, "tiles_per_s": 1.0, "eta_s": 0.0})]
        self._tick()
        (self._out / "summary.json").write_text(self._text, encoding="utf-8")
        for path in journal.iterdir():
            path.unlink()
        self._tick()
        journal.rmdir()
        self._outcome = Outcome("done", 0, "")
        return [Event("done", {"seconds": 0.0, "tiles": 1})]

    def _end(self, ended: Any, code: int, reason: str) -> list[Event]:
        self._outcome = Outcome(ended, code, reason)
        return []

    def ask_to_stop(self) -> None:
        self._asked = True

    def kill(self) -> None:
        self._killed = True

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome

    def __enter__(self) -> FakeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Bench:
    """An inbox, an outbox, and runs of the watch over them."""

    def __init__(self, root: Path) -> None:
        self.inbox, self.outbox, self.artifact = root / "in", root / "out", root / "artifact"
        self.inbox.mkdir(parents=True)
        self.outbox.mkdir()
        self.started: list[list[str]] = []
        self.events: list[Event] = []
        self.check: tuple[int, str] = (0, "")

    def put(self, name: str, text: str = "") -> None:
        (self.inbox / name).write_text(text or f"scene {name}", encoding="utf-8")

    def run(
        self,
        disk: Disk | None = None,
        stop: Callable[[], str | None] = lambda: None,
        **options: Any,
    ) -> int:
        disk = disk or Disk()
        given: dict[str, Any] = {"settle_s": 0, "poll_s": 0.01, "once": True, "min_free": 0, **options}
        return Watch(
            self.inbox,
            self.outbox,
            WatchOptions(self.artifact, **given),
            self.events.append,
            stop,
            start=lambda arguments, keep_open: FakeProcess(arguments, keep_open, disk, self.started),
            check=lambda artifact, go_on: self.check,
            disk=disk,
        ).run()

    def results(self) -> dict[str, str]:
        return {
            path.parent.name: path.read_text(encoding="utf-8")
            for path in sorted(self.outbox.glob("*/summary.json"))
            if not path.parent.name.startswith(".")
        }

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.inbox)) for p in self.inbox.rglob("*") if not p.is_dir())

    def heartbeat(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.outbox / "heartbeat.json").read_text(encoding="utf-8"))
        return found

    def left_over(self) -> list[str]:
        return sorted(str(p.relative_to(self.outbox)) for p in (self.outbox / ".edgeslim").glob("*/*"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_scenes_go_to_their_places_with_their_sidecars(bench: Bench) -> None:
    for name in ("a.tif", "a.tfw", "a.tif.aux.xml", "b.tiff", "notes.txt", "c.tif.part"):
        bench.put(name)
    bench.put("bad.tif", "bad")
    bench.put("bad.tif.msk")
    assert bench.run() == 1
    assert bench.results() == {"a": "scene a.tif", "b": "scene b.tiff"}
    assert bench.files() == [
        "c.tif.part",
        "done/a.tfw",
        "done/a.tif",
        "done/a.tif.aux.xml",
        "done/b.tiff",
        "notes.txt",
        "quarantine/bad.tif",
        "quarantine/bad.tif.msk",
        "quarantine/bad.tif.txt",
    ]
    assert (bench.inbox / "quarantine/bad.tif.txt").read_text(encoding="utf-8") == "not a GeoTIFF\n"
    assert bench.left_over() == []
    beat = bench.heartbeat()
    assert beat["counts"] == {"done": 2, "quarantined": 1, "waiting": 0, "changing": 0}
    assert (beat["state"], beat["scene"]) == ("stopped", None)
    assert {e.kind for e in bench.events} >= {"state", "start", "band", "done", "delivered", "quarantined"}
    assert all("file" in e.data for e in bench.events if e.kind != "state")


def test_the_same_name_again_writes_over_nothing(bench: Bench) -> None:
    for text in ("first", "second", "third"):
        bench.put("a.tif", text)
        bench.put("a.tfw", text)
        assert bench.run() == 0
    assert bench.results() == {"a": "first", "a-2": "second", "a-3": "third"}
    assert [p for p in bench.files() if p.endswith("tfw")] == ["done/a-2.tfw", "done/a-3.tfw", "done/a.tfw"]
    assert (bench.inbox / "done/a-3.tif").read_text(encoding="utf-8") == "third"
    for text in ("bad 1", "bad 2"):
        bench.put("x.tif", text)
        assert bench.run() == 1
    assert (bench.inbox / "quarantine/x-2.tif").read_text(encoding="utf-8") == "bad 2"
    assert (bench.inbox / "quarantine/x-2.tif.txt").is_file()


def test_two_scenes_of_one_stem(bench: Bench) -> None:
    bench.put("a.tif", "one")
    bench.put("a.tiff", "two")
    assert bench.run() == 0
    assert sorted(bench.results().values()) == ["one", "two"]
    assert sorted(bench.results()) == ["a", "a-2"]


def test_a_crash_is_tried_again_then_quarantined(bench: Bench) -> None:
    bench.put("a.tif", "crash")
    bench.put("b.tif")
    assert bench.run(attempts=3) == 1
    assert bench.results() == {"b": "scene b.tif"}
    assert sum("a.tif" in arguments[0] for arguments in bench.started) == 3
    reason = (bench.inbox / "quarantine/a.tif.txt").read_text(encoding="utf-8")
    assert reason == "started 3 times without finishing a row band, last: its process crashed (SIGSEGV)\n"


def test_a_damaged_artifact_ends_the_watch_and_blames_no_scene(bench: Bench) -> None:
    bench.put("a.tif", "bad")
    bench.check = (5, "model.onnx: damaged")
    with pytest.raises(EdgeslimError, match="damaged") as caught:
        bench.run()
    assert caught.value.exit_code == 5
    assert bench.files() == ["a.tif"]
    assert bench.started == []


def test_an_artifact_damaged_meanwhile_blames_no_scene(bench: Bench) -> None:
    bench.put("a.tif", "untrusted")

    def stop() -> None:
        bench.check = (5, "model.onnx: damaged") if bench.started else (0, "")

    with pytest.raises(EdgeslimError, match="damaged"):
        bench.run(stop=stop)
    assert bench.files() == ["a.tif"]
    bench.check = (0, "")
    assert bench.run() == 1  # the artifact is whole again, so it is the scene
    assert bench.files() == ["quarantine/a.tif", "quarantine/a.tif.txt"]


def test_a_full_disk_blames_no_scene(bench: Bench) -> None:
    bench.put("a.tif", "full")
    assert bench.run() == 1
    assert bench.files() == ["a.tif"]
    assert bench.heartbeat()["state"] == "stopped"
    assert "the disk was full" in next(e.data["text"] for e in bench.events if e.data.get("state") == "waiting")  # type: ignore[operator]
    bench.put("a.tif", "whole now")
    assert bench.run() == 0
    assert bench.results() == {"a": "whole now"}


def test_a_deadline_sets_aside_and_the_scene_goes_on_when_it_is_moved_back(bench: Bench) -> None:
    bench.put("a.tif", "hang")
    bench.put("b.tif")
    assert bench.run(deadline_s=1) == 1
    assert bench.results() == {"b": "scene b.tif"}
    reason = (bench.inbox / "quarantine/a.tif.txt").read_text(encoding="utf-8")
    assert reason == "its deadline of 1 s passed; moved back into the inbox it goes on\n"
    assert len(bench.left_over()) == 2
    (bench.inbox / "quarantine/a.tif").rename(bench.inbox / "a.tif")
    bench.started.clear()
    state = {"asked": 0}

    def stop() -> str | None:
        state["asked"] += bool(bench.started)
        return "SIGTERM" if state["asked"] > 2 else None

    assert bench.run(stop=stop) == 0
    assert "--resume" in bench.started[0]


def test_what_was_set_aside_is_forgotten_with_its_scene(bench: Bench) -> None:
    bench.put("a.tif", "hang")
    assert bench.run(deadline_s=0.01) == 1
    (bench.inbox / "quarantine/a.tif").unlink()
    assert bench.run() == 0
    assert bench.left_over() == []


def test_a_hang_is_killed(bench: Bench) -> None:
    bench.put("a.tif", "hang")
    assert bench.run(stall_s=0.01, attempts=2) == 1
    assert "said nothing for 0.01 s" in (bench.inbox / "quarantine/a.tif.txt").read_text(encoding="utf-8")


def test_an_orderly_stop_keeps_the_scene_and_counts_no_attempt(bench: Bench) -> None:
    bench.put("a.tif", "hang")
    for _ in range(5):
        seen = len(bench.started)
        assert bench.run(stop=lambda seen=seen: "SIGTERM" if len(bench.started) > seen else None, attempts=2) == 0
    assert bench.files() == ["a.tif"]
    bench.put("a.tif", "in the end another scene")
    assert bench.run(attempts=2) == 0
    assert bench.results() == {"a": "in the end another scene"}


def test_an_unfinished_run_that_cannot_be_resumed_is_begun_anew(bench: Bench) -> None:
    bench.put("a.tif", "other flags")
    assert bench.run(stop=lambda: "SIGTERM" if bench.started else None) == 0
    assert len(bench.left_over()) == 2
    assert bench.run(attempts=1) == 0
    assert bench.results() == {"a": "other flags"}
    assert len(bench.started) == 3


def test_a_scene_that_changes_under_way_is_not_delivered(bench: Bench) -> None:
    bench.put("a.tif", "before")
    changed = []

    def stop() -> None:
        if bench.started and not changed:
            changed.append(True)
            bench.put("a.tif", "after, and longer")

    assert bench.run(stop=stop) == 0
    assert bench.results() == {"a": "after, and longer"}
    assert bench.files() == ["done/a.tif"]


def test_a_scene_taken_away_under_way(bench: Bench) -> None:
    bench.put("a.tif", "crash")

    def stop() -> None:
        if bench.started:
            (bench.inbox / "a.tif").unlink(missing_ok=True)

    assert bench.run(stop=stop) == 0
    assert (bench.files(), bench.left_over(), bench.results()) == ([], [], {})


def test_the_quota_stops_new_scenes_and_deletes_nothing(bench: Bench) -> None:
    (bench.outbox / "old").mkdir()
    (bench.outbox / "old/summary.json").write_text("o" * 100_000, encoding="utf-8")
    bench.put("a.tif")
    assert disk_bytes(bench.outbox) >= 100_000
    assert bench.run(max_outbox=100_000) == 1
    assert (bench.files(), bench.started) == (["a.tif"], [])
    waiting = next(e for e in bench.events if e.data.get("state") == "waiting")
    assert "fetch results" in str(waiting.data["text"])
    assert (bench.outbox / "old/summary.json").stat().st_size == 100_000
    assert bench.run(max_outbox=10_000_000) == 0
    assert "a" in bench.results()


def test_too_little_free_space(bench: Bench) -> None:
    bench.put("a.tif")
    assert bench.run(min_free=1 << 60) == 1
    assert (bench.files(), bench.started) == (["a.tif"], [])


def test_kept_scenes_are_classified_once_and_the_inbox_is_never_written(bench: Bench) -> None:
    bench.put("a.tif")
    bench.put("bad.tif", "bad")
    before = {p.name: p.stat().st_mtime_ns for p in bench.inbox.iterdir()}
    bench.inbox.chmod(0o555)
    assert bench.run(keep=True) == 1
    assert bench.run(keep=True) == 0
    bench.inbox.chmod(0o755)
    assert {p.name: p.stat().st_mtime_ns for p in bench.inbox.iterdir()} == before
    assert len(bench.started) == 2
    assert (bench.outbox / "quarantine/bad.tif.txt").is_file()
    bench.put("a.tif", "changed")
    assert bench.run(keep=True) == 0
    assert bench.results() == {"a": "scene a.tif", "a-2": "changed"}
    (bench.inbox / "a.tif").unlink()
    (bench.inbox / "bad.tif").unlink()
    assert bench.run(keep=True) == 0
    assert bench.left_over() == []


def test_one_watch_a_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeslim.onboard.watching.watch._LOCK_S", 0.0)
    import fcntl

    for folder in (bench.inbox, bench.outbox):
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another `edgeslim watch`"):
            bench.run()
        os.close(descriptor)
    assert bench.run() == 0


def test_folders_that_are_not_there(bench: Bench) -> None:
    bench.outbox.rmdir()
    with pytest.raises(InputError, match="make it first"):
        bench.run()


def test_a_heartbeat_that_can_never_be_written_is_no_start(bench: Bench) -> None:
    with pytest.raises(InputError, match="--heartbeat"):
        bench.run(heartbeat=bench.outbox / "nowhere/beat.json")


@pytest.mark.parametrize(
    "wrong", [{"settle_s": -1}, {"poll_s": 0}, {"deadline_s": 0}, {"attempts": 0}, {"stall_s": float("nan")}]
)
def test_options_that_make_no_sense(bench: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        WatchOptions(bench.artifact, **wrong)


def test_a_ledger_of_another_make_is_started_anew(bench: Bench) -> None:
    bench.put("a.tif")
    ledger = bench.outbox / ".edgeslim/ledger"
    ledger.mkdir(parents=True)
    for name, text in (("1.json", "{"), ("2.json", '{"schema": 99}'), ("3.json", "[]")):
        (ledger / name).write_text(text, encoding="utf-8")
    (bench.outbox / ".edgeslim/work/stray/unfinished").mkdir(parents=True)
    assert bench.run() == 0
    assert bench.left_over() == []
    assert bench.results() == {"a": "scene a.tif"}


def _fill(bench: Bench) -> None:
    for name in ("a.tif", "a.tif.msk", "b.tiff"):
        bench.put(name)
    bench.put("bad.tif", "bad")
    (bench.outbox / "a").mkdir()  # a name that is taken
    (bench.inbox / "done").mkdir()
    (bench.inbox / "done/b.tiff").write_text("older", encoding="utf-8")


def _all_right(bench: Bench) -> None:
    assert bench.results() == {"a-2": "scene a.tif", "b": "scene b.tiff"}
    assert bench.files() == [
        "done/a.tif",
        "done/a.tif.msk",
        "done/b-2.tiff",
        "done/b.tiff",
        "quarantine/bad.tif",
        "quarantine/bad.tif.txt",
    ]
    assert (bench.inbox / "done/b.tiff").read_text(encoding="utf-8") == "older"
    assert (bench.inbox / "quarantine/bad.tif.txt").read_text(encoding="utf-8") == "not a GeoTIFF\n"
    assert bench.left_over() == []


def test_a_power_cut_before_any_operation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Cut before every single operation; of the moves not synced until then each subset is lost."""
    whole = Bench(tmp_path / "whole")
    _fill(whole)
    disk = CutDisk()
    assert whole.run(disk) == 1
    _all_right(whole)
    assert disk.count > 40
    tried = 0
    for cut in range(disk.count):
        pending = 1
        for choice in itertools.count():
            bench = Bench(tmp_path / f"{cut}-{choice}")
            _fill(bench)
            broken = CutDisk(cut)
            with pytest.raises(PowerCut):
                bench.run(broken)
            pending = len(broken.unsynced)
            broken.lose([bool(choice >> i & 1) for i in range(pending)])
            bench.run(CutDisk(), attempts=9)
            _all_right(bench)
            tried += 1
            if choice + 1 >= 2**pending:
                break
    assert tried > disk.count


def test_results_taken_away_between_a_cut_and_the_restart_are_not_made_twice(tmp_path: Path) -> None:
    whole = Bench(tmp_path / "whole")
    _fill(whole)
    disk = CutDisk()
    whole.run(disk)
    for cut in range(disk.count):
        bench = Bench(tmp_path / str(cut))
        _fill(bench)
        with pytest.raises(PowerCut):
            bench.run(CutDisk(cut))
        taken = bench.results()
        for name in taken:
            (bench.outbox / name).rename(tmp_path / f"taken-{cut}-{name}")
        bench.run(CutDisk(), attempts=9)
        assert sorted([*taken.values(), *bench.results().values()]) == ["scene a.tif", "scene b.tiff"]
