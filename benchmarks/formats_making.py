"""What benchmarks/formats.py measures: every artifact of one width, exported, proven and kept.

An artifact lies in build/benchmarks/formats/SUBJECT-wWIDTH/TARGET-PRECISION; what is refused leaves
TARGET-PRECISION.refused.json there instead: the number of tiles it was tried on, why, and the trials of int8.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import formats_subjects as subjects
import numpy as np

from edgeslim.errors import EdgeslimError, ParityError
from edgeslim.ground.exporting.capture import Proving, Request, Source, capture
from edgeslim.ground.exporting.export import export_captured
from edgeslim.ground.golden import golden_tiles, proof_tiles
from edgeslim.manifest import read_manifest
from edgeslim.target import take_target

TARGETS = ("onnx", "openvino", "tflite")
BATCHES = (1, 8)


def folder_of(subject: str, width: float) -> Path:
    """Where the artifacts of one width lie."""
    return subjects.SCRATCH / "formats" / f"{subject}-w{width:g}"


def refusal_of(folder: Path, name: str) -> Path:
    """Where it stands why an artifact was refused."""
    return folder / f"{name}.refused.json"


def make(
    subject: subjects.Subject, name: str, width: float, count: int, max_drop: float, precisions: list[str], again: bool
) -> None:
    """Export one width in every format, in these precisions, one precision after the other, proven on `count` tiles.

    What was made, or refused, before on as many tiles stays, unless `again`: a run that was broken off goes on.
    """
    profile, folder = subject.profile, folder_of(name, width)
    tiles, calibration = proof_tiles(profile, subject.tiles)
    if len(tiles) > count:
        tiles = tiles.at(np.linspace(0, len(tiles) - 1, count).round().astype(np.intp))
        calibration = calibration[:count]
    requests = [
        Request(target, precision)
        for precision in precisions
        for target in map(take_target, TARGETS)
        if precision in target.precisions
    ]
    if not again:
        requests = [request for request in requests if not is_made(folder, request.name, len(tiles))]
    if not requests:
        return
    folder.mkdir(parents=True, exist_ok=True)
    proving = Proving(golden_tiles(profile, subject.tiles), tiles, calibration, BATCHES, max_drop)
    captured = capture(Source(profile, subject.checkpoint, "", width), proving, say)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".converted-") as scratch:
        for request in requests:
            shutil.rmtree(folder / request.name, ignore_errors=True)
            refusal_of(folder, request.name).unlink(missing_ok=True)
            start, cpu = time.perf_counter(), time.process_time()
            try:
                export_captured(captured, [request], folder / request.name, say, Path(scratch))
            except EdgeslimError as error:
                say(str(error))
                trials = error.trials if isinstance(error, ParityError) else ()
                note = {"tiles": len(tiles), "why": str(error), "trials": trials}
                refusal_of(folder, request.name).write_text(json.dumps(note, indent=2) + "\n")
            took = f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} s of them computing"
            say(f"{profile.id} at width {width:g}: {request.name} took {took}")


def is_made(folder: Path, name: str, tiles: int) -> bool:
    """Whether this artifact was made, or refused, on as many tiles."""
    if (folder / name / "manifest.json").is_file():
        certificate = read_manifest(folder / name).certificate
        return certificate is not None and all(p.tiles == tiles for p in certificate.batches.values())
    note = refusal_of(folder, name)
    return note.is_file() and json.loads(note.read_text())["tiles"] == tiles


def refused(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Artifact -> what its refusal says, of those that were refused."""
    found = {name: refusal_of(folder, name) for name in names}
    return {name: json.loads(note.read_text()) for name, note in found.items() if note.is_file()}


def say(line: str) -> None:
    """Progress, with the time of day."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
