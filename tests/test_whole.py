"""Files that appear whole: in folders that are made for them, or refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UsageError
from edgeslim.whole import Kind, new_file, require_free, write_whole
from tests.onboard.uplink.updates import everything, hidden

KIND = Kind("plan", "-o", lambda path: path.read_text() == "plan")


def test_folders_above_are_made_when_the_file_is_written_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "plan.json"
    require_free(path, KIND)
    assert not list(tmp_path.iterdir())
    write_whole(path, "plan", KIND)
    assert path.read_text() == "plan"
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


def test_a_folder_without_permission_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(InputError, match="no permission"):
        require_free(tmp_path / "a" / "plan.json", KIND)


def test_a_file_in_the_place_of_a_folder_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(InputError, match=r"found a file at .*, expected a folder"):
        require_free(tmp_path / "a" / "b" / "plan.json", KIND)
    assert (tmp_path / "a").read_text() == "mine"


def test_somebody_elses_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("mine")
    with pytest.raises(InputError, match="kept it"):
        write_whole(path, "plan", KIND)
    assert path.read_text() == "mine"
    write_whole(path, "plan", KIND, overwrite=True)
    write_whole(path, "plan", KIND)


def test_a_text_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("plan")
    (tmp_path / "link").symlink_to("plan.json")
    write_whole(tmp_path / "link", "plan of today", KIND)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "plan.json").read_text() == "plan of today"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path: Path, overwrite: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(InputError, match="found a device or a pipe, expected a file's name; give one by -o"):
            write_whole(path, "plan", KIND, overwrite=overwrite)
        assert not path.is_file()


def test_a_name_that_says_something_else(tmp_path: Path) -> None:
    page = Kind("page", "--html", lambda _: False, ".html")
    with pytest.raises(UsageError, match=r"--html .*page.txt: found suffix '.txt', expected .html"):
        require_free(tmp_path / "page.txt", page)
    require_free(tmp_path / "page.html", page)


def test_what_fails_on_its_way_leaves_what_stood_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("old")
    full = pytest.raises(InputError, match=r"^-o .*sent: cannot be written \(No space left on device\)")
    with full, new_file(tmp_path / "sent", "-o") as file:
        file.write(b"new")
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "sent", "-o"):
        raise KeyboardInterrupt
    assert everything(tmp_path) == {"sent": b"old"}
    assert hidden(tmp_path) == []


def test_a_new_file_is_as_readable_as_any(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "sent", "-o") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "sent").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "sent").write_text("old")
    link, none, loop = tmp_path / "link", tmp_path / "none", tmp_path / "loop"
    link.symlink_to("far/sent")
    with new_file(link, "-o") as file:
        file.write(b"new")
        assert len(hidden(tmp_path / "far")) == 1
    none.symlink_to("farther/sent")  # nothing stands there yet
    with new_file(none, "-o") as file:
        file.write(b"first")
    loop.symlink_to("loop")  # names nothing but itself
    with new_file(loop, "-o") as file:
        file.write(b"file")
    assert [link.is_symlink(), none.is_symlink(), loop.is_symlink()] == [True, True, False]
    assert everything(tmp_path) == {
        "far/sent": b"new",
        "farther/sent": b"first",
        "link": b"new",
        "none": b"first",
        "loop": b"file",
    }
    assert hidden(tmp_path) == hidden(tmp_path / "far") == hidden(tmp_path / "farther") == []
