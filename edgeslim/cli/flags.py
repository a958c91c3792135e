"""Flags that `classify` and `watch` share: declared once, checked once, handed on to a scene's own process."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeslim.errors import UsageError
from edgeslim.units import mib

if TYPE_CHECKING:
    from edgeslim.onboard.classify_options import ClassifyOptions

_UNITS = {"B": 1}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
_BY_LOWER = {unit.lower(): factor for unit, factor in _UNITS.items()}


def size_bytes(flag: str, text: str) -> int:
    """Bytes of a size with its unit: 256MiB, 1.5GiB, 500MB. Raises UsageError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    factor = _BY_LOWER.get(match[2].lower()) if match else None
    if match is None or factor is None or not (size := int(float(match[1]) * factor)):
        raise UsageError(f"{flag}: found {text!r}, expected a size with its unit such as 256MiB, 1GiB or 500MB")
    return size


def positive(flag: str, value: float | None) -> None:
    """Raise UsageError unless a number of seconds, pixels or times is above 0, or left out."""
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"{flag}: found {value:g}, expected a number above 0")


def require_threads(threads: int | None) -> None:
    """Raise UsageError unless --threads is left out, or no slip of the keyboard: a runtime would start them all."""
    from edgeslim.onboard.machine import MOST_THREADS

    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads: found {threads}, expected a whole number from 1 to {MOST_THREADS}")


class ProgressMode(str, Enum):
    """How a run shows what it does."""

    auto = "auto"
    bar = "bar"
    json = "json"
    none = "none"


class VectorFormat(str, Enum):
    """Of the cells as polygons."""

    geojson = "geojson"
    geoparquet = "geoparquet"
    flatgeobuf = "flatgeobuf"
    none = "none"


_INPUT, _WORK, _RESULT, _LIMIT = "The scene", "How to classify", "Results", "Limits"

Artifact = Annotated[Path, typer.Option("--artifact", help="Folder that `edgeslim export` wrote.")]
Stack = Annotated[
    list[Path] | None,
    typer.Option(
        "--stack",
        help="One more file of the same sensor (repeatable): its bands are numbered on, resampled to the scene's grid.",
        rich_help_panel=_INPUT,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        "--bands",
        help="Scene bands in the encoder's order, numbers or names: 3,2,1 or B04,B03,B02.",
        rich_help_panel=_INPUT,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option("--scale", help="Reflectance of one unit of the scene, e.g. 0.0001.", rich_help_panel=_INPUT),
]
Offset = Annotated[
    float | None,
    typer.Option("--offset", help="Reflectance at value 0 of the scene, e.g. -0.1.", rich_help_panel=_INPUT),
]
AcceptGsd = Annotated[
    bool,
    typer.Option(
        "--accept-gsd",
        help="Process a scene of another, or unknown, ground sample distance.",
        rich_help_panel=_INPUT,
    ),
]
Resample = Annotated[
    bool,
    typer.Option(
        "--resample", help="Bring the scene to the encoder's ground sample distance first.", rich_help_panel=_INPUT
    ),
]
AllowNetwork = Annotated[
    bool, typer.Option("--allow-network", help="Open network and virtual paths.", rich_help_panel=_INPUT)
]
Image = Annotated[
    int | None, typer.Option("--image", help="Which image of a file with several; from 1.", rich_help_panel=_INPUT)
]
Stride = Annotated[
    int | None,
    typer.Option("--stride", help="Step between windows, px; default half a tile.", rich_help_panel=_WORK),
]
Overlap = Annotated[
    int | None,
    typer.Option("--overlap", help="The same said otherwise: px that windows share.", rich_help_panel=_WORK),
]
Cells = Annotated[
    bool,
    typer.Option("--cells", help="One output pixel a stride, not a scene pixel.", rich_help_panel=_WORK),
]
TrainingPrior = Annotated[
    bool,
    typer.Option(
        "--training-prior",
        help="Take classes to be as frequent as in training, not as on land.",
        rich_help_panel=_WORK,
    ),
]
Probabilities = Annotated[
    bool,
    typer.Option("--probabilities", help="Write the probability of every class, too.", rich_help_panel=_RESULT),
]
Vector = Annotated[
    VectorFormat | None,
    typer.Option("--vector", help="Format of the cells with class and score.", rich_help_panel=_RESULT),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch", help="Tiles given to the network at once.", rich_help_panel=_LIMIT),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Threads of the runtime; default every core.", rich_help_panel=_LIMIT)
]
MaxRam = Annotated[
    str | None,
    typer.Option(
        "--max-ram",
        help="Resident memory to stay within, e.g. 256MiB; refused before the start if it cannot be.",
        metavar="SIZE",
        rich_help_panel=_LIMIT,
    ),
]
CheckEvery = Annotated[
    float | None,
    typer.Option("--check-every-s", help="Seconds between two replays of the golden tiles.", rich_help_panel=_LIMIT),
]


@dataclass(frozen=True, slots=True)
class SceneFlags:
    """How every scene of a run is to be read and classified; what `watch` and a folder's run hand on."""

    stack: tuple[Path, ...] = ()
    stride: int | None = None
    overlap: int | None = None
    cells: bool = False
    bands: str | None = None
    scale: float | None = None
    offset: float | None = None
    accept_gsd: bool = False
    resample: bool = False
    allow_network: bool = False
    image: int | None = None
    training_prior: bool = False
    probabilities: bool = False
    vector: VectorFormat | None = None
    batch: int | None = None
    threads: int | None = None
    max_ram: str | None = None
    check_every_s: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what no scene and no artifact could make right."""
        for name in ("stride", "batch", "threads", "image"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name}: found {value}, expected a whole number of at least 1")
        if self.overlap is not None and self.overlap < 0:
            raise UsageError(f"--overlap: found {self.overlap} px, expected 0 or more")
        if self.stride is not None and self.overlap is not None:
            raise UsageError("found both --stride and --overlap, which say the same thing: give one of them")
        positive("--check-every-s", self.check_every_s)
        if self.max_ram is not None:
            size_bytes("--max-ram", self.max_ram)

    def arguments(self) -> list[str]:
        """The same flags as a command line, without those left at their defaults."""
        found: list[str] = []
        for item in fields(self):
            value, flag = getattr(self, item.name), f"--{item.name.replace('_', '-')}"
            if isinstance(value, tuple):
                found += [part for path in value for part in (flag, str(path))]
            elif isinstance(value, bool):
                found += [flag] if value else []
            elif value is not None:
                # `--offset=-0.1`: apart, the minus would make it look like another flag.
                found.append(f"{flag}={value.value if isinstance(value, Enum) else value}")
        return found

    def check_against(self, artifact: Path) -> None:
        """Raise UsageError for flags that no scene of this artifact could be classified with. Imports no numpy."""
        from edgeslim.manifest import read_manifest

        tile, stride = read_manifest(artifact).tile_px, self._stride_px(artifact)
        if stride is not None and stride > tile:
            raise UsageError(f"--stride: found {stride} px, expected 1 to {tile} (the tile)")

    def options(self, artifact: Path, resume: bool, overwrite: bool) -> ClassifyOptions:
        """What `classify_scene` takes. Raises UsageError for flags that do not fit, InputError without an artifact."""
        from edgeslim.onboard.classify_options import CHECK_EVERY_S, ClassifyOptions
        from edgeslim.onboard.reading.scene import SceneOptions

        return ClassifyOptions(
            stride_px=self._stride_px(artifact),
            cells=self.cells,
            batch=self.batch,
            threads=self.threads,
            max_ram_mib=None if self.max_ram is None else mib(size_bytes("--max-ram", self.max_ram)),
            training_prior=self.training_prior,
            probabilities=self.probabilities,
            vector=None if self.vector is None else self.vector.value,
            check_every_s=CHECK_EVERY_S if self.check_every_s is None else self.check_every_s,
            resume=resume,
            overwrite=overwrite,
            scene=SceneOptions(
                bands=self.bands,
                scale=self.scale,
                offset=self.offset,
                accept_gsd=self.accept_gsd,
                stack=self.stack,
                resample=self.resample,
                allow_network=self.allow_network,
                image=self.image,
            ),
        )

    def _stride_px(self, artifact: Path) -> int | None:
        if self.overlap is None:
            return self.stride
        from edgeslim.manifest import read_manifest

        tile = read_manifest(artifact).tile_px
        if self.overlap >= tile:
            raise UsageError(f"--overlap: found {self.overlap} px, expected 0 to {tile - 1} (less than the tile)")
        return tile - self.overlap
