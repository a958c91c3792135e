"""Documents: every JSON that edgeslim writes for machines, and the record that its schema is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeslim.planning import boards
from edgeslim.planning.budget import Ask
from edgeslim.planning.plan import KEY, SCHEMA, Plan
from edgeslim.report import devices, encoders


@dataclass(frozen=True, slots=True)
class Document:
    """What one verb prints with `--json`, or one file that it writes."""

    verb: str
    """That prints it, or the file; the schema's own file has its name."""
    title: str
    """Of the schema."""
    record: Callable[[], Record]
    """Its record, imported late: bench and check need NumPy."""
    key: str = "schema"
    """Holds the version of the schema, beside the record's own fields."""
    version: int = 1
    """Its value."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A document that is one of several records."""

    records: tuple[type[Any] | Merged, ...]
    """Each with the key of the version."""
    listed: bool = False
    """Whether a list of them is one, too."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A record whose keys are declared in parts. The name and docstring are the last one's."""

    parts: tuple[type[Any], ...]
    """Records whose keys it has, in this order."""
    choices: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Key -> what its type does not say."""


Record = type[Any] | AnyOf | Merged | dict[str, Any]
"""What a schema is made of; a dict is a schema that was written by hand."""


@dataclass(frozen=True, slots=True)
class Boards:
    """What `edgeslim plan` says without a device, as boards.to_dict writes it."""

    encoder: str
    """Profile card."""
    asked: Ask
    """What is not asked for is left out."""
    boards: tuple[boards.Board, ...]
    """Those that qualify first, best first; then the others, nearest first. A plan in it is a summary."""


def _bench() -> Record:
    from edgeslim.onboard.bench import Bench

    return Bench


def _check() -> Record:
    from edgeslim.onboard.check import CheckReport

    return CheckReport


def _calibration() -> Record:
    from edgeslim.onboard.calibrating.calibrate import CalibrationRecord

    return CalibrationRecord


def _doctor() -> Record:
    from edgeslim.onboard.doctor.diagnosis import Diagnosis

    return Diagnosis


def _diagnosis() -> Record:
    from edgeslim.diagnosis import Diagnosis

    return Diagnosis


def _retention() -> Record:
    from edgeslim.retention import Retention

    return Retention


def _evaluation() -> Record:
    from edgeslim.onboard.evaluate import Evaluation

    return Evaluation


def _classified() -> Record:
    from edgeslim.onboard.unfinished import UnfinishedRecord
    from edgeslim.onboard.writing.summary import Summary
    from edgeslim.report.records import FolderRecord

    return AnyOf((Summary, UnfinishedRecord, FolderRecord))


def _summary() -> Record:
    from edgeslim.onboard.writing.summary import Summary

    return Summary


def _run() -> Record:
    from edgeslim.onboard.run_facts import RunFacts

    return RunFacts


def _events() -> Record:
    from edgeslim.onboard.events import EVENTS, WATCH_EVENTS, Line, OfScene

    of_scenes = [Merged((Line, OfScene, fields), (("event", {"const": kind}),)) for kind, fields in EVENTS.items()]
    of_watch = [Merged((Line, fields), (("event", {"const": kind}),)) for kind, fields in WATCH_EVENTS.items()]
    return AnyOf((*of_scenes, *of_watch))


def _item() -> Record:
    from edgeslim.report.stac_schema import ITEM

    return ITEM


def _watched() -> Record:
    from edgeslim.report.records import WatchLine, WatchPlace

    return Merged((WatchPlace, WatchLine), (("state", {"enum": ["delivered", "quarantined"]}),))


def _heartbeat() -> Record:
    from edgeslim.onboard.watching.service import Beat

    return Beat


def _exported() -> Record:
    from edgeslim.report.records import ExportedRecord

    return AnyOf((ExportedRecord,), listed=True)


def _applied() -> Record:
    from edgeslim.report.records import AppliedRecord

    return AppliedRecord


def _delta() -> Record:
    from edgeslim.report.records import DeltaRecord

    return DeltaRecord


def _built() -> Record:
    from edgeslim.onboard.engine import EngineRecord
    from edgeslim.report.records import EngineFolder

    return Merged((EngineFolder, EngineRecord))


def _slimmed() -> Record:
    from edgeslim.report.records import SlimmedRecord

    return SlimmedRecord


DOCUMENTS = (
    Document("diagnose", "What `edgeslim diagnose` found", _diagnosis),
    Document("measure", "What `edgeslim measure` found", _retention),
    Document("plan", "A plan of `edgeslim plan`", lambda: Plan, KEY, SCHEMA),
    Document("boards", "Which boards qualify, of `edgeslim plan` without --device", lambda: Boards, boards.KEY),
    Document("devices", "The boards that `edgeslim devices list` knows", lambda: devices.KnownDevices),
    Document("device", "A board, of `edgeslim devices show`", lambda: devices.KnownDevice),
    Document("validated", "What `edgeslim devices validate` found", lambda: devices.ValidatedCards),
    Document("encoders", "The encoders that `edgeslim encoders list` knows", lambda: encoders.KnownEncoders),
    Document("encoder", "An encoder, of `edgeslim encoders show`", lambda: encoders.KnownEncoder),
    Document("families", "The families of `edgeslim encoders families`", lambda: encoders.KnownFamilies),
    Document("hubs", "The checkpoints of `edgeslim encoders hubs`", lambda: encoders.KnownHubs),
    Document("calibrate", "What `edgeslim calibrate` measured", _calibration),
    Document("bench", "What `edgeslim bench` timed", _bench),
    Document("check", "What `edgeslim check` found", _check),
    Document("evaluate", "What `edgeslim evaluate` found", _evaluation),
    Document("doctor", "What `edgeslim doctor` found", _doctor),
    Document("slim", "What `edgeslim slim` wrote", _slimmed),
    Document("export", "What `edgeslim export` proved; of several artifacts a list", _exported),
    Document("build", "The engine of `edgeslim build`", _built),
    Document("diff", "What `edgeslim diff` wrote", _delta),
    Document("apply", "What `edgeslim apply` put in place", _applied),
    Document("classify", "What `edgeslim classify` did: a scene, one that it was stopped in, or a folder", _classified),
    Document("summary", "summary.json beside the maps", _summary),
    Document("run", "run.json beside the maps", _run),
    Document("item", "stac-item.json beside the maps", _item),
    Document("events", "A line of --progress json, of `edgeslim classify` and `edgeslim watch`", _events),
    Document("watch", "A line of `edgeslim watch`", _watched),
    Document("heartbeat", "heartbeat.json of `edgeslim watch`", _heartbeat),
)
