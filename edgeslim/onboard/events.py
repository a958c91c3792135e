"""Events: what a run and a watch say while they run, kind by kind. Made into schemas/events.schema.json and the docs.

A run gives one `start`, any number of `band`, `check` and `warning`, and ends with `done`, `stopped` or `error`; an
`error` may come before `start`. Fields are only ever added; `progress.SCHEMA` grows when one changes its meaning.
"""

from __future__ import annotations

from typing import TypedDict


class Start(TypedDict):
    """The first tile is about to be read."""

    scene: str
    """path of the scene"""
    out: str
    """folder of the results"""
    tiles: int
    """tiles of the whole scene"""
    bands: int
    """row bands of the whole scene; after each the run can be stopped and resumed"""
    resumed_bands: int
    """row bands that an earlier run had finished; 0 for a new run"""
    memory_mib: float
    """peak resident memory foretold for the run, MiB"""


class Band(TypedDict):
    """A row band is finished."""

    band: int
    """row bands finished"""
    bands: int
    """row bands of the whole scene"""
    tiles_done: int
    """tiles finished, those of an earlier run included"""
    tiles_total: int
    """tiles of the whole scene"""
    tiles_per_s: float | None
    """tiles a second of this run, skipped ones included; null before there is a rate"""
    eta_s: float | None
    """seconds left at that rate; null before there is a rate"""
    memory_mib: float | None
    """resident memory now, MiB; null where the system does not tell"""


class Check(TypedDict):
    """The golden tiles were replayed."""

    ok: bool
    """whether the golden tiles still give the golden logits"""
    difference: float | None
    """largest absolute difference of a logit; null where they do not"""


class Finishing(TypedDict):
    """Every tile is classified: results are being written."""


class Warned(TypedDict):
    """The run goes on, but a person should know."""

    text: str
    """what a person should know, one line"""


class Stopped(TypedDict):
    """The run was asked to stop, and can be resumed."""

    band: int
    """row bands finished and kept"""
    bands: int
    """row bands of the whole scene"""
    reason: str
    """SIGTERM, SIGINT or deadline"""


class Done(TypedDict):
    """The results lie in the folder."""

    seconds: float
    """wall time of this run; without a `start` before it the results were there already"""
    tiles: int
    """tiles of the whole scene"""


class Failed(TypedDict):
    """The run ended without results."""

    text: str
    """what was found, what was expected and how to mend it"""
    exit_code: int
    """of the process"""


class State(TypedDict):
    """The watch does something else now."""

    state: str
    """idle, classifying, stopping (a scene, or the watch), stopped, or waiting (for room)"""
    text: str
    """why, one line; empty where there is nothing to say"""


class Delivered(TypedDict):
    """A scene's results lie in the outbox."""

    file: str
    """scene, as it was named in the inbox"""
    out: str
    """folder of its results"""


class Quarantined(TypedDict):
    """A scene was given up."""

    file: str
    """scene, as it was named in the inbox"""
    reason: str
    """one line"""
    reason_file: str
    """the same line on disk"""


class Line(TypedDict):
    """What every line has."""

    schema: int
    """Version of this schema."""
    time: str
    """UTC, RFC 3339."""
    event: str
    """Its kind."""


class OfScene(TypedDict, total=False):
    """What a line of a scene has besides where a watch writes it."""

    file: str
    """Scene, as it was named in the inbox; of `edgeslim watch` alone."""


EVENTS: dict[str, type] = {
    "start": Start,
    "band": Band,
    "check": Check,
    "finishing": Finishing,
    "warning": Warned,
    "stopped": Stopped,
    "done": Done,
    "error": Failed,
}
"""Kind -> fields, of a run."""
WATCH_EVENTS: dict[str, type] = {"state": State, "delivered": Delivered, "quarantined": Quarantined}
"""What `edgeslim watch` says besides."""
