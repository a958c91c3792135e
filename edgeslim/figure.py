"""Figure: a number of a card beside its source, and what a card may hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeslim.errors import InputError
from edgeslim.shelf import shown

_LEAST, _MOST = 1e-30, 1e30
"""Of a figure that is not 0: no product of a few of them is lost, or infinite."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from."""

    value: float
    """Not negative; the unit stands in the key that holds it."""
    source: str
    """Publication, measurement or derivation; never empty."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value < 0:
            raise InputError(f"value: found {self.value:g}, expected a finite number that is not negative")
        if self.value and not _LEAST <= self.value <= _MOST:
            raise InputError(f"value: found {self.value:g}, expected 0, or a number from {_LEAST:g} to {_MOST:g}")
        if not self.source.strip():
            raise InputError("source: found nothing, expected where the value comes from")


def must_be_known(name: str, known: Iterable[str], key: str) -> None:
    """Raise InputError naming `key` if `name` is none of `known`."""
    names = list(known)
    if name not in names:
        raise InputError(f"{key}: found {shown(name)}, expected {_one_of(names)}")


def _one_of(names: list[str]) -> str:
    return f"one of {', '.join(names)}" if names else "none: the card has nothing that it could be"


def must_be_positive(figure: Figure, key: str) -> None:
    """Raise InputError naming `key` if the figure is not more than 0."""
    if figure.value <= 0:
        raise InputError(f"{key}: found {figure.value:g}, expected more than 0")


def must_be_whole(figure: Figure, key: str, most: int = 1 << 20) -> None:
    """Raise InputError naming `key` if the figure is no whole number from 1 to `most`."""
    if not 1 <= figure.value <= most or figure.value % 1:
        raise InputError(f"{key}: found {figure.value:g}, expected a whole number from 1 to {most}")


def must_be_share(figure: Figure, key: str) -> None:
    """Raise InputError naming `key` if the figure is no share, 0 < value <= 1."""
    if not 0 < figure.value <= 1:
        raise InputError(f"{key}: found {figure.value:g}, expected a share, 0 < value <= 1")


def must_not_be_negative(data: Any, key: str) -> None:
    """Raise InputError naming `key` of a number below 0: of `data` itself, or below it in tables and arrays."""
    left = [(data, key)]
    while left:
        value, name = left.pop()
        if isinstance(value, dict):
            left += [(item, f"{name}.{inner}") for inner, item in reversed(value.items())]
        elif isinstance(value, (list, tuple)):
            left += [(item, f"{name} {i}") for i, item in reversed(list(enumerate(value, 1)))]
        elif isinstance(value, (int, float)) and value < 0:
            raise InputError(f"{name}: found {shown(value)}, expected no number below 0")
