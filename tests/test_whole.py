"""Text files that appear whole: in folders that are made for them, or refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UsageError
from edgeslim.whole import Kind, require_free, write_whole

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
