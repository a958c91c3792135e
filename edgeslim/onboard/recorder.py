"""Recorder: takes results of chunks in order into the journal, and everything that follows from them into results."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from edgeslim.errors import InputError
from edgeslim.onboard.assemble import Assembler, ChunkResult
from edgeslim.onboard.blend import CellRows, decide
from edgeslim.onboard.chunks import ChunkPlan
from edgeslim.onboard.journal import Journal, Kind, as_json
from edgeslim.onboard.prior import land_log_odds
from edgeslim.onboard.tally import Tally
from edgeslim.onboard.writing.maps import PROBABILITY_ONE, CellRow, MapPlan, MapRows, OutputOptions
from edgeslim.onboard.writing.results import Results
from edgeslim.onboard.writing.thumbnail import Thumbnail
from edgeslim.profile import Band

_SYNC_EVERY_S = 2.0
"""Seconds after which chunks are synced though their band is not finished."""


class Recorder:
    """One run's journal and results. Used by one thread at a time."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        plan: ChunkPlan,
        maps: MapPlan,
        bands: tuple[Band, ...],
        output: OutputOptions,
        training_prior: bool,
        tells_unknown: bool,
    ) -> None:
        """`maps` are of pixels (step 1) or of cells (step: the stride); `tells_unknown`: their last class is no class.

        Raises InputError for a folder without room.
        """
        self.plan, self._maps, self._journal = plan, maps, journal
        self.thumbnail = Thumbnail((maps.scene_height, maps.scene_width), (maps.height, maps.width), bands)
        self.tally = Tally(len(maps.classes), self._pixel_m2)
        self._results = Results(folder, maps, output)
        as_cells, self._vector = maps.step > 1 or maps.width < maps.scene_width, self._results.wants_cells
        self._cell_maps, self._wanted = as_cells, output.probabilities
        classes = maps.classes[:-1] if tells_unknown else maps.classes
        odds = None if training_prior else land_log_odds(classes)
        self.prior = "training set" if odds is None else "land"
        self._assembler = Assembler(
            plan,
            len(maps.classes),
            self.thumbnail,
            odds,
            None if as_cells else self._add_rows,
            self._add_cells if as_cells or self._vector else None,
            output.probabilities and not as_cells,
            tells_unknown,
        )
        self.chunks_done = self.bands_done = self.bands_synced = self.bands_trusted = 0
        self._synced_at = time.monotonic()

    def replay(self, payload: bytes) -> None:
        """A chunk that the journal holds already."""
        self._take(ChunkResult.from_bytes(payload, self.plan, self.thumbnail, len(self._maps.classes)))
        self.bands_synced = self.bands_trusted = self.bands_done

    def add(self, result: ChunkResult) -> None:
        """The next chunk: into the journal, synced where it ends a band. Raises InputError if the disk is full."""
        self._journal.append(Kind.CHUNK, result.to_bytes())
        ends_band = self._take(result)
        if ends_band or time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            self.sync()

    def note(self, kind: Kind, payload: bytes) -> None:
        """Another record, synced."""
        self._journal.append(kind, payload)
        if kind is Kind.CHECK:
            self.bands_trusted = self.bands_done
        self.sync()

    def sync(self) -> None:
        """Make all chunks so far last."""
        self._journal.sync()
        self.bands_synced, self._synced_at = self.bands_done, time.monotonic()

    @property
    def tiles(self) -> dict[str, int]:
        """Classified and skipped so far."""
        return {"classified": self._assembler.classified, "skipped": self._assembler.skipped}

    @property
    def unknown_tiles(self) -> int | None:
        """Of those classified, called unknown; None where nothing can be."""
        return self._assembler.unknown

    @property
    def results(self) -> Results:
        """The files being written."""
        return self._results

    def suspect(self, why: str) -> None:
        """Mark chunks since the last good check as not to be used."""
        with suppress(InputError):
            self.note(Kind.SUSPECT, as_json({"why": why}))

    def close(self) -> None:
        """Sync the journal as far as the disk takes it, and close everything."""
        with suppress(InputError):
            self.sync()
        self._journal.close()

    def _take(self, result: ChunkResult) -> bool:
        if result.number != self.chunks_done:
            raise InputError(
                f"journal: found chunk {result.number}, expected {self.chunks_done}; start anew with --overwrite"
            )
        ends_band = self._assembler.add(result)
        self.chunks_done += 1
        self.bands_done += ends_band
        return ends_band

    def _pixel_m2(self, row: float) -> float | None:
        area = self._maps.georeference.pixel_area_m2(row * self._maps.step)
        return None if area is None else area * self._maps.step**2

    def _add_rows(self, rows: MapRows) -> None:
        self.tally.add(rows)
        self.thumbnail.add_map(rows.classes)
        self._results.append(rows)

    def _add_cells(self, cells: CellRows) -> None:
        known = cells.known > 0
        best, percent = decide(cells.probabilities, known)
        if self._vector:
            score = cells.probabilities.max(axis=0)
            self._results.append_cells(CellRow(cells.row, best, score, cells.known))
        if self._cell_maps:
            every = None
            if self._wanted:
                every = np.rint(np.minimum(cells.probabilities, 1) * PROBABILITY_ONE).astype(np.uint8)[:, None]
            self._add_rows(MapRows(cells.row, best[None], percent[None], every))
