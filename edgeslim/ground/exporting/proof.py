"""Proof: the written network against torch, on real tiles and hostile ones, by the code that flies."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgeslim.errors import ParityError
from edgeslim.ground.exporting.tally import Tally
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.golden import GoldenTiles
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.parity import ENOUGH_TILES, Ceiling, Certificate, Parity, compare

F32 = NDArray[np.float32]
_AT_ONCE = 16
"""Tiles that torch is given at once."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What torch says of tiles."""

    tiles: GoldenTiles
    """The tiles."""
    logits: F32
    """(n, classes)."""
    features: F32
    """(n, d)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """All that an artifact of one width is held against; computed once for every format and precision."""

    proof: Answers
    """Real tiles, or the synthetic golden ones where none were given."""
    golden: Answers
    """Tiles that fly with the artifact."""
    hostile: Answers
    """Tiles that no one wants."""

    @property
    def logits_range(self) -> float:
        """Largest less smallest logit of the proof tiles."""
        return float(np.ptp(self.proof.logits))


def answers(model: FlightModel, tiles: GoldenTiles) -> Answers:
    """Torch's logits and features, in fp32."""
    logits, features = [], []
    with torch.inference_mode():
        for start in range(0, len(tiles), _AT_ONCE):
            part = np.ascontiguousarray(tiles.tiles[start : start + _AT_ONCE], np.float32)
            found = model(torch.from_numpy(part))
            logits.append(found[0].numpy())
            features.append(found[1].numpy())
    return Answers(tiles, np.concatenate(logits), np.concatenate(features))


def run_all(runtime: Runtime, tiles: NDArray[np.generic], batch: int) -> tuple[F32, F32]:
    """Logits and features of all tiles, `batch` at a time."""
    parts = [runtime.outputs(tiles[start : start + batch]) for start in range(0, len(tiles), batch)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def least_sure_first(logits: F32, batch: int) -> list[int]:
    """Starts of the batches of (n, classes) logits, that with the tile nearest to another class first.

    The batches are those of `run_all`, as what a tile is computed with can change its answer; their order cannot.
    """
    top = np.sort(logits, axis=1)[:, -2:]
    margins = np.ptp(top, axis=1)
    starts = range(0, len(logits), batch)
    return sorted(starts, key=lambda start: float(margins[start : start + batch].min()))


def run_against(runtime: Runtime, expected: Answers, batch: int, ceiling: Ceiling, what: str) -> tuple[F32, F32]:
    """Logits and features of all tiles, `batch` at a time, those first that are most easily another class.

    Raises ParityError as soon as it is certain that they will not be within the ceiling.
    """
    tiles = expected.tiles.tiles
    tally = Tally(ceiling, len(tiles), float(np.ptp(expected.logits)))
    parts: dict[int, tuple[F32, F32]] = {}
    for start in least_sure_first(expected.logits, batch):
        parts[start] = runtime.outputs(tiles[start : start + batch])
        tally.add(parts[start][0], expected.logits[start : start + batch])
        _require(tally.missed(), f"{what} at batch {batch}")
    in_order = [parts[start] for start in sorted(parts)]
    return np.concatenate([p[0] for p in in_order]), np.concatenate([p[1] for p in in_order])


def prove(
    runtime: Runtime,
    reference: Reference,
    batches: Iterable[int],
    ceiling: Ceiling,
    what: str,
    *,
    max_drop: float | None = None,
    kept: tuple[str, ...] = (),
    after_first: Callable[[], None] = lambda: None,
    before: Certificate | None = None,
) -> Certificate:
    """Run what was written, on the hostile tiles and at each batch size, and hold it against torch.

    `max_drop` limits what may be lost in agreement, and in score where the tiles have labels. What a failure shows in
    at least time comes first: the few hostile tiles, then the batch sizes from the smallest. `after_first` may raise
    what else rules the artifact out, once the first of them has passed. `before` is what is proven of some of the batch
    sizes already, the first among them: they, and the hostile tiles, are not run again.
    Raises ParityError naming `what`, the figure and the ceiling.
    """
    if max_drop is not None:
        ceiling = Ceiling(ceiling.relative, max(ceiling.agreement, 1 - max_drop))
    if before is None:
        found, score, hostile = {}, None, _hostile(runtime, reference, ceiling, what)
    else:
        found, score, hostile = dict(before.batches), before.score, before.hostile
    proof = reference.proof
    for batch in sorted({*batches} - {*map(int, found)}):
        logits, features = run_against(runtime, proof, batch, ceiling, what)
        first = not found
        found[str(batch)] = compare(logits, proof.logits, (features, proof.features))
        if first and proof.tiles.labels is not None:
            # No sooner: a score falls by no more tiles than have another class, which are counted as they come.
            score = _accuracy(proof.logits, proof.tiles.labels), _accuracy(logits, proof.tiles.labels)
            if max_drop is not None and score[0] - score[1] > max_drop:
                raise ParityError(
                    f"{what}: accuracy falls from {score[0]:.2%} to {score[1]:.2%}, expected at most {max_drop:.2%} "
                    "less"
                )
        if first:
            after_first()
    return Certificate(
        verdict=verdict(proof.tiles),
        source=proof.tiles.source,
        reference=f"torch {torch.__version__.split('+')[0]}, fp32",
        runtime=f"{runtime.version}, {platform.machine()}",
        ceiling=ceiling,
        batches=found,
        hostile=hostile,
        kept=kept,
        score=score,
    )


def _hostile(runtime: Runtime, reference: Reference, ceiling: Ceiling, what: str) -> Parity:
    """Parity on the hostile tiles, one at a time. Of eight tiles that show nothing, the class says nothing."""
    expected = reference.hostile
    logits, features = run_all(runtime, expected.tiles.tiles, 1)
    parity = compare(logits, expected.logits, (features, expected.features), reference.logits_range)
    _require(parity.missed(Ceiling(ceiling.relative, 0.0)), f"{what} on hostile tiles")
    return parity


def verdict(tiles: GoldenTiles) -> str:
    """What the proof is worth."""
    if tiles.synthetic:
        return "numerics only"
    few = "" if len(tiles) >= ENOUGH_TILES else f", fewer than {ENOUGH_TILES}"
    return f"proven on {len(tiles)} real tiles{few}"


def _require(missed: str | None, what: str) -> None:
    if missed is not None:
        raise ParityError(f"{what}: {missed}; do not fly this artifact")


def _accuracy(logits: F32, labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())
