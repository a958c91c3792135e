"""Damage of every kind for the fuzz tests: bytes, TIFF fields, JSON and TOML values, NumPy archives."""

from __future__ import annotations

import copy
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

Draw = Callable[..., Any]

WHOLE_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 17, 255, 256, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
ODD_NUMBERS = (*WHOLE_NUMBERS, -1, 2**53, 2**63 - 1, 2**64 - 1, 0.5, -0.0, 1e-320, 1e308, math.nan, math.inf, -math.inf)
ODD_TEXTS = (
    "",
    " ",
    "\n",
    "a\nerror: b",
    "\x1b[31mred\x1b[0m",
    "a\x00b",
    "[bold]x[/]",
    "[/]",
    "\u202e\U0001f6f0",
    "../../../etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    ".",
    "x" * 100_000,
    "%s{0}",
    "nan",
)
"""Terminal codes, markup, paths that lead out, and lengths that no line has."""


@st.composite
def damaged_bytes(draw: Draw, whole: bytes, edits: int = 3) -> bytes:
    """`whole` after one to a few flips, cuts, splices, fills or insertions."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, edits))):
        size = len(data)
        if not size:
            break
        # Headers decide most: half of the edits fall in the first 512 bytes.
        at = min(draw(st.one_of(st.integers(0, min(size, 512) - 1), st.integers(0, size - 1))), size - 1)
        length = draw(st.integers(1, max(1, min(64, size - at))))
        kind = draw(st.sampled_from(("flip", "set", "cut", "splice", "fill", "insert", "remove")))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "splice":
            source = draw(st.integers(0, size - 1))
            data[at : at + length] = data[source : source + length]
        elif kind == "fill":
            data[at : at + length] = bytes([draw(st.sampled_from((0, 0x7F, 0xFF)))]) * length
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            del data[at : at + length]
    return bytes(data)


def tiff_entries(data: bytes) -> tuple[str, list[int]]:
    """Byte order and offsets of the entries of a TIFF's first directory; entries are 12 bytes, or 20 in BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:
        (start,) = struct.unpack_from(order + "Q", data, 8)
        (count,) = struct.unpack_from(order + "Q", data, start)
        return order, [start + 8 + 20 * i for i in range(count)]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    return order, [start + 2 + 12 * i for i in range(count)]


@st.composite
def damaged_tiff(draw: Draw, whole: bytes, edits: int = 2) -> bytes:
    """`whole` with fields of its first directory changed: tags, types, counts, values in place or behind an offset."""
    data = bytearray(whole)
    order, entries = tiff_entries(whole)
    big = len(entries) > 1 and entries[1] - entries[0] == 20
    word, code = (8, "Q") if big else (4, "I")
    for _ in range(draw(st.integers(1, edits))):
        at = draw(
            st.sampled_from([*entries, entries[-1] + 4 + 2 * word])
        )  # the last: the pointer to the next directory
        if at not in entries:
            where, size = at, word
        else:
            kind, count = struct.unpack_from(order + "H" + code, data, at + 2)
            width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 11: 4, 12: 8, 16: 8}.get(kind, 1)
            value = at + 4 + word
            inside = width * count <= word
            (far,) = (value,) if inside else struct.unpack_from(order + code, data, value)
            places = {"tag": (at, 2), "type": (at + 2, 2), "count": (at + 4, word), "value": (value, word)}
            if count and far + width * count <= len(data):
                index = draw(st.integers(0, min(count, 64) - 1))
                places["item"] = (far + index * width, min(width, 8))
            where, size = places[draw(st.sampled_from(sorted(places)))]
        old = int.from_bytes(data[where : where + size], "little" if order == "<" else "big")
        new = draw(
            st.one_of(
                st.sampled_from(
                    (*WHOLE_NUMBERS, 2**63 - 1, 2**64 - 1, old + 1, old - 1, old * 2, old // 2, old * 1000)
                ),
                st.integers(0, 2 ** (8 * size) - 1),
            )
        )
        data[where : where + size] = (new % 2 ** (8 * size)).to_bytes(size, "little" if order == "<" else "big")
    return bytes(data)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every node of plain data, the root left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*path, key), *_places(item, (*path, key))]
    return found


def nested(depth: int) -> Any:
    """An array in an array in an array."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


odd_values = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from((True, False)),
    st.builds(list),
    st.builds(dict),
    st.builds(nested, st.sampled_from((1, 20))),
    st.builds(lambda text: {text: text}, st.sampled_from(ODD_TEXTS[:-2])),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.text(max_size=12),
)


@st.composite
def damaged_data(draw: Draw, whole: Any, edits: int = 2, null: bool = True) -> Any:
    """Plain data with values replaced, removed, added, wrapped, scaled or exchanged."""
    data = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, edits))):
        places = _places(data)
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        parent = data
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(("replace", "replace", "remove", "add", "wrap", "scale", "exchange")))
        if kind == "remove":
            del parent[key]
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(("new", "", "a.b", "schema", "id", *ODD_TEXTS[:9])))] = draw(odd_values)
        elif kind == "add":
            parent.append(copy.deepcopy(parent[key]))
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from(([parent[key]], {"value": parent[key]})))
        elif kind == "scale" and isinstance(parent[key], (int, float)):
            parent[key] = parent[key] * draw(st.sampled_from((-1, 0, 2, 1000, 10**9, 10**30, 1e-9, 1e300)))
        elif kind == "exchange":
            *other, last = draw(st.sampled_from(places))
            source = data
            try:
                for step in other:
                    source = source[step]
                parent[key] = copy.deepcopy(source[last])
            except (KeyError, IndexError, TypeError):  # an earlier edit took it away
                parent[key] = None if null else ""
        else:
            parent[key] = draw(odd_values | st.none()) if null else draw(odd_values)
    return data


def as_toml(table: dict[str, Any]) -> str:
    """A TOML document of plain data; tables inside are written inline."""
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else ("nan" if math.isnan(value) else "inf" if value > 0 else "-inf")
    if isinstance(value, int):
        return str(value)
    # JSON writes what lies beyond 16 bits as two surrogates, which TOML does not know.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def npy(header: str, body: bytes) -> bytes:
    """A .npy file with any header."""
    text = header.encode("latin-1", "replace")
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + body


ODD_TYPES = ("<f8", ">f4", "|O", "|S5", "<M8[s]", "|V1000000000", "<c16", [("a", "<f4")], "", "é")
ODD_HEADERS = ("", "{", "(" * 5000, "[" * 200 + "]" * 200, "1+1", "x" * 70000)


@st.composite
def damaged_npz(draw: Draw, tiles: np.ndarray, logits: np.ndarray) -> bytes:
    """An archive of two arrays of which headers, bodies, names or packing are not what they should be."""
    file = io.BytesIO()
    packing = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, array in (("tiles", tiles), ("logits", logits)):
            kind = draw(st.sampled_from(("whole", "shape", "dtype", "header", "body", "bomb", "values", "missing")))
            shape: Any = array.shape
            descr: Any = "<f4"
            body = array.tobytes()
            if kind == "missing":
                continue
            if kind == "shape":
                shape = tuple(draw(st.lists(st.sampled_from((*WHOLE_NUMBERS, -1, 2**40, 2**63)), max_size=6)))
            elif kind == "dtype":
                descr = draw(
                    st.sampled_from(
                        ("<f8", ">f4", "|O", "|S5", "<M8[s]", "|V1000000000", "<c16", [("a", "<f4")], "", "é")
                    )
                )
            elif kind == "body":
                body = body[: draw(st.integers(0, len(body)))]
            elif kind == "bomb":
                shape, body = (2**29,), bytes(1 << 26)
            elif kind == "values":
                odd = array.copy().ravel()
                odd[:: draw(st.integers(1, 7))] = draw(st.sampled_from((np.nan, np.inf, -np.inf, 3e38, 0)))
                body = odd.tobytes()
            header = repr({"descr": descr, "fortran_order": draw(st.booleans()), "shape": shape}) + "\n"
            if kind == "header":
                header = draw(
                    st.sampled_from(("", "{", "(" * 5000, "[" * 200 + "]" * 200, "1+1", "x" * 70000, header * 2))
                )
            archive.writestr(draw(st.sampled_from((name + ".npy", name + ".npy", name))), npy(header, body))
    whole = file.getvalue()
    # Bytes of the archive itself too: flags, methods, sizes, sums.
    return draw(st.one_of(st.just(whole), damaged_bytes(whole)))
