"""A scene's process, with scripts in place of the interpreter: what they do, classifying may do one day."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeslim.onboard.progress import Event
from edgeslim.onboard.watching.scene_process import Outcome, SceneProcess

DONE = Event("done", {"seconds": 1.0, "tiles": 3}).line()
ERROR = Event("error", {"text": "a.tif: damaged;\n copy it again", "exit_code": 1}).line()
STOPPED = Event("stopped", {"band": 1, "bands": 3, "reason": "SIGTERM"}).line()
Script = Callable[[str], None]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    def write(body: str) -> None:
        path = tmp_path / "interpreter"
        path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def end(process: SceneProcess) -> tuple[Outcome, list[Event]]:
    events = []
    until = time.monotonic() + 30
    while (outcome := process.outcome) is None:
        events += process.events(0.05)
        assert time.monotonic() < until
    return outcome, events


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (f"echo '{DONE}' >&2", Outcome("done", 0, "")),
        (f"echo '{ERROR}' >&2; exit 1", Outcome("refused", 1, "a.tif: damaged; copy it again")),
        (f"echo '{STOPPED}' >&2", Outcome("stopped", 0, "SIGTERM")),
        (f"echo '{STOPPED}' >&2; exit 124", Outcome("stopped", 124, "SIGTERM")),
        ("kill -SEGV $$", Outcome("crashed", -11, "its process crashed (SIGSEGV)")),
        (
            "echo corrupted size >&2; kill -ABRT $$",
            Outcome("crashed", -6, "its process crashed (SIGABRT): corrupted size"),
        ),
        (
            "kill -KILL $$",
            Outcome("crashed", -9, "its process was killed (SIGKILL), most likely for want of memory; give --max-ram"),
        ),
        (
            "echo Traceback >&2; echo 'ValueError: x' >&2; exit 1",
            Outcome("crashed", 1, "its process ended with exit code 1 without saying why (ValueError: x)"),
        ),
        ("exit 0", Outcome("crashed", 0, "its process ended with exit code 0 without saying why")),
        (f"echo '{DONE}' >&2; kill -SEGV $$", Outcome("crashed", -11, "its process crashed (SIGSEGV)")),
        (f"echo -n '{DONE}' >&2", Outcome("done", 0, "")),
        (
            "exec 2>&-; sleep 0.3; exit 3",
            Outcome("crashed", 3, "its process ended with exit code 3 without saying why"),
        ),
    ],
)
def test_how_a_process_ends(script: Script, body: str, outcome: Outcome) -> None:
    script(body)
    with SceneProcess(["a.tif"]) as process:
        assert end(process)[0] == outcome


def test_events_among_other_text(script: Script) -> None:
    script(f"""echo 'native chatter {{' >&2; printf '%s' '{ERROR[:20]}' >&2; sleep 0.2; echo '{ERROR[20:]}' >&2
head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo '{DONE}' >&2""")
    with SceneProcess([]) as process:
        outcome, events = end(process)
    assert [e.kind for e in events] == ["error", "done"]
    assert outcome.ended == "done"


def test_a_process_is_ended_and_asked(script: Script) -> None:
    script(
        f"end() {{ echo '{STOPPED}' >&2; exit 0; }}; trap end TERM; echo '{STOPPED}' >&2; while :; do sleep 0.05; done"
    )
    with SceneProcess([]) as process:
        while not process.events(0.1):
            pass
        process.ask_to_stop()
        assert end(process)[0] == Outcome("stopped", 0, "SIGTERM")
    script("sleep 5; true")  # the sleep lives on and holds the pipe
    with SceneProcess([]) as process:
        process.ask_to_stop()
        assert end(process)[0] == Outcome("stopped", -15, "SIGTERM")
    script("trap '' TERM; while :; do sleep 0.05; done")
    with SceneProcess([]) as process:
        pid = process.pid
        assert process.events(0.1) == []
        assert process.outcome is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_flood_is_no_block_and_no_memory(script: Script) -> None:
    """A pipe holds 64 KiB: whoever does not read it stops the writer."""
    script(f"for i in $(seq 20000); do echo '{STOPPED}'; done >&2; echo '{DONE}' >&2")
    with SceneProcess([]) as process:
        outcome, events = end(process)
    assert (outcome.ended, len(events)) == ("done", 20001)


def test_the_service_manager_hears_the_watch_only(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    script('echo "none:$NOTIFY_SOCKET$WATCHDOG_USEC:$ORT_DISABLE_TELEMETRY" >&2; exit 1')
    with SceneProcess([]) as process:
        assert "(none::1)" in end(process)[0].reason


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="dies with its parent on Linux only")
def test_it_dies_with_its_parent() -> None:
    """The parent is killed; its child must not live on."""
    child = (
        "import os, sys, time; from edgeslim.onboard.watching.scene_process import end_with;"
        "end_with(int(sys.argv[1]));"
        "print(os.getpid(), open('/proc/self/oom_score_adj').read().strip(), flush=True); time.sleep(60)"
    )
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, score = map(int, process.stdout.readline().split())
        assert score == 900
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_watch_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgeslim.cli, edgeslim.cli.watch, edgeslim.onboard.watching.watch;"
        "print(sorted({'numpy', 'rasterio', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
