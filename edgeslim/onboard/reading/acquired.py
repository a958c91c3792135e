"""Acquired: when a scene was taken, as its tags say."""

from __future__ import annotations

import re
from typing import Any

_NAMES = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATETIME",
    "SENSING_TIME",
    "DATATAKE_SENSING_START",
    "PRODUCT_START_TIME",
    "START_TIME",
    "DATETIME",
    "TIFFTAG_DATETIME",
)
"""Surest first; TIFF's own date may be that of the processing."""
_TIME = re.compile(
    r"(\d{4})[-:/]?(\d\d)[-:/]?(\d\d)[T ]+(\d\d):?(\d\d):?(\d\d)(?:\.\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_DATE = re.compile(r"(\d{4})[-:/](\d\d)[-:/](\d\d)")


def acquired_of(dataset: Any) -> str | None:
    """RFC 3339 time in UTC of an open rasterio dataset; a time without zone is taken as UTC. None: unknown."""
    tags = {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
    named = {key.upper(): value for key, value in tags.items()}
    for name in _NAMES:
        if name in named and (time := rfc3339(named[name])):
            return time
    day, hour = named.get("DATE_ACQUIRED"), named.get("SCENE_CENTER_TIME", "")
    if day is not None:
        return rfc3339(f"{day}T{hour}") or rfc3339(f"{day}T00:00:00")
    return None


def rfc3339(text: str) -> str | None:
    """A time as tags write it ("2015:05:02 10:11:12") in RFC 3339, UTC; None where it is none."""
    from datetime import datetime, timedelta, timezone

    match = _TIME.search(text)
    if match is None:
        if not _DATE.fullmatch(text.strip()):
            return None
        match = _TIME.search(f"{text.strip()} 00:00:00")
        if match is None:
            return None
    zone = (match[7] or "Z").upper().replace(":", "")
    shift = timedelta()
    if zone[0] in "+-":
        shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5])) * (-1 if zone[0] == "-" else 1)
    try:
        time = datetime(*(int(match[i]) for i in range(1, 7)), tzinfo=timezone.utc) - shift  # type: ignore[misc,arg-type]
    except (ValueError, OverflowError):
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
