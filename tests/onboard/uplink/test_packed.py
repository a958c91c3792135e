"""What a killed process left of an archive or a delta goes with the next one, what a living one makes stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
from edgeslim.onboard.uplink.packed import require_free
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything, hidden

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
