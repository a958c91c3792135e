"""What a disk may hold after a power cut, worked out from a recorded trace of what was asked of it.

Sync makes a file's data last, and a folder's sync the names in it; of everything else any part may be there: data lost,
torn at sectors, zeros or garbage in its place, names there without data or data without names, in any order. A move is
one step to the file system: the file is under its old name, its new one, or both, never under none.
"""

from __future__ import annotations

import itertools
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgeslim.onboard.disk import Disk

SECTOR = 512
FATES = ("kept", "lost", "torn", "zeros", "garbage")
"""Of a write that was not synced."""


@dataclass(frozen=True)
class Op:
    """One operation, and what lay in the folders just before it that did not come through the disk."""

    kind: str
    path: Path
    other: Path | None = None
    offset: int = 0
    data: bytes = b""
    foreign: dict[Path, bytes] = field(default_factory=dict)


class RecordingDisk(Disk):
    """Does everything and writes it down; the syncs, which the test's own disk need not suffer, only if asked."""

    def __init__(self, root: Path, syncing: bool = False) -> None:
        """Files below `root` that were written past this disk are noted with each operation."""
        self.root, self._syncing = root, syncing
        self.ops: list[Op] = []
        self._own: set[Path] = {path for path in root.rglob("*") if path.is_file()}
        self._paths: dict[int, Path] = {}
        self._lock = threading.Lock()

    def _note(self, kind: str, path: Path, other: Path | None = None, offset: int = 0, data: bytes = b"") -> None:
        with self._lock:
            foreign = {}
            for found in self.root.rglob("*"):
                if found.is_file() and found not in self._own:
                    foreign[found] = found.read_bytes()
            self.ops.append(Op(kind, path, other, offset, data, foreign))

    def make_folder(self, path: Path) -> None:
        self._note("mkdir", path)
        super().make_folder(path)

    def create(self, path: Path) -> BinaryIO:
        self._note("create", path)
        self._own.add(path)
        file = super().create(path)
        self._paths[id(file)] = path
        return file

    def append_to(self, path: Path, size: int) -> BinaryIO:
        self._note("cut", path, offset=size)
        file = super().append_to(path, size)
        self._paths[id(file)] = path
        return file

    def append(self, file: BinaryIO, data: bytes) -> None:
        self._note("write", self._paths[id(file)], offset=file.tell(), data=bytes(data))
        super().append(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._note("sync", self._paths[id(file)])
        if self._syncing:
            super().sync(file)

    def sync_file(self, path: Path) -> None:
        self._note("sync_foreign", path, data=path.read_bytes())
        self._own.add(path)
        if self._syncing:
            super().sync_file(path)

    def sync_folder(self, path: Path) -> None:
        self._note("sync_folder", path)
        if self._syncing:
            super().sync_folder(path)

    def replace(self, source: Path, target: Path) -> None:
        self._note("move", source, target)
        self._own.add(target)
        super().replace(source, target)
        self._own.discard(source)

    def remove(self, path: Path) -> None:
        self._note("unlink", path)
        super().remove(path)
        self._own.discard(path)

    def remove_folder(self, path: Path) -> None:
        self._note("rmdir", path)
        super().remove_folder(path)


class Inode:
    """A file's data: what lasts, and what was done since."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[tuple[int, bytes | None]] = []
        """(offset, data), or (size, None) for a cut."""

    def now(self) -> bytes:
        return self.after(["kept"] * len(self.pending), random.Random(0))

    def after(self, fates: list[str], rng: random.Random) -> bytes:
        """Content when each pending write met its fate."""
        data = bytearray(self.durable)
        for fate, (at, new) in zip(fates, self.pending, strict=True):
            if fate == "lost":
                continue
            if new is None:
                data[at:] = bytes(max(0, at - len(data)))
                continue
            if fate == "torn":
                first = SECTOR - at % SECTOR  # sectors are the file's, not the write's
                new = new[: first + SECTOR * rng.randrange(-(-len(new) // SECTOR))]
            elif fate == "zeros":
                new = bytes(len(new))
            elif fate == "garbage":
                new = rng.randbytes(len(new))
            data.extend(bytes(max(0, at - len(data))))
            data[at : at + len(new)] = new
        return bytes(data)


@dataclass(eq=False)
class Change:
    """A name made or taken away since its folder's last sync."""

    folder: Path
    name: str
    entry: Inode | Path | None
    """None: taken away."""
    needs: Change | None = None
    """The other half of a move, which must have come first."""


class Model:
    """The disk as the trace goes by."""

    def __init__(self, root: Path) -> None:
        """What lies below `root` now has always been there."""
        self.root = root
        self._durable: dict[Path, dict[str, Inode | Path]] = {}
        self._now: dict[Path, dict[str, Inode | Path]] = {}
        self.changes: list[Change] = []
        self._read(root)

    def _read(self, folder: Path) -> None:
        entries: dict[str, Inode | Path] = {}
        for path in folder.iterdir():
            entries[path.name] = path if path.is_dir() else Inode(path.read_bytes())
            if path.is_dir():
                self._read(path)
        self._durable[folder], self._now[folder] = dict(entries), entries

    def apply(self, op: Op) -> None:
        folder, name = op.path.parent, op.path.name
        if op.kind == "mkdir":
            self._durable[op.path], self._now[op.path] = {}, {}
            self._change(folder, name, op.path)
        elif op.kind == "create":
            self._change(folder, name, Inode())
        elif op.kind in ("cut", "write"):
            self._inode(op.path).pending.append((op.offset, None if op.kind == "cut" else op.data))
        elif op.kind == "sync":
            inode = self._inode(op.path)
            inode.durable, inode.pending = inode.now(), []
        elif op.kind in ("foreign", "sync_foreign"):
            inode = Inode(op.data if op.kind == "sync_foreign" else b"")
            inode.pending = [] if op.kind == "sync_foreign" else [(0, op.data)]
            self._change(folder, name, inode)
        elif op.kind == "sync_folder":
            self._sync_folder(op.path)
        elif op.kind == "move":
            assert op.other is not None
            made = self._change(op.other.parent, op.other.name, self._now[folder][name])
            self._change(folder, name, None, made)
        elif op.kind in ("unlink", "rmdir"):
            self._change(folder, name, None)
        else:
            raise ValueError(op.kind)

    def _inode(self, path: Path) -> Inode:
        found = self._now[path.parent][path.name]
        assert isinstance(found, Inode)
        return found

    def _change(self, folder: Path, name: str, entry: Inode | Path | None, needs: Change | None = None) -> Change:
        change = Change(folder, name, entry, needs)
        self._put(self._now, change)
        if folder in self._durable:
            self.changes.append(change)
        return change

    @staticmethod
    def _put(folders: dict[Path, dict[str, Inode | Path]], change: Change) -> None:
        entries = folders.setdefault(change.folder, {})
        if change.entry is None:
            entries.pop(change.name, None)
        else:
            entries[change.name] = change.entry

    def _sync_folder(self, folder: Path) -> None:
        synced = {id(c) for c in self.changes if c.folder == folder}
        synced |= {id(c.needs) for c in self.changes if id(c) in synced and c.needs is not None}
        for change in self.changes:
            if id(change) in synced:
                self._put(self._durable, change)
        self.changes = [c for c in self.changes if id(c) not in synced]

    def states(self, foreign: dict[Path, bytes], most: int, rng: random.Random) -> Iterator[State]:
        """Every state if there are at most `most`, otherwise the outer ones and a sample."""
        inodes = self._unsynced()
        choices: list[tuple[object, ...]] = [(False, True)] * len(self.changes)
        choices += [("kept", "lost") if new is None else FATES for inode in inodes for _, new in inode.pending]
        choices += [("kept", "lost", "empty", "torn", "garbage")] * len(foreign)
        count = 1
        for options in choices:
            count *= len(options)
        if count <= most:
            picks: Iterator[tuple[object, ...]] = itertools.product(*choices)
        else:
            ends = [tuple(c[0] for c in choices), tuple(c[1] for c in choices)]
            named = tuple([True] * len(self.changes)) + ("lost",) * (len(choices) - len(self.changes))
            sample = (tuple(rng.choice(c) for c in choices) for _ in range(most - 3))
            picks = itertools.chain([*ends, named], sample)
        for pick in picks:
            kept = list(pick[: len(self.changes)])
            at, fates = len(self.changes), {}
            for inode in inodes:
                fates[id(inode)] = [str(f) for f in pick[at : at + len(inode.pending)]]
                at += len(inode.pending)
            others = dict(zip(foreign, (str(f) for f in pick[at:]), strict=True))
            yield State(self._after(kept, fates, rng), self._foreign(foreign, others, rng))

    def _unsynced(self) -> list[Inode]:
        found: dict[int, Inode] = {}
        for entries in (*self._durable.values(), *self._now.values()):
            for entry in entries.values():
                if isinstance(entry, Inode) and entry.pending:
                    found[id(entry)] = entry
        return list(found.values())

    def _after(self, kept: list[object], fates: dict[int, list[str]], rng: random.Random) -> dict[Path, bytes | None]:
        folders = {folder: dict(entries) for folder, entries in self._durable.items()}
        done: set[int] = set()
        for change, wanted in zip(self.changes, kept, strict=True):
            pending = {id(c) for c in self.changes}
            if wanted and (change.needs is None or id(change.needs) in done or id(change.needs) not in pending):
                self._put(folders, change)
                done.add(id(change))
        found: dict[Path, bytes | None] = {}
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            for name, entry in folders.get(folder, {}).items():
                if isinstance(entry, Inode):
                    found[folder / name] = entry.after(fates.get(id(entry), []), rng)
                else:
                    found[entry] = None
                    waiting.append(entry)
        return found

    @staticmethod
    def _foreign(files: dict[Path, bytes], fates: dict[Path, str], rng: random.Random) -> dict[Path, bytes]:
        found = {}
        for path, data in files.items():
            fate = fates[path]
            if fate == "lost":
                continue
            torn = data[: SECTOR * rng.randrange(1 + len(data) // SECTOR)]
            garbage = rng.randbytes(rng.randrange(len(data) + 1))
            found[path] = {"kept": data, "empty": b"", "torn": torn, "garbage": garbage}[fate]
        return found


@dataclass(frozen=True)
class State:
    """A disk after the cut: path -> content, None for a folder."""

    files: dict[Path, bytes | None]
    foreign: dict[Path, bytes]

    def key(self, root: Path) -> int:
        """Equal for equal states."""
        both = {**self.foreign, **self.files}
        return hash(tuple(sorted((str(p.relative_to(root)), d) for p, d in both.items() if d is not None)))

    def lay(self, root: Path) -> None:
        """Make `root` hold it, and nothing else."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for path, data in self.files.items():
            if data is None:
                path.mkdir(parents=True, exist_ok=True)
        for path, data in {**self.foreign, **self.files}.items():
            if data is not None and path.parent.is_dir():
                path.write_bytes(data)


def cuts(ops: list[Op], root: Model, most: int, rng: random.Random) -> Iterator[tuple[int, State]]:
    """States after a cut before each operation and after the last: (operations done, state)."""
    for number in range(len(ops) + 1):
        foreign = ops[number].foreign if number < len(ops) else {}
        if number and rng.random() < 0.5:  # what lay there may be older than the last operation
            foreign = ops[number - 1].foreign
        for state in root.states(foreign, most, rng):
            yield number, state
        if number < len(ops):
            root.apply(ops[number])
