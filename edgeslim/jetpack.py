"""JetPack: the card of one release of NVIDIA's software for Jetson boards: what it carries, and what that can load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import InputError
from edgeslim.shelf import card_paths, read_record, read_toml, shown, take

SHELF = "jetpacks"
SCHEMA = 1


def version_of(text: str) -> tuple[int, ...]:
    """Numbers of a version, (10, 3, 0) of "10.3.0"; what follows them is left out.

    Raises InputError where it begins with none.
    """
    found = re.match(r"\d{1,6}(\.\d{1,6}){0,3}", text)
    if found is None:
        raise InputError(f"version: found {shown(text)}, expected numbers with dots, such as 10.3.0")
    return tuple(int(part) for part in found.group().split("."))


def _require_source(source: str) -> None:
    if not source.strip():
        raise InputError("source: found nothing, expected where the value comes from")


@dataclass(frozen=True, slots=True)
class Version:
    """A version and where it is stated."""

    value: str
    """Numbers with dots."""
    source: str
    """Publication; never empty."""

    def __post_init__(self) -> None:
        version_of(self.value)
        _require_source(self.source)


@dataclass(frozen=True, slots=True)
class Opset:
    """An ONNX operator set and where it is stated."""

    value: int
    """The highest that is taken."""
    source: str
    """Publication; never empty."""

    def __post_init__(self) -> None:
        if not 1 <= self.value <= 99:
            raise InputError(f"value: found {self.value}, expected an opset from 1 to 99")
        _require_source(self.source)


@dataclass(frozen=True, slots=True)
class Operators:
    """Names of ONNX operators and where they are stated."""

    value: tuple[str, ...]
    """As ONNX spells them."""
    source: str
    """Publication; never empty."""

    def __post_init__(self) -> None:
        _require_source(self.source)


@dataclass(frozen=True, slots=True)
class GpuBuild:
    """A build of ONNX Runtime with CUDA and TensorRT that runs on this release."""

    version: str
    """Of ONNX Runtime."""
    python: str
    """Versions of Python that it is for."""
    opset: Opset
    """Highest that it loads."""
    where: str
    """Where to get it."""
    source: str
    """Who says that it is there."""

    def __post_init__(self) -> None:
        version_of(self.version)
        _require_source(self.source)


@dataclass(frozen=True, slots=True)
class JetPack:
    """What one release carries."""

    schema: int
    """Of the card."""
    id: str
    """File stem."""
    aliases: tuple[str, ...]
    """Other names."""
    name: str
    """For people."""
    l4t: Version
    """Jetson Linux."""
    ubuntu: Version
    """Of its root file system."""
    python: Version
    """Of that Ubuntu."""
    cuda: Version
    """CUDA toolkit."""
    tensorrt: Version
    """TensorRT."""
    tensorrt_opset: Opset
    """Highest that the ONNX parser of that TensorRT takes."""
    tensorrt_lacks: Operators
    """Operators of edgeslim's networks that this parser does not take, whatever their opset."""
    onnxruntime: tuple[GpuBuild, ...]
    """Builds for its GPU, oldest first."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        if not self.onnxruntime:
            raise InputError("onnxruntime: found none, expected at least one build for the GPU")


def load_jetpack(path: Path) -> JetPack:
    """Read a JetPack card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(JetPack, data, str(path))


def take_jetpack(name: str, cards: Path | None = None) -> JetPack:
    """The card called `name`. Raises UnknownName with the nearest names."""
    return take(SHELF, "JetPack", name, load_jetpack, cards)


def jetpacks(cards: Path | None = None) -> tuple[JetPack, ...]:
    """Every release that there is a card of, by its TensorRT; a card of the user's own hides edgeslim's."""
    known: dict[str, Path] = {}
    for path in card_paths(SHELF, cards):
        known.setdefault(path.stem, path)
    return tuple(sorted(map(load_jetpack, known.values()), key=lambda card: version_of(card.tensorrt.value)))


def require_versions(
    what: str,
    opset: int,
    operators: Iterable[str],
    onnxruntime: str,
    tensorrt: str | None,
    known: Sequence[JetPack] | None = None,
) -> tuple[str, ...]:
    """Hold a network against the versions that are to load it; returns what a person should know.

    `what` names the network in messages; `tensorrt` is None where it does not take part. Versions that no card is of
    are judged by the nearest older one: what that one takes, they take; what it does not, they may.
    Raises InputError, naming both libraries, where one of them is known to be too old.
    """
    cards = jetpacks() if known is None else known
    found = f"onnxruntime {onnxruntime}" + (f" and TensorRT {tensorrt}" if tensorrt else "")
    mend = "export it again with `--target tensorrt`, or update JetPack (`jetpacks/` says what each one carries)"
    doubts: list[str] = []
    builds = sorted((build for card in cards for build in card.onnxruntime), key=lambda b: version_of(b.version))
    older = [build for build in builds if version_of(build.version)[:2] <= version_of(onnxruntime)[:2]]
    limits = [("onnxruntime", onnxruntime, older[-1].version, max(b.opset.value for b in older))] if older else []
    if not older:
        raise InputError(f"{what}: found {found}, expected onnxruntime {builds[0].version} or later; update it")
    if tensorrt:
        past = [card for card in cards if version_of(card.tensorrt.value)[:2] <= version_of(tensorrt)[:2]]
        if not past:
            raise InputError(f"{what}: found {found}, expected TensorRT {cards[0].tensorrt.value} or later; {mend}")
        limits.append(("TensorRT", tensorrt, past[-1].tensorrt.value, past[-1].tensorrt_opset.value))
        if missing := sorted(set(past[-1].tensorrt_lacks.value) & set(operators)):
            _judge(
                f"{what}: found {', '.join(missing)} for {found}, whose parser does not take it",
                tensorrt,
                past[-1].tensorrt.value,
                doubts,
                mend,
            )
    for library, version, card, limit in limits:
        if opset > limit:
            _judge(
                f"{what}: found opset {opset} for {found}, expected at most {limit} for {library} {card}",
                version,
                card,
                doubts,
                mend,
            )
    return tuple(doubts)


def _judge(message: str, version: str, card: str, doubts: list[str], mend: str) -> None:
    """Refuse what a card knows of, doubt what only an older version's card speaks of."""
    if version_of(version)[:2] == version_of(card)[:2]:
        raise InputError(f"{message}; {mend}")
    doubts.append(
        f"{message}, the nearest older version that there is a card of; what it does not take may go to the CPU"
    )
