"""ENVI: how large a raw file must be by the header beside it, for GDAL reads what is missing as 0."""

from __future__ import annotations

import re
from pathlib import Path

_KEY = re.compile(
    r"^\s*(samples|lines|bands|data type|header offset|file compression)\s*=\s*(\d{1,12})\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_VALUE_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}
"""Of ENVI's data types."""
_LARGEST_BYTES = 1 << 20
"""Of a header that is read."""


def envi_bytes(path: Path) -> int:
    """Bytes that `path` must have by its ENVI header; 0 where it has none, or is compressed. Raises OSError."""
    for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
        if not header.is_file():
            continue
        with header.open("rb") as file:
            text = file.read(_LARGEST_BYTES).decode("latin-1")
        if not text.startswith("ENVI"):
            continue
        said = {key.lower(): int(value) for key, value in _KEY.findall(text)}
        if said.get("file compression"):
            return 0
        value = _VALUE_BYTES.get(said.get("data type", 1), 0)
        pixels = said.get("samples", 0) * said.get("lines", 0) * said.get("bands", 1)
        return said.get("header offset", 0) + pixels * value
    return 0
