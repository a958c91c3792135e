"""Closed-form artifacts that differ as an update differs: another head on the same encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeslim.manifest import GOLDEN_NAME, MANIFEST_NAME, read_manifest, read_standing, sha256_of
from tests.onboard.artifacts import make_artifact
from tests.onboard.tiny_onnx import linear_of_means

WEIGHTS_NAME = "weights.bin"
ENCODER_BYTES = 3 << 20
"""Of the part that every artifact here has in common."""


def seal(folder: Path, **changes: object) -> Path:
    """Hash the files of a folder again and write its manifest, with some fields changed."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST_NAME)
    manifest = replace(read_manifest(folder), **changes)  # type: ignore[arg-type]
    replace(manifest, files={name: sha256_of(folder / name) for name in names}).write(folder)
    return folder


def with_head(folder: Path, head: int, encoder_bytes: int = ENCODER_BYTES, wrong_logit: float = 0.0) -> Path:
    """An artifact whose network and golden logits follow from the number of its head; its weights.bin hardly does.

    Seven bytes are put into the weights, and sixty changed, so that a delta meets insertions and changes in place.
    """
    make_artifact(folder)
    rng = np.random.default_rng(head)
    weight, bias = rng.normal(0, 0.004, (3, 3)).astype(np.float32), rng.normal(0, 1, 3).astype(np.float32)
    (folder / "model.onnx").write_bytes(linear_of_means(weight, bias, 8))
    with np.load(folder / GOLDEN_NAME) as golden:
        tiles = golden["tiles"]
    logits = (tiles.mean(axis=(2, 3), dtype=np.float64) @ weight + bias).astype(np.float32)
    logits[0, 0] += wrong_logit
    np.savez_compressed(folder / GOLDEN_NAME, tiles=tiles, logits=logits)
    encoder = bytearray(np.random.default_rng(0).bytes(encoder_bytes))
    at = encoder_bytes // 2
    encoder[at : at + 60] = rng.bytes(60)
    encoder[at // 2 : at // 2] = rng.bytes(7 * head % 15)
    (folder / WEIGHTS_NAME).write_bytes(bytes(encoder))
    return seal(folder, name=f"tiny head {head}")


def held(place: Path) -> dict[str, bytes]:
    """Every file of the artifact that stands under `place`."""
    home, manifest = read_standing(place)
    return {name: (home / name).read_bytes() for name in (MANIFEST_NAME, *manifest.files)}


def hidden(folder: Path) -> list[str]:
    """Names that begin with a dot: what is under way, or was left."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
