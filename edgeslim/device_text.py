"""A device's card as text: what `load_card` reads, laid out as the cards in devices/ are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from edgeslim.device_card import DeviceCard
from edgeslim.figure import Figure


def device_text(device: DeviceCard) -> str:
    """TOML of a device; read back, it is equal."""
    return "\n".join(_table(device, "")).lstrip("\n") + "\n"


def _table(record: Any, path: str) -> Iterator[str]:
    """Lines of a dataclass: plain keys, then what has a table of its own."""
    tables: list[tuple[str, Any]] = []
    for field in fields(record):
        value = getattr(record, field.name)
        if value is None or (value == () and field.default == ()):
            continue
        if _is_record(value) or (isinstance(value, tuple) and value and _is_record(value[0])):
            tables.append((field.name, value))
        elif isinstance(value, dict):
            yield from (f"{key} = {text}" for key, text in _dotted(value, field.name))
        else:
            yield f"{field.name} = {_value(value)}"
    for name, value in tables:
        inner = f"{path}{name}"
        for one in value if isinstance(value, tuple) else (value,):
            yield f"\n[[{inner}]]" if isinstance(value, tuple) else f"\n[{inner}]"
            yield from _table(one, f"{inner}.")


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, Figure)


def _dotted(table: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        inner = f"{path}.{key}"
        if isinstance(value, dict):
            yield from _dotted(value, inner)
        else:
            yield inner, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, Figure):
        return f"{{ value = {_value(value.value)}, source = {_value(value.source)} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    # A JSON text is a TOML one, but for DEL, which TOML wants escaped, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
