"""Cut off from power at any step, with any part of what was not synced: the old or the new artifact is whole.

Whole means: found by every reader under the same path, without a repair, hashes right and golden tiles too. Applied
again, the rest is mended. EDGESLIM_POWER_CUTS=50 tries that many states at every operation instead of a few.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.manifest import read_standing, verify_files
from edgeslim.onboard.check import check_artifact
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.uplink.apply import apply, rollback
from tests.onboard.disk_states import Model, Op, RecordingDisk, State, cuts
from tests.onboard.power import CutDisk, PowerCut
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything, held

MOST = int(os.environ.get("EDGESLIM_POWER_CUTS", "0"))


@dataclass(frozen=True)
class Case:
    """A change: what is done before, what is done, and what stands before and after."""

    before: Callable[[Updates, Path], object]
    change: Callable[[Updates, Path, Disk], object]
    old: str | None
    new: str
    toggles: bool = False
    """Done twice, it is undone."""


def flat(updates: Updates, place: Path) -> None:
    shutil.copytree(updates.one, place)


def second(updates: Updates, place: Path) -> None:
    flat(updates, place)
    apply(updates.delta, place, threads=1)


def back(updates: Updates, place: Path) -> None:
    second(updates, place)
    rollback(place, threads=1)


def third(updates: Updates, place: Path) -> None:
    second(updates, place)
    apply(updates.next, place, threads=1)


CASES = {
    "delta on what was exported": Case(flat, lambda u, p, d: apply(u.delta, p, threads=1, disk=d), "one", "two"),
    "bundle on what was exported": Case(flat, lambda u, p, d: apply(u.bundle, p, threads=1, disk=d), "one", "two"),
    "bundle into nothing": Case(lambda u, p: None, lambda u, p, d: apply(u.bundle, p, threads=1, disk=d), None, "two"),
    "second delta": Case(second, lambda u, p, d: apply(u.next, p, threads=1, disk=d), "two", "three"),
    "first rollback": Case(second, lambda u, p, d: rollback(p, threads=1, disk=d), "two", "one", True),
    "rollback of a rollback": Case(back, lambda u, p, d: rollback(p, threads=1, disk=d), "one", "two", True),
    "later rollback": Case(third, lambda u, p, d: rollback(p, threads=1, disk=d), "three", "two", True),
    "delta after a rollback": Case(back, lambda u, p, d: apply(u.delta, p, threads=1, disk=d), "one", "two"),
}


def record(updates: Updates, root: Path, case: Case) -> tuple[Model, list[Op], dict[str, bytes]]:
    """The disk before a change, its trace, and what it leaves."""
    State({}, {}).lay(root)
    case.before(updates, root / "place")
    before, disk = Model(root), RecordingDisk(root)
    case.change(updates, root / "place", disk)
    return before, disk.ops, everything(root)


def states(root: Path, before: Model, ops: list[Op], seed: str) -> Iterator[tuple[str, State]]:
    """Different states, with words for each."""
    seen = set()
    for number, state in cuts(ops, before, MOST or 7, random.Random(seed)):
        key = state.key(root)
        if key not in seen:
            seen.add(key)
            yield f"cut before operation {number} of {len(ops)}, state {len(seen)}", state


def standing(updates: Updates, place: Path, case: Case, why: str) -> str | None:
    """Which of the two stands, found as a reader finds it."""
    if case.old is None and not (place / "manifest.json").exists():
        return None
    home, manifest = read_standing(place)
    verify_files(home, manifest)
    found = held(place)
    names = [name for name in (case.old, case.new) if name and found == everything(getattr(updates, name))]
    assert len(names) == 1, why
    return names[0]


@pytest.mark.parametrize("name", CASES)
def test_after_any_cut_the_old_or_the_new_one_is_whole(updates: Updates, tmp_path: Path, name: str) -> None:
    case, root = CASES[name], tmp_path / "disk"
    before, ops, after = record(updates, root, case)
    found = []
    for why, state in states(root, before, ops, name):
        state.lay(root)
        stands = standing(updates, root / "place", case, why)
        found.append(stands)
        if len(found) % 5 == 0 and stands is not None:
            check_artifact(root / "place", threads=1)
        if case.toggles and stands == case.new:
            continue
        case.change(updates, root / "place", Quick())
        assert standing(updates, root / "place", case, why) == case.new, why
        assert everything(root) == after, why
    print(f"\npower cuts, {name}: {len(ops)} operations, {len(found)} states, {found.count(case.new)} of them new")
    assert 0 < found.count(case.new) < len(found)
    assert len(found) > len(ops) / 2


class Quick(Disk):
    """Without syncs: the machine that runs the test keeps its power."""

    def sync(self, file: object) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


@pytest.mark.parametrize("name", CASES)
def test_killed_before_any_operation_it_can_be_done_again(updates: Updates, tmp_path: Path, name: str) -> None:
    """No power is lost: what was written is there, and unsynced moves may be undone."""
    case, root = CASES[name], tmp_path / "disk"
    _, ops, after = record(updates, root, case)
    rng = random.Random(name)
    for cut in range(len(ops)):
        State({}, {}).lay(root)
        case.before(updates, root / "place")
        disk = CutDisk(cut)
        try:
            case.change(updates, root / "place", disk)
        except PowerCut:
            disk.lose([rng.random() < 0.5 for _ in disk.unsynced])
        stands = standing(updates, root / "place", case, f"cut {cut}")
        if not case.toggles or stands != case.new:
            case.change(updates, root / "place", Quick())
            assert everything(root) == after, f"cut {cut}"


@pytest.mark.parametrize("missing", ["sync", "sync_folder"])
def test_a_change_that_does_not_sync_is_caught(updates: Updates, tmp_path: Path, missing: str) -> None:
    """The states are harsh enough: without one kind of sync some of them have neither of the two."""
    case, root = CASES["delta on what was exported"], tmp_path / "disk"
    before, ops, _ = record(updates, root, case)
    for why, state in states(root, before, [op for op in ops if op.kind != missing], missing):
        state.lay(root)
        try:
            standing(updates, root / "place", case, why)
        except (AssertionError, InputError, UntrustedResult, OSError):
            return
    pytest.fail(f"no state lost anything without {missing}")


def test_every_write_goes_through_the_disk(updates: Updates, tmp_path: Path) -> None:
    """What the trace would not know of, no cut is tried for."""
    for case in CASES.values():
        _, ops, _ = record(updates, tmp_path / "disk", case)
        assert not [path for op in ops for path in op.foreign]
