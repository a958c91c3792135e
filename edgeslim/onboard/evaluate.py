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

from edgeslim.errors import InputError, shown
from edgeslim.known import UNKNOWN
from edgeslim.manifest import Manifest, read_standing
from edgeslim.onboard.blend import softmax
from edgeslim.onboard.check import doubts, prove, require_golden
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.known import LIMIT
from edgeslim.onboard.labels import Labelled
from edgeslim.onboard.machine import available_threads
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.onboard.prior import land_log_odds
from edgeslim.onboard.reading.gdal import gdal_environment
from edgeslim.onboard.reading.tile import TileReader, Wanted
from edgeslim.onboard.scores import ClassScore, calibration_error, class_scores, confusion_of, wilson_interval

F32 = NDArray[np.float32]
OTHER = "other classes"
"""Label of tiles whose class the artifact does not know."""
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
    """That were classified and have a class that the artifact knows."""
    left_out: dict[str, int]
    """Why tiles could not be used -> how many."""
    prior: str
    """How frequent classes are taken to be: "land" or "training set"."""
    right: int
    """Tiles that were called a class that they have; being called unknown is not right."""
    accuracy: float
    """right / tiles."""
    accuracy_interval: tuple[float, float]
    """95 % interval of the accuracy (Wilson): of tiles that lie apart; neighbours make it too narrow."""
    unknown: int | None
    """Of `tiles`, called unknown; None: the artifact cannot tell."""
    named_accuracy: float | None
    """right / tiles that were not called unknown; None: all were."""
    other_tiles: int
    """Tiles of other classes than the artifact's, beside `tiles`."""
    other_unknown: int
    """Of those, called unknown, as they should be."""
    calibration_error: float
    """Expected calibration error of tiles not called unknown, 0 ... 1, in 15 bins of confidence."""
    mean_confidence: float
    """Mean probability of the class that was called, 0 ... 1, of the same tiles."""
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
    """(n, classes); none of a tile of another class."""
    answers: F32
    """(n, classes) logits, and distances in one column more where the artifact tells what is unknown."""


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
    if manifest.known is None:
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
    logits = seen.answers[:, : len(names)]
    chances = softmax(logits if odds is None else logits + odds)
    surest, many = chances.max(1), len(names)
    beyond = seen.answers[:, many] > LIMIT if manifest.known is not None else np.zeros(len(logits), np.bool_)
    own = seen.has.any(1)
    answer = np.where(beyond, many, chances.argmax(1))
    right = ~beyond & seen.has[np.arange(len(answer)), chances.argmax(1)]
    label = np.where(right, answer, np.where(own, seen.has.argmax(1), many))
    named = own & ~beyond
    if not own.any():
        raise InputError(f"--tiles {tiles.source}: found no tile of a class of {manifest.name}, expected some")
    share = float(right.sum() / own.sum())
    notes = [*reader.warnings(), *doubts(folder, manifest)]
    if own.sum() < FEW_TILES:
        notes.append(f"{own.sum()} tiles are few: the interval says how little they tell")
    counts = confusion_of(label, answer, many + 1)
    rows = many if own.all() else many + 1
    columns = many if manifest.known is None else many + 1
    return Evaluation(
        name=manifest.name,
        runtime=guard.runtime.version,
        dataset=shown(tiles.source),
        tiles=int(own.sum()),
        left_out={reason: len(lost) for reason, lost in reader.skipped.items()},
        prior="training set" if odds is None else "land",
        right=int(right.sum()),
        accuracy=share,
        accuracy_interval=wilson_interval(share, int(own.sum())),
        unknown=None if manifest.known is None else int((own & beyond).sum()),
        named_accuracy=float(right.sum() / named.sum()) if named.any() else None,
        other_tiles=int((~own).sum()),
        other_unknown=int((~own & beyond).sum()),
        calibration_error=calibration_error(surest[named], right[named]),
        mean_confidence=float(surest[named].mean()) if named.any() else 0.0,
        classes=class_scores(names, seen.has, np.arange(many) == answer[:, None]),
        labels=(*names, OTHER)[:rows],
        answers=(*names, UNKNOWN.name)[:columns],
        confusion=tuple(tuple(map(int, row)) for row in counts[:rows, :columns]),
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
            answers = guard.answers(np.stack([tile.values for tile in some]), batch)
            guard.require_answers(answers)
            parts.append(answers)
            for tile in some:
                row = np.zeros(len(names), np.bool_)
                row[[index[name] for name in tile.file.classes if name in index]] = True
                rows.append(row)
            say(len(rows), len(tiles.files))
    if not rows:
        reasons = "; ".join(f"{len(lost)} {reason}" for reason, lost in reader.skipped.items())
        raise InputError(f"--tiles: none of {len(tiles.files)} tiles can be used ({reasons}); expected images")
    return _Seen(np.stack(rows), np.concatenate(parts))
