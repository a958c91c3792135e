"""Where artifacts go: what a killed export leaves goes with the next one, and nothing that is somebody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.ground.exporting.place import check_parent, check_place, export_folder, swap
from tests.onboard.artifacts import make_artifact

KILLED = """
import os, signal, sys
from pathlib import Path
from edgeslim.ground.exporting import place

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

parent, at = Path(sys.argv[1]), sys.argv[2]
with place.export_folder(parent, "artifact") as work:
    (work / "onnx-fp32").mkdir()
    (work / "onnx-fp32" / "weights.bin").write_bytes(b"new")
    if at == "making":
        killed()
    if at == "alive":
        print("made", flush=True)
        sys.stdin.read()
    before = os.replace
    def replace(source, target):
        if Path(source).parent == work:
            killed()
        before(source, target)
    os.replace = replace
    place.swap(work / "onnx-fp32", parent / "artifact", work)
"""


def started(parent: Path, at: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", KILLED, str(parent), at]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def again(parent: Path) -> None:
    with export_folder(parent, "artifact"):
        pass


@pytest.mark.parametrize("at", ["making", "swapping"])
def test_what_a_killed_export_left_goes_and_the_old_artifact_stands(tmp_path: Path, at: str) -> None:
    make_artifact(tmp_path / "artifact")
    before = sorted(path.name for path in (tmp_path / "artifact").iterdir())
    with started(tmp_path, at) as process:
        process.communicate()
    assert process.returncode == -9
    assert len(hidden(tmp_path)) == 1
    assert (tmp_path / "artifact").exists() == (at == "making")
    (tmp_path / ".artifact-mine").mkdir()
    (tmp_path / ".artifact2-export-abcdefgh").mkdir()  # of another name
    again(tmp_path)
    assert sorted(path.name for path in hidden(tmp_path)) == [".artifact-mine", ".artifact2-export-abcdefgh"]
    assert sorted(path.name for path in (tmp_path / "artifact").iterdir()) == before


def test_what_a_living_export_makes_stays(tmp_path: Path) -> None:
    tmp_path = tmp_path / "artifact"  # of several artifacts: their work lies in it
    with started(tmp_path, "alive") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        check_parent(tmp_path, set())
        again(tmp_path)
        assert [path.name for path in hidden(tmp_path)[0].iterdir()] == ["onnx-fp32"]
        process.kill()
    again(tmp_path)
    assert hidden(tmp_path) == []


def test_what_was_moved_aside_comes_back_where_the_new_one_does_not_arrive(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifact")
    with pytest.raises(FileNotFoundError), export_folder(tmp_path, "artifact") as work:
        swap(work / "none", tmp_path / "artifact", work)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    check_place(tmp_path / "artifact")


def test_a_folder_that_no_other_can_replace_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=r"^-o \.: is the folder that you are in, .* name one inside it$"):
        check_place(Path())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.path.ismount", lambda path: path == str((tmp_path / "empty").resolve()))
    with pytest.raises(InputError, match=r"^-o empty: is where a disk is mounted, .* name one inside it$"):
        check_place(Path("empty"))


def test_a_place_that_cannot_be_made_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"found a file at .*/file, expected a folder"):
        check_place(tmp_path / "file" / "artifact")
