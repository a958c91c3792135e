"""Check process: `edgeslim check` in a process of its own, for a watch that loads no runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeslim.onboard.watching.scene_process import child_environment

_TICK_S = 0.25


def check_artifact(artifact: Path, go_on: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and error line of `edgeslim check`, run in a process of its own; 0 where `go_on` ends the waiting."""
    command = [sys.executable, "-m", "edgeslim", "check", str(artifact), "--json"]
    # In memory where that can be: a read-only root has no /tmp.
    with os.fdopen(os.memfd_create("said"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=child_environment(),
                start_new_session=True,
            )
        except OSError as error:
            return 1, f"{artifact}: cannot be checked ({error.strerror})"
        with process:
            try:
                while process.poll() is None:
                    if not go_on():
                        return 0, ""
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_TICK_S)
            finally:
                process.kill()
        said.seek(0)
        lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    code = process.returncode if process.returncode >= 0 else 1
    last = lines[-1].removeprefix("error: ") if lines else f"ended with exit code {process.returncode}"
    return code, f"{artifact}: its check failed: {last}" if process.returncode < 0 or not lines else last
