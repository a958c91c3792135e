from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.onboard.watching.inbox import Inbox, is_ignored, is_scene, sidecars_of


def names(inbox: Inbox, now_s: float) -> tuple[list[str], list[str]]:
    whole, changing = inbox.look(now_s)
    return [arrival.name for arrival in whole], changing


def test_a_scene_is_whole_once_it_has_not_changed_for_long_enough(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 10)
    (tmp_path / "a.tif").write_bytes(b"1")
    assert names(inbox, 0) == ([], ["a.tif"])
    assert names(inbox, 9) == ([], ["a.tif"])
    (tmp_path / "a.tif").write_bytes(b"12")
    assert names(inbox, 11) == ([], ["a.tif"])
    assert names(inbox, 21) == (["a.tif"], [])
    os.utime(tmp_path / "a.tif", ns=(0, 0))  # same size, another time
    assert names(inbox, 22) == ([], ["a.tif"])
    assert names(inbox, 32) == (["a.tif"], [])


def test_a_file_renamed_over_another_is_new(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 10)
    (tmp_path / "a.tif").write_bytes(b"1")
    (tmp_path / "a.tif.part").write_bytes(b"2")
    for name in ("a.tif", "a.tif.part"):
        os.utime(tmp_path / name, ns=(5, 5))
    names(inbox, 0)
    assert names(inbox, 10) == (["a.tif"], [])
    (tmp_path / "a.tif.part").rename(tmp_path / "a.tif")
    assert names(inbox, 11) == ([], ["a.tif"])
    assert names(inbox, 21) == (["a.tif"], [])


def test_sidecars_belong_to_the_scene_and_keep_it_waiting(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 10)
    beside = ("a.tfw", "a.tif.aux.xml", "a.tif.msk")
    for name in ("a.tif", "b.tif", "notes.txt", "ab.tfw", ".a.tif.aux.xml", *beside[:2]):
        (tmp_path / name).write_bytes(b"1")
    names(inbox, 0)
    (tmp_path / "a.tif.msk.part").write_bytes(b"1")
    assert names(inbox, 10) == (["b.tif"], ["a.tif"])
    assert names(inbox, 20) == (["b.tif", "a.tif"], []) or names(inbox, 20) == (["a.tif", "b.tif"], [])
    (tmp_path / "a.tif.msk.part").rename(tmp_path / "a.tif.msk")
    assert names(inbox, 21) == (["b.tif"], ["a.tif"])
    arrival = next(a for a in inbox.look(31)[0] if a.name == "a.tif")
    assert tuple(f.name for f in arrival.files) == ("a.tif", *beside)
    assert inbox.state_of("a.tif") == arrival.files
    (tmp_path / "a.tif.msk").write_bytes(b"22")
    assert inbox.state_of("a.tif") != arrival.files
    (tmp_path / "a.tif").unlink()
    assert inbox.state_of("a.tif") is None


def test_a_folder_or_pipe_is_no_sidecar(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 0)
    (tmp_path / "a.tif").touch()
    (tmp_path / "a.tif.files").mkdir()
    os.mkfifo(tmp_path / "a.tif.msk")
    [arrival] = inbox.look(0)[0]
    assert [file.name for file in arrival.files] == ["a.tif"]
    assert inbox.state_of("a.tif") == arrival.files  # or it would be taken for changed, again and again


def test_order_of_arrival_is_not_what_a_copy_says_of_its_age(tmp_path: Path) -> None:
    for age, name in enumerate(("c.tif", "a.tif", "b.tif")):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, ns=(10**9 * (100 - age),) * 2)
        while (tmp_path / name).stat().st_ctime_ns == (tmp_path / "c.tif").stat().st_ctime_ns and age:
            os.utime(tmp_path / name, ns=(10**9 * (100 - age),) * 2)  # the kernel's clock ticks coarsely
    inbox = Inbox(tmp_path, 0)
    assert names(inbox, 0)[0][0] == "c.tif"


@pytest.mark.parametrize("name", [".a.tif", "a.tif.part", "a.tif.tmp", "a.TIF.PART", "a.tif~", "a.tif.filepart"])
def test_what_is_under_way_is_no_scene(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1")
    assert names(Inbox(tmp_path, 0), 0) == ([], [])


def test_only_files_are_scenes(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "nowhere.tif").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "UPPER.TIFF").write_bytes(b"1")
    assert names(Inbox(tmp_path, 0), 0) == (["UPPER.TIFF"], [])


@given(
    st.lists(st.from_regex(r"[ab.]{0,3}(\.tif|\.tiff|\.tfw|\.aux\.xml|\.part|~)?", fullmatch=True), unique=True),
    st.data(),
)
def test_every_name_is_ignored_a_scene_or_a_sidecar_of_the_same_stem(found: list[str], data: st.DataObject) -> None:
    for scene in filter(is_scene, found):
        beside = sidecars_of(scene, found)
        assert beside == sorted(set(beside))
        for name in beside:
            assert not is_ignored(name)
            assert not is_scene(name)
            assert name.startswith(os.path.splitext(scene)[0])
