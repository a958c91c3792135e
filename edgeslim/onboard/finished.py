"""Finished: what stands in a result folder, told without opening a raster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeslim.errors import InputError
from edgeslim.manifest import MANIFEST_NAME, sha256_of

SUMMARY_NAME = "summary.json"
UNFINISHED_NAME = "unfinished"


def is_unfinished(out: Path) -> bool:
    """Whether `out` holds a run that can be resumed."""
    return (out / UNFINISHED_NAME).is_dir()


def is_finished(out: Path) -> bool:
    """Whether `out` holds the whole of a scene's results."""
    return (out / SUMMARY_NAME).is_file() and not is_unfinished(out)


def read_summary(out: Path) -> dict[str, Any]:
    """The summary of finished results. Raises InputError where it cannot be read."""
    path = out / SUMMARY_NAME
    try:
        summary = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); classify the scene anew with --overwrite") from None
    if not isinstance(summary, dict):
        raise InputError(f"{path}: found no object, expected a summary; classify the scene anew with --overwrite")
    return summary


def same_inputs(summary: dict[str, Any], scene: Path, artifact: Path) -> bool:
    """Whether a summary was made from this scene's bytes by this artifact. Reads the scene once, to hash it."""
    made_by = (summary.get("artifact") or {}).get("sha256") or {}
    if made_by.get(MANIFEST_NAME) != sha256_of(artifact / MANIFEST_NAME):
        return False
    known = (summary.get("scene") or {}).get("sha256")
    if isinstance(known, dict):
        return bool(known) and all(
            (path := scene.parent / name).is_file() and sha256_of(path) == digest for name, digest in known.items()
        )
    if isinstance(known, str):
        return sha256_of(scene) == known
    return bool((summary.get("scene") or {}).get("path") == str(scene))
