"""Profile: the card of one encoder: what it is, what it takes, and what it keeps at each width and depth."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.score import Score
from edgeslim.shelf import check_keys, distinct_card_paths, read_toml, read_value, shown, take

DEFAULT_ENCODER = "eurosat-rgb"
"""The embedded encoder."""


_COLOR = re.compile("#?[0-9A-Fa-f]{6}")
OPEN_LICENCES = (
    *("Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "Zlib", "BSL-1.0", "Unlicense"),
    *("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "etalab-2.0", "OGL-UK-3.0"),
    *("ODC-By-1.0", "ODbL-1.0", "PDDL-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "MPL-2.0", "EUPL-1.2"),
    *("GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later"),
    *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
)
"""SPDX ids of licences under which anyone may pass changed weights on, for any purpose."""
_RESEARCH = re.compile(r"\bnc\b|non[ -]?commercial|\bresearch\b|\bacademic\b|\beducation", re.IGNORECASE)
_UNCHANGED = re.compile(r"\bnd\b|no[ -]?deriv", re.IGNORECASE)
_LARGEST = 1e30
"""Of a radiometric value: float32 holds it and its products with a scene's numbers."""


def require_printable(text: str, field: str) -> None:
    """Raise InputError for a name with control characters, none, or too many.

    Names go into tags, tables and styles, where a control character ends or bends what follows.
    """
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise InputError(f"{field}: found {shown(text)}, expected 1 to 200 printable characters")


def licence_obstacle(licence: str) -> str | None:
    """Why weights under this licence are bundled only where a person has accepted it; None: they may be as they are.

    Free is what is wholly made of OPEN_LICENCES: one of them, all of an "A AND B", or one side of an "A OR B" (case
    does not matter). All else has an obstacle: "research-only" where the text speaks of non-commercial use (CC-BY-NC),
    research or education; "against changed copies" where it forbids derivatives, which a slimmed encoder is (CC-BY-ND);
    and otherwise "not known to be open": unknown, none, custom terms, use restrictions (OpenRAIL), an unlisted id.
    """
    known = {name.lower() for name in OPEN_LICENCES}
    sides = re.split(r"\s+or\s+", licence.strip().lower())
    if any(all(part in known for part in re.split(r"\s+and\s+", side)) for side in sides):
        return None
    if _RESEARCH.search(licence):
        return "research-only"
    return "against changed copies" if _UNCHANGED.search(licence) else "not known to be open"


@dataclass(frozen=True, slots=True)
class Band:
    """One input band, in the order in which the encoder takes them."""

    name: str
    """The sensor's name for it, as scenes describe it: "B04"."""
    common_name: str
    """STAC common name: "red"."""
    wavelength_um: float | None = None
    """Centre wavelength, micrometres; None: not known, or the band has none (radar, elevation)."""

    def __post_init__(self) -> None:
        for field in ("name", "common_name"):
            require_printable(getattr(self, field), field)
        if self.wavelength_um is not None and not self.wavelength_um > 0:
            raise InputError(f"wavelength_um: found {self.wavelength_um:g}, expected more than 0 micrometres")


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
    unit: str = "1"
    """UCUM unit of value * scale + offset, in every band; "1": none, as of reflectance. Raw values are bare numbers."""
    band_clip: tuple[tuple[float, float], ...] = ()
    """Ranges inside `clip`, one a band, where each has its own (SatMAE: two deviations about its mean); empty: none."""

    def __post_init__(self) -> None:
        require_printable(self.unit, "unit")
        if not self.scale > 0:
            raise InputError(f"scale: found {self.scale:g}, expected more than 0")
        if not self.clip[0] < self.clip[1]:
            raise InputError(f"clip: found {self.clip[0]:g} to {self.clip[1]:g}, expected the lower end first")
        for low, high in self.band_clip:
            if not self.clip[0] <= low < high <= self.clip[1]:
                raise InputError(
                    f"band_clip: found {low:g} to {high:g}, expected the lower end first, inside clip, "
                    f"{self.clip[0]:g} to {self.clip[1]:g}"
                )
        if not self.image_scale > 0:
            raise InputError(f"image_scale: found {self.image_scale:g}, expected more than 0")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std: found {min(self.std):g}, expected more than 0 for each band")
        largest = max(map(abs, (*self.clip, *self.mean, *self.std, self.offset, self.scale, self.image_scale)))
        if largest > _LARGEST:
            raise InputError(f"radiometry: found {largest:g}, expected values that float32 holds")

    def require_bands(self, bands: int, where: str) -> None:
        """Raise InputError naming `where` if there is not one mean and one deviation a band."""
        if not len(self.mean) == len(self.std) == bands:
            raise InputError(
                f"{where}: radiometry: found {len(self.mean)} means and {len(self.std)} deviations, "
                f"expected {bands} of each, one a band"
            )
        if self.band_clip and len(self.band_clip) != bands:
            raise InputError(f"{where}: radiometry: band_clip: found {len(self.band_clip)} ranges, expected {bands}")

    @property
    def clips(self) -> tuple[tuple[float, float], ...]:
        """Range that raw values are clipped to: of each band, or the one of all."""
        return self.band_clip or (self.clip,)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for cards and manifests; without `band_clip` where there is none, as they were before it."""
        data = asdict(self)
        if not self.band_clip:
            del data["band_clip"]
        return data


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
        require_printable(self.name, "name")
        require_printable(self.title, "title")
        if not _COLOR.fullmatch(self.color):
            raise InputError(f"color: found {shown(self.color)}, expected RRGGBB")
        for field in ("trained_share", "land_share"):
            share = getattr(self, field)
            if share is not None and not 0 < share <= 1:
                raise InputError(f"{field}: found {share:g}, expected more than 0 and at most 1")


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
    architecture: AnyArchitecture
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
    weights_tried: str | None = None
    """How real weights were tried, where they do not ship; None: they never were."""
    made_for: str | None = None
    """Of a checkpoint that serves several kinds of tiles: the modality ("s2l2a") or the bands ("B04,B03,B02") that this
    encoder is made for, and the ground sample distance ("@10m") where it is made for one; see families/asked.py."""
    method: str | None = None
    """By which these weights were slimmed already, of a file that `edgeslim slim` wrote; None: they were not."""
    slimmable: bool = False
    """Whether the weights were trained at many widths at once, each the first channels of the next: then "first" is
    what was learned."""

    @property
    def num_classes(self) -> int:
        """Classes of the head; 0 without one."""
        return len(self.classes)

    @property
    def score_datasets(self) -> tuple[str, ...]:
        """Data sets that any width was scored on, the card's main one first."""
        return tuple(dict.fromkeys(score.dataset for score in self.scores))

    def score_at(self, width_multiplier: float, dataset: str | None = None, depth: int | None = None) -> Score | None:
        """The measured score of a width behind `depth` blocks (None: all) on a data set (None: the first).

        None where it was not measured: nothing is interpolated.
        """
        blocks = depth or self.architecture.depth
        for score in self.scores_on(dataset):
            alike = math.isclose(score.width_multiplier, width_multiplier, abs_tol=1e-6)
            if alike and (score.depth or self.architecture.depth) == blocks:
                return score
        return None

    def scores_on(self, dataset: str | None = None) -> tuple[Score, ...]:
        """Those of one data set; None: the first."""
        wanted = dataset or (self.scores[0].dataset if self.scores else None)
        return tuple(score for score in self.scores if score.dataset == wanted)


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
    "weights_tried",
    "made_for",
    "slimmable",
)


def load_profile(path: Path) -> Profile:
    """Read a profile card. Raises InputError naming file and key."""
    data = read_toml(path)
    check_keys(data, _KEYS, str(path))
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    if "architecture" not in data:
        raise InputError(f"{path}: missing key 'architecture', expected the encoder's shape")

    def text(key: str, default: str) -> str:
        found: str = read_value(str, data.get(key, default), f"{path}: {key}")
        return found

    def optional(hint: Any, key: str) -> Any:
        return read_value(hint, data[key], f"{path}: {key}") if key in data else None

    architecture = read_value(AnyArchitecture, data["architecture"], f"{path}: [architecture]")
    scores = read_value(tuple[Score, ...], data.get("score", []), f"{path}: [[score]]")
    for score in scores:
        if score.depth is not None and score.depth > architecture.depth:
            raise InputError(
                f"{path}: [[score]]: depth: found {score.depth}, expected at most the encoder's {architecture.depth}"
            )
    checkpoint = optional(str, "checkpoint")
    return Profile(
        id=data["id"],
        aliases=read_value(tuple[str, ...], data.get("aliases", []), f"{path}: aliases"),
        name=text("name", data["id"]),
        source=text("source", "unknown"),
        architecture=architecture,
        checkpoint=path.parent / checkpoint if checkpoint else None,
        checkpoint_sha256=optional(str, "checkpoint_sha256"),
        scores=tuple(sorted(scores, key=lambda s: s.width_multiplier)),
        weights_tried=optional(str, "weights_tried"),
        made_for=optional(str, "made_for"),
        **read_facts(data, str(path)),
    )


FACTS = ("licence", "gsd_m", "band", "radiometry", "class", "land_share_source", "slimmable")
"""Keys of a card that hold for its weights whatever becomes of their shape: what they take and say, and the licence."""


def read_facts(data: dict[str, Any], where: str) -> dict[str, Any]:
    """FACTS of a card as fields of a Profile. Raises InputError naming `where` and the key."""
    classes = read_value(tuple[ClassLabel, ...], data.get("class", []), f"{where}: [[class]]")
    if any(label.land_share is not None for label in classes) and not data.get("land_share_source"):
        raise InputError(f"{where}: missing key 'land_share_source', expected where the land shares come from")
    bands = read_value(tuple[Band, ...], data.get("band", []), f"{where}: [[band]]")
    radiometry = data.get("radiometry")
    if radiometry is not None:
        radiometry = read_value(Radiometry, radiometry, f"{where}: [radiometry]")
        radiometry.require_bands(len(bands), where)
    gsd_m, source = data.get("gsd_m"), data.get("land_share_source")
    return {
        "licence": read_value(str, data.get("licence", "unknown"), f"{where}: licence"),
        "gsd_m": _gsd(None if gsd_m is None else read_value(float, gsd_m, f"{where}: gsd_m"), where),
        "bands": bands,
        "radiometry": radiometry,
        "classes": classes,
        "land_share_source": None if source is None else read_value(str, source, f"{where}: land_share_source"),
        "slimmable": read_value(bool, data.get("slimmable", False), f"{where}: slimmable"),
    }


def card_facts(profile: Profile) -> dict[str, Any]:
    """FACTS of an encoder as its card writes them, plain types; what it does not say is left out."""
    found = {
        "licence": profile.licence,
        "gsd_m": profile.gsd_m,
        "band": [_said(asdict(band)) for band in profile.bands],
        "radiometry": None if profile.radiometry is None else profile.radiometry.to_dict(),
        "class": [_said(asdict(label)) for label in profile.classes],
        "land_share_source": profile.land_share_source,
        "slimmable": profile.slimmable or None,
    }
    return {key: value for key, value in found.items() if value is not None and value != []}


def _said(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def _gsd(gsd_m: float | None, where: str) -> float | None:
    if gsd_m is not None and gsd_m <= 0:
        raise InputError(f"{where}: gsd_m: found {gsd_m:g}, expected more than 0 metres a pixel")
    return gsd_m


def take_profile(name: str, cards: Path | None = None) -> Profile:
    """The encoder card called `name`. Raises UnknownName with the nearest names."""
    return take("profiles", "encoder", name, load_profile, cards)


def all_profiles(cards: Path | None = None) -> list[Profile]:
    """Every encoder card, by id; one of the user's own hides edgeslim's of the same id."""
    return sorted(map(load_profile, distinct_card_paths("profiles", cards)), key=lambda profile: profile.id)
