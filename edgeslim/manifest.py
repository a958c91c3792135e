"""Manifest: all that crosses to the device, as one JSON. Names follow STAC MLM where it has one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeslim.architecture import check_cut
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.cuts import Cut
from edgeslim.errors import InputError, UntrustedResult
from edgeslim.figure import must_not_be_negative
from edgeslim.known import UNKNOWN, Known
from edgeslim.parity import Certificate
from edgeslim.profile import Band, ClassLabel, Radiometry
from edgeslim.shelf import read_record, read_small_file, shown, table_once
from edgeslim.units import ARITHMETIC, MOST_BATCH

SCHEMA = 2
MANIFEST_NAME = "manifest.json"
MANIFEST_BYTES = 16 << 20
"""More than any manifest takes."""
UPDATE_PREFIX = "update-"
"""Of the folder with the files of an artifact that `edgeslim apply` put in place; its seal's beginning follows."""
UPDATE_FOLDER = re.compile(UPDATE_PREFIX + "[0-9a-f]{32}")
MOST_CLASSES = 255
"""A class map's pixel is one byte, and 255 is nodata."""
GOLDEN_NAME = "golden.npz"
ANY_BATCH = "any"
"""Key of a network that takes batches of every size."""


_PIECE_BYTES = 128 << 10
"""Of a file, hashed at once: it stays in the processor's cache, beside a network that needs the rest of it."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces. Raises InputError if it cannot be read."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE_BYTES))
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                digest.update(piece[:count])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Golden:
    """The proof inputs of an artifact."""

    tiles: int
    """How many."""
    synthetic: bool
    """True: seeded textures, no real pixel among them."""
    source: str
    """Where the tiles come from."""
    tolerance: float
    """Largest allowed absolute difference of a logit."""

    def __post_init__(self) -> None:
        if self.tiles < 1:
            raise InputError(f"tiles: found {self.tiles}, expected at least 1")
        if not self.tolerance > 0:
            raise InputError(f"tolerance: found {self.tolerance:g}, expected more than 0")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is, takes and returns."""

    name: str
    """Encoder and width."""
    edgeslim_version: str
    """Of the export."""
    encoder: str
    """Profile card."""
    licence: str
    """Of the weights."""
    checkpoint_sha256: str
    """Of the checkpoint that was slimmed."""
    method: str
    """Slimming method: one of edgeslim.planning.plan.METHODS."""
    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    architecture: AnyArchitecture
    """After slimming."""
    total_parameters: int
    """Encoder and head."""
    gflop_per_tile: float
    """1 MAC = 2 FLOP."""
    format: str
    """Export card: "onnx"."""
    precision: str
    """One of edgeslim.units.ARITHMETIC."""
    runtime: str
    """What runs it: one of edgeslim.target.RUNTIMES."""
    providers: tuple[str, ...]
    """Execution providers of ONNX Runtime that it is meant for, best first; empty: the CPU's."""
    models: dict[str, str]
    """Batch size, or "any" -> file of the network, beside the manifest."""
    input_name: str
    """Input tensor: (batch, bands, height, width) float32, raw band values."""
    output_name: str
    """Output tensor: (batch, classes) float32 logits."""
    features_name: str
    """Output tensor: (batch, d) float32, what the head was given; empty: the network has none."""
    graph: dict[str, Any]
    """Of the network as written: opset where it has one, and how often each operator stands in it."""
    bands: tuple[Band, ...]
    """In the order of the input's channels."""
    gsd_m: float | None
    """Metres a pixel that the encoder expects."""
    radiometry: Radiometry
    """What a raw band value means."""
    classes: tuple[ClassLabel, ...]
    """In the order of the logits."""
    golden: Golden
    """Proof inputs."""
    certificate: Certificate | None
    """What was proven at export; None: nothing was."""
    files: dict[str, str]
    """File name -> hex SHA-256, of every other file of the artifact."""
    plan: dict[str, Any]
    """Device, budget and estimate that it was exported for; empty without a plan."""
    cpu_operators: tuple[str, ...] = ()
    """Operators that the CPU may run beside `providers`: they compute shapes."""
    source: str = "unknown"
    """Where architecture and weights come from, as their licence may want it said."""
    licence_accepted: bool = False
    """True: the licence has an obstacle (edgeslim.profile.licence_obstacle) that a person accepted at export."""
    known: Known | None = None
    """How it tells tiles unlike those that its head was fitted on; None: it does not, and names a class for each."""
    depth: int | None = None
    """Blocks that are kept of the encoder's, the first ones; None: all."""

    @property
    def cut(self) -> Cut:
        """What is kept of the encoder."""
        return Cut(self.width_multiplier, self.depth)

    @property
    def tile_px(self) -> int:
        """Side of a tile, px."""
        return self.architecture.tile_px

    def __post_init__(self) -> None:
        if not self.bands or len(self.bands) != self.architecture.bands:
            raise InputError(f"bands: found {len(self.bands)}, expected the architecture's {self.architecture.bands}")
        if not 1 <= len(self.classes) <= MOST_CLASSES:
            raise InputError(f"classes: found {len(self.classes)}, expected 1 to {MOST_CLASSES}")
        if self.depth not in (None, self.architecture.depth):
            raise InputError(f"depth: found {self.depth}, expected the architecture's {self.architecture.depth}")
        if self.precision not in ARITHMETIC:
            raise InputError(f"precision: found {shown(self.precision)}, expected one of {', '.join(ARITHMETIC)}")
        check_cut(self.width_multiplier, self.depth, self.architecture.depth)
        for field in ("total_parameters", "gflop_per_tile", "graph", "plan"):
            must_not_be_negative(getattr(self, field), field)
        self._require_models()
        self._require_known()
        if (self.providers or self.cpu_operators) and self.runtime != "onnxruntime":
            raise InputError(f"providers: found some for {shown(self.runtime)}, expected them for onnxruntime only")
        if len(set(self.providers)) < len(self.providers):
            raise InputError(f"providers: found {', '.join(map(shown, self.providers))}, expected each once")
        if self.gsd_m is not None and self.gsd_m <= 0:
            raise InputError(f"gsd_m: found {self.gsd_m:g}, expected more than 0 metres a pixel")
        for name in self.files:
            if name in ("", ".", "..") or Path(name).name != name or not name.isprintable():
                raise InputError(f"files: found {shown(name)}, expected the name of a file inside the artifact")

    def _require_models(self) -> None:
        if not self.models:
            raise InputError("models: found none, expected the file of a network")
        for batch, name in self.models.items():
            if batch != ANY_BATCH:
                _require_batch(batch, "models", f"{ANY_BATCH!r} or a number")
            if name not in self.files:
                raise InputError(f"models: found {shown(name)}, expected a file that has a hash in files")
        if ANY_BATCH in self.models and len(self.models) > 1:
            raise InputError(f"models: found {', '.join(self.models)}, expected {ANY_BATCH!r} alone")
        for batch in () if self.certificate is None else self.certificate.batches:
            _require_batch(batch, "certificate: batches", "a number")

    def _require_known(self) -> None:
        if self.known is None:
            return
        if self.known.file not in self.files:
            raise InputError(f"known: found {shown(self.known.file)}, expected a file that has a hash in files")
        if not self.features_name:
            raise InputError("known: found it without features_name, expected a network that gives its features")
        if len(self.classes) == MOST_CLASSES or any(label.name == UNKNOWN.name for label in self.classes):
            raise InputError(f"classes: found no room for {UNKNOWN.name!r} beside them, expected at most 254 others")

    @property
    def answers(self) -> tuple[ClassLabel, ...]:
        """What a tile may be called: the classes, and unknown where it can tell."""
        return self.classes if self.known is None else (*self.classes, UNKNOWN)

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that it is made for, ascending; empty: any."""
        return tuple(sorted(int(batch) for batch in self.models if batch != ANY_BATCH))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, without the hash of itself."""
        data = {"schema": SCHEMA, **asdict(self)}
        data |= {"architecture": self.architecture.to_dict(), "radiometry": self.radiometry.to_dict()}
        for name in ("known", "depth"):  # as manifests were before there was such a thing
            if data[name] is None:
                del data[name]
        return data

    def write(self, folder: Path) -> Path:
        """Write manifest.json into `folder`, sealed with the hash of its own content."""
        data = self.to_dict()
        path = folder / MANIFEST_NAME
        path.write_text(json.dumps({**data, "sha256": _seal(data)}, indent=2) + "\n", encoding="utf-8")
        return path


def _require_batch(batch: str, key: str, expected: str) -> None:
    """Raise InputError naming `key` for a text that is no batch size; `expected` says what else may stand there."""
    if not (batch.isascii() and batch.isdigit() and 1 <= int(batch[:5]) <= MOST_BATCH):
        raise InputError(f"{key}: found batch {shown(batch)}, expected {expected} from 1 to {MOST_BATCH}")


def _seal(data: dict[str, Any]) -> str:
    plain = json.loads(json.dumps({k: v for k, v in data.items() if k != "sha256"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read an artifact's manifest and check its seal; the files it names are checked by `verify_files`.

    Raises InputError where there is no artifact, UntrustedResult where the manifest is damaged.
    """
    return read_standing(folder)[1]


def read_standing(folder: Path) -> tuple[Path, Manifest]:
    """Where the files of the artifact under `folder` lie, and its manifest.

    `edgeslim apply` puts a new artifact under `folder` by replacing the manifest there; its files are then in a folder
    of their own inside (edgeslim.onboard.uplink.place says why). Both are decided by one read of one file, so a reader
    sees the old artifact or the new one, whatever is being put in place meanwhile. Raises as `read_manifest` does.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise InputError(f"{folder}: found no {MANIFEST_NAME}, expected an artifact; `edgeslim export` makes one")
    manifest, seal = parse_manifest(read_small_file(path, MANIFEST_BYTES), path)
    return files_folder(folder, seal), manifest


def files_folder(folder: Path, seal: str) -> Path:
    """Where the files lie of the artifact under `folder` whose manifest has this seal: in it, or inside."""
    updated = folder / f"{UPDATE_PREFIX}{seal[:32]}"
    return updated if (updated / MANIFEST_NAME).is_file() else folder


def artifact_folder(home: Path) -> Path:
    """The artifact's folder, given where its files lie: in it, or inside."""
    return home.parent if UPDATE_FOLDER.fullmatch(home.name) else home


def parse_manifest(data: bytes, path: Path) -> tuple[Manifest, str]:
    """A manifest and its seal (hex SHA-256 of its content), from the bytes of the file `path`.

    Raises UntrustedResult where they are damaged, InputError where another edgeslim wrote them.
    """
    try:
        record = json.loads(data, parse_constant=_no_number)
        sealed = isinstance(record, dict) and record.get("sha256") == _seal(record)
        if sealed:  # by the last of the values of a key: what is damaged is told as that
            json.loads(data, object_pairs_hook=partial(table_once, str(path)))
    except (ValueError, RecursionError):
        sealed = False
    if not sealed:
        raise UntrustedResult(f"{path}: damaged (its content does not match its own SHA-256); copy the artifact again")
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema: found {shown(record.get('schema'))}, expected {SCHEMA}; use a matching edgeslim"
        )
    try:
        manifest = read_record(Manifest, {k: v for k, v in record.items() if k not in ("schema", "sha256")}, str(path))
        manifest.radiometry.require_bands(len(manifest.bands), str(path))
    except InputError as error:
        raise InputError(f"{error}; export again with this edgeslim") from None
    return manifest, record["sha256"]


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raise UntrustedResult if a file of the artifact is missing or not the one that was exported."""
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise UntrustedResult(f"{path}: missing from the artifact; copy it again")
        if (found := sha256_of(path)) != expected:
            raise UntrustedResult(
                f"{path}: damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…); copy the artifact again"
            )
