"""What docs/operations.md and the unit say is what the code does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.onboard.events import EVENTS, WATCH_EVENTS
from edgeslim.report.schema import field_docs

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
UNIT = (DOCS / "edgeslim-watch.service").read_text(encoding="utf-8")
OTHERS = {
    *("--rm", "--read-only", "--network", "--cap-drop", "--security-opt", "--user", "--userns", "--memory"),
    *("--stop-timeout", "--sdnotify", "--interval", "--from", "--no-cache-dir", "--now"),
}
"""Flags of podman, pip and systemctl."""


def test_the_table_of_events_is_the_published_one() -> None:
    rows = [
        f"| `{kind}` | {'; '.join(f'`{name}` {text}' for name, text in field_docs(fields).items())} |"
        for kind, fields in {**EVENTS, **WATCH_EVENTS}.items()
    ]
    table = PAGE[PAGE.index("| event | fields |") :].splitlines()[2 : 2 + len(rows)]
    assert table == rows


@pytest.mark.parametrize("text", [PAGE, UNIT, (DOCS / "Containerfile").read_text(encoding="utf-8")])
def test_flags_in_the_docs_are_flags(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for verb in ("watch", "classify", "check", "build", "export", "diff", "apply"):
        assert main([verb, "--help"]) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OTHERS
    assert used
    assert used <= known


def test_the_unit_starts_a_watch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = re.search(r"^ExecStart=((?:.*\\\n)*.*)", UNIT, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    assert words[1] == "watch"
    assert main(words[1:]) == 1  # every flag is taken; this machine has no such artifact
    assert "/etc/edgeslim/artifact" in capsys.readouterr().err
    for directive in ("Type=notify", "WatchdogSec=", "PrivateNetwork=yes", "ProtectSystem=strict", "MemoryMax="):
        assert f"\n{directive}" in UNIT


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine: the unit is not verified")
    path = tmp_path / "edgeslim-watch.service"
    path.write_text(UNIT.replace("/opt/edgeslim/bin/edgeslim", "/bin/true"), encoding="utf-8")
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
