"""Check: replay the golden tiles on the device's own runtime and compare with torch's logits."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, ParityError, UntrustedResult, one_line
from edgeslim.manifest import GOLDEN_NAME, Manifest, read_standing
from edgeslim.onboard.machine import available_threads
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.parity import Parity, compare

F32 = NDArray[np.float32]
_BAD_HEADER = (tokenize.TokenError, SyntaxError, RecursionError, MemoryError)
"""What NumPy's reader raises, beside ValueError, for a header that is no Python literal."""
UNREADABLE = (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, *_BAD_HEADER)
"""What a damaged .npz may raise."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a replay found."""

    name: str
    """Encoder and width."""
    runtime: str
    """Library and version that computed."""
    tolerance: float
    """Largest allowed absolute difference of a logit."""
    synthetic: bool
    """True: no real pixel among the golden tiles."""
    source: str
    """Where the golden tiles come from."""
    batches: dict[int, Parity]
    """Batch size -> how far the logits are apart."""
    warnings: tuple[str, ...]
    """What a person should know."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": 1, **asdict(self), "batches": {str(b): p.to_dict() for b, p in self.batches.items()}}


def check_artifact(folder: Path, threads: int | None = None, batches: tuple[int, ...] | None = None) -> CheckReport:
    """Verify an artifact's hashes and replay its golden tiles at each batch size (default: 1, and all at once).

    Raises InputError where there is no artifact, UntrustedResult for a damaged one, ParityError where the logits
    differ by more than the manifest's tolerance, MissingExtra without the runtime.
    """
    return check_files(*read_standing(folder), threads, batches)


def check_files(
    folder: Path, manifest: Manifest, threads: int | None = None, batches: tuple[int, ...] | None = None
) -> CheckReport:
    """The same for the files in `folder` against a manifest that need not be the one that stands there."""
    require_golden(folder, manifest)
    runtime = open_runtime(folder, manifest, threads or available_threads())
    found = prove(folder, manifest, runtime, batches)
    return CheckReport(
        name=manifest.name,
        runtime=runtime.version,
        tolerance=manifest.golden.tolerance,
        synthetic=manifest.golden.synthetic,
        source=manifest.golden.source,
        batches=found,
        warnings=doubts(folder, manifest),
    )


def require_golden(folder: Path, manifest: Manifest) -> None:
    """Raise UntrustedResult where the golden tiles of an artifact have no hash."""
    if GOLDEN_NAME not in manifest.files:
        raise UntrustedResult(f"{folder}: its manifest has no hash of {GOLDEN_NAME}; export it again")


def prove(
    folder: Path, manifest: Manifest, runtime: Runtime, batches: tuple[int, ...] | None = None
) -> dict[int, Parity]:
    """How far a runtime's logits are from the golden ones at each batch size (default: 1, and all at once).

    Raises ParityError where they differ by more than the manifest's tolerance.
    """
    tiles, logits = read_golden(folder, manifest)
    found: dict[int, Parity] = {}
    for batch in dict.fromkeys(batches or (1, len(tiles))):
        parity = compare(replay(runtime, tiles, batch), logits)
        parity.require(manifest.golden.tolerance, f"{folder}: {runtime.version} at batch {batch}")
        found[batch] = parity
    return found


def doubts(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """What a person should know of an artifact whose golden tiles agree."""
    notes: list[str] = []
    if manifest.providers:
        from edgeslim.onboard.engine import known_doubts

        notes.extend(known_doubts(folder, manifest))
    if manifest.golden.synthetic:
        notes.append(
            f"the golden tiles are SYNTHETIC ({manifest.golden.source}): this proves the arithmetic, not that real "
            "scenes are understood; export with --tiles to prove it on real ones"
        )
    return tuple(notes)


def read_golden(folder: Path, manifest: Manifest) -> tuple[F32, F32]:
    """Golden tiles (n, bands, tile, tile) and torch's logits (n, classes).

    Raises InputError if the file is not what the manifest describes.
    """
    path = folder / GOLDEN_NAME
    side, count = manifest.tile_px, manifest.golden.tiles
    try:
        with zipfile.ZipFile(path) as archive:
            tiles = npz_array(archive, "tiles", (count, len(manifest.bands), side, side))
            logits = npz_array(archive, "logits", (count, len(manifest.classes)))
    except UNREADABLE as error:
        raise InputError(f"{path}: no golden tiles ({one_line(error)}); export the artifact again") from None
    return tiles, logits


def npz_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> F32:
    """One float32 array of an .npz, whose header is held against what is expected before anything is allocated."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is encrypted, or packed in a way that numpy does not write")
    with archive.open(entry) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        found, by_columns, dtype = read(file)
        if found != shape or dtype != np.dtype("<f4") or by_columns or not math.prod(shape):
            raise ValueError(f"found {name} {dtype} {found}, expected float32 {shape}")
        data = file.read(4 * math.prod(shape))
    if len(data) != 4 * math.prod(shape):
        raise ValueError(f"{name} ends early")
    return np.frombuffer(data, np.float32).reshape(shape)


def replay(runtime: Runtime, tiles: F32, batch: int) -> F32:
    """Logits (n, classes) of tiles given `batch` at a time. Raises ParityError if the runtime returns too few."""
    parts = [runtime.run(tiles[i : i + batch]) for i in range(0, len(tiles), batch)]
    logits = np.concatenate(parts)
    if len(logits) != len(tiles):
        raise ParityError(f"batch {batch}: found {len(logits)} logits, expected {len(tiles)}; do not fly this artifact")
    return logits
