"""Watch: scenes that arrive in a folder into results in another, one at a time, for as long as the machine runs.

The watcher itself loads neither numpy nor GDAL nor a network: it looks, starts a process for a scene (`SceneProcess`),
listens, and moves. What can go wrong with a scene goes wrong in its process; what can go wrong with the machine (no
room, a damaged artifact) is told apart from it, so that no good scene is ever put into quarantine for it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgeslim.errors import EdgeslimError, InputError
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.progress import Event, Observer, resident_mib
from edgeslim.onboard.watching.check_process import check_artifact
from edgeslim.onboard.watching.delivery import Delivery
from edgeslim.onboard.watching.finished import is_finished, is_unfinished
from edgeslim.onboard.watching.inbox import Arrival, Inbox
from edgeslim.onboard.watching.ledger import Entry, Ledger, State
from edgeslim.onboard.watching.room import FULL, Room
from edgeslim.onboard.watching.scene_process import Outcome, SceneProcess
from edgeslim.onboard.watching.service import Heartbeat, ServiceManager
from edgeslim.onboard.watching.watch_options import WatchOptions

_TICK_S = 0.25
_LOCK_S = 5.0
_GRACE_S = 60.0
_ARTIFACT_FAULTS = (4, 5)
_WHY = {
    "stop": "the scene finishes its row band first",
    "deadline": "the scene's deadline passed; it finishes its row band first",
    "room": "too little room is left; the scene finishes its row band first",
}


class Process(Protocol):
    """What the watcher needs of a scene's process; SceneProcess is the real one."""

    pid: int

    def events(self, timeout_s: float) -> list[Event]:
        """What it said."""

    def ask_to_stop(self) -> None:
        """Finish the row band and end."""

    def kill(self) -> None:
        """End now."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended."""

    def __enter__(self) -> Process: ...

    def __exit__(self, *_: Any) -> None: ...


Start = Callable[[Sequence[str], Sequence[int]], Process]
Check = Callable[[Path, Callable[[], bool]], tuple[int, str]]
"""Exit code and error line of `edgeslim check`; what it calls while it waits says whether to go on waiting."""


@dataclass(slots=True)
class _Now:
    """What the heartbeat says of the scene under way."""

    scene: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None


class Watch:
    """The loop. `run` returns the exit code."""

    def __init__(
        self,
        inbox: Path,
        outbox: Path,
        options: WatchOptions,
        observe: Observer,
        stop: Callable[[], str | None],
        start: Start = SceneProcess,
        check: Check | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Nothing is touched before `run`. `observe` is told of every event, of scenes and of the watch."""
        self._inbox_path, self._outbox = inbox.absolute(), outbox.absolute()
        self._options, self._observe, self._stop = options, observe, stop
        self._start, self._check = start, check or check_artifact
        self._disk = disk or Disk()
        self._service = ServiceManager()
        self._heartbeat = Heartbeat(options.heartbeat or self._outbox / "heartbeat.json", options.heartbeat_s)
        self._inbox = Inbox(self._inbox_path, options.settle_s)
        self._now = _Now()
        self._state, self._why = "starting", ""
        self._counts = {"done": 0, "quarantined": 0, "waiting": 0, "changing": 0}
        self._last: dict[str, Any] = {}
        self._room = Room(self._outbox, options.max_outbox, options.min_free)
        self._locks: tuple[int, ...] = ()

    def run(self) -> int:
        """Watch until `stop` gives a reason, or with `once` until the inbox is empty.

        Returns 0, or 1 where `once` left a scene in quarantine or waiting. Raises InputError for folders that cannot
        be used or are watched already, and what `edgeslim check` says of an artifact that cannot be trusted.
        """
        with ExitStack() as stack:
            try:
                self._locks = tuple(self._lock(folder, stack) for folder in (self._inbox_path, self._outbox))
                if not self._beat():
                    raise InputError(f"{self._heartbeat.path}: cannot be written; choose another --heartbeat")
                self._require_artifact()
                ledger = Ledger(self._outbox, self._disk)
                self._delivery = Delivery(self._inbox_path, self._outbox, ledger, self._disk, self._options.keep)
                for entry in self._delivery.recover():
                    self._count_done(entry)
                self._service.tell(READY=1)
                return self._loop()
            except OSError as error:
                where = error.filename or self._outbox
                raise InputError(f"{where}: {error.strerror or error}; mend it and start the watch again") from None
            finally:
                self._service.tell(STOPPING=1)
                self._turn("stopped")

    def _lock(self, folder: Path, stack: ExitStack) -> int:
        """Hold `folder` alone. A folder is locked itself: the inbox may be read-only."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{folder}: cannot be opened as a folder ({error.strerror}); make it first") from None
        stack.callback(os.close, descriptor)
        end = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                # A scene's process holds it a moment longer than a watcher that was killed.
                if time.monotonic() > end:
                    raise InputError(f"{folder}: another `edgeslim watch` works on it; stop that one first") from None
                time.sleep(0.1)
            except OSError as error:
                raise InputError(f"{folder}: cannot be locked ({error.strerror}); keep it on a local disk") from None

    def _require_artifact(self) -> None:
        """Raise what `edgeslim check` says, with its exit code; nothing where the end was asked for meanwhile."""
        end = time.monotonic() + self._options.stall_s

        def go_on() -> bool:
            self._beat()
            return self._stop() is None and time.monotonic() < end

        code, line = self._check(self._options.artifact, go_on)
        if code:
            error = EdgeslimError(line)
            error.exit_code = code
            raise error

    def _loop(self) -> int:
        options = self._options
        code, began = 0, time.monotonic()
        while self._stop() is None:
            whole, changing = self._inbox.look(time.monotonic())
            self._delivery.forget_missing()
            todo = [arrival for arrival in whole if not self._is_over(arrival)]
            self._counts |= {"waiting": len(todo), "changing": len(changing)}
            if not todo:
                # With `once`: what keeps changing for longer than it takes to settle is not there yet.
                settled = not changing or time.monotonic() - began > options.settle_s + 2 * options.poll_s
                if options.once and settled:
                    break
                self._turn("idle")
                self._wait(options.poll_s)
                continue
            if why := self._room.lacking():
                self._turn("waiting", why)
                if options.once:
                    return 1
                self._wait(options.poll_s)
                continue
            try:
                code = max(code, 0 if self._take(self._first(todo)) else 1)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._turn("waiting", f"{self._outbox}: {error.strerror}; make room")
                if options.once:
                    return 1
                self._wait(options.poll_s)
        return code if options.once else 0

    def _is_over(self, arrival: Arrival) -> bool:
        """Whether a scene that lies in the inbox is not to be touched again: kept there when done or refused."""
        entry = self._delivery.ledger.entries.get(arrival.name)
        over = entry is not None and entry.state in (State.kept, State.refused) and entry.files == arrival.files
        return over and self._options.keep

    def _first(self, todo: list[Arrival]) -> Arrival:
        """What was begun goes on before what came first."""
        entries = self._delivery.ledger.entries
        return min(todo, key=lambda a: a.name not in entries)

    def _take(self, arrival: Arrival) -> bool:
        """Bring one scene a step on: to its results, into quarantine, or to a stop. False where it was refused."""
        delivery, options = self._delivery, self._options
        entry = delivery.begin(arrival)
        try:
            arrival.name.encode()
        except UnicodeEncodeError:
            return self._refuse(entry, "its file name is no valid UTF-8; rename it")
        work = delivery.ledger.work(entry)
        if not is_finished(work):
            if entry.attempts >= options.attempts:
                last = f", last: {entry.reason}" if entry.reason else ""
                times = f"started {entry.attempts} times without finishing a row band{last}"
                return self._refuse(entry, times)
            entry = delivery.ledger.put(replace(entry, state=State.begun, attempts=entry.attempts + 1))
            went_on = is_unfinished(work)
            entry, outcome, why = self._classify(entry, work)
            verdict = self._judge(entry, outcome, why, went_on)
            if verdict is not None:
                return verdict
        if self._inbox.state_of(entry.scene) != entry.files:
            delivery.ledger.drop(entry)  # written to while it was read: it is looked at anew when it has settled
            return True
        out = delivery.deliver(entry)
        self._count_done(replace(entry, name=out.name))
        return True

    def _classify(self, entry: Entry, work: Path) -> tuple[Entry, Outcome, str]:
        """Run a scene's process to its end. The last of the result: why it was ended from here, if it was."""
        options, delivery = self._options, self._delivery
        scene = str(self._inbox_path / entry.scene)
        arguments = [scene, "-o", str(work), f"--artifact={options.artifact.absolute()}", *options.arguments]
        began = spoke = time.monotonic()
        resumed, why, asked = 0, "", 0.0
        with self._start([*arguments, "--resume"], self._locks) as process:
            self._now = _Now(entry.scene, {}, process.pid)
            self._turn("classifying")
            while (outcome := process.outcome) is None:
                for event in process.events(_TICK_S):
                    spoke = time.monotonic()
                    self._hear(entry, event)
                    resumed = int(_count(event, "resumed_bands")) if event.kind == "start" else resumed
                    if event.kind == "band" and _count(event, "band") > resumed and entry.attempts:
                        entry = delivery.ledger.put(replace(entry, attempts=0, reason=""))
                self._beat()
                now = time.monotonic()
                if not why:
                    why = self._why_stop(now - began)
                    if why:
                        process.ask_to_stop()
                        asked = now
                        self._turn("stopping", _WHY[why])
                elif why == "stop":
                    self._service.tell(EXTEND_TIMEOUT_USEC=int(4e6 * max(1.0, _TICK_S)))
                elif now - asked > _GRACE_S:
                    process.kill()
                if now - spoke > options.stall_s:
                    why = why or "stall"
                    process.kill()
            self._now = _Now(None, self._now.data)
        return entry, outcome, why

    def _why_stop(self, seconds: float) -> str:
        if self._stop() is not None:
            return "stop"
        if self._options.deadline_s is not None and seconds > self._options.deadline_s:
            return "deadline"
        return "room" if self._room.is_short() else ""

    def _judge(self, entry: Entry, outcome: Outcome, why: str, went_on: bool) -> bool | None:
        """What becomes of a scene whose process ended: None to deliver it, otherwise `_take`'s answer.

        `why`: why it was ended from here. `went_on`: whether it took up an unfinished run.
        """
        ledger, options = self._delivery.ledger, self._options
        work = ledger.work(entry)
        if is_finished(work) and outcome.ended != "refused":
            return None  # also where it finished just before it was to be ended
        if why in ("stop", "room") or (outcome.ended == "stopped" and not why):
            ledger.put(replace(entry, attempts=max(0, entry.attempts - 1)))  # an orderly end counts for nothing
            return True
        if why == "deadline":
            done = self._progress_text()
            reason = f"its deadline of {options.deadline_s:g} s passed{done}; moved back into the inbox it goes on"
            return self._refuse(entry, reason, keep_work=is_unfinished(work))
        state = self._inbox.state_of(entry.scene)
        if state != entry.files:  # taken away or written to while it was read: no verdict on it
            ledger.drop(entry)
            return True
        if why == "stall" or outcome.ended in ("crashed", "done"):
            reason = f"its process said nothing for {options.stall_s:g} s" if why == "stall" else outcome.reason
            ledger.put(replace(entry, reason=reason or "its process ended without results"))
            self._observe(Event("warning", {"text": f"{entry.scene}: {reason}; it is tried again"}))
            return True
        # The process gave a reason. Is it the scene, or the machine?
        self._room.was_full(outcome.reason)
        if self._room.lacking(at_once=True):
            ledger.put(replace(entry, attempts=max(0, entry.attempts - 1)))
            return True
        self._require_artifact()
        if outcome.exit_code in _ARTIFACT_FAULTS and entry.attempts < options.attempts:
            ledger.put(replace(entry, reason=outcome.reason))  # a flipped bit in memory: a fresh process may do
            return True
        if went_on:  # perhaps that run was made with other flags, or by another version: it is begun anew
            ledger.clear(entry)
            ledger.put(replace(entry, attempts=max(0, entry.attempts - 1), reason=outcome.reason))
            return True
        return self._refuse(entry, outcome.reason)

    def _refuse(self, entry: Entry, reason: str, keep_work: bool = False) -> bool:
        path = self._delivery.refuse(replace(entry, reason=reason), keep_work)
        self._counts["quarantined"] += 1
        self._last = {"scene": entry.scene, "outcome": "quarantined", "reason": reason}
        data: dict[str, Any] = {"file": entry.scene, "reason": reason, "reason_file": str(path)}
        self._observe(Event("quarantined", data))
        return False

    def _count_done(self, entry: Entry) -> None:
        self._counts["done"] += 1
        self._room.forget()
        self._last = {"scene": entry.scene, "outcome": "done", "out": entry.name}
        self._observe(Event("delivered", {"file": entry.scene, "out": str(self._outbox / entry.name)}))

    def _hear(self, entry: Entry, event: Event) -> None:
        if event.kind == "band":
            self._now.data = dict(event.data)
        self._observe(Event(event.kind, {"file": entry.scene, **event.data}))

    def _progress_text(self) -> str:
        data = self._now.data
        return f" after row band {data['band']} of {data['bands']}" if "band" in data and "bands" in data else ""

    def _turn(self, state: str, why: str = "") -> None:
        """Take another state, and say so once."""
        if (state, why) != (self._state, self._why):
            if state != self._state:
                self._observe(Event("state", {"state": state, "text": why}))
            self._state, self._why = state, why
        self._beat()

    def _beat(self) -> bool:
        self._service.feed_watchdog()
        now = self._now
        data = now.data if now.scene else {}
        facts: dict[str, Any] = {
            "text": self._why,
            "scene": now.scene,
            "band": data.get("band"),
            "bands": data.get("bands"),
            "tiles_per_s": data.get("tiles_per_s"),
            "eta_s": data.get("eta_s"),
            "memory_mib": {
                "watch": _rounded(resident_mib()),
                "scene": None if now.pid is None else _rounded(resident_mib(now.pid)),
            },
            "counts": dict(self._counts),
            "outbox_mib": self._room.outbox_mib,
            "last": self._last,
        }
        written = self._heartbeat.beat(self._state, facts)
        scene = f" {now.scene}" if now.scene else ""
        band = f", row band {data['band']} of {data['bands']}" if "band" in data and "bands" in data else ""
        self._service.status(f"{self._state}{scene}{band}{': ' + self._why if self._why else ''}")
        return written

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._stop() is None and (left := end - time.monotonic()) > 0:
            self._beat()
            time.sleep(min(_TICK_S, left))


def _count(event: Event, name: str) -> float:
    value = event.data.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
