"""Beside: the side files that GDAL reads with a raster, doubted before it does."""

from __future__ import annotations

import os
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.onboard.reading.header import Header, check_header

_JOINTS = "._-"
"""What may follow the name of a raster in that of a side file of it."""
_BASE = ":::BASE:::"
"""Stands for the raster's own name in that of its overviews."""


def check_beside(path: Path, header: Header | None, allow_network: bool) -> None:
    """Look at the side files of a raster; `header` is its own, None where it has none.

    Raises InputError for a pipe or device, which GDAL would wait for without end, for a mask or overviews that are
    descriptions of data elsewhere (unless allowed), and for a mask of another size, which GDAL would lay on it askew.
    """
    stem, whole = path.stem.lower(), path.name.lower()
    try:
        with os.scandir(path.parent) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().startswith(stem)
                and entry.name[len(stem) : len(stem) + 1] in _JOINTS
                and entry.name != path.name
            ]
    except OSError:  # GDAL cannot list the folder either
        return
    for name in names:
        side = path.with_name(name)
        if side.exists() and not (side.is_file() or side.is_dir()):
            raise InputError(f"{side}: found no regular file beside {path.name}, expected a side file; move it away")
        if name.lower() not in (whole + ".msk", whole + ".ovr") or not side.is_file():
            continue
        if not allow_network and _describes(side):
            raise InputError(f"{side}: found a description of other data, expected a TIFF; move it away")
        if name.lower() == whole + ".msk":
            _check_mask(path, header, side)


def check_overviews(path: Path, named: str, allow_network: bool) -> None:
    """Raise InputError where a raster's tags name overviews that are no local file (unless allowed)."""
    if ":" in named.removeprefix(_BASE) and not allow_network and not Path(named).exists():
        raise InputError(f"{path}: found the overviews {named} in its tags, expected a local file; remove the tag")


def is_spare(path: Path, said: str) -> bool:
    """Whether what GDAL `said` is of a side file that decides no pixel: overviews, or rational polynomials."""
    return f"{path.name}.ovr" in said or f"{path.stem}_rpc.txt".lower() in said.lower()


def _describes(side: Path) -> bool:
    try:
        with side.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{"))
    except OSError as error:
        raise InputError(f"{side}: cannot be read ({error.strerror})") from None


def _check_mask(path: Path, header: Header | None, side: Path) -> None:
    mask = check_header(side)
    if header is None or mask is None or (mask.width, mask.height) == (header.width, header.height):
        return
    raise InputError(
        f"{side}: found a mask of {mask.width} × {mask.height} px, expected {header.width} × {header.height} as "
        f"{path.name} has; move it away or make it anew"
    )
