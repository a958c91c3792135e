"""Ledger: what a watcher knows of each scene, one small file a scene, so that a power cut loses and doubles nothing.

Every change is written beside, synced, and renamed over the old; a step is written down before it is taken, and every
step can be taken twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from edgeslim.onboard.disk import Disk
from edgeslim.onboard.watching.inbox import FileState

SCHEMA = 1
FOLDER_NAME = ".edgeslim"
"""In the outbox: ledger and unfinished work."""


class State(str, Enum):
    """How far a scene is."""

    begun = "begun"
    """Its work folder may hold an unfinished run."""
    finished = "finished"
    """Its results are whole; they and the scene are on their way to their places."""
    kept = "kept"
    """Delivered, and the scene stays in the inbox."""
    refused = "refused"
    """The scene is on its way to the quarantine; or stays in the inbox and is not tried again."""
    aside = "aside"
    """In quarantine with its unfinished run kept: moved back into the inbox, it goes on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one scene."""

    scene: str
    """File name in the inbox."""
    files: tuple[FileState, ...]
    """The scene and its sidecar files when it was taken up."""
    name: str
    """Of its folder in the outbox."""
    state: State
    """How far it is."""
    attempts: int = 0
    """Starts since a row band was last finished."""
    reason: str = ""
    """Why it was refused, one line."""

    @property
    def key(self) -> str:
        """Name of its ledger file and of its work folder: any file name fits, however long or odd."""
        return hashlib.sha256(self.scene.encode("utf-8", "surrogateescape")).hexdigest()[:24]


class Ledger:
    """Every scene that a watcher has taken up and not let go. Methods raise OSError."""

    def __init__(self, outbox: Path, disk: Disk) -> None:
        """Read it, making its folders in `outbox` where they are missing."""
        self._disk = disk
        self.folder = outbox / FOLDER_NAME
        self._entries_folder, self._work_folder = self.folder / "ledger", self.folder / "work"
        for folder in (self.folder, self._entries_folder, self._work_folder):
            if not folder.is_dir():
                disk.make_folder(folder)
        self.entries: dict[str, Entry] = {}
        for path in sorted(self._entries_folder.glob("*.json")):
            entry = _read(path)
            if entry is not None and path.stem == entry.key:
                self.entries[entry.scene] = entry
            else:  # not one of ours, or from another version: its scene is taken up as if it were new
                disk.remove(path)
        known = {entry.key for entry in self.entries.values()}
        for path in self._work_folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def work(self, entry: Entry) -> Path:
        """Where its results come to be."""
        return self._work_folder / entry.key

    def put(self, entry: Entry) -> Entry:
        """Write an entry; when it returns, no power cut can take it back."""
        text = json.dumps({"schema": SCHEMA, **asdict(entry)}, indent=1)
        write_whole(self._entries_folder / f"{entry.key}.json", text, self._disk)
        self.entries[entry.scene] = entry
        return entry

    def drop(self, entry: Entry) -> None:
        """Forget a scene and its unfinished work."""
        path = self._entries_folder / f"{entry.key}.json"
        if path.exists():
            self._disk.remove(path)
            self._disk.sync_folder(self._entries_folder)
        self.entries.pop(entry.scene, None)
        self.clear(entry)

    def clear(self, entry: Entry) -> None:
        """Remove a scene's unfinished work."""
        if self.work(entry).exists():
            shutil.rmtree(self.work(entry))


def write_whole(path: Path, text: str, disk: Disk) -> None:
    """Write a small file so that it is seen old or new, never half. Raises OSError."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)
    with disk.create(beside) as file:
        disk.append(file, text.encode("ascii", "backslashreplace"))
        disk.sync(file)
    disk.replace(beside, path)
    disk.sync_folder(path.parent)


def _read(path: Path) -> Entry | None:
    try:
        data = json.loads(path.read_bytes())
        if data.pop("schema") != SCHEMA:
            return None
        files = tuple(FileState(**row) for row in data.pop("files"))
        return Entry(**{**data, "files": files, "state": State(data["state"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
