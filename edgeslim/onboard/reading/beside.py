"""Beside: the side files that GDAL reads with a raster, doubted before it does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.onboard.reading.header import check_header

_TIFFS = (".msk", ".ovr")
"""Ends of the names of masks and overviews."""
_JOINTS = (".", "_", "-")
"""What may follow the name of a raster in that of a side file of it."""
_BASE = ":::BASE:::"
"""Stands for the raster's own name in that of its overviews."""


def check_beside(rasters: Iterable[Path], allow_network: bool) -> None:
    """Look at the side files of rasters; each folder is listed once, however many of them lie in it.

    Raises InputError for a pipe or device, which GDAL would wait for without end, and for a mask or overviews that
    are descriptions of data elsewhere (unless allowed).
    """
    folders: dict[Path, list[Path]] = {}
    for path in rasters:
        folders.setdefault(path.parent, []).append(path)
    for folder, inside in folders.items():
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError:  # GDAL cannot list it either
            continue
        tiffs = {entry.name.lower(): folder / entry.name for entry in listed if _is_tiff(entry)}
        pipes = [entry.name for entry in listed if _is_pipe(entry)]
        for path in inside:
            for name in pipes:
                if _belongs(name.lower(), path):
                    raise InputError(
                        f"{folder / name}: found no regular file beside {path.name}, expected a side file; move it away"
                    )
            for end in _TIFFS:
                side = tiffs.get(path.name.lower() + end)
                if side is not None and not allow_network and _describes(side):
                    raise InputError(f"{side}: found a description of other data, expected a TIFF; move it away")


def check_mask(path: Path, width: int, height: int) -> None:
    """Raise InputError where the mask beside a raster has not its size: GDAL would lay it on its upper left corner."""
    for end in (".msk", ".MSK"):
        side = path.with_name(path.name + end)
        mask = check_header(side) if side.is_file() else None
        if mask is not None and (mask.width, mask.height) != (width, height):
            raise InputError(
                f"{side}: found a mask of {mask.width} × {mask.height} px, expected {width} × {height} as {path.name} "
                "has; move it away or make it anew"
            )


def check_overviews(path: Path, named: str, allow_network: bool) -> None:
    """Raise InputError where a raster's tags name overviews that are no local file (unless allowed)."""
    if ":" in named.removeprefix(_BASE) and not allow_network and not Path(named).exists():
        raise InputError(f"{path}: found the overviews {named} in its tags, expected a local file; remove the tag")


def is_spare(path: Path, said: str) -> bool:
    """Whether what GDAL `said` is of a side file that decides no pixel: overviews, or rational polynomials."""
    return f"{path.name}.ovr" in said or f"{path.stem}_rpc.txt".lower() in said.lower()


def _is_tiff(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(_TIFFS) and os.path.isfile(entry)


def _is_pipe(entry: os.DirEntry[str]) -> bool:
    try:
        return not (entry.is_file() or entry.is_dir()) and os.path.exists(entry)
    except OSError:  # links in a circle, or to where nobody may look
        return False


def _belongs(name: str, path: Path) -> bool:
    stem = path.stem.lower()
    return name.startswith(stem) and name[len(stem) :].startswith(_JOINTS) and name != path.name.lower()


def _describes(side: Path) -> bool:
    try:
        with side.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{"))
    except OSError as error:
        raise InputError(f"{side}: cannot be read ({error.strerror})") from None
