"""Unfinished: the folder of a run inside OUT, from its first durable byte until its results lie in OUT.

    OUT/unfinished/journal     what is done; synced after every row band
    OUT/unfinished/*           results being written; rebuilt from the journal on resume, so never trusted
    OUT/*                      results, moved there once all of them are synced; summary.json last

A power cut at any point leaves either the journal, from which the rest follows again, or all results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from edgeslim.errors import InputError
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.journal import JOURNAL_NAME, Journal, Kind, Record, read_records, require_idle

UNFINISHED_NAME = "unfinished"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that was asked to stop; what it finished is kept and `--resume` goes on."""

    bands_done: int
    """Row bands that are finished."""
    bands: int
    """Row bands in all."""
    reason: str
    """Who asked."""
    out: Path
    """Folder of the results."""

    def to_dict(self) -> UnfinishedRecord:
        """Plain types."""
        return {
            "schema": 1,
            "unfinished": True,
            "bands_done": self.bands_done,
            "bands": self.bands,
            "reason": self.reason,
            "out": str(self.out),
        }


class UnfinishedRecord(TypedDict):
    """A run that was asked to stop; what it finished is kept and `--resume` goes on."""

    schema: int
    """Version of this schema."""
    unfinished: bool
    """True, which tells it from a summary."""
    bands_done: int
    """Row bands that are finished."""
    bands: int
    """Row bands in all."""
    reason: str
    """Who asked: SIGTERM, SIGINT or deadline."""
    out: str
    """Folder of the results."""


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run left in its journal."""

    run: dict[str, Any]
    """What it computed from what."""
    scene: dict[str, Any] | None
    """Hashes of its scene; None: it was cut off before they were known, and nothing of it can be trusted."""
    chunks: int
    """Finished chunks."""
    end: int
    """Bytes of the journal that hold them."""
    records: int
    """Records in those bytes."""


class RunFolder:
    """OUT and what is unfinished in it."""

    def __init__(self, out: Path, disk: Disk) -> None:
        """Nothing is touched yet."""
        self.out, self.path, self._disk = out, out / UNFINISHED_NAME, disk
        self._made: list[Path] = []

    @property
    def begun(self) -> bool:
        """Whether an earlier run left a journal with a readable beginning."""
        return next(read_records(self.path), None) is not None

    def past(self) -> Past | None:
        """What an earlier run left, without what it marked as not to be trusted; None: nothing that lasts.

        Raises InputError where another edgeslim wrote it.
        """
        run: dict[str, Any] | None = None
        scene: dict[str, Any] | None = None
        chunks = end = records = 0
        trusted = (0, 0, 0)
        for number, record in enumerate(read_records(self.path), 1):
            if record.kind is Kind.RUN:
                run = record.json()
            elif record.kind is Kind.SCENE:
                scene = record.json()
            elif record.kind is Kind.CHUNK:
                chunks += 1
            elif record.kind is Kind.SUSPECT:
                chunks, end, records = trusted
                break
            end, records = record.end, number
            if record.kind in (Kind.CHECK, Kind.RUN):
                trusted = (chunks, end, records)
        if run is None:
            return None
        if not _is_whole(run, scene):
            raise InputError(
                f"{self.path / JOURNAL_NAME}: found a run that this edgeslim does not know how to go on with; start "
                "anew with --overwrite"
            )
        return Past(run, scene, chunks, end, records)

    def chunks(self, past: Past) -> Iterator[bytes]:
        """Payloads of the finished chunks, in order."""
        for record in _first(read_records(self.path), past.records):
            if record.kind is Kind.CHUNK:
                yield record.payload

    def begin(self, run: dict[str, Any]) -> Journal:
        """A new journal; what an earlier run left unfinished is removed. Raises InputError if OUT cannot be written."""
        try:
            for folder in reversed([self.path, *self.path.parents]):
                if not folder.exists():
                    self._disk.make_folder(folder)
                    self._made.append(folder)
            if (self.path / JOURNAL_NAME).exists():
                require_idle(self.path)
                self._disk.remove(self.path / JOURNAL_NAME)
        except OSError as error:
            self.undo()
            raise InputError(f"{self.out}: cannot be written ({error.strerror}); choose another -o") from None
        self.clear()
        try:
            return Journal.start(self.path, self._disk, run)
        except InputError:
            self.undo()
            raise

    def resume(self, past: Past) -> Journal:
        """The journal of an earlier run, behind its last finished chunk."""
        self.clear()
        return Journal.resume(self.path, self._disk, past.end, past.records)

    def clear(self) -> None:
        """Remove results that an earlier run began to write: they are rebuilt."""
        with suppress(OSError):
            for path in self.path.iterdir():
                if path.name != JOURNAL_NAME:
                    path.unlink()

    def undo(self) -> None:
        """Leave nothing behind of a run that finished no chunk; folders that were there before stay."""
        with suppress(OSError):
            for path in self.path.iterdir():
                path.unlink()
        for folder in reversed([self.path, *self._made] if self.path not in self._made else self._made):
            with suppress(OSError):
                folder.rmdir()

    def commit(self, names: Sequence[str], last: str, known: Sequence[str]) -> None:
        """Sync the named results, move them into OUT, `last` at the end, and remove the journal.

        Of the `known` names, those that an earlier run left and this one did not write are removed: they would be of
        another map.

        Raises InputError where the disk does not take it; the journal is then still there.
        """
        ordered = [*(name for name in names if name != last), last]
        try:
            for name in ordered:
                self._disk.sync_file(self.path / name)
            self._disk.sync_folder(self.path)
            for name in ordered:
                if name == last:
                    self._disk.sync_folder(self.out)
                self._disk.replace(self.path / name, self.out / name)
            for name in known:
                if name not in names and (self.out / name).is_file():
                    self._disk.remove(self.out / name)
            self._disk.sync_folder(self.out)
            self._disk.sync_folder(self.path)
            self._disk.remove(self.path / JOURNAL_NAME)
            self.clear()
            self._disk.remove_folder(self.path)
            self._disk.sync_folder(self.out)
        except OSError as error:
            raise InputError(
                f"{self.out}: results cannot be moved there ({error.strerror}); mend that and go on with --resume"
            ) from None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is none that is whole."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _is_whole(run: dict[str, Any], scene: dict[str, Any] | None) -> bool:
    """Whether the records that say what was computed from what have what a resumed run asks of them."""
    cut = run.get("cut")
    if not isinstance(cut, list) or len(cut) != 2 or not isinstance(run.get("inputs"), dict):
        return False
    if not all(type(n) is int and 0 < n < 1 << 31 for n in (run.get("batch"), *cut)) or cut[1] % 8:
        return False
    return scene is None or isinstance(scene.get("files"), dict)


def differences(earlier: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two descriptions of a run: "stride_px: found 32, asked 64"."""
    found = []
    for key in sorted({*earlier, *now}):
        before, after = earlier.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: found {_short(before)}, asked {_short(after)}")
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _first(records: Iterator[Record], count: int) -> Iterator[Record]:
    for number, record in enumerate(records):
        if number >= count:
            return
        yield record
