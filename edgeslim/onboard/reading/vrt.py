"""VRT: the files that a virtual raster is made of. They decide its pixels, so they are named, hashed and kept local."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from edgeslim.errors import InputError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SOURCES = ("SourceFilename", "SourceDataset", "SourceName", "OverviewFilename")
_LARGEST_BYTES = 64 << 20
_DEEPEST = 8


def is_vrt(path: Path) -> bool:
    """Whether a file is a virtual raster, by what it holds. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<VRTDataset")


def is_remote(name: str) -> bool:
    """Whether GDAL would look for a name elsewhere than among local files."""
    return name.startswith("/vsi") or (bool(_SCHEME.match(name)) and not Path(name).exists())


def vrt_sources(path: Path, allow_network: bool, deepest: int = _DEEPEST) -> list[Path]:
    """Every local file that a VRT reads, those of VRTs inside it included, in order, each once.

    Raises InputError for one that names the network (unless allowed), a missing file, or anything but rasters.
    """
    found: dict[Path, None] = {}
    for name, relative in _named(path):
        if is_remote(name):
            if not allow_network:
                raise InputError(f"{path}: found the network source {name}; copy it here, or ask with --allow-network")
            continue
        if ":" in name and not Path(name).exists():  # GTIFF_DIR:2:scene.tif and its like
            prefix, _, rest = name.partition(":")
            if prefix.upper() != "GTIFF_DIR":
                raise InputError(f"{path}: found the source {name}, expected a local file")
            name = rest.partition(":")[2]
        source = (path.parent / name if relative else Path(name)).resolve()
        if source in found:
            continue
        if not source.is_file():
            raise InputError(f"{path}: found no source {source}, which it is made of; put it there")
        found[source] = None
        try:
            with source.open("rb") as file:
                start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
            nested = is_vrt(source)
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror})") from None
        if nested:
            if deepest == 0:
                raise InputError(f"{path}: found virtual rasters nested deeper than {_DEEPEST}; flatten them")
            found.update(dict.fromkeys(vrt_sources(source, allow_network, deepest - 1)))
        elif start.startswith((b"<", b"{")) and not allow_network:
            raise InputError(f"{path}: found the source {source}, a description of a service; expected a local raster")
    return list(found)


def _named(path: Path) -> list[tuple[str, bool]]:
    """(name, relative to the VRT) of every source that a VRT names."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{path}: found a VRT of more than {_LARGEST_BYTES >> 20} MiB, expected a smaller one")
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not a VRT that can be read ({error}); build it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    names = []
    for element in root.iter():
        if element.tag in _SOURCES and element.text and element.text.strip():
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            names.append((element.text.strip(), relative))
    return names
