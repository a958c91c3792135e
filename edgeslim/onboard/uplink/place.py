"""Place: the folder that an artifact stands in, and how another takes its place, whole at any instant.

    artifact/manifest.json                    what stands; replaced by one rename, and that alone is the change
    artifact/model.onnx …                     files of the artifact that `edgeslim export` wrote or a person copied
    artifact/update-9f3c…/manifest.json, …    an artifact that was put in place, named by its manifest's seal
    artifact/update-9f3c…/previous.json       the manifest of the one that it replaced

A reader (`edgeslim.manifest.read_standing`) reads artifact/manifest.json once; its seal says whether its files lie in a
folder update-… or beside it. So one rename of one synced file takes all readers from one artifact to the other, on any
file system, after any cut, and without a repair; and files that a run has open or is about to open stay where they are.

Other ways were weighed. A folder cannot be renamed over one that is not empty. Moving the old one aside and the new one
in leaves an instant without an artifact, which every reader would have to know how to mend. Linux can exchange two
folders (RENAME_EXCHANGE), but not on every file system, and a reader that has read the old manifest would then open the
new files. A symbolic link can be replaced at once, but the folder that stands already cannot become one at once, and
FAT has none.

Nothing is removed that a reader of what stands, or of what stood before it, could want: only what was replaced two
changes ago goes, so there must be room for three artifacts while the third arrives. Whatever a cut leaves behind is
removed at the beginning of the next change.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import EdgeslimError, InputError, UntrustedResult, shown
from edgeslim.manifest import (
    MANIFEST_BYTES,
    MANIFEST_NAME,
    UPDATE_FOLDER,
    UPDATE_PREFIX,
    Manifest,
    files_folder,
    parse_manifest,
)
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.uplink.bundle import Files
from edgeslim.onboard.uplink.packed import gathered, require_room
from edgeslim.shelf import read_small_file

PREVIOUS_NAME = "previous.json"
PART = ".part"
"""Ends the name of a file that is being written, to be renamed once it is synced."""


@dataclass(frozen=True, slots=True)
class Held:
    """An artifact that a place holds."""

    data: bytes
    """Of its manifest.json."""
    manifest: Manifest
    """The same, read."""
    seal: str
    """SHA-256 of its content."""
    home: Path
    """Where its files lie."""


class Place:
    """The folder of an artifact. What writes raises OSError where the disk does not take it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        """Nothing is touched yet."""
        self.path, self._disk = path, disk
        self._made: list[Path] = []

    def standing(self) -> Held | None:
        """What stands; None where nothing does. Raises InputError or UntrustedResult for what cannot be read."""
        return self._held(self.path / MANIFEST_NAME)

    def previous(self, of: Held) -> Held | None:
        """What `of` replaced, as far as its manifest goes; None where it replaced nothing. Raises as `standing`."""
        return self._held(of.home / PREVIOUS_NAME)

    def _held(self, path: Path) -> Held | None:
        if not path.exists():
            return None
        data = read_small_file(path, MANIFEST_BYTES)
        manifest, seal = parse_manifest(data, path)
        return Held(data, manifest, seal, files_folder(self.path, seal))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The folder, made where it is missing, and nobody else's while it is changed.

        Raises InputError where another is at work there, or where it holds something that is no artifact.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"-o {self.path}: is a file, expected the folder of an artifact")
        try:
            for folder in reversed([self.path, *self.path.parents]):
                if not folder.exists():
                    self._disk.make_folder(folder)
                    self._made.append(folder)
            with _locked(self.path):
                if not (self.path / MANIFEST_NAME).exists():
                    self._require_ours()
                yield
        except (EdgeslimError, OSError, KeyboardInterrupt):
            for folder in reversed(self._made):
                with suppress(OSError):  # one that something was put into stays
                    folder.rmdir()
            raise

    def _require_ours(self) -> None:
        for child in sorted(self.path.iterdir()):
            if not UPDATE_FOLDER.fullmatch(child.name) and child.name != MANIFEST_NAME + PART:
                raise InputError(
                    f"-o {self.path}: holds {shown(child.name)}, which is no part of an artifact; choose another folder"
                )

    def stage(self, data: bytes, manifest: Manifest, seal: str, files: Files, before: Held | None) -> Held:
        """Write an artifact into a folder of its own, synced; what stands stays. `before` is what it will replace.

        Raises InputError for a file that is not the manifest's.
        """
        home = self._folder(seal)
        self._remove_folder(home)
        self._disk.make_folder(home)
        for name, size, pieces in files:
            self._write(home / name, size, pieces, manifest.files[name])
        if before is not None:
            self._put(home, PREVIOUS_NAME, before.data)
        self._put(home, MANIFEST_NAME, data)  # which syncs the folder, and with it every name in it
        return Held(data, manifest, seal, home)

    def mend(self, held: Held, files: Files) -> None:
        """Replace, one by one, the files of an artifact that is held but damaged. Raises as `stage` does."""
        for name, size, pieces in files:
            part = held.home / (name + PART)
            self._write(part, size, pieces, held.manifest.files[name])
            self._disk.replace(part, held.home / name)
        self._disk.sync_folder(held.home)

    def _write(self, path: Path, size: int, pieces: Iterator[bytes], sha256: str) -> None:
        """A new file, synced. Raises InputError where its content is not what it should be."""
        require_room(self.path, size)
        digest = hashlib.sha256()
        with self._disk.create(path) as file:
            for piece in gathered(pieces):
                digest.update(piece)
                self._disk.append(file, piece)
            self._disk.sync(file)
        if (found := digest.hexdigest()) != sha256:
            raise InputError(
                f"the new {path.name.removesuffix(PART)}: found SHA-256 {found[:12]}…, expected {sha256[:12]}…; send "
                "it again"
            )

    def commit(self, held: Held) -> None:
        """Let another artifact stand: the one step that readers see."""
        self._put(self.path, MANIFEST_NAME, held.data)

    def remember(self, held: Held, before: Held) -> None:
        """Note that `held` is about to replace `before`."""
        self._put(held.home, PREVIOUS_NAME, before.data)

    def _put(self, folder: Path, name: str, data: bytes) -> None:
        """Write a small file beside, sync it, and rename it over the old one."""
        part = folder / (name + PART)
        if part.exists():
            self._disk.remove(part)
        with self._disk.create(part) as file:
            self._disk.append(file, data)
            self._disk.sync(file)
        self._disk.replace(part, folder / name)
        self._disk.sync_folder(folder)

    def undo(self, seal: str) -> None:
        """Remove what was staged under this seal, unless it stands already, and what else was begun."""
        with suppress(OSError):
            try:
                standing = self.standing()
            except (InputError, UntrustedResult):
                standing = None
            if standing is None:
                self._remove_folder(self._folder(seal))
            self.tidy()

    def tidy(self) -> None:
        """Remove what neither stands nor was replaced by what stands; nothing where that cannot be told."""
        try:
            standing = self.standing()
            previous = None if standing is None else self.previous(standing)
            earlier = None if previous is None else self.previous(previous)
        except (InputError, UntrustedResult):
            return
        held = [one for one in (standing, previous) if one is not None]
        kept = {one.home for one in held}
        for folder, names in ((self.path, ()), *((one.home, tuple(one.manifest.files)) for one in held)):
            self._remove_files(folder, [name + PART for name in (MANIFEST_NAME, PREVIOUS_NAME, *names)])
        for child in sorted(self.path.iterdir()):
            if UPDATE_FOLDER.fullmatch(child.name) and child not in kept:
                self._remove_folder(child)
        if standing is None or self.path in kept:
            return
        flat = [*held, earlier] if earlier is not None else held
        self._remove_files(self.path, [PREVIOUS_NAME, *(name for one in flat for name in one.manifest.files)])

    def _folder(self, seal: str) -> Path:
        return self.path / f"{UPDATE_PREFIX}{seal[:32]}"

    def _remove_files(self, folder: Path, names: list[str]) -> None:
        for name in names:
            if (folder / name).is_file():
                self._disk.remove(folder / name)

    def _remove_folder(self, folder: Path) -> None:
        """An artifact's folder, its manifest first: what is half removed is no artifact."""
        if not folder.is_dir() or folder.is_symlink():
            return
        for child in sorted(folder.iterdir(), key=lambda path: (path.name != MANIFEST_NAME, path.name)):
            self._disk.remove(child)
        self._disk.remove_folder(folder)
        self._disk.sync_folder(folder.parent)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone. Raises InputError where another does."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another `edgeslim apply` is at work there; wait for it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
