"""The command line as a process of its own, to be signalled and killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 120
"""Beyond this a test hangs."""


def start(arguments: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgeslim", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return process.returncode, out, err


def call(arguments: Sequence[str], cwd: Path) -> tuple[int, str, str]:
    return finish(start(arguments, cwd))


def until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a condition. Fails where the process ends first, or time runs out."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        assert process is None or process.poll() is None, f"ended first: {process and process.communicate()}"
        time.sleep(0.005)


def child_of(pid: int, said: str) -> bool:
    """Whether the process has a child whose command line holds a text."""
    folder = Path(f"/proc/{pid}/task/{pid}/children")
    if not folder.exists():
        pytest.skip("this system does not tell the children of a process")
    try:
        lines = [Path(f"/proc/{child}/cmdline").read_text() for child in folder.read_text().split()]
    except OSError:
        return False
    return any(said in line for line in lines)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
