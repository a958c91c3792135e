"""Style: how QGIS shows a result, as the .qml file that it reads beside it."""

from __future__ import annotations

from edgeslim.errors import UsageError


def rgb_of(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of "RRGGBB". Raises UsageError for anything else."""
    text = color.lstrip("#")
    try:
        red, green, blue = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"class color: found {color!r}, expected RRGGBB") from None
    return red, green, blue
