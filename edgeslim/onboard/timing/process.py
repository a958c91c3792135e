"""Process: a case measured in a fresh process, which starts with no memory but its own and may crash alone."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edgeslim.errors import EdgeslimError, InputError, ParityError, UntrustedResult
from edgeslim.onboard.timing.measuring import Order
from edgeslim.onboard.watching.scene_process import child_environment

_TICK_S = 0.25
_ERRORS: dict[int, type[EdgeslimError]] = {kind.exit_code: kind for kind in (ParityError, UntrustedResult)}

Hear = Callable[[str, dict[str, Any]], None]
"""Is told what `edgeslim.onboard.timing.measuring.measure` tells."""


def measure_apart(order: Order, hear: Hear, stop: Callable[[], object]) -> None:
    """Measure in a process of its own, and tell what it tells; once `stop` is true it is asked to come to an end.

    Raises ParityError and UntrustedResult as `measure` does, InputError for all else that went wrong there.
    """
    command = [sys.executable, "-m", "edgeslim.onboard.timing.measuring", json.dumps(asdict(order))]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"OPENBLAS_NUM_THREADS": "1", **child_environment()},
            start_new_session=True,  # Ctrl-C is for this process, which passes it on once
        )
    except OSError as error:
        raise InputError(f"{order.folder}: cannot be timed, no process can be started ({error.strerror})") from None
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    listener = threading.Thread(target=_read, args=(process, said), name="listener", daemon=True)
    listener.start()
    last, asked = "", False
    with process:
        try:
            while True:
                if not asked and stop():
                    asked = True
                    process.send_signal(signal.SIGTERM)
                try:
                    line = said.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                if line is None:
                    break
                if (record := _record(line)) is None:
                    last = line.decode("utf-8", "replace").strip() or last
                elif (kind := record.pop("said")) == "error":
                    raise _ERRORS.get(record["exit_code"], InputError)(record["text"])
                else:
                    hear(kind, record)
            code = process.wait()
        finally:
            process.kill()
            listener.join()
    if code and not (asked and code == -signal.SIGTERM):  # that: before it could listen
        raise InputError(f"{order.folder}: {_crash(order, code)}" + (f" ({last[:200]})" if last else ""))


def _read(process: subprocess.Popen[bytes], said: queue.SimpleQueue[bytes | None]) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            said.put(line)
    said.put(None)


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for what a library wrote."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "said" in record else None


def _crash(order: Order, code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            f"its process was killed at batch {order.case.batch} with {order.case.workers} at once, most likely for "
            "want of memory; give fewer --threads or a smaller --batch"
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"its process ended with {how} at batch {order.case.batch}; run `edgeslim check`"
