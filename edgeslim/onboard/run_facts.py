"""Run facts: what may differ from run to run of the same scene, as run.json holds it."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from edgeslim.onboard.machine import Host

RUN_SCHEMA = 1


class RunSeconds(TypedDict):
    """Wall time of the run that finished the scene, s."""

    until_stream: float
    """Until its first tile."""
    stream: float
    """From there to its last."""


class RunMemoryMib(TypedDict):
    """Resident memory, MiB."""

    foretold: float
    """Peak, as the run foretold it before its first tile."""
    peak: float
    """As it was."""


class RunFacts(TypedDict):
    """How a run went. The same inputs give another one each time."""

    schema: int
    """Version of this schema."""
    seconds: RunSeconds
    """How long it took."""
    tiles_per_s: float | None
    """Of this run, skipped ones included; None where it had none to do."""
    resumed_tiles: int
    """That earlier runs had done."""
    memory_mib: RunMemoryMib
    """What it foretold and took."""
    workers: int
    """Batches at the same time, each on one thread."""
    batch: int
    """Tiles a call."""
    chunk_px: list[int]
    """Rows and columns that were read at once."""
    scene: str
    """Absolute path."""
    artifact: str
    """Absolute path."""
    machine: Annotated[dict[str, Any], Host]
    """Where it ran."""
