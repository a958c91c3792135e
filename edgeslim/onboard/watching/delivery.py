"""Delivery: results into the outbox, scenes out of the inbox; every step a rename, every step good to be taken twice.

    INBOX/a.tif ──▶ INBOX/done/a.tif                    its results: OUTBOX/a/
               └──▶ INBOX/quarantine/a.tif, a.tif.txt   the reason, one line

The ledger says what is about to happen before it happens. After a power cut `recover` takes the steps that are left.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgeslim.onboard.disk import Disk
from edgeslim.onboard.watching.inbox import Arrival
from edgeslim.onboard.watching.ledger import Entry, Ledger, State, write_whole

DONE_NAME = "done"
QUARANTINE_NAME = "quarantine"


class Delivery:
    """Moves scenes and results. Methods raise OSError."""

    def __init__(self, inbox: Path, outbox: Path, ledger: Ledger, disk: Disk, keep: bool) -> None:
        """`keep`: scenes stay in the inbox, which is then never written."""
        self.inbox, self.outbox, self.ledger = inbox, outbox, ledger
        self._disk, self._keep = disk, keep
        self.done = inbox / DONE_NAME
        self.quarantine = (outbox if keep else inbox) / QUARANTINE_NAME

    def recover(self) -> list[Entry]:
        """Take the steps that a power cut left undone; the entries whose scene is delivered by it."""
        delivered = []
        for entry in list(self.ledger.entries.values()):
            here = os.path.lexists(self.inbox / entry.scene)
            if entry.state is State.finished:
                self.deliver(entry)
                delivered.append(entry)
            elif entry.state is State.refused and not self._keep:
                if here:
                    self.refuse(entry, keep_work=self.ledger.work(entry).exists())
                else:  # moved just before the cut
                    self._let_go(entry)
            elif not here and (self._keep or not self._in_quarantine(entry)):
                self.ledger.drop(entry)  # its scene was taken away
        return delivered

    def forget_missing(self) -> None:
        """Let go of scenes that were taken out of the inbox and out of the quarantine."""
        for entry in list(self.ledger.entries.values()):
            if not os.path.lexists(self.inbox / entry.scene) and (self._keep or not self._in_quarantine(entry)):
                self.ledger.drop(entry)

    def begin(self, arrival: Arrival) -> Entry:
        """Take up a scene: its entry as an earlier run left it if its files are the same, otherwise a new one."""
        entry = self.ledger.entries.get(arrival.name)
        if entry is not None and entry.files == arrival.files:
            return entry
        if entry is not None:
            self.ledger.drop(entry)  # another scene under the same name
        return Entry(arrival.name, arrival.files, self._free_name(arrival.name), State.begun)

    def deliver(self, entry: Entry) -> Path:
        """Move finished results into the outbox, then the scene to INBOX/done. Returns the folder of the results."""
        work = self.ledger.work(entry)
        if work.exists():
            if os.path.lexists(self.outbox / entry.name):
                entry = replace(entry, name=self._free_name(entry.scene))
            entry = self.ledger.put(replace(entry, state=State.finished))
            self._disk.replace(work, self.outbox / entry.name)
            self._disk.sync_folder(self.outbox)
            self._disk.sync_folder(work.parent)
        if self._keep:
            self.ledger.put(replace(entry, state=State.kept))
        else:
            self._move(entry, self.done)
            self.ledger.drop(entry)
        return self.outbox / entry.name

    def refuse(self, entry: Entry, keep_work: bool = False) -> Path:
        """Move a scene into the quarantine and write why beside it. Returns the file with the reason.

        `keep_work`: its unfinished run stays, for the day that it is moved back into the inbox.
        """
        if not keep_work:
            self.ledger.clear(entry)
        entry = self.ledger.put(replace(entry, state=State.refused))
        self._make(self.quarantine)
        names = self._new_names(entry, self.quarantine)
        reason = self.quarantine / f"{names[entry.scene]}.txt"
        write_whole(reason, entry.reason + "\n", self._disk)
        if self._keep:
            return reason
        self._move(entry, self.quarantine, names)
        self._let_go(entry)
        return reason

    def _let_go(self, entry: Entry) -> None:
        """After the move into quarantine: keep the unfinished run under its scene's own name, or forget all."""
        if self.ledger.work(entry).exists() and os.path.lexists(self.quarantine / entry.scene):
            self.ledger.put(replace(entry, state=State.aside, attempts=0, reason=""))
        else:
            self.ledger.drop(entry)

    def _in_quarantine(self, entry: Entry) -> bool:
        return entry.state is State.aside and os.path.lexists(self.quarantine / entry.scene)

    def _free_name(self, scene: str) -> str:
        """A name for the results that nothing in the outbox has, nor another scene on its way there."""
        stem = os.path.splitext(scene)[0]
        taken = {entry.name for entry in self.ledger.entries.values() if entry.scene != scene}
        name, number = stem, 1
        while name in taken or name == QUARANTINE_NAME or os.path.lexists(self.outbox / name):
            number += 1
            name = f"{stem}-{number}"
        return name

    def _new_names(self, entry: Entry, folder: Path) -> dict[str, str]:
        """File name -> its name in `folder`, where nothing is ever written over. Scene and sidecars keep together."""
        stem = os.path.splitext(entry.scene)[0]
        end, number = "", 1
        while not self._keep and os.path.lexists(folder / f"{stem}{end}{entry.scene[len(stem) :]}"):
            number += 1
            end = f"-{number}"
        return {file.name: f"{stem}{end}{file.name[len(stem) :]}" for file in entry.files}

    def _move(self, entry: Entry, folder: Path, names: dict[str, str] | None = None) -> None:
        """Move a scene's sidecars, then the scene: where it has gone, they have, whatever a power cut took back."""
        if not os.path.lexists(self.inbox / entry.scene):
            return  # moved before the cut, or taken away
        self._make(folder)
        names = names or self._new_names(entry, folder)
        for files in (entry.files[1:], entry.files[:1]):
            for file in files:
                with suppress(FileNotFoundError):
                    self._disk.replace(self.inbox / file.name, folder / names[file.name])
            if files:
                self._disk.sync_folder(folder)
                self._disk.sync_folder(self.inbox)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._disk.make_folder(folder)
