"""Killed anywhere, or cut off from power with any part of what was not synced: resumed, the same bytes come out.

EDGESLIM_POWER_CUTS=50 tries that many states at every operation instead of a few.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim import scene_buffers
from edgeslim.errors import InputError
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.unfinished import Unfinished
from tests.onboard.artifacts import make_scene, smooth
from tests.onboard.disk_states import Model, Op, RecordingDisk, State, cuts

MOST = int(os.environ.get("EDGESLIM_POWER_CUTS", "0"))
KILLS = 4 * MOST or 110
"""Of each way to kill."""
RUN_NAME = "run.json"
"""Timings: the one file that may differ."""


class Page:
    """A scene, an artifact and a folder to run them into, always the same one."""

    def __init__(self, folder: Path, artifact: Path) -> None:
        self.artifact, self.root = artifact, folder / "disk"
        values = smooth(140, 61)
        tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
        self.scene = make_scene(folder / "scene.tif", values, nodata=0, **tiled)
        self.out = self.root / "out"
        self.clear()
        self.run()
        self.undisturbed = self.results()

    def clear(self) -> None:
        State({}, {}).lay(self.root)

    def run(
        self,
        disk: Disk | None = None,
        stop: Callable[[], str | None] | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        stride: int | None = None,
    ) -> object:
        options = ClassifyOptions(threads=1, resume=resume, overwrite=overwrite, stride_px=stride)
        return classify_scene(self.scene, self.artifact, self.out, options, stop=stop, disk=disk or Quick())

    def results(self) -> dict[str, bytes]:
        """Every file below the folder, timings aside."""
        found = {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}
        assert found.pop(f"out/{RUN_NAME}", None), "no run.json"
        return found

    def resumed(self, why: str) -> None:
        """Go on, and hold what comes out against the undisturbed run."""
        self.run(resume=True)
        found = self.results()
        assert sorted(found) == sorted(self.undisturbed), why
        assert [n for n in found if found[n] != self.undisturbed[n]] == [], why


class Quick(Disk):
    """Without syncs: the machine that runs the test keeps its power."""

    def sync(self, file: object) -> None:
        pass

    def sync_file(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


class Stop:
    """Asks to stop after some questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> str | None:
        self.left -= 1
        return "test" if self.left < 0 else None


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Iterator[Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scene_buffers, "_CHUNK_BYTES", 16 * 32 * 6
        )  # two chunks a band, so that more than one waits for a sync
        yield Page(tmp_path_factory.mktemp("power"), artifact)


def record(page: Page, kind: str) -> tuple[Model, list[Op]]:
    """The trace of one kind of run, and the disk before it."""
    page.clear()
    if kind.startswith("resumed"):
        assert isinstance(page.run(stop=Stop(4 if kind == "resumed late" else 0)), Unfinished)
    elif kind == "overwriting":
        page.run(stride=8)
    elif kind == "overwriting unfinished":
        assert isinstance(page.run(stop=Stop(2), stride=8), Unfinished)
    before, disk = Model(page.root), RecordingDisk(page.root)
    if kind == "stopped":
        assert isinstance(page.run(disk, Stop(2)), Unfinished)
    else:
        page.run(disk, resume=kind.startswith("resumed"), overwrite=kind.startswith("overwriting"))
    return before, disk.ops


def different(page: Page, before: Model, ops: list[Op], rng: random.Random) -> Iterator[tuple[str, State]]:
    """Different states, with words for each."""
    seen = set()
    for number, state in cuts(ops, before, MOST or 5, rng):
        if (key := state.key(page.root)) not in seen:
            seen.add(key)
            yield f"cut before operation {number} of {len(ops)}, state {len(seen)}", state


@pytest.mark.parametrize("kind", ["whole", "stopped", "resumed", "resumed late"])
def test_every_state_of_the_disk_after_a_cut_resumes_alike(page: Page, kind: str) -> None:
    before, ops = record(page, kind)
    count = 0
    for why, state in different(page, before, ops, random.Random(kind)):
        state.lay(page.root)
        page.resumed(f"{kind}: {why}")
        count += 1
    print(f"\npower cuts, {kind}: {len(ops)} operations, {count} different states, all resumed alike")
    assert count > len(ops)


@pytest.mark.parametrize("kind", ["overwriting", "overwriting unfinished"])
def test_a_cut_while_older_results_are_replaced_leaves_the_old_or_the_new(page: Page, kind: str) -> None:
    """Never a mixture that passes for a result; what --resume refuses, --overwrite mends."""
    before, ops = record(page, kind)
    if kind == "overwriting":
        page.clear()
        page.run(stride=8)
        older = page.results()
    count = refused = 0
    for why, state in different(page, before, ops, random.Random(kind)):
        state.lay(page.root)
        count += 1
        try:
            page.resumed(why)
        except InputError:
            refused += 1
            if kind == "overwriting":
                found = page.results()
                assert {name: found[name] for name in found if "unfinished" not in name} == older, why
            page.run(overwrite=True)
            assert page.results() == page.undisturbed, why
    print(f"\npower cuts, {kind}: {count} different states; {refused} of them still held the older run")
    assert 0 < refused < count


def test_cuts_of_resumed_runs_that_were_cut(page: Page) -> None:
    """One cut after another, each at any operation and with any state of the disk after it."""
    rng, total = random.Random(11), 0
    for walk in range(MOST or 12):
        page.clear()
        for step in range(rng.randint(2, 5)):
            before, disk = Model(page.root), RecordingDisk(page.root)
            page.run(disk, resume=True)
            number = rng.randrange(len(disk.ops) + 1)
            for op in disk.ops[:number]:
                before.apply(op)
            foreign = disk.ops[number].foreign if number < len(disk.ops) else {}
            rng.choice(list(before.states(foreign, 8, rng))).lay(page.root)
            total += 1
            page_state = f"walk {walk}, cut {step} before operation {number}"
        page.resumed(page_state)
    print(f"\npower cuts, one after another: {total}, all resumed alike")


@pytest.mark.parametrize("missing", ["sync_foreign", "sync_folder"])
def test_a_run_that_does_not_sync_is_caught(page: Page, missing: str) -> None:
    """The states are harsh enough: without one kind of sync some of them lose results."""
    before, ops = record(page, "whole")
    if missing == "sync_foreign":
        ops = [replace(op, kind="foreign") if op.kind == missing else op for op in ops]
    else:
        ops = [op for op in ops if op.kind != missing]
    for why, state in different(page, before, ops, random.Random(missing)):
        state.lay(page.root)
        try:
            page.resumed(why)
        except (AssertionError, InputError, OSError):
            return
    pytest.fail(f"no state lost anything without {missing}")


class Lives:
    """A process that is killed again and again."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.onboard.kill_target", str(page.scene), str(page.artifact), str(page.out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def live(self, op: int | None = None, part: float = 1.0, seconds: float | None = None) -> tuple[int, float]:
        """Exit status and duration of one life."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"resume": True, "op": op, "part": part, "seconds": seconds}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["seconds"]

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@pytest.mark.parametrize("how", ["operation", "time"])
def test_killed_at_random_points_it_resumes_alike(page: Page, how: str) -> None:
    _, ops = record(page, "whole")
    rng, lives = random.Random(how), Lives(page)
    try:
        page.clear()
        code, seconds = lives.live()
        assert code == 0
        assert page.results() == page.undisturbed
        kills = tries = 0
        while kills < KILLS:
            page.clear()
            for _ in range(rng.randint(1, 4)):  # killed again while it resumes
                if how == "operation":
                    code, _ = lives.live(op=rng.randrange(len(ops)), part=rng.random())
                else:
                    code, _ = lives.live(seconds=rng.uniform(0, seconds))
                assert code in (0, -signal.SIGKILL)
                kills += code != 0
            tries += 1
            assert lives.live()[0] == 0
            assert page.results() == page.undisturbed, f"try {tries}"
            assert not list(page.out.glob("unfinished"))
    finally:
        lives.close()
    print(f"\nkilled at a random {how}: {kills} times in {tries} runs, all resumed alike")


CALLS = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,ftruncate,write,pwrite64,writev"


def test_the_trace_is_what_the_system_saw(page: Page, tmp_path: Path) -> None:
    """Every write, sync, move and removal in OUT that strace sees is in the trace, in its order, and no other."""
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine: the recorded trace is not held against the system's own")
    page.clear()
    log, trace = tmp_path / "strace", tmp_path / "trace.json"
    command = [sys.executable, "-m", "tests.onboard.kill_target", str(page.scene), str(page.artifact), str(page.out)]
    strace = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={CALLS}", "-o", str(log)]
    cwd = Path(__file__).parents[2]
    done = subprocess.run([*strace, *command, str(trace)], cwd=cwd, capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    names = {"sync_foreign": "fsync", "sync_folder": "fsync", "sync": "fsync", "move": "rename", "cut": "ftruncate"}
    told = [(names.get(kind, kind), path) for kind, path, _ in json.loads(trace.read_text()) if kind != "create"]
    seen, foreign, synced = [], set(), set()
    for line in log.read_text().splitlines():
        found = re.match(r"\d+ +(\w+)\((?:AT_FDCWD<[^>]*>, )?(?:\d+<(?P<open>[^>]*)>|\"(?P<named>[^\"]*)\")", line)
        if found is None or "= -1" in line:
            continue
        path = found["open"] or found["named"]
        if not path.startswith(str(page.root)):
            continue
        call = {"fdatasync": "fsync", "pwrite64": "write", "writev": "write", "unlinkat": "unlink"}.get(
            found[1], found[1]
        )
        call = "mkdir" if call == "mkdirat" else "rename" if call.startswith("rename") else call
        own = path.endswith("/journal") or call in ("mkdir", "rename", "fsync", "rmdir")
        if call == "fsync":
            synced.add(path)
        if own:
            seen.append((call, path))
        else:
            foreign.add(path)
            assert Path(path).parent == page.out / "unfinished", line
            assert path not in synced, f"written after its sync: {line}"
    assert [call for call in seen if call[0] == "fsync"]
    assert seen == told
    assert foreign, "results are written past the disk"
    print(f"\nstrace: {len(seen)} operations, all in the trace; {len(foreign)} files written before their sync")
