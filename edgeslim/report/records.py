"""Records: what verbs print with `--json` that no record below them is shaped like. The schemas are made of these."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.manifest import Manifest
from edgeslim.onboard.check import CheckReport
from edgeslim.onboard.uplink.delta import End


class FolderScene(TypedDict):
    """What became of one scene of a folder."""

    scene: str
    """Its path."""
    out: str
    """Folder of its results."""
    state: str
    """done, kept (finished before), stopped or failed."""
    reason: str
    """One line; empty when done or kept."""


class FolderRecord(TypedDict):
    """What `edgeslim classify FOLDER` did."""

    schema: int
    """Version of this schema."""
    scenes: list[FolderScene]
    """In the order of their names."""


class WatchLine(TypedDict):
    """A scene of `edgeslim watch` that is over: one line on stdout."""

    schema: int
    """Version of this schema."""
    time: str
    """UTC, RFC 3339."""
    state: str
    """delivered or quarantined."""
    file: str
    """Scene, as it was named in the inbox."""


class WatchPlace(TypedDict, total=False):
    """Where it went."""

    out: str
    """Folder of the results of a scene that was delivered."""
    reason: str
    """Why it is in quarantine, one line."""
    reason_file: str
    """The same line on disk."""


class ExportedRecord(TypedDict):
    """An artifact that was proven and packed."""

    artifact: str
    """Its folder."""
    manifest: Annotated[dict[str, Any], Manifest]
    """As in its manifest.json, without the seal; its certificate says what was proven."""


class EngineFolder(TypedDict):
    """Where the engine of `edgeslim build` lies."""

    folder: str
    """Of the engine and its engine.json."""


class AppliedRecord(TypedDict):
    """What `edgeslim apply` put in place."""

    schema: int
    """Version of this schema."""
    artifact: str
    """Folder of the artifact."""
    by: str
    """bundle, delta or rollback."""
    changed: bool
    """False: it stood there already."""
    name: str
    """Encoder and cut that stand now."""
    seal: str
    """SHA-256 of its manifest's content."""
    old_name: str | None
    """Encoder and cut that stood before; None: nothing that could be read."""
    old_seal: str | None
    """SHA-256 of its manifest's content."""
    check: Annotated[dict[str, Any], CheckReport]
    """What the golden tiles proved."""


class DeltaFile(TypedDict):
    """One file of the new artifact."""

    name: str
    """In the artifact."""
    size: int
    """Bytes, new."""
    sha256: str
    """Of it, new."""
    old_sha256: str | None
    """Of the old file of that name; None: there is none."""
    steps: int
    """Bytes of the steps that make it of the old one."""
    fresh: int
    """Bytes that the old file does not have; with the steps: what is sent of it, before packing."""
    same: bool
    """Whether it is the old file, of which nothing is sent."""


class DeltaRecord(TypedDict):
    """What `edgeslim diff` wrote."""

    schema: int
    """Version of this schema."""
    delta: str
    """The file."""
    old: Annotated[dict[str, Any], End]
    """What must stand."""
    new: Annotated[dict[str, Any], End]
    """What will stand."""
    files: list[DeltaFile]
    """Of the new artifact, manifest.json first."""
    removed: list[str]
    """Files of the old artifact that the new one has not."""
    bytes: int
    """Of the delta."""


class SlimmedRecord(TypedDict):
    """What `edgeslim slim` wrote."""

    schema: int
    """Version of this schema."""
    checkpoint: str
    """The file."""
    encoder: str
    """Encoder card or path of a checkpoint."""
    method: str
    """How it was slimmed: first, calibrated, healed or learned."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    depth: int | None
    """Blocks that are kept, the first ones; None: all."""
    architecture: Annotated[dict[str, Any], AnyArchitecture]
    """Of the slimmed encoder."""
    parameters: int
    """Of the slimmed encoder, without its head."""
    full_parameters: int
    """Of the encoder before, without its head."""
    head: bool
    """Whether the file holds a head that was fitted at this cut."""
