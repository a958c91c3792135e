"""Profile: the card of one encoder: what it is, what it takes, and what it keeps at each width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.shelf import check_keys, read_record, read_toml, take

DEFAULT_ENCODER = "eurosat-rgb"
"""The embedded encoder."""


@dataclass(frozen=True, slots=True)
class Band:
    """One input band, in the order in which the encoder takes them."""

    name: str
    """The sensor's name for it, as scenes describe it: "B04"."""
    common_name: str
    """STAC common name: "red"."""
    wavelength_um: float
    """Centre wavelength, micrometres."""


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What a raw band value means to the encoder: reflectance = value * scale + offset."""

    levels: tuple[str, ...]
    """Processing levels that the encoder was made to work on: "L1C", "L2A"."""
    scale: float
    """Reflectance of one raw unit."""
    offset: float
    """Reflectance at raw 0."""
    clip: tuple[float, float]
    """Raw values are clipped to this range inside the graph."""
    mean: tuple[float, ...]
    """Mean of each band over the training tiles, raw units."""
    std: tuple[float, ...]
    """Standard deviation of each band, raw units."""
    image_scale: float
    """Raw units of one grey level of an 8-bit training image."""


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """One class of the head, in the order of the logits."""

    name: str
    """As in the training set."""
    title: str
    """For people."""
    color: str
    """RRGGBB, as STAC's color_hint."""
    trained_share: float | None = None
    """Share of the training tiles; None: not known."""
    land_share: float | None = None
    """Share of the land that the encoder is meant to fly over; None: not known."""

    def __post_init__(self) -> None:
        for field in ("trained_share", "land_share"):
            share = getattr(self, field)
            if share is not None and not 0 < share <= 1:
                raise InputError(f"{field}: found {share:g}, expected more than 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured at one width."""

    width_multiplier: float
    """Of the encoder that was scored."""
    metric: str
    """"accuracy"."""
    dataset: str
    """Data set and part."""
    value: float
    """0 ... 1."""
    source: str
    """The command, or the publication."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An encoder card."""

    id: str
    """File stem and name on the command line."""
    aliases: tuple[str, ...]
    """Other names."""
    name: str
    """For people."""
    licence: str
    """SPDX id of the weights, or what is known."""
    source: str
    """Where architecture and weights come from."""
    architecture: Architecture
    """At width 1.0."""
    gsd_m: float | None
    """Ground sample distance, metres a pixel; None: not tied to one."""
    bands: tuple[Band, ...]
    """Input bands; empty on a card without weights."""
    radiometry: Radiometry | None
    """None on a card without weights."""
    classes: tuple[ClassLabel, ...]
    """Of the heads that ship with it; empty without."""
    land_share_source: str | None
    """Where the classes' land shares come from; needed where they are given."""
    checkpoint: Path | None
    """Weights that ship beside the card."""
    checkpoint_sha256: str | None
    """Hex SHA-256 that the weights must have."""
    scores: tuple[Score, ...]
    """Measured scores, ascending by width."""

    @property
    def num_classes(self) -> int:
        """Classes of the head; 0 without one."""
        return len(self.classes)

    def score_at(self, width_multiplier: float) -> Score | None:
        """The measured score of a width, or None: nothing is interpolated."""
        return next((s for s in self.scores if math.isclose(s.width_multiplier, width_multiplier, abs_tol=1e-6)), None)


_KEYS = (
    "schema",
    "id",
    "aliases",
    "name",
    "licence",
    "source",
    "architecture",
    "gsd_m",
    "band",
    "radiometry",
    "class",
    "land_share_source",
    "checkpoint",
    "checkpoint_sha256",
    "score",
)


def load_profile(path: Path) -> Profile:
    """Read a profile card. Raises InputError naming file and key."""
    data = read_toml(path)
    check_keys(data, _KEYS, str(path))
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {data.get('id')!r}, expected the file's name {path.stem!r}")
    if "architecture" not in data:
        raise InputError(f"{path}: missing key 'architecture', expected the encoder's shape")
    checkpoint = data.get("checkpoint")
    radiometry = data.get("radiometry")
    scores = tuple(read_record(Score, row, f"{path}: [[score]] {i}") for i, row in enumerate(data.get("score", []), 1))
    classes = tuple(
        read_record(ClassLabel, row, f"{path}: [[class]] {i}") for i, row in enumerate(data.get("class", []), 1)
    )
    if any(label.land_share is not None for label in classes) and not data.get("land_share_source"):
        raise InputError(f"{path}: missing key 'land_share_source', expected where the land shares come from")
    return Profile(
        id=data["id"],
        aliases=tuple(data.get("aliases", ())),
        name=data.get("name", data["id"]),
        licence=data.get("licence", "unknown"),
        source=data.get("source", "unknown"),
        architecture=Architecture.from_dict(data["architecture"], f"{path}: [architecture]"),
        gsd_m=data.get("gsd_m"),
        bands=tuple(read_record(Band, row, f"{path}: [[band]] {i}") for i, row in enumerate(data.get("band", []), 1)),
        radiometry=None if radiometry is None else read_record(Radiometry, radiometry, f"{path}: [radiometry]"),
        classes=classes,
        land_share_source=data.get("land_share_source"),
        checkpoint=path.parent / checkpoint if checkpoint else None,
        checkpoint_sha256=data.get("checkpoint_sha256"),
        scores=tuple(sorted(scores, key=lambda s: s.width_multiplier)),
    )


def take_profile(name: str, cards: Path | None = None) -> Profile:
    """The encoder card called `name`. Raises UnknownName with the nearest names."""
    return take("profiles", "encoder", name, load_profile, cards)
