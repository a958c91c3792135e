"""A file appears whole; what a killed process left of it goes with the next one, what a living one makes stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
from edgeslim.onboard.uplink.packed import new_file, require_free
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything

WRITING = """
import os, signal, sys
from pathlib import Path
from edgeslim.onboard.uplink import packed

def begun(self):
    print("begun", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)

packed.Packer.finish = begun
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
verb, *paths = sys.argv[1:]
{"delta": write_delta, "bundle": write_bundle}[verb](*map(Path, paths))
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("verb", ["delta", "bundle"])
def test_what_a_killed_process_left_goes_and_what_a_living_one_makes_stays(
    updates: Updates, tmp_path: Path, verb: str
) -> None:
    artifacts = (updates.one, updates.two) if verb == "delta" else (updates.two,)
    write = {"delta": write_delta, "bundle": write_bundle}[verb]
    (tmp_path / ".sent-new-mine").mkdir()
    (tmp_path / ".sent2-new-abcdefgh").mkdir()  # of another name
    (tmp_path / ".sent-new-abcdefgh").symlink_to(".sent-new-mine")
    before = hidden(tmp_path)
    words = [sys.executable, "-c", WRITING, verb, *map(str, artifacts), str(tmp_path / "sent")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        write(*artifacts, tmp_path / "sent")
        (left,) = set(hidden(tmp_path)) - set(before)
        assert list(everything(tmp_path / left)) == ["sent"]
        process.communicate()
    assert process.returncode == -9
    assert left in hidden(tmp_path)
    whole = (tmp_path / "sent").read_bytes()
    write(*artifacts, tmp_path / "sent", overwrite=True)
    assert hidden(tmp_path) == before
    assert (tmp_path / "sent").read_bytes() == whole


def test_what_fails_on_its_way_leaves_what_stood_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("old")
    full = pytest.raises(InputError, match=r"^-o .*sent: cannot be written \(No space left on device\)")
    with full, new_file(tmp_path / "sent", True) as file:
        file.write(b"new")
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "sent", True):
        raise KeyboardInterrupt
    assert everything(tmp_path) == {"sent": b"old"}
    assert hidden(tmp_path) == []


def test_a_new_file_is_as_readable_as_any(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_file(tmp_path / "sent", False) as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "sent").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "sent").write_text("old")
    link, none, loop = tmp_path / "link", tmp_path / "none", tmp_path / "loop"
    link.symlink_to("far/sent")
    with pytest.raises(InputError, match="link: exists already"), new_file(link, False):
        pass
    with new_file(link, True) as file:
        file.write(b"new")
        assert len(hidden(tmp_path / "far")) == 1
    none.symlink_to("farther/sent")  # nothing stands there yet
    with new_file(none, False) as file:
        file.write(b"first")
    loop.symlink_to("loop")  # names nothing but itself
    with new_file(loop, False) as file:
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


def test_a_link_is_judged_by_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "below").symlink_to("file/sent")
    with pytest.raises(InputError, match=r"found a file at .*/file, expected a folder"):
        require_free(tmp_path / "below", True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"^-o .*{name}: is a device or a pipe, expected the name of a file"):
            require_free(tmp_path / name, True)
