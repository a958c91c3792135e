"""Summary: what a run did, as summary.json holds it; the same inputs and versions give the same bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from edgeslim.errors import InputError

SUMMARY_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ClassArea:
    """One class of a summary."""

    index: int
    """Value in the class raster."""
    name: str
    """As in the training set."""
    title: str
    """For people."""
    color: str
    """RRGGBB."""
    pixels: int
    """Of the class raster."""
    share: float
    """Of its classified pixels, 0 ... 1."""
    area_km2: float | None
    """On the ground; None where the scene has no CRS."""


class BandFacts(TypedDict):
    """Which band of the scene was given to the encoder as which of its own."""

    encoder: str
    """Name of the encoder's band."""
    scene_band: int
    """Number in the scene, from 1; bands of `--stack` follow its own."""
    scene_name: str
    """As the scene calls it; empty where it does not."""


class SceneFacts(TypedDict):
    """The scene, as it was read."""

    path: str
    """Name of its file."""
    files: dict[str, str]
    """Every file that was read: name -> hex SHA-256."""
    width: int
    """Columns, px."""
    height: int
    """Rows, px."""
    dtype: str
    """NumPy's name of the type of its values."""
    bands: list[BandFacts]
    """In the encoder's order."""
    crs: str | None
    """Its coordinate reference system; None: not known."""
    gsd_m: float | None
    """Metres a pixel; None: not known."""
    expected_gsd_m: float | None
    """That the encoder expects."""
    acquired: str | None
    """When it was taken, RFC 3339; None: the scene does not say."""


class ArtifactFacts(TypedDict):
    """The artifact that computed."""

    name: str
    """Encoder and cut."""
    encoder: str
    """Profile card."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    sha256: dict[str, str]
    """Of its manifest and of every other file."""


class RadiometryFacts(TypedDict):
    """reflectance = value * scale + offset, by band in the encoder's order."""

    levels: list[str]
    """That the encoder knows."""
    scale: list[float]
    """By band."""
    offset: list[float]
    """By band."""
    basis: str
    """Who said so."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done, as summary.json holds it. What may differ from run to run is in run.json."""

    edgeslim: str
    """Version."""
    versions: dict[str, str]
    """Of what computed."""
    inputs_sha256: str
    """Of everything that decides these bytes: versions, artifact, options, and the scene's files."""
    scene: SceneFacts
    """What was classified."""
    artifact: ArtifactFacts
    """What computed."""
    radiometry: RadiometryFacts
    """What its values were taken to mean."""
    prior: str
    """How frequent classes are taken to be: "land" or "training set"."""
    tile_px: int
    """Side of a tile."""
    stride_px: int
    """Step between windows."""
    cells: bool
    """Whether one output pixel is one stride."""
    tiles: dict[str, int]
    """How many were classified, and how many were skipped or refused."""
    classes: tuple[ClassArea, ...]
    """In the order of the logits."""
    nodata_pixels: int
    """Pixels of the class raster without a class."""
    mean_confidence: float | None
    """Mean probability of the winning class, 0 ... 1; None where nothing was classified."""
    warnings: tuple[str, ...]
    """What a person should know."""
    files: tuple[str, ...] = ()
    """In the result folder."""
    unknown_tiles: int | None = None
    """Of those classified, unlike any that the head was fitted on; None: the artifact cannot tell."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        data = {"schema": SUMMARY_SCHEMA, **asdict(self)}
        if self.unknown_tiles is None:  # as summaries were before there was such a thing
            del data["unknown_tiles"]
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Summary:
        """Read it back. Raises InputError where it is not a summary of this version."""
        values = {key: value for key, value in data.items() if key != "schema"}
        try:
            classes = tuple(ClassArea(**row) for row in values.pop("classes"))
            notes, files = tuple(values.pop("warnings")), tuple(values.pop("files"))
            return Summary(**values, classes=classes, warnings=notes, files=files)
        except (KeyError, TypeError) as error:
            raise InputError(f"summary: {error}, expected one of this version; start anew with --overwrite") from None


def json_text(data: Any) -> str:
    """JSON for people and machines. Raises ValueError for numbers that JSON does not have."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
