"""A new artifact stands once it is proven, the one before it can come back, and what fails changes nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from edgeslim.errors import EdgeslimError, InputError, MissingExtra, ParityError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, parse_manifest, read_manifest, read_standing, verify_files
from edgeslim.onboard import check, classify
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.uplink.apply import apply, rollback
from edgeslim.onboard.uplink.bundle import write_bundle
from tests.onboard.artifacts import make_scene, smooth
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything, held


@pytest.fixture
def place(updates: Updates, tmp_path: Path) -> Path:
    """Where the first artifact stands, as `edgeslim export` wrote it."""
    return shutil.copytree(updates.one, tmp_path / "place")


def seal_of(artifact: Path) -> str:
    return parse_manifest((artifact / MANIFEST_NAME).read_bytes(), artifact)[1]


def stands(place: Path) -> str:
    return read_manifest(place).name


def test_a_delta_then_another_and_back(updates: Updates, place: Path) -> None:
    done = apply(updates.delta, place, threads=1)
    assert (done.by, done.changed, done.old_name, done.name) == ("delta", True, "tiny head 1", "tiny head 2")
    assert done.report.batches[1].max_abs <= 1e-4
    assert held(place) == everything(updates.two)
    done = apply(updates.next, place, threads=1)
    assert held(place) == everything(updates.three)
    assert len(list(place.glob("update-*"))) == 2
    # Of the first, which two changes ago was exported flat, nothing is left.
    assert sorted(p.name for p in place.iterdir() if p.is_file()) == [MANIFEST_NAME]
    done = rollback(place, threads=1)
    assert (done.by, done.changed, done.old_name, done.name) == ("rollback", True, "tiny head 3", "tiny head 2")
    assert held(place) == everything(updates.two)
    rollback(place, threads=1)
    assert held(place) == everything(updates.three)


def test_a_rollback_to_what_was_exported_flat_and_forward_again(updates: Updates, place: Path) -> None:
    with pytest.raises(InputError, match=r"found nothing that what stands replaced; `edgeslim apply` a bundle instead"):
        rollback(place, threads=1)
    apply(updates.delta, place, threads=1)
    after = everything(place)
    for _ in range(2):
        rollback(place, threads=1)
        assert held(place) == everything(updates.one)
        rollback(place, threads=1)
        assert held(place) == everything(updates.two)
    assert set(everything(place)) - set(after) == {"previous.json"}
    rollback(place, threads=1)
    assert apply(updates.delta, place, threads=1).changed
    assert held(place) == everything(updates.two)


def test_a_bundle_into_a_new_place(updates: Updates, tmp_path: Path) -> None:
    done = apply(updates.bundle, tmp_path / "a" / "b" / "place", threads=1)
    assert (done.by, done.old_name, done.changed) == ("bundle", None, True)
    assert held(tmp_path / "a" / "b" / "place") == everything(updates.two)
    with pytest.raises(InputError, match="found nothing that what stands replaced"):
        rollback(tmp_path / "a" / "b" / "place", threads=1)
    apply(updates.next, tmp_path / "a" / "b" / "place", threads=1)
    rollback(tmp_path / "a" / "b" / "place", threads=1)
    assert held(tmp_path / "a" / "b" / "place") == everything(updates.two)


def test_what_stands_already_is_checked_and_left(updates: Updates, place: Path) -> None:
    apply(updates.delta, place, threads=1)
    before = everything(place)
    for update in (updates.delta, updates.bundle):
        done = apply(update, place, threads=1)
        assert not done.changed
        assert done.report.batches
        assert everything(place) == before
    rollback(place, threads=1)
    assert stands(place) == "tiny head 1"


@pytest.mark.parametrize("updated", [False, True])
@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "golden.npz"])
def test_a_bundle_mends_what_is_damaged(
    updates: Updates, place: Path, tmp_path: Path, name: str, updated: bool
) -> None:
    bundle = updates.bundle
    if updated:
        apply(updates.delta, place, threads=1)
    else:
        bundle = tmp_path / "one.tar.xz"
        write_bundle(updates.one, bundle)
    before = everything(place)
    home, _ = read_standing(place)
    (home / name).write_bytes(b"\0" + (home / name).read_bytes()[1:-1])
    with pytest.raises(UntrustedResult):
        verify_files(*read_standing(place))
    if updated:
        with pytest.raises(UntrustedResult, match="send a bundle"):
            apply(updates.delta, place, threads=1)
    else:
        with pytest.raises(UntrustedResult, match="damaged"):
            apply(updates.delta, place, threads=1)
    cut = tmp_path / "cut"
    cut.write_bytes(bundle.read_bytes()[:-200])
    with pytest.raises(InputError, match="send it again"):
        apply(cut, place, threads=1)
    assert not [p for p in everything(place) if p.endswith(".part")]
    assert not apply(bundle, place, threads=1).changed
    assert everything(place) == before


def test_a_bundle_mends_a_damaged_manifest(updates: Updates, place: Path) -> None:
    (place / MANIFEST_NAME).write_bytes(b"{}")
    with pytest.raises(UntrustedResult, match="damaged"):
        apply(updates.delta, place, threads=1)
    assert apply(updates.bundle, place, threads=1).old_name is None
    assert held(place) == everything(updates.two)


def test_a_damaged_artifact_does_not_come_back(updates: Updates, place: Path) -> None:
    apply(updates.delta, place, threads=1)
    (place / "weights.bin").write_bytes(b"x")
    with pytest.raises(UntrustedResult, match="damaged"):
        rollback(place, threads=1)
    assert held(place) == everything(updates.two)


def unchanged(place: Path, before: dict[str, bytes]) -> None:
    assert everything(place.parent) == before
    assert stands(place) == "tiny head 1"
    verify_files(*read_standing(place))


def test_a_delta_of_another_artifact_is_refused(updates: Updates, place: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"found tiny head 1 \(\w{12}…\), expected tiny head 2 .* send a bundle$"):
        apply(updates.next, place, threads=1)
    unchanged(place, before)
    with pytest.raises(InputError, match="found no artifact, expected tiny head 1"):
        apply(updates.delta, tmp_path / "nothing", threads=1)
    with pytest.raises(InputError, match="found no such folder"):
        rollback(tmp_path / "nothing", threads=1)
    unchanged(place, before)
    assert not (tmp_path / "nothing").exists()


def test_golden_tiles_that_fail_change_nothing(updates: Updates, place: Path, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(ParityError, match="do not fly") as caught:
        apply(updates.wrong, place, threads=1)
    assert caught.value.exit_code == 4
    unchanged(place, before)


def test_without_a_runtime_nothing_changes(
    updates: Updates, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtra):
        apply(updates.delta, place, threads=1)
    unchanged(place, before)


def test_an_interrupt_changes_nothing(
    updates: Updates, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = everything(tmp_path)
    monkeypatch.setattr(check, "replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply(updates.delta, place, threads=1)
    unchanged(place, before)


@pytest.mark.parametrize("at", ["manifest.json.part", "update-{seal}/sub", "update-{seal}/manifest.json"])
def test_a_folder_where_a_file_goes_is_named(updates: Updates, place: Path, at: str) -> None:
    folder = place / at.format(seal=seal_of(updates.two)[:32])
    folder.mkdir(parents=True)
    before = everything(place)
    with pytest.raises(InputError) as refused:
        apply(updates.bundle, place, threads=1)
    assert str(refused.value) == (
        f"{folder}: found a folder, expected a file of an artifact there, or nothing; move it away and try again; what "
        f"stood in {place} stands"
    )
    assert everything(place) == before
    folder.rmdir()
    assert apply(updates.bundle, place, threads=1).changed


def test_a_folder_where_a_damaged_file_is_mended_is_named(updates: Updates, place: Path) -> None:
    (place / "model.onnx").unlink()
    (place / "model.onnx").mkdir()
    one = place.parent / "one"
    write_bundle(updates.one, one)
    with pytest.raises(InputError, match=f"^{place}/model.onnx: found a folder, expected a file of an artifact there"):
        apply(one, place, threads=1)
    assert not [path for path in place.iterdir() if path.name.endswith(".part")]
    (place / "model.onnx").rmdir()
    apply(one, place, threads=1)
    assert held(place) == everything(updates.one)


def test_a_file_where_a_folder_goes_is_named(updates: Updates, place: Path) -> None:
    path = place / f"update-{seal_of(updates.two)[:32]}"
    path.write_text("mine")
    with pytest.raises(InputError, match=f"^{path}: cannot be written .File exists.; what stood in {place} stands"):
        apply(updates.bundle, place, threads=1)
    assert path.read_text() == "mine"


def test_a_folder_is_no_update(updates: Updates, place: Path) -> None:
    before = everything(place)
    with pytest.raises(InputError, match=f"^{updates.two}: found a folder, expected a bundle or a delta; `edgeslim ex"):
        apply(updates.two, place, threads=1)
    assert everything(place) == before


@pytest.mark.parametrize("name", ["file", "folder with files", "text"])
def test_what_is_no_place_or_no_update_is_refused(updates: Updates, place: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder with files").mkdir()
    (tmp_path / "folder with files" / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    update, target = (tmp_path / "file", place) if name == "text" else (updates.bundle, tmp_path / name)
    told = {"file": "is a file", "folder with files": "holds notes.txt", "text": "neither a bundle nor a delta"}
    with pytest.raises(InputError, match=told[name]):
        apply(update, target, threads=1)
    unchanged(place, before)


def test_a_pipe_is_refused_before_it_is_waited_for(place: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody will ever write into it
    with pytest.raises(InputError, match=r"pipe: found no regular file, expected a bundle or a delta; save it as"):
        apply(tmp_path / "pipe", place, threads=1)


class Failing(Disk):
    """A disk that is full, or read-only, from its operation number `at` on; what frees room it still does."""

    def __init__(self, at: int, code: int) -> None:
        self.left, self.code = at, code

    def _tick(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.code, os.strerror(self.code))

    def make_folder(self, path: Path) -> None:
        self._tick()
        super().make_folder(path)

    def create(self, path: Path) -> BinaryIO:
        self._tick()
        return super().create(path)

    def append(self, file: BinaryIO, data: bytes) -> None:
        self._tick()
        super().append(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._tick()

    def sync_folder(self, path: Path) -> None:
        pass

    def replace(self, source: Path, target: Path) -> None:
        self._tick()
        super().replace(source, target)


def change(updates: Updates, place: Path, kind: str, disk: Disk) -> str | None:
    """Change what stands; the error if there is one."""
    try:
        if kind == "rollback":
            rollback(place, threads=1, disk=disk)
        else:
            apply(updates.delta if kind == "delta" else updates.bundle, place, threads=1, disk=disk)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("code", [28, 30], ids=["full", "read-only"])
@pytest.mark.parametrize("kind", ["delta", "bundle", "rollback", "new place"])
def test_a_disk_that_fails_at_any_operation_changes_nothing(
    updates: Updates, tmp_path: Path, kind: str, code: int
) -> None:
    for at in range(1000):
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        if kind != "new place":
            shutil.copytree(updates.one, place)
        if kind == "rollback":
            apply(updates.delta, place, threads=1)
            rollback(place, threads=1)  # so that both remember the other, and nothing is new
        before = everything(tmp_path)
        said = change(updates, place, kind, Failing(at, code))
        if said is None:
            assert at > 5
            assert held(place) == everything(updates.two)
            return
        assert os.strerror(code) in said
        assert "\n" not in said
        assert everything(tmp_path) == before
        assert place.exists() == (kind != "new place")
    pytest.fail("it never ended")


def test_too_little_room_is_said_before_it_is_filled(
    updates: Updates, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    before = everything(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    for update in (updates.delta, updates.bundle):
        with pytest.raises(InputError, match=r"found 0\.0 MB free, expected .*; make room"):
            apply(update, place, threads=1)
        unchanged(place, before)


def test_two_at_once_are_refused(updates: Updates, place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another `edgeslim apply` is at work there"):
            apply(updates.delta, place, threads=1)
        with pytest.raises(InputError, match="another `edgeslim apply` is at work there"):
            rollback(place, threads=1)
    finally:
        os.close(descriptor)
    apply(updates.delta, place, threads=1)


def test_a_reader_meanwhile_finds_the_old_or_the_new_one_whole(updates: Updates, place: Path) -> None:
    """One that looked before a change, too: what it found stays where it is."""
    stop, found, errors = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            try:
                home, manifest = read_standing(place)
                verify_files(home, manifest)
            except EdgeslimError as error:
                errors.append(str(error))
            else:
                found.add(manifest.name)

    apply(updates.delta, place, threads=1)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(15):
        rollback(place, threads=1)
        apply(updates.delta, place, threads=1)
    apply(updates.next, place, threads=1)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert found >= {"tiny head 1", "tiny head 2"}


def test_classify_flies_what_stands(updates: Updates, place: Path, tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene.tif", smooth(24, 24))
    maps = []
    apply(updates.delta, place, threads=1)
    for number in range(3):
        summary = classify_scene(scene, place, tmp_path / f"map{number}", ClassifyOptions(threads=1))
        maps.append((tmp_path / f"map{number}" / "classes.tif").read_bytes())
        assert summary.artifact["name"] == stands(place)  # type: ignore[union-attr]
        if number < 2:
            rollback(place, threads=1)
    flat = classify_scene(scene, updates.two, tmp_path / "flat", ClassifyOptions(threads=1))
    assert flat.artifact["sha256"] == summary.artifact["sha256"]  # type: ignore[union-attr]
    assert maps[0] == maps[2] == (tmp_path / "flat" / "classes.tif").read_bytes()
    assert maps[0] != maps[1]


@pytest.mark.parametrize("updated", [False, True])
def test_an_artifact_replaced_while_a_run_starts(
    updates: Updates, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updated: bool
) -> None:
    """The run ends with the one that it began with, or says in one line that it must be started again."""
    scene = make_scene(tmp_path / "scene.tif", smooth(24, 24))
    opened = classify.open_runtime
    if updated:
        apply(updates.delta, place, threads=1)

    def replaced_meanwhile(*arguments: object, **options: object) -> object:
        runtime = opened(*arguments, **options)  # type: ignore[arg-type]
        apply(updates.next if updated else updates.delta, place, threads=1)
        return runtime

    monkeypatch.setattr(classify, "open_runtime", replaced_meanwhile)
    if not updated:
        with pytest.raises(UntrustedResult, match="was replaced while this run started; start it again"):
            classify_scene(scene, place, tmp_path / "map", ClassifyOptions(threads=1))
        assert not (tmp_path / "map").exists()
        return
    summary = classify_scene(scene, place, tmp_path / "map", ClassifyOptions(threads=1))
    assert summary.artifact["name"] == "tiny head 2"  # type: ignore[union-attr]
    assert summary.artifact["sha256"] == {  # type: ignore[union-attr]
        name: hashlib.sha256(data).hexdigest() for name, data in everything(updates.two).items()
    }
    assert stands(place) == "tiny head 3"


def test_a_users_files_in_the_place_stay(updates: Updates, place: Path) -> None:
    (place / "notes.txt").write_text("mine")
    (place / "update-mine").mkdir()
    apply(updates.delta, place, threads=1)
    apply(updates.next, place, threads=1)
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "update-mine").is_dir()
