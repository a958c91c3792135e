"""Schema: what `--json` prints, as JSON Schema (draft 2020-12), from the records' own types and docstrings.

python -m edgeslim.report.schema    writes schemas/*.schema.json anew

The files are published: what they allow, later versions keep. A record may gain keys (they are not closed), and a key
that has a default was not always written (it is not required).
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from edgeslim import boards
from edgeslim.budget import KINDS, OBJECTIVES, Ask
from edgeslim.call_time import ESTIMATED, MEASURED, RESCALED
from edgeslim.plan import KEY, NOT_IN_SUMMARY, SCHEMA, Plan
from edgeslim.report import devices, encoders
from edgeslim.shelf import shelf_folder
from edgeslim.units import ARITHMETIC

SHELF = "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {float: "number", int: "integer", str: "string", bool: "boolean"}
_BUDGETS = {"enum": list(KINDS)}
CHOICES: dict[tuple[str, str], dict[str, Any]] = {
    ("Ask", "objective"): {"enum": list(OBJECTIVES)},
    ("Board", "verdict"): {"enum": list(boards.VERDICTS)},
    ("Miss", "budget"): _BUDGETS,
    ("Plannable", "verdict"): {"enum": list(devices.VERDICTS)},
    ("Plan", "objective"): {"enum": list(OBJECTIVES)},
    ("Plan", "precision"): {"enum": list(ARITHMETIC)},
    ("Tried", "precision"): {"enum": list(ARITHMETIC)},
    ("Estimate", "bound"): {"enum": ["compute", "bandwidth", "overhead"]},
    ("Estimate", "latency_basis"): {"enum": [MEASURED, RESCALED, ESTIMATED]},
}
"""Class and field -> what its type does not say."""


@dataclass(frozen=True, slots=True)
class Document:
    """What one verb prints with `--json`."""

    verb: str
    """That prints it, and the file's stem."""
    title: str
    """Of the schema."""
    record: Callable[[], type[Any]]
    """Its dataclass, imported late: bench and check need NumPy."""
    key: str = "schema"
    """Holds the version of the schema, beside the record's own fields."""
    version: int = 1
    """Its value."""


@dataclass(frozen=True, slots=True)
class Boards:
    """What `edgeslim plan` says without a device, as boards.to_dict writes it."""

    encoder: str
    """Profile card."""
    asked: Ask
    """What is not asked for is left out."""
    boards: tuple[boards.Board, ...]
    """Those that qualify first, best first; then the others, nearest first. A plan in it is a summary."""


def _bench() -> type[Any]:
    from edgeslim.onboard.bench import Bench

    return Bench


def _check() -> type[Any]:
    from edgeslim.onboard.check import CheckReport

    return CheckReport


def _calibration() -> type[Any]:
    from edgeslim.onboard.calibrating.calibrate import CalibrationRecord

    return CalibrationRecord


def _doctor() -> type[Any]:
    from edgeslim.onboard.doctor.diagnosis import Diagnosis

    return Diagnosis


def _diagnosis() -> type[Any]:
    from edgeslim.diagnosis import Diagnosis

    return Diagnosis


def _retention() -> type[Any]:
    from edgeslim.retention import Retention

    return Retention


def _evaluation() -> type[Any]:
    from edgeslim.onboard.evaluate import Evaluation

    return Evaluation


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
    Document("calibrate", "What `edgeslim calibrate` measured", _calibration),
    Document("bench", "What `edgeslim bench` timed", _bench),
    Document("check", "What `edgeslim check` found", _check),
    Document("evaluate", "What `edgeslim evaluate` found", _evaluation),
    Document("doctor", "What `edgeslim doctor` found", _doctor),
)


def schema_of(document: Document) -> dict[str, Any]:
    """The JSON Schema of a document. Raises OSError where the package's source is not at hand."""
    definitions: dict[str, Any] = {}
    root = _record(document.record(), definitions)
    if document.record() is Boards:
        _summarise(definitions)
    key = document.key
    properties = {key: _version(document.version)} | {k: v for k, v in root["properties"].items() if k != key}
    return {
        "$schema": DIALECT,
        "$id": f"urn:edgeslim:{document.verb}:{document.version}",
        "title": document.title,
        **root,
        "properties": properties,
        "required": [key, *(k for k in root["required"] if k != key)],
        "$defs": dict(sorted(definitions.items())),
    }


def _version(number: int) -> dict[str, Any]:
    return {"const": number, "description": "Version of this schema."}


def _summarise(definitions: dict[str, Any]) -> None:
    """Make the definition of a plan that of its summary, and leave out what only the rest of it needs."""
    plan = definitions["Plan"]
    kept = {key: value for key, value in plan["properties"].items() if key not in NOT_IN_SUMMARY}
    plan["properties"] = {KEY: _version(SCHEMA), **kept}
    plan["required"] = [KEY, *(key for key in plan["required"] if key in kept)]
    for unused in ("Architecture", "ConvNextArchitecture", "Figure", "Miss", "Step", "Tried"):
        del definitions[unused]


def schema_path(verb: str) -> Path:
    """Where the published schema of a verb's `--json` lies."""
    return shelf_folder(SHELF) / f"{verb}.schema.json"


def _record(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints, said = get_type_hints(kind), _field_docs(kind)
    properties, required = {}, []
    for field in fields(kind):
        found = _type(hints[field.name], definitions) | CHOICES.get((kind.__name__, field.name), {})
        properties[field.name] = {"description": said[field.name], **found}
        if field.default is MISSING and field.default_factory is MISSING:
            required.append(field.name)
    about = " ".join((kind.__doc__ or "").split())
    return {"type": "object", "description": about, "properties": properties, "required": required}


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        options = [_type(a, definitions) for a in arguments if a is not NoneType]
        if NoneType not in arguments:
            return {"anyOf": options}
        if len(options) == 1 and isinstance(options[0].get("type"), str):
            return {**options[0], "type": [options[0]["type"], "null"]}
        return {"anyOf": [*options, {"type": "null"}]}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is tuple:
        items, count = [_type(a, definitions) for a in arguments], len(arguments)
        return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}
    if origin is dict:
        names = {"propertyNames": {"pattern": "^[0-9]+$"}} if arguments[0] is int else {}
        return {"type": "object", **names, "additionalProperties": _type(arguments[1], definitions)}
    if hint is Any:
        return {}
    if is_dataclass(hint) and isinstance(hint, type):
        name = hint.__name__
        if name not in definitions:
            definitions[name] = {}  # a type that holds itself ends here
            definitions[name] = _record(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _PLAIN[hint]}


def _field_docs(kind: type[Any]) -> dict[str, str]:
    """Field -> the docstring under it, which says unit and meaning; those of its bases, too."""
    found = {}
    for one in (base for base in reversed(kind.__mro__) if is_dataclass(base)):
        (tree,) = ast.parse(inspect.getsource(one).strip()).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def text_of(document: Document) -> str:
    """The schema as it is published."""
    return json.dumps(schema_of(document), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for one in DOCUMENTS:
        schema_path(one.verb).write_text(text_of(one), encoding="utf-8")
