"""The published schemas are those of the records, and what is printed with --json is what they allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeslim.architecture import LATER
from edgeslim.cli import main
from edgeslim.device import Device, complete, take_device
from edgeslim.device_card import all_cards
from edgeslim.errors import EdgeslimError
from edgeslim.onboard.events import EVENTS
from edgeslim.planning.budget import OBJECTIVES, Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import Scene
from edgeslim.planning.plan import Plan
from edgeslim.profile import take_profile
from edgeslim.report.documents import DOCUMENTS
from edgeslim.report.schema import CHOICES, schema_of, schema_path, text_of
from edgeslim.shelf import card_paths
from edgeslim.target import take_target, targets_on
from edgeslim.units import ARITHMETIC
from tests.onboard.artifacts import TILE_PX, make_artifact
from tests.tiles import write

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: no record was held to its schema")
BY_VERB = {document.verb: document for document in DOCUMENTS}


def plannable() -> Iterator[Device]:
    for card in all_cards():
        with suppress(EdgeslimError):  # a board of which nobody published what a plan needs
            yield complete(card)


UNSAID = {
    *("Ask", "Manifest", "Summary", "Radiometry", "BeatLast", "summary", "watch", "item", "properties"),
    "additionalProperties",
    *(kind.__name__ for kind in EVENTS.values()),
}
"""Records with keys that are left out where there is nothing to say, as they are named where they are held."""
DEVICES = list(plannable())
ENCODERS = [take_profile(path.stem) for path in card_paths("profiles")]


def closed(schema: Any, name: str = "") -> Any:
    """The schema without what it leaves to later versions: no other key, and none left out but what was not asked, or
    what an architecture has nothing to say of."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value, key) for key, value in schema.items()}
    if made.get("type") == "object" and isinstance(made.get("properties"), dict):
        made["additionalProperties"] = False
        if name not in UNSAID:
            made["required"] = [key for key in made["properties"] if key not in LATER]
    return made


def published(verb: str) -> Any:
    return json.loads(schema_path(verb).read_text(encoding="utf-8"))


@cache
def validators(verb: str) -> tuple[Any, ...]:
    return tuple(jsonschema.Draft202012Validator(found) for found in (published(verb), closed(published(verb), verb)))


def hold(verb: str, data: Any) -> None:
    for validator in validators(verb):
        validator.validate(data)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.verb)
def test_the_published_schema_is_that_of_the_record(document: Any) -> None:
    again = "python -m edgeslim.report.schema writes it anew"
    assert schema_path(document.verb).read_text(encoding="utf-8") == text_of(document), again
    jsonschema.Draft202012Validator.check_schema(schema_of(document))


def objects(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)


@pytest.mark.parametrize("verb", BY_VERB)
def test_every_key_is_described_and_every_reference_leads_somewhere(verb: str) -> None:
    schema = published(verb)
    for one in objects(schema):
        assert one.get("description")
        for name, found in one["properties"].items():
            assert found.get("description"), name
    text = json.dumps(schema)
    assert set(schema["$defs"]) == {name for name in schema["$defs"] if f'"#/$defs/{name}"' in text}


def test_choices_are_of_keys_that_there_are() -> None:
    known = {
        (schema.get("title", name), key)
        for document in DOCUMENTS
        for name, schema in {"": schema_of(document), **schema_of(document)["$defs"]}.items()
        for key in schema.get("properties", {})
    }
    titles = {"Plan": BY_VERB["plan"].title, "AppliedRecord": BY_VERB["apply"].title}
    assert {(titles.get(kind, kind), key) for kind, key in CHOICES} <= known


def plan_of(device: Device, encoder: Any, **asked: Any) -> Plan:
    targets = [take_target("onnx"), *(t for t in targets_on([r.id for r in device.runtime]) if t.id != "onnx")]
    return make_plan(encoder, device, targets, Ask(**asked))


def test_plans_of_all_cards() -> None:
    """Every board with the embedded encoder, every encoder on one board."""
    embedded, board = take_profile("eurosat-rgb"), take_device("jetson-orin")
    planned = 0
    for device, encoder in [*((device, embedded) for device in DEVICES), *((board, one) for one in ENCODERS)]:
        try:
            data = plan_of(device, encoder).to_dict()
        except EdgeslimError:  # a board that nothing is known of
            continue
        hold("plan", json.loads(json.dumps(data, allow_nan=False)))
        planned += 1
    assert planned >= len(ENCODERS) + 20


budget = st.one_of(st.none(), st.floats(1e-2, 1e6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(DEVICES),
    st.sampled_from(ENCODERS),
    st.fixed_dictionaries(
        dict.fromkeys(("gflop", "memory_mib", "latency_ms", "startup_s", "artifact_mb", "uplink_kb_day"), budget)
        | {
            "scene": st.one_of(st.none(), st.just(Scene(4096, 4096))),
            "objective": st.sampled_from(OBJECTIVES),
            "precision": st.one_of(st.none(), st.sampled_from(sorted(ARITHMETIC))),
            "batch": st.one_of(st.none(), st.integers(1, 16)),
        }
    ),
)
def test_plans_within_any_budget(device: Device, encoder: Any, asked: dict[str, Any]) -> None:
    try:
        data = plan_of(device, encoder, **asked).to_dict()
    except EdgeslimError:
        return
    hold("plan", json.loads(json.dumps(data, allow_nan=False)))


def test_a_plan_of_before_start_up_was_planned_is_allowed() -> None:
    data = json.loads(json.dumps(plan_of(take_device("rpi5"), take_profile("eurosat-rgb")).to_dict()))
    del data["startup_lacks"], data["budget"]["startup_s"], data["chosen"]["startup"]
    jsonschema.Draft202012Validator(published("plan")).validate(data)
    del data["chosen"]["gflop"]
    with pytest.raises(jsonschema.ValidationError, match="'gflop' is a required property"):
        jsonschema.Draft202012Validator(published("plan")).validate(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edgeslim_plan": 2}, "1 was expected"),
        ({"batch": "one"}, "is not of type 'integer'"),
        ({"objective": "narrowest"}, "is not one of"),
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any], message: str) -> None:
    data = json.loads(json.dumps(plan_of(take_device("rpi5"), take_profile("eurosat-rgb")).to_dict()))
    with pytest.raises(jsonschema.ValidationError, match=message):
        jsonschema.Draft202012Validator(published("plan")).validate(data | change)


def test_what_the_verbs_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = str(make_artifact(tmp_path / "artifact", synthetic=False))
    for name in ("Forest", "SeaLake"):
        write(tmp_path / "tiles" / name / "1.png", np.full((3, TILE_PX, TILE_PX), 90, np.uint8), "PNG")
    for document, arguments in (
        ("plan", ["plan", "--device", "rpi4", "--latency-ms", "20", "--json"]),
        ("boards", ["plan", "--scene", "4096x4096", "--deadline-s", "60", "--json"]),
        ("boards", ["plan", "--objective", "score", "--power-mode", "all", "--json"]),
        ("devices", ["devices", "list", "--json"]),
        ("device", ["devices", "show", "jetson-orin-nano-8gb", "--json"]),
        ("encoders", ["encoders", "list", "--json"]),
        ("encoder", ["encoders", "show", "dofa-b-16", "--json"]),
        ("families", ["encoders", "families", "--json"]),
        ("hubs", ["encoders", "hubs", "--json"]),
        ("validated", ["devices", "validate", str(card_paths("devices")[0]), "--json"]),
        ("doctor", ["doctor", "--json"]),
        (
            "calibrate",
            ["calibrate", artifact, "--device", "x86-64-host", "--seconds", "0.01", "-o", "it.toml", "--json"],
        ),
        ("check", ["check", artifact, "--json"]),
        ("evaluate", ["evaluate", artifact, "--tiles", "tiles", "--json"]),
        ("bench", ["bench", artifact, "--json", "--threads", "1", "--batch", "1", "--seconds", "0.01"]),
        ("bench", ["bench", artifact, "--json", "--batch", "1", "--seconds", "0.01", "--sustained-s", "1"]),
    ):
        capsys.readouterr()
        assert main(arguments) == 0
        hold(document, json.loads(capsys.readouterr().out))


WRITTEN = ("summary", "run", "item", "events", "heartbeat")
"""Documents that no verb has a --json-schema of: files, and lines of progress."""
PRINTED_BY = {verb: [verb] for verb in BY_VERB if verb not in WRITTEN} | {
    "plan": ["plan", "--device", "rpi4"],
    "boards": ["plan"],
    "devices": ["devices", "list"],
    "device": ["devices", "show"],
    "validated": ["devices", "validate"],
    "encoders": ["encoders", "list"],
    "encoder": ["encoders", "show"],
    "families": ["encoders", "families"],
    "hubs": ["encoders", "hubs"],
}


@pytest.mark.parametrize("verb", PRINTED_BY)
def test_every_verb_prints_its_schema_and_does_nothing_else(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*PRINTED_BY[verb], "--json-schema"]) == 0
    assert capsys.readouterr().out == schema_path(verb).read_text(encoding="utf-8")
    assert not list(tmp_path.iterdir())
