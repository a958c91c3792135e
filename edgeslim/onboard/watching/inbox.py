"""Inbox: a folder that scenes arrive in, looked at again and again; when is one whole, and which came first.

Nothing is asked of the file system but its listing: no inotify, which knows nothing of network mounts and overflows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".tif", ".tiff")
"""Of scenes. A VRT points at files elsewhere and would not survive being moved: classify it by `edgeslim classify`."""
UNDER_WAY = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download", "~")
"""Ends of names that copying programs give to what is not whole yet."""
BESIDE = (".tfw", ".tifw", ".tiffw", ".wld", ".prj", ".rpb", ".imd", ".aux", ".msk", ".ovr", ".xml", ".json")
"""Ends of a scene's sidecar files that carry its stem; those that carry its whole name may end in anything."""


@dataclass(frozen=True, slots=True)
class FileState:
    """One file as it was seen."""

    name: str
    """In the inbox."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change, ns, by whatever clock it was written."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A scene in the inbox, whole as far as can be told."""

    name: str
    """File name of the scene."""
    files: tuple[FileState, ...]
    """The scene, then its sidecar files by name."""


def is_ignored(name: str) -> bool:
    """Whether a name is hidden, or of a file under way."""
    return name.startswith(".") or name.lower().endswith(UNDER_WAY)


def is_scene(name: str) -> bool:
    """Whether a name is that of a scene."""
    return not is_ignored(name) and name.lower().endswith(SUFFIXES)


def sidecars_of(scene: str, names: Iterable[str]) -> list[str]:
    """Names of a scene's sidecar files among `names`, sorted: world file, mask, overviews, metadata."""
    stem = os.path.splitext(scene)[0].lower()
    whole = scene.lower() + "."
    return sorted(
        name
        for name in names
        if not is_scene(name)
        and not is_ignored(name)
        and (name.lower().startswith(whole) or name.lower() in {stem + end for end in BESIDE})
    )


class Inbox:
    """Watches for scenes whose files, sidecars included, have not changed for `settle_s` seconds."""

    def __init__(self, folder: Path, settle_s: float) -> None:
        self.folder, self._settle_s = folder, settle_s
        self._since: dict[str, tuple[tuple[object, ...], float]] = {}

    def look(self, now_s: float) -> tuple[list[Arrival], list[str]]:
        """Scenes that are whole, in order of arrival, and the names of those still changing.

        `now_s` is a clock that never jumps: the wall clock of a board may be years off until it hears of the time, so
        a file's own times are compared for change only. Arrival is the time of the inode's last change, which a
        rename into the folder sets and copying programs cannot; then the name. Raises OSError.
        """
        seen: dict[str, os.stat_result] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat()
                except OSError:  # gone since it was listed, or a dangling link
                    continue
                if stat.S_ISREG(found.st_mode):
                    seen[entry.name] = found
        whole: list[tuple[int, Arrival]] = []
        changing: list[str] = []
        before, self._since = self._since, {}
        for name in sorted(filter(is_scene, seen)):
            files = tuple(
                FileState(part, seen[part].st_size, seen[part].st_mtime_ns) for part in (name, *sidecars_of(name, seen))
            )
            # A copy of a sidecar that is under way keeps its scene waiting as long as it grows, and no longer.
            under_way = tuple(
                (part, seen[part].st_size)
                for part in sorted(seen)
                if part.startswith(name + ".") and part.lower().endswith(UNDER_WAY)
            )
            state = (files, seen[name].st_ino, under_way)
            old = before.get(name)
            since = old[1] if old is not None and old[0] == state else now_s
            self._since[name] = (state, since)
            if now_s - since >= self._settle_s:
                whole.append((seen[name].st_ctime_ns, Arrival(name, files)))
            else:
                changing.append(name)
        return [arrival for _, arrival in sorted(whole, key=lambda w: (w[0], w[1].name))], changing

    def state_of(self, name: str) -> tuple[FileState, ...] | None:
        """The files of one scene as they are now; None where it is gone. Raises OSError."""
        names = os.listdir(self.folder)
        if name not in names:
            return None
        found = []
        for part in (name, *sidecars_of(name, names)):
            try:
                state = os.stat(self.folder / part)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(state.st_mode):  # as in `look`: a folder or pipe is no part of a scene
                found.append(FileState(part, state.st_size, state.st_mtime_ns))
        return tuple(found) if found and found[0].name == name else None
