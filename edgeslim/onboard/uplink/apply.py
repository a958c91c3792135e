"""Apply: a bundle or a delta into place, proven by the golden tiles before it stands; and back.

Nothing changes for a reader until the last step, a single rename; whatever fails before it leaves the artifact that
stands untouched, and nothing behind. See `place` for what a power cut leaves.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeslim.errors import EdgeslimError, InputError, UntrustedResult
from edgeslim.manifest import Manifest, parse_manifest, verify_files
from edgeslim.onboard.check import CheckReport, check_files
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.machine import available_threads
from edgeslim.onboard.uplink.bundle import XZ_MAGIC, Bundle, Files, require_plain
from edgeslim.onboard.uplink.delta import DELTA_MAGIC, Delta
from edgeslim.onboard.uplink.packed import require_room
from edgeslim.onboard.uplink.place import Held, Place


@dataclass(frozen=True, slots=True)
class Applied:
    """What stands now, and what did before."""

    place: Path
    """Folder of the artifact."""
    by: str
    """"bundle", "delta" or "rollback"."""
    name: str
    """Encoder and width that stand now."""
    seal: str
    """SHA-256 of its manifest's content."""
    old_name: str | None
    """Encoder and width that stood before; None: nothing that could be read."""
    old_seal: str | None
    """SHA-256 of its manifest's content."""
    changed: bool
    """False: it stood there already."""
    report: CheckReport
    """What the golden tiles proved."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "schema": 1,
            "artifact": str(self.place),
            "by": self.by,
            "changed": self.changed,
            "name": self.name,
            "seal": self.seal,
            "old_name": self.old_name,
            "old_seal": self.old_seal,
            "check": self.report.to_dict(),
        }


def apply(update: Path, place: Path, *, threads: int | None = None, disk: Disk | None = None) -> Applied:
    """Put the bundle or delta `update` into the artifact folder `place`, atomically, once its golden tiles agree.

    What stands already is checked and left. Raises InputError for a file that cannot be used, a delta of another
    artifact than the one that stands, or a folder that cannot be written; UntrustedResult where the artifact that a
    delta needs is damaged; ParityError where the golden tiles fail; MissingExtra without the runtime. After any of them
    the old artifact stands as it did.
    """
    target = Place(place, disk or Disk())
    with _opened(update) as source, _told(place), target.alone():
        before = _standing(target, source)
        target.tidy()
        data = _manifest_of(source, before, place)
        manifest, seal = parse_manifest(data, update)
        require_plain(manifest, str(update))
        held = before
        try:
            if before is None or before.seal != seal:
                held = None if before is None else _previous(target, before)
            if held is not None and held.seal == seal:  # it is here already
                if not _whole(held):
                    target.mend(held, _files_of(source, manifest, before, place))
                if held is before:
                    return _applied(target, source.kind, before, held, check_files(held.home, manifest, threads))
                return _applied(target, source.kind, before, held, _switch(target, before, held, threads))
            held = target.stage(data, manifest, seal, _files_of(source, manifest, before, place), before)
            report = _proved(held, threads)
            target.commit(held)
        except (EdgeslimError, OSError, KeyboardInterrupt):
            target.undo(seal)
            raise
        target.tidy()
        return _applied(target, source.kind, before, held, report)


def rollback(place: Path, *, threads: int | None = None, disk: Disk | None = None) -> Applied:
    """Let the artifact stand again that the last change replaced, once its golden tiles agree; again, and it is undone.

    Raises InputError where there is none or the folder cannot be written, UntrustedResult where it is damaged,
    ParityError where its golden tiles fail.
    """
    if not place.is_dir():
        raise InputError(f"{place}: found no such folder, expected an artifact's")
    target = Place(place, disk or Disk())
    with _told(place), target.alone():
        before = target.standing()
        previous = None if before is None else target.previous(before)
        if before is None or previous is None:
            raise InputError(f"{place}: found nothing that what stands replaced; `edgeslim apply` a bundle instead")
        target.tidy()
        try:
            return _applied(target, "rollback", before, previous, _switch(target, before, previous, threads))
        except (EdgeslimError, OSError, KeyboardInterrupt):
            target.undo(previous.seal)
            raise


def _switch(target: Place, before: Held | None, to: Held, threads: int | None) -> CheckReport:
    """Let one that is held already stand, once its golden tiles agree."""
    report = _proved(to, threads)
    if before is not None:
        target.remember(to, before)
    target.commit(to)
    return report


def _proved(held: Held, threads: int | None) -> CheckReport:
    """What its golden tiles prove, once it has an engine where it needs one: that can be built before it stands only.

    An engine that was built for one that is refused goes with it.
    """
    if not held.manifest.providers:
        return check_files(held.home, held.manifest, threads)
    from edgeslim.onboard.engine import require_engine

    built = require_engine(held.home, held.manifest, threads or available_threads())
    try:
        return check_files(held.home, held.manifest, threads)
    except (EdgeslimError, OSError, KeyboardInterrupt):
        if built is not None:
            shutil.rmtree(built.folder, ignore_errors=True)
        raise


def _applied(target: Place, by: str, before: Held | None, now: Held, report: CheckReport) -> Applied:
    return Applied(
        place=target.path,
        by=by,
        name=now.manifest.name,
        seal=now.seal,
        old_name=None if before is None else before.manifest.name,
        old_seal=None if before is None else before.seal,
        changed=before is not now,
        report=report,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Bundle | Delta]:
    """A bundle or a delta, by how it begins. Raises InputError for anything else."""
    try:
        if path.is_dir():
            raise InputError(
                f"{path}: found a folder, expected a bundle or a delta; `edgeslim export --bundle` or `edgeslim diff` "
                "writes one"
            )
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never begin, and is read once
            raise InputError(f"{path}: found no regular file, expected a bundle or a delta; save it as a file first")
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        begin = file.read(len(DELTA_MAGIC))
        file.seek(0)
        if begin == DELTA_MAGIC:
            yield Delta(file, str(path))
        elif begin.startswith(XZ_MAGIC):
            yield Bundle(file, str(path))
        else:
            raise InputError(
                f"{path}: found neither a bundle nor a delta, expected what `edgeslim export --bundle` or `edgeslim "
                "diff` wrote"
            )


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """One line for a disk that does not take it, as InputError."""
    try:
        yield
    except OSError as error:
        # Of a rename, what stands where a file was to go is the second.
        where = error.filename2 or error.filename or place
        if isinstance(error, IsADirectoryError):
            raise InputError(
                f"{where}: found a folder, expected a file of an artifact there, or nothing; move it away and try "
                f"again; what stood in {place} stands"
            ) from None
        why = error.strerror or str(error)
        raise InputError(
            f"{where}: cannot be written ({why}); what stood in {place} stands; mend that and try again"
        ) from None


def _standing(target: Place, source: Bundle | Delta) -> Held | None:
    """What stands; None where nothing does, or nothing that can be read and a bundle will replace it."""
    try:
        return target.standing()
    except UntrustedResult:
        if isinstance(source, Delta):
            raise
        return None


def _previous(target: Place, of: Held) -> Held | None:
    """What stood before; None where that cannot be told, which must not keep a new one from its place."""
    try:
        return target.previous(of)
    except (InputError, UntrustedResult):
        return None


def _whole(held: Held) -> bool:
    try:
        verify_files(held.home, held.manifest)
    except (InputError, UntrustedResult):
        return False
    return True


def _manifest_of(source: Bundle | Delta, before: Held | None, place: Path) -> bytes:
    """The new manifest. Raises InputError where a delta was made of another artifact than the one that stands."""
    if isinstance(source, Bundle):
        return source.manifest_bytes()
    old, new = source.header.old, source.header.new
    if before is None:
        raise InputError(f"{place}: found no artifact, expected {old.name} for this delta; send a bundle")
    if before.seal == new.seal:
        return before.data
    if before.seal != old.seal:
        raise InputError(
            f"{place}: found {before.manifest.name} ({before.seal[:12]}…), expected {old.name} ({old.seal[:12]}…) for "
            "this delta; make one of what stands, or send a bundle"
        )
    return source.manifest_bytes(before.data)


def _files_of(source: Bundle | Delta, manifest: Manifest, before: Held | None, place: Path) -> Files:
    """The new files. A delta's are made of what stands, which is proven first and must leave room for all of them."""
    if isinstance(source, Bundle):
        return source.files(manifest)
    if before is None or before.seal == source.header.new.seal:
        raise UntrustedResult(f"{place}: what stands there is damaged; send a bundle")
    verify_files(before.home, before.manifest)
    require_room(place, sum(change.size for change in source.header.files))
    return source.files(manifest, before.home)
