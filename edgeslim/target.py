"""Target: the card of one export format: what it accepts, needs and promises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeslim.errors import InputError
from edgeslim.parity import CEILINGS, Ceiling
from edgeslim.shelf import card_paths, read_record, read_toml, shown, take
from edgeslim.units import ARITHMETIC

SHELF = "export"
SCHEMA = 2
FORMATS = ("onnx", "openvino", "tflite")
RUNTIMES = ("onnxruntime", "openvino", "litert")
"""What edgeslim/onboard/runtimes has a class of."""
PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
"""Execution providers of ONNX Runtime, beside the CPU's, that edgeslim knows the options of."""
PRODUCTS = ("Attention", "Conv", "Einsum", "Gemm", "MatMul")
"""Operators that take nearly all of the time: no card may leave them to the CPU beside a provider."""


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
    format: str
    """Converter: one of FORMATS."""
    runtime: str
    """What runs it on board: one of RUNTIMES."""
    model_file: str
    """File of the network inside the artifact; of a static batch with {batch} in its name."""
    batch: str
    """"dynamic": one file serves every batch size; "static": one file a batch size."""
    precisions: tuple[str, ...]
    """Precisions that it is exported in; the first is the default."""
    tolerance: dict[str, float]
    """Precision -> largest allowed difference of a logit from torch's, as a share of the logits' range."""
    runtimes: tuple[str, ...]
    """Runtimes of a device card that run it, best first."""
    extra: str
    """pip extra of edgeslim that installs the runtime."""
    module: str
    """Python module of the runtime."""
    sources: dict[str, str]
    """Key -> why that value."""
    opset: int | None = None
    """ONNX operator set."""
    ir_version: int | None = None
    """Highest ONNX file version that the oldest supported runtime loads."""
    agreement: dict[str, float] | None = None
    """Precision -> least share of tiles with torch's class, where stricter than edgeslim's own."""
    providers: tuple[str, ...] = ()
    """Execution providers of ONNX Runtime, best first; empty: the CPU's."""
    cpu_operators: tuple[str, ...] = ()
    """Operators that the CPU may run beside `providers`, on whole numbers only: they compute shapes."""
    operators: tuple[str, ...] = ()
    """Operators that may stand in the network; empty: any."""
    graph_kb: dict[str, float] | None = None
    """Precision -> kB of a network's files beside its weights: of a block, and once more; None: not known."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        for key, value, known in (
            ("format", self.format, FORMATS),
            ("runtime", self.runtime, RUNTIMES),
            ("batch", self.batch, ("dynamic", "static")),
        ):
            if value not in known:
                raise InputError(f"{key}: found {shown(value)}, expected one of {', '.join(map(repr, known))}")
        if ("{batch}" in self.model_file) != (self.batch == "static"):
            raise InputError(
                f"model_file: found {shown(self.model_file)}, expected {{batch}} in it for a static batch only"
            )
        if not self.precisions or not self.runtimes:
            raise InputError("precisions, runtimes: found none, expected at least one of each")
        for precision in self.precisions:
            if precision not in ARITHMETIC:
                raise InputError(f"precisions: found {shown(precision)}, expected one of {', '.join(ARITHMETIC)}")
            if CEILINGS[precision].relative is not None and precision not in self.tolerance:
                raise InputError(f"tolerance: missing key {precision!r}, expected one for each of precisions")
        for key, table in (("tolerance", self.tolerance), ("agreement", self.agreement or {})):
            for precision, limit in table.items():
                if precision not in self.precisions or (key == "tolerance" and CEILINGS[precision].relative is None):
                    raise InputError(f"{key}.{precision}: found {limit:g}, expected no such key")
                if not 0 < limit < float("inf"):
                    raise InputError(f"{key}.{precision}: found {limit:g}, expected more than 0")
        for precision, size in (self.graph_kb or {}).items():
            if precision not in self.precisions or not 0 <= size < float("inf"):
                raise InputError(f"graph_kb.{precision}: found {size:g}, expected kB for one of precisions")
        for precision in self.precisions:
            try:
                self.ceiling(precision)
            except InputError as error:
                raise InputError(f"{precision}: {error}") from None
        self._require_providers()
        needed = ["batch", "tolerance"]
        needed += ["opset", "ir_version"] if self.format == "onnx" else []
        needed += [key for key in ("graph_kb", "providers", "cpu_operators", "operators") if getattr(self, key)]
        for key in needed:
            if getattr(self, key) is None:
                raise InputError(f"{key}: found nothing, expected a value for {self.format}")
            if not self.sources.get(key, "").strip():
                raise InputError(f"sources: missing key {key!r}, expected why that value")

    def _require_providers(self) -> None:
        for name in self.providers:
            if name not in PROVIDERS or self.providers.count(name) > 1:
                raise InputError(
                    f"providers: found {', '.join(map(shown, self.providers))}, expected each once of "
                    f"{', '.join(PROVIDERS)}; none stands for the CPU"
                )
        if self.providers and self.runtime != "onnxruntime":
            raise InputError(f"providers: found some for {self.runtime}, expected them for onnxruntime only")
        if self.cpu_operators and not self.providers:
            raise InputError("cpu_operators: found some without providers, expected both; without, all is on the CPU")
        if heavy := sorted(set(self.cpu_operators) & set(PRODUCTS)):
            raise InputError(f"cpu_operators: found {', '.join(heavy)}, expected operators that compute shapes")

    def require_graph(self, graph: dict[str, Any]) -> None:
        """Hold a written network, as its format describes it (opset, operators), against the card.

        Raises InputError where its opset is higher, or an operator stands in it that does not belong there.
        """
        opset = graph.get("opset")
        if self.opset is not None and isinstance(opset, int) and opset > self.opset:
            raise InputError(f"{self.id}: the network is of opset {opset}, expected at most {self.opset}")
        if self.operators and (strange := sorted(set(graph.get("operators", {})) - set(self.operators))):
            raise InputError(f"{self.id}: the network has {', '.join(strange)}, expected none but the card's operators")

    def ceiling(self, precision: str) -> Ceiling:
        """What is allowed in `precision`, one of `precisions`: edgeslim's own ceiling, tightened by the card."""
        return CEILINGS[precision].tightened(self.tolerance.get(precision), (self.agreement or {}).get(precision))


def load_target(path: Path) -> Target:
    """Read an export card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(Target, data, str(path))


def take_target(name: str, cards: Path | None = None) -> Target:
    """The export card called `name`. Raises UnknownName with the nearest names."""
    return take(SHELF, "export target", name, load_target, cards)


def targets_on(runtimes: Iterable[str], cards: Path | None = None) -> tuple[Target, ...]:
    """Every format that one of a device's runtimes runs, by name; a card of the user's own hides edgeslim's."""
    known: dict[str, Path] = {}
    for path in card_paths(SHELF, cards):
        known.setdefault(path.stem, path)
    found = (load_target(path) for _, path in sorted(known.items()))
    wanted = set(runtimes)
    return tuple(target for target in found if wanted & set(target.runtimes))
