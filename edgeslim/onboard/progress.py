"""Progress: what a run says while it runs, as events for machines and as a bar for people.

Every event is one `Event`: a kind and its fields, as `edgeslim.onboard.events` lists them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Union

from edgeslim.errors import shown
from edgeslim.onboard.resident import highest_bytes
from edgeslim.units import mib

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task
    from rich.table import Table
    from rich.text import Text

SCHEMA = 1
"""Of one line of NDJSON."""

JSON = Union[None, bool, int, float, str, "list[JSON]", "dict[str, JSON]"]
"""What a field of an event may hold."""

ENDS = ("done", "stopped", "error")
"""Kinds after which a run says nothing more."""

Observer = Callable[["Event"], None]
"""What is told of every event."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run."""

    kind: str
    """A key of EVENTS or WATCH_EVENTS."""
    data: dict[str, JSON] = field(default_factory=dict)
    """Its fields, as these list them."""

    def line(self, **more: JSON) -> str:
        """One line of NDJSON, without its end: schema, time (UTC, RFC 3339), event, `more`, then the fields.

        Numbers with a point have six significant digits; what is not finite is null.
        """
        record = {"schema": SCHEMA, "time": now_utc(), "event": self.kind, **more, **self.data}
        # ASCII, so that no locale can spoil a line; NaN is no JSON.
        return json.dumps(_plain(record), separators=(",", ":"), allow_nan=False)

    @classmethod
    def parse(cls, line: str) -> Event | None:
        """The event of a line that `line` wrote; None for any other text."""
        if not line.startswith("{"):
            return None
        try:
            record = json.loads(line)
        except ValueError:
            return None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("event"), str):
            return None
        return cls(record["event"], {k: v for k, v in record.items() if k not in ("schema", "time", "event")})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if value - value != 0 else float(f"{value:.6g}")
    return value


def now_utc() -> str:
    """The time as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def resident_mib(pid: int | None = None) -> float | None:
    """Resident memory now of this process, or of `pid`, MiB.

    Where there is no /proc it is this process's highest so far, and None for another process.
    """
    try:
        with open(f"/proc/{'self' if pid is None else pid}/statm", "rb") as file:
            return mib(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, IndexError, ValueError):
        if pid is not None:
            return None
    return mib(highest_bytes())


class Lines:
    """Writes every event as a line of NDJSON. A reader that went away is no reason to stop classifying."""

    def __init__(self, stream: IO[str], **more: JSON) -> None:
        self._stream, self._more, self._open = stream, more, True

    def __call__(self, event: Event) -> None:
        """Write one event and flush it."""
        if not self._open:
            return
        try:
            self._stream.write(event.line(**self._more) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe, or a stream that was closed here
            self._open = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Silence:
    """Says nothing."""

    def __call__(self, event: Event) -> None:
        """Nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_FINISHING = "writing results"
_LONGEST_FACTS = len("band 123/456  12,345 tiles/s  1,234 MiB  1:23:45 left")


class Bar:
    """A line on a terminal: share, row band, tiles/s, memory and time left. It goes when the run ends."""

    def __init__(self, console: Console, stop: Callable[[], str | None] | None = None) -> None:
        """`stop` is asked whether the end was asked for, so that Ctrl-C is answered at once."""
        self._console = console
        self._stop = stop or (lambda: None)
        self._bar: Progress | None = None
        self._band: dict[str, JSON] = {}
        self._since = 0.0
        self._doing = ""

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if event.kind == "start":
            self._open(os.path.basename(str(event.data.get("scene"))), _number(event.data.get("tiles")))
        elif event.kind == "band" and self._bar is not None:
            self._band, self._since, self._doing = event.data, time.monotonic(), ""
            done, total = _number(event.data.get("tiles_done")), _number(event.data.get("tiles_total"))
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        elif event.kind == "finishing":
            self._doing = _FINISHING
        elif event.kind == "warning":
            self._console.print(f"[yellow]warning:[/] {_escape(shown(event.data.get('text')))}")
        elif event.kind in ENDS:
            self._close()

    def facts(self) -> str:
        """What stands beside the bar; the time left counts down between two events."""
        if self._doing == _FINISHING:
            return _FINISHING  # done before a stop could matter
        parts = [self._doing or f"band {self._band.get('band')}/{self._band.get('bands')}"]
        if (reason := self._stop()) is not None:
            return f"{parts[0]}  stops after this band ({reason})"
        if self._doing:
            return self._doing
        rate, memory, eta = (_number(self._band.get(name)) for name in ("tiles_per_s", "memory_mib", "eta_s"))
        if rate is not None:
            parts.append(f"{rate:,.0f} tiles/s" if rate >= 10 else f"{rate:.1f} tiles/s")
        if memory is not None:
            parts.append(f"{memory:,.0f} MiB")
        if eta is not None:
            parts.append(f"{clock(max(0.0, eta - (time.monotonic() - self._since)))} left")
        return "  ".join(parts)

    def _open(self, name: str, tiles: float | None) -> None:
        self._close()
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column
        from rich.text import Text

        bar = self

        class Facts(ProgressColumn):
            """Drawn anew at every refresh."""

            def render(self, task: Task) -> Text:
                return Text(bar.facts())

        class Line(Progress):
            """Leaves the last columns free: the terminal writes ^C there, and must not break the line."""

            def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
                table = super().make_tasks_table(tasks)
                table.width = max(1, bar._console.width - 3)
                return table

        # On a narrow terminal the bar gives way, then the name; never the facts.
        room = max(3, min(24, self._console.width - _LONGEST_FACTS - 14))
        name = name if len(name) <= room else name[: room - 1] + "…"
        self._bar = Line(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(name)), markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=2)),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
            Facts(table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            expand=True,
            refresh_per_second=4,
        )
        self._band, self._doing = {}, "starting"
        self._bar.add_task(name, total=tiles)
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _number(value: JSON) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
