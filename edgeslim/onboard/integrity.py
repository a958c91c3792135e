"""Integrity: the golden tiles replayed before, during and after a flight, and every logit looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, ParityError, UntrustedResult
from edgeslim.manifest import GOLDEN_NAME, Manifest
from edgeslim.onboard.check import read_golden
from edgeslim.onboard.known import pixel_statistics, read_distances
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.parity import compare

F32 = NDArray[np.float32]
KEPT_TILES = 4
"""Golden tiles, evenly spaced, that a flight replays: a flipped bit of a weight reaches all of them. The rest is left
to `edgeslim check`; of a large network, all of them would take longer than the first row of a scene."""
LOGIT_MARGIN = 100.0
"""Logits larger than this many times the largest golden one are no answer of this network but of a damaged one."""


class Guard:
    """Knows what the network must answer."""

    def __init__(self, folder: Path, manifest: Manifest, runtime: Runtime, workers: int) -> None:
        """Replay the kept golden tiles, on `workers` threads at the same time.

        Raises UntrustedResult where it has none or its logits are not the golden ones, InputError for an unreadable
        file.
        """
        if GOLDEN_NAME not in manifest.files:
            raise UntrustedResult(f"{folder}: its manifest has no hash of {GOLDEN_NAME}; export it again")
        tiles, logits = read_golden(folder, manifest)
        self._name, self._tolerance = manifest.name, manifest.golden.tolerance
        self._classes = len(manifest.classes)
        self._distances = read_distances(folder, manifest)
        self._limit = LOGIT_MARGIN * max(1.0, float(np.abs(logits).max()))
        kept = np.linspace(0, len(tiles) - 1, min(KEPT_TILES, len(tiles))).round().astype(np.intp)
        self._tiles, self._logits = tiles[kept], logits[kept]
        self.runtime = runtime
        shares = min(workers, len(kept))
        parts = [np.array_split(values, shares) for values in (self._tiles, self._logits)]
        with ThreadPoolExecutor(max(1, shares - 1), "golden") as pool:
            others = pool.map(self._compare, *(part[1:] for part in parts))
            # The caller takes its share: later checks run in its thread, whose buffers must be there to be measured.
            self._compare(parts[0][0], parts[1][0])
            for _ in others:
                pass

    def check(self) -> float:
        """Largest difference of a logit of the kept tiles. Raises UntrustedResult where it is too large."""
        return self._compare(self._tiles, self._logits)

    def warm(self, batch: int) -> None:
        """Run one batch, so that the runtime has claimed all the memory it needs for one."""
        self.answers(np.resize(self._tiles, (batch, *self._tiles.shape[1:])), batch)

    def run(self, tiles: F32) -> F32:
        """Logits (n, classes), not looked at yet: see `require`. Raises InputError where they have another shape."""
        logits = self.runtime.run(tiles)
        self._require_shape(logits, len(tiles))
        return logits

    def _require_shape(self, logits: F32, count: int) -> None:
        if logits.shape != (count, self._classes):
            raise InputError(
                f"{self._name}: found logits of shape {logits.shape}, expected {(count, self._classes)}; "
                "export it again"
            )

    def answers(self, tiles: F32, batch: int) -> F32:
        """Logits (n, classes) of tiles (n, bands, H, W), `batch` of them at a time, not looked at yet.

        Of an artifact that knows what it does not know, one column more: distances (edgeslim.onboard.known).
        """
        starts, distances = range(0, len(tiles), batch), self._distances
        found = np.empty((len(tiles), self._classes + (distances is not None)), np.float32)
        if distances is None:
            for start in starts:
                found[start : start + batch] = self.run(tiles[start : start + batch])
            return found
        # Before the network runs: the tiles have just been cut and are near still. All at once, as each call costs.
        pixels, parts = pixel_statistics(tiles, distances.clip), []
        for start in starts:
            logits, features = self.runtime.outputs(tiles[start : start + batch])
            self._require_shape(logits, len(tiles[start : start + batch]))
            found[start : start + batch, :-1] = logits
            parts.append(features)
        found[:, -1] = distances.of_both(pixels, np.concatenate(parts))
        return found

    def require_answers(self, answers: F32) -> None:
        """Raise UntrustedResult where what `answers` gave is not finite, or its logits are far out of range."""
        self.require(answers[:, : self._classes])
        if not np.isfinite(answers).all():
            raise UntrustedResult(f"{self._name}: found distances that are not finite; run `edgeslim check`")

    def require(self, logits: F32) -> None:
        """Raise UntrustedResult where logits (n, classes) are not finite or far out of range."""
        largest = float(np.abs(logits).max(initial=0.0))
        if not largest <= self._limit:  # a NaN is not less than anything
            found = f"a logit of {largest:.3g}" if np.isfinite(largest) else "logits that are not finite"
            raise UntrustedResult(
                f"{self._name}: found {found}, expected at most {self._limit:.3g}; run `edgeslim check`"
            )

    def _compare(self, tiles: F32, logits: F32) -> float:
        found = self.run(tiles)
        self.require(found)
        parity = compare(found, logits)
        try:
            parity.require(self._tolerance, f"{self._name}: golden tiles on {self.runtime.version}")
        except ParityError as error:
            raise UntrustedResult(str(error)) from None
        return parity.max_abs
