"""Target: the card of one export format: what it accepts, needs and promises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.shelf import read_record, read_toml, shown, take
from edgeslim.units import VALUE_BYTES

SHELF = "export"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Target:
    """An export format's card."""

    schema: int
    """Of the card."""
    id: str
    """File stem and name on the command line."""
    aliases: tuple[str, ...]
    """Other names."""
    name: str
    """For people."""
    model_file: str
    """File of the network inside the artifact."""
    opset: int
    """ONNX operator set."""
    ir_version: int
    """Highest ONNX file version that the oldest supported runtime loads."""
    batch: str
    """"dynamic": one file serves every batch size; "static": one file a batch size."""
    precisions: tuple[str, ...]
    """Precisions that it is exported in; the first is the default."""
    tolerance: dict[str, float]
    """Precision -> largest allowed absolute difference of a logit from torch's."""
    runtimes: tuple[str, ...]
    """Runtimes of a device card that run it, best first."""
    extra: str
    """pip extra of edgeslim that installs the runtime."""
    module: str
    """Python module of the runtime."""
    sources: dict[str, str]
    """Key -> why that value."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        if self.batch not in ("dynamic", "static"):
            raise InputError(f"batch: found {shown(self.batch)}, expected 'dynamic' or 'static'")
        if not self.precisions or not self.runtimes:
            raise InputError("precisions, runtimes: found none, expected at least one of each")
        for precision in self.precisions:
            if precision not in VALUE_BYTES:
                raise InputError(f"precisions: found {shown(precision)}, expected one of {', '.join(VALUE_BYTES)}")
            if precision not in self.tolerance:
                raise InputError(f"tolerance: missing key {precision!r}, expected one for each of precisions")
        for precision, tolerance in self.tolerance.items():
            if not 0 < tolerance < float("inf"):
                raise InputError(f"tolerance.{precision}: found {tolerance:g}, expected more than 0")
        for key in ("opset", "ir_version", "batch", "tolerance"):
            if not self.sources.get(key, "").strip():
                raise InputError(f"sources: missing key {key!r}, expected why that value")


def load_target(path: Path) -> Target:
    """Read an export card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(Target, data, str(path))


def take_target(name: str, cards: Path | None = None) -> Target:
    """The export card called `name`. Raises UnknownName with the nearest names."""
    return take(SHELF, "export target", name, load_target, cards)
