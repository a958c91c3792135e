"""Schema: what `--json` prints, as JSON Schema (draft 2020-12), from the records' own types and docstrings.

python -m edgeslim.report.schema    writes schemas/*.schema.json anew

The files are published: what they allow, later versions keep. A record may gain keys (they are not closed), and a key
that has a default was not always written (it is not required).
"""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from edgeslim.planning import boards
from edgeslim.planning.budget import KINDS, OBJECTIVES
from edgeslim.planning.call_time import ESTIMATED, MEASURED, RESCALED
from edgeslim.planning.plan import KEY, NOT_IN_SUMMARY, SCHEMA
from edgeslim.report import devices
from edgeslim.report.documents import DOCUMENTS, AnyOf, Boards, Document, Merged
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
    ("Manifest", "precision"): {"enum": list(ARITHMETIC)},
    ("FolderScene", "state"): {"enum": ["done", "kept", "stopped", "failed"]},
    ("AppliedRecord", "by"): {"enum": ["bundle", "delta", "rollback"]},
    ("UnfinishedRecord", "unfinished"): {"const": True},
}
"""Class and field -> what its type does not say."""
VERSIONS = {"CheckReport": 1, "Manifest": 2}
"""Records that say their version themselves, inside another one, too."""
WITHOUT_VERSION = ("ExportedRecord",)
"""Documents that have none: the manifest in them has."""


def schema_of(document: Document) -> dict[str, Any]:
    """The JSON Schema of a document. Raises OSError where the package's source is not at hand."""
    definitions: dict[str, Any] = {}
    record = document.record()
    body = record if isinstance(record, dict) else _body(document, record, definitions)
    if record is Boards:
        _summarise(definitions)
    return {
        "$schema": DIALECT,
        "$id": f"urn:edgeslim:{document.verb}:{document.version}",
        "title": document.title,
        **body,
        "$defs": dict(sorted(definitions.items())),
    }


def _body(document: Document, record: type[Any] | AnyOf | Merged, definitions: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record, AnyOf):
        return _versioned(_record(record, definitions), document)
    references: list[dict[str, Any]] = []
    for one in record.records:
        made, name = _record(one, definitions), _name(one)
        definitions[name] = _versioned(made, document) if name not in WITHOUT_VERSION else made
        references.append({"$ref": f"#/$defs/{name}"})
    if record.listed:
        references.append(
            {"type": "array", "items": {"anyOf": references[:]} if len(references) > 1 else references[0]}
        )
    return {"anyOf": references}


def _versioned(record: dict[str, Any], document: Document) -> dict[str, Any]:
    key = document.key
    properties = {key: _version(document.version)} | {k: v for k, v in record["properties"].items() if k != key}
    return {**record, "properties": properties, "required": [key, *(k for k in record["required"] if k != key)]}


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


def _name(record: type[Any] | Merged) -> str:
    return str((record.parts[-1] if isinstance(record, Merged) else record).__name__)


def _record(record: type[Any] | Merged, definitions: dict[str, Any]) -> dict[str, Any]:
    """Of a dataclass, a TypedDict, or several that make one object."""
    properties, required = {}, []
    for kind in record.parts if isinstance(record, Merged) else (record,):
        hints, said, asked = get_type_hints(kind, include_extras=True), field_docs(kind), _required(kind)
        for name in asked:
            found = _type(hints[name], definitions) | CHOICES.get((kind.__name__, name), {})
            properties[name] = {"description": said[name], **found}
        required += [name for name, always in asked.items() if always]
    if isinstance(record, Merged):
        for name, choice in record.choices:
            properties[name] |= choice
    last = record.parts[-1] if isinstance(record, Merged) else record
    about = " ".join((last.__doc__ or "").split())
    made = {"type": "object", "description": about, "properties": properties, "required": required}
    if (version := VERSIONS.get(_name(record))) is not None:
        made["properties"] = {"schema": _version(version), **properties}
        made["required"] = ["schema", *required]
    return made


def _required(kind: type[Any]) -> dict[str, bool]:
    """Field -> whether it always stands there: in a dataclass those without a default."""
    if is_typeddict(kind):
        return {name: name in kind.__required_keys__ for name in kind.__annotations__}
    return {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}


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
    if origin is list:
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is Annotated:  # plain types that a record was turned into
        return _type(arguments[1], definitions)
    if hint is Any:
        return {}
    if isinstance(hint, type) and (is_dataclass(hint) or is_typeddict(hint)):
        name = hint.__name__
        if name not in definitions:
            definitions[name] = {}  # a type that holds itself ends here
            definitions[name] = _record(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _PLAIN[hint]}


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Field -> the docstring under it, which says unit and meaning; those of its bases, too."""
    found = {}
    bases = [kind] if is_typeddict(kind) else [base for base in reversed(kind.__mro__) if is_dataclass(base)]
    for one in bases:
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
