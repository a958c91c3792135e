"""Service: what a service manager and a person far away are told: sd_notify and a heartbeat file."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from edgeslim.onboard.progress import now_utc

HEARTBEAT_SCHEMA = 1


class BeatMemory(TypedDict):
    """Resident memory now, MiB; None: not known, or there is no such process."""

    watch: float | None
    """Of the watch."""
    scene: float | None
    """Of the process of the scene under way."""


class BeatCounts(TypedDict):
    """How many scenes."""

    done: int
    """Delivered since the start."""
    quarantined: int
    """Given up since the start."""
    waiting: int
    """Ready to be classified now."""
    changing: int
    """Not settled yet."""


class BeatLast(TypedDict, total=False):
    """The last scene that was over; empty before there was one."""

    scene: str
    """As it was named in the inbox."""
    outcome: str
    """done or quarantined."""
    out: str
    """Name of the folder of its results in the outbox, where it is done."""
    reason: str
    """Why it is in quarantine, one line."""


class Beat(TypedDict):
    """What the watch does now. Too old means: it hangs, is not running, or its disk is full."""

    schema: int
    """Version of this schema."""
    time: str
    """When it was written: UTC, RFC 3339."""
    beat: int
    """Number of this one, from 1."""
    every_s: float
    """Seconds between two."""
    uptime_s: float
    """Seconds since the start."""
    pid: int
    """Process of the watch."""
    state: str
    """starting, idle, classifying, stopping, stopped or waiting."""
    text: str
    """Why, one line; empty where there is nothing to say."""
    scene: str | None
    """Under way, as it was named in the inbox."""
    band: int | None
    """Of that scene: row bands finished."""
    bands: int | None
    """Row bands of the whole scene."""
    tiles_per_s: float | None
    """Of this run."""
    eta_s: float | None
    """Seconds left at that rate."""
    memory_mib: BeatMemory
    """Resident now."""
    counts: BeatCounts
    """Of scenes."""
    outbox_mib: float | None
    """What the outbox takes on disk; None without `--max-outbox`."""
    last: BeatLast
    """The last scene that was over."""


class ServiceManager:
    """systemd's notification protocol; does nothing where no service manager listens.

    A datagram of KEY=VALUE lines to the socket that NOTIFY_SOCKET names (sd_notify(3)); "@" stands for the zero byte of
    an abstract one.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._watchdog_s: float | None = None
        asked, whom = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if asked.isdigit() and int(asked) and whom in ("", str(os.getpid())):
            self._watchdog_s = int(asked) / 1e6 / 3  # twice within its patience even if one is late
        self._fed = float("-inf")
        self._status = ""

    def tell(self, **values: str | int) -> None:
        """Send assignments, e.g. READY=1. A service manager that went away is no reason to stop."""
        if not self._address:
            return
        text = "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in values.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(1)
            link.sendto(text.encode(), self._address)

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if text != self._status:
            self._status = text
            self.tell(STATUS=text)

    def feed_watchdog(self) -> None:
        """Say that the loop still turns, as often as the service manager wants to hear it."""
        if self._watchdog_s is not None and time.monotonic() - self._fed >= self._watchdog_s:
            self._fed = time.monotonic()
            self.tell(WATCHDOG=1)


class Heartbeat:
    """A JSON file that is replaced as a whole every `every_s` seconds, and at every change of state."""

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self._every_s = path, every_s
        self._last, self._state, self._beat = float("-inf"), "", 0
        self._began = time.monotonic()

    def beat(self, state: str, facts: Mapping[str, Any]) -> bool:
        """Write it if it is due. False where it could not be: it grows old then, which is what it is watched for.

        It is not synced: after a power cut its age says all there is to say, and a sync every few seconds wears flash.
        """
        now = time.monotonic()
        if state == self._state and now - self._last < self._every_s:
            return True
        self._last, self._state, self._beat = now, state, self._beat + 1
        record = {
            "schema": HEARTBEAT_SCHEMA,
            "time": now_utc(),
            "beat": self._beat,
            "every_s": self._every_s,
            "uptime_s": round(now - self._began, 1),
            "pid": os.getpid(),
            "state": state,
            **facts,
        }
        beside = self.path.with_name(f".{self.path.name}.tmp")
        try:
            beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            beside.replace(self.path)
        except OSError:
            return False
        return True
