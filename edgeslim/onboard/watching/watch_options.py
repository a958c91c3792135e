"""Watch options: how a folder is watched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import UsageError


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch. Invalid values cannot be built."""

    artifact: Path
    """What every scene is classified with."""
    arguments: tuple[str, ...] = ()
    """Flags of `edgeslim classify` for every scene."""
    settle_s: float = 10.0
    """A scene is whole when its files have not changed for so long."""
    poll_s: float = 2.0
    """Between two looks at the inbox."""
    deadline_s: float | None = None
    """Of one scene; then it goes into quarantine, resumable."""
    stall_s: float = 1800.0
    """A process that says nothing for so long hangs and is killed."""
    attempts: int = 3
    """Starts of a scene without a row band finished between them before it goes into quarantine."""
    max_outbox: int | None = None
    """Bytes on disk of the outbox at which no further scene is begun."""
    min_free: int = 256 << 20
    """Bytes free on the outbox's disk below which a scene waits."""
    keep: bool = False
    """Scenes stay in the inbox, which is not written."""
    once: bool = False
    """Classify what is there, then end."""
    heartbeat: Path | None = None
    """Its file; None: heartbeat.json in the outbox."""
    heartbeat_s: float = 5.0
    """Between two of them."""

    def __post_init__(self) -> None:
        named = ("--settle-s", self.settle_s), ("--min-free", self.min_free)
        for flag, value in named:
            if not 0 <= value < float("inf"):
                raise UsageError(f"{flag}: found {value:g}, expected 0 or more")
        for flag, above in (
            ("--poll-s", self.poll_s),
            ("--deadline-s", self.deadline_s),
            ("--stall-s", self.stall_s),
            ("--attempts", self.attempts),
            ("--heartbeat-s", self.heartbeat_s),
        ):
            if above is not None and not 0 < above < float("inf"):
                raise UsageError(f"{flag}: found {above:g}, expected a number above 0")
