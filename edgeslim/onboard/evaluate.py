"""Evaluate: an artifact on a person's own labelled tiles, by the code that flies: runtime, guard, prior and all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError
from edgeslim.manifest import Manifest, read_standing
from edgeslim.onboard.blend import softmax
from edgeslim.onboard.check import doubts, prove, require_golden
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.prior import land_log_odds
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import TileReader, Wanted
from edgeslim.onboard.runtime import available_threads, open_runtime
from edgeslim.onboard.scores import ClassScore, calibration_error, class_scores, confusion_of, wilson_interval

F32 = NDArray[np.float32]
FEW_TILES = 50
"""Fewer tell little."""
_AT_ONCE = 8
"""Tiles given to a network that takes batches of any size."""


@dataclass(frozen=True, slots=True)
class TileOptions:
    """What tiles do not say themselves, and how to judge them."""

    bands: str | None = None
    """Numbers or names, in the encoder's order."""
    scale: float | None = None
    """Reflectance of one unit."""
    offset: float | None = None
    """Reflectance at 0."""
    resample: bool = False
    """Bring tiles of another size to the encoder's."""
    training_prior: bool = False
    """Take classes to be as frequent as in training, not as on land."""
    threads: int | None = None
    """Of the runtime; None: every core."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How an artifact did on labelled tiles."""

    name: str
    """Encoder and width."""
    runtime: str
    """Library and version that computed."""
    dataset: str
    """Name of the folder of tiles."""
    tiles: int
    """That were classified."""
    left_out: dict[str, int]
    """Why tiles could not be used -> how many."""
    prior: str
    """How frequent classes are taken to be: "land" or "training set"."""
    right: int
    """Tiles that were called a class that they have."""
    accuracy: float
    """right / tiles."""
    accuracy_interval: tuple[float, float]
    """95 % interval of the accuracy (Wilson): of tiles that lie apart; neighbours make it too narrow."""
    calibration_error: float
    """Expected calibration error, 0 ... 1, in 15 bins of confidence."""
    mean_confidence: float
    """Mean probability of the class that was called, 0 ... 1."""
    classes: tuple[ClassScore, ...]
    """In the order of the logits."""
    labels: tuple[str, ...]
    """Of the rows of `confusion`."""
    answers: tuple[str, ...]
    """Of the columns of `confusion`."""
    confusion: tuple[tuple[int, ...], ...]
    """Tiles by label and answer. A tile of several classes counts as the one it was called, if it has it."""
    warnings: tuple[str, ...]
    """What a person should know."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": 1, **asdict(self)}


@dataclass(slots=True)
class _Seen:
    """What was read and answered, tile by tile."""

    has: NDArray[np.bool_]
    logits: F32


def evaluate_artifact(
    folder: Path,
    tiles: Labelled,
    options: TileOptions | None = None,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Verify an artifact, replay its golden tiles, and classify labelled `tiles` with it.

    `say` is told how many of how many tiles are done. Raises InputError for tiles that do not fit or classes that the
    artifact does not know, ParityError where its golden tiles do not agree, UntrustedResult for a damaged artifact or
    logits that cannot be right, MissingExtra without the runtime.
    """
    options = options or TileOptions()
    folder, manifest = read_standing(folder)
    names = tuple(label.name for label in manifest.classes)
    _require_known(tiles, names, manifest.name)
    threads = options.threads or available_threads()
    require_golden(folder, manifest)
    runtime = open_runtime(folder, manifest, threads)
    prove(folder, manifest, runtime, (1,))
    guard = Guard(folder, manifest, runtime, 1)
    reader = TileReader(
        Wanted(
            manifest.tile_px, len(manifest.bands), manifest.bands, manifest.radiometry,
            options.bands, options.scale, options.offset, options.resample,
        )
    )  # fmt: skip
    seen = _classify(guard, reader, tiles, names, manifest, say)
    odds = None if options.training_prior else land_log_odds(manifest.classes)
    chances = softmax(seen.logits if odds is None else seen.logits + odds)
    answer, surest = chances.argmax(1), chances.max(1)
    right = seen.has[np.arange(len(answer)), answer]
    label = np.where(right, answer, seen.has.argmax(1))
    share = float(right.mean())
    notes = [*reader.warnings(), *doubts(folder, manifest)]
    if len(answer) < FEW_TILES:
        notes.append(f"{len(answer)} tiles are few: the interval says how little they tell")
    return Evaluation(
        name=manifest.name,
        runtime=guard.runtime.version,
        dataset=tiles.source,
        tiles=len(answer),
        left_out={reason: len(lost) for reason, lost in reader.skipped.items()},
        prior="training set" if odds is None else "land",
        right=int(right.sum()),
        accuracy=share,
        accuracy_interval=wilson_interval(share, len(answer)),
        calibration_error=calibration_error(surest, right),
        mean_confidence=float(surest.mean()),
        classes=class_scores(names, seen.has, np.arange(len(names)) == answer[:, None]),
        labels=names,
        answers=names,
        confusion=tuple(tuple(map(int, row)) for row in confusion_of(label, answer, len(names))),
        warnings=tuple(notes),
    )


def _require_known(tiles: Labelled, names: tuple[str, ...], artifact: str) -> None:
    strange = [name for name in tiles.classes if name not in names]
    if strange:
        near = get_close_matches(strange[0], names, n=3, cutoff=0.4) or names
        raise InputError(
            f"--tiles {tiles.source}: found class {strange[0]!r}, which {artifact} does not know; expected one of "
            f"{', '.join(near)}; rename its folder, or say by --labels CSV"
        )


def _classify(
    guard: Guard,
    reader: TileReader,
    tiles: Labelled,
    names: tuple[str, ...],
    manifest: Manifest,
    say: Callable[[int, int], None],
) -> _Seen:
    index = {name: number for number, name in enumerate(names)}
    rows: list[NDArray[np.bool_]] = []
    parts: list[F32] = []
    batch = max(manifest.batches, default=_AT_ONCE)
    with gdal_environment():
        stream = reader.read(tiles.files)
        while some := list(islice(stream, batch)):
            logits = guard.run(np.stack([tile.values for tile in some]))
            guard.require(logits)
            parts.append(logits)
            for tile in some:
                row = np.zeros(len(names), np.bool_)
                row[[index[name] for name in tile.file.classes]] = True
                rows.append(row)
            say(len(rows), len(tiles.files))
    if not rows:
        reasons = "; ".join(f"{len(lost)} {reason}" for reason, lost in reader.skipped.items())
        raise InputError(f"--tiles: none of {len(tiles.files)} tiles can be used ({reasons}); expected images")
    return _Seen(np.stack(rows), np.concatenate(parts))
