"""A process that classifies and is killed, many times: one interpreter, a fork for each life.

`python -m tests.onboard.kill_target SCENE ARTIFACT OUT` reads a JSON object a line, {"resume": true, "op": 7, "part":
0.5, "seconds": null}, and answers with {"code": -9, "seconds": 0.1}: exit status of the life, negative for a signal.
`op` kills at that operation of the disk, of which a write is done up to `part`; `seconds` kills from outside.
With TRACE as a fourth argument it lives once and writes the trace of its disk there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.disk import Disk
from tests.onboard.disk_states import RecordingDisk


class KillingDisk(Disk):
    """Kills its process at one operation."""

    def __init__(self, op: int | None, part: float) -> None:
        self._left, self._part = op, part

    def _tick(self, file: BinaryIO | None = None, data: bytes = b"") -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            if file is not None:
                super().append(file, data[: int(len(data) * self._part)])
            os.kill(os.getpid(), signal.SIGKILL)

    def make_folder(self, path: Path) -> None:
        self._tick()
        super().make_folder(path)

    def create(self, path: Path) -> BinaryIO:
        self._tick()
        return super().create(path)

    def append_to(self, path: Path, size: int) -> BinaryIO:
        self._tick()
        return super().append_to(path, size)

    def append(self, file: BinaryIO, data: bytes) -> None:
        self._tick(file, data)
        super().append(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._tick()

    def sync_file(self, path: Path) -> None:
        self._tick()

    def sync_folder(self, path: Path) -> None:
        self._tick()

    def replace(self, source: Path, target: Path) -> None:
        self._tick()
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._tick()
        super().remove(path)

    def remove_folder(self, path: Path) -> None:
        self._tick()
        super().remove_folder(path)


def _live(paths: list[Path], request: dict[str, Any], disk: Disk) -> None:
    scene, artifact, out = paths
    classify_scene(scene, artifact, out, ClassifyOptions(threads=1, resume=request["resume"]), disk=disk)


def _life(paths: list[Path], request: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _live(paths, request, KillingDisk(request["op"], request["part"]))
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if request["seconds"] is not None:
        time.sleep(request["seconds"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}


def main() -> None:
    paths, trace = [Path(a) for a in sys.argv[1:4]], sys.argv[4:]
    if trace:
        disk = RecordingDisk(paths[2].parent, syncing=True)
        _live(paths, {"resume": True}, disk)
        ops = [(op.kind, str(op.path), str(op.other or "")) for op in disk.ops]
        Path(trace[0]).write_text(json.dumps(ops), encoding="utf-8")
        return
    import numpy as np  # noqa: F401  here and not in each life
    import onnxruntime  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_life(paths, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
