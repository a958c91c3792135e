"""Hub: a place on the network where checkpoints lie, as a card; and where a fetched one is kept. Here none is fetched.

A name is HUB:NAME, and behind another colon what is asked of a checkpoint that serves several kinds of tiles:
"torchgeo:DOFABase16_Weights.DOFA_MAE:B04,B03,B02".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from edgeslim.errors import InputError, UnknownName
from edgeslim.shelf import distinct_card_paths, read_record, read_toml, shown

SHELF = "hubs"
SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A checkpoint on a hub."""

    name: str
    """As it is asked for."""
    url: str
    """Where it lies: https, or http on this machine."""
    sha256: str = ""
    """Beginning of its hex SHA-256; empty: not known, and not looked at."""
    licence: str = "unknown"
    """SPDX id, where the hub says one."""

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOCAL):
            raise InputError(f"url: found {shown(self.url)}, expected one that begins with https://")
        if not re.fullmatch("[0-9a-f]{0,64}", self.sha256):
            raise InputError(f"sha256: found {shown(self.sha256)}, expected the beginning of a hex SHA-256")
        if not PurePosixPath(address.path).suffix:
            raise InputError(f"url: found {shown(self.url)}, expected that of a file with a suffix")


@dataclass(frozen=True, slots=True)
class Hub:
    """A card of a hub."""

    schema: int
    """Of the card."""
    id: str
    """What stands before the colon, and the file's stem."""
    name: str
    """For people."""
    source: str
    """Where its names come from."""
    file: tuple[HubFile, ...] = ()
    """Checkpoints that it is known to have."""
    every: str = ""
    """URL of the checkpoint of every name, which stands for {name}; empty: only those of `file`."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        if self.every and "{name}" not in self.every:
            raise InputError(f"every: found {shown(self.every)}, expected a URL with {{name}} in it")
        if not self.every and not self.file:
            raise InputError("file: found none, expected [[file]] tables, or every = a URL with {name} in it")

    def find(self, name: str) -> HubFile:
        """The checkpoint called `name`. Raises UnknownName with the nearest names."""
        found = next((one for one in self.file if one.name == name), None)
        if found is not None:
            return found
        if not self.every or not _NAME.fullmatch(name):
            raise UnknownName(f"checkpoint of {self.id}", name, [one.name for one in self.file])
        return HubFile(name, self.every.replace("{name}", name))


def load_hub(path: Path) -> Hub:
    """Read the card of a hub. Raises InputError naming file and key."""
    hub = read_record(Hub, read_toml(path), str(path))
    if hub.id != path.stem:
        raise InputError(f"{path}: id: found {shown(hub.id)}, expected the file's name {path.stem!r}")
    return hub


def all_hubs(cards: Path | None = None) -> list[Hub]:
    """Every hub, by id; one of the user's own hides edgeslim's of the same id."""
    return sorted(map(load_hub, distinct_card_paths(SHELF, cards)), key=lambda hub: hub.id)


@dataclass(frozen=True, slots=True)
class Asked:
    """A checkpoint of a hub that was asked for."""

    hub: Hub
    """Where it lies."""
    file: HubFile
    """Which one."""
    made_for: str | None
    """What is asked of it (edgeslim/families/asked.py)."""

    @property
    def name(self) -> str:
        """HUB:NAME."""
        return f"{self.hub.id}:{self.file.name}"

    @property
    def path(self) -> Path:
        """Where it is kept once it was fetched: in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        suffix = PurePosixPath(urlsplit(self.file.url).path).suffix
        return root / "edgeslim" / SHELF / self.hub.id / f"{self.file.name}{suffix}"


def asked_of_hub(name: str, cards: Path | None = None) -> Asked | None:
    """What HUB:NAME or HUB:NAME:MADE_FOR asks for; None where no hub is called so.

    Raises UnknownName where the hub has no such checkpoint, InputError for a card that is wrong.
    """
    before, colon, rest = name.partition(":")
    path = next((path for path in distinct_card_paths(SHELF, cards) if path.stem == before), None) if colon else None
    if path is None:
        return None
    hub = load_hub(path)
    checkpoint, _, made_for = rest.partition(":")
    return Asked(hub, hub.find(checkpoint), made_for or None)
