"""VRT: the files that a virtual raster is made of. They decide its pixels, so they are named, hashed and kept local."""

from __future__ import annotations

import re
import struct
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from edgeslim.errors import InputError, shown
from edgeslim.onboard.reading.envi import envi_bytes
from edgeslim.onboard.reading.png import SIGNATURE, require_whole_png

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SOURCES = ("sourcefilename", "sourcedataset", "sourcename", "overviewfilename")
_VALUE_BYTES = {"UInt16": 2, "Int16": 2, "UInt32": 4, "Int32": 4, "Float32": 4, "UInt64": 8, "Int64": 8, "Float64": 8}
"""Of GDAL's types with more than one."""
_LARGEST_BYTES = 64 << 20
_DEEPEST = 8
_MOST_WAYS = 64
"""By which one VRT leads to another inside it: GDAL reads it anew along each, and they multiply from level to level."""
_DECLARED = 1024
"""Bytes in which a VRT says that it is one, as GDAL looks for it."""


def is_vrt(path: Path) -> bool:
    """Whether a file is a virtual raster, by what it holds. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        start = file.read(_DECLARED)
    # A declaration of XML or comments may come first; no TIFF begins so.
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<VRTDataset" in start


def is_remote(name: str) -> bool:
    """Whether GDAL would look for a name elsewhere than among local files."""
    return name.startswith("/vsi") or (bool(_SCHEME.match(name)) and not Path(name).exists())


def vrt_sources(
    path: Path, allow_network: bool, deepest: int = _DEEPEST, ways: Counter[Path] | None = None
) -> list[Path]:
    """Every local file that a VRT reads, those of VRTs inside it included, in order, each once.

    `ways`: how often each VRT inside the outermost one has been met so far.

    Raises InputError for one that names the network (unless allowed), a missing file, or anything but rasters.
    """
    ways = Counter() if ways is None else ways
    found: dict[Path, None] = {}
    for name, relative, needed in _named(path):
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
        if source.is_file() and (size := source.stat().st_size) < needed:
            raise InputError(f"{source}: found {size} bytes, of which {path} uses {needed}; copy it again")
        if source in found:
            continue
        if not source.is_file():
            raise InputError(f"{path}: found no source {source}, which it is made of; put it there")
        found[source] = None
        try:
            if (size := source.stat().st_size) < (stated := envi_bytes(source)):
                raise InputError(f"{source}: found {size} bytes, expected {stated} as its header says; copy it again")
            with source.open("rb") as file:
                start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
                if start.startswith(SIGNATURE):
                    require_whole_png(file)
            nested = is_vrt(source)
        except (ValueError, struct.error) as error:
            raise InputError(f"{source}: no whole PNG ({error}); copy it again") from None
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror})") from None
        if nested:
            if deepest == 0:
                raise InputError(f"{path}: found virtual rasters nested deeper than {_DEEPEST}; flatten them")
            ways[source] += 1
            if ways[source] > _MOST_WAYS:
                raise InputError(f"{path}: found more than {_MOST_WAYS} ways to its source {source}; flatten them")
            found.update(dict.fromkeys(vrt_sources(source, allow_network, deepest - 1, ways)))
        elif start.startswith((b"<", b"{")) and not allow_network:
            raise InputError(f"{path}: found the source {source}, a description of a service; expected a local raster")
    return list(found)


def _named(path: Path) -> list[tuple[str, bool, int]]:
    """(name, relative to the VRT, least bytes) of every source that a VRT names."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{path}: found a VRT of more than {_LARGEST_BYTES >> 20} MiB, expected a smaller one")
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not a VRT that can be read ({error}); build it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if _plain(root.tag) != "vrtdataset":
        raise InputError(f"{path}: found {shown(root.tag)}, expected a VRTDataset")
    for element in root.iter():  # GDAL tells neither cases nor namespaces apart
        element.tag = _plain(element.tag)
        element.attrib = {_plain(key): value for key, value in element.attrib.items()}
    names = []
    raw = {
        id(element): _raw_bytes(root, band)
        for band in root.iter("vrtrasterband")
        if band.get("subclass", "").lower() == "vrtrawrasterband"
        for element in band.iter("sourcefilename")
    }
    for element in root.iter():
        if element.tag in _SOURCES and element.text and element.text.strip():
            relative = element.get("relativetovrt", "0") == "1"
            names.append((element.text.lstrip(), relative, raw.get(id(element), 0)))
    return names


def _plain(name: str) -> str:
    return name.rpartition("}")[2].lower()


def _raw_bytes(root: ElementTree.Element, band: ElementTree.Element) -> int:
    """Bytes that a band of raw numbers takes of its file, what lies before it included: GDAL reads any more as 0."""
    try:
        width, height = int(root.get("rasterxsize", "0")), int(root.get("rasterysize", "0"))
        value = _VALUE_BYTES.get(band.get("datatype", "Byte"), 1)
        pixel = int(band.findtext("pixeloffset") or value)
        line = int(band.findtext("lineoffset") or pixel * width)
        ends = [0, (width - 1) * pixel, (height - 1) * line, (width - 1) * pixel + (height - 1) * line]
        return int(band.findtext("imageoffset") or 0) + max(ends) + value
    except ValueError:  # no numbers: GDAL will say so
        return 0
