"""Bands: which bands of a scene are the ones that the encoder takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from edgeslim.errors import InputError, UsageError
from edgeslim.profile import Band

_NUMBERED = re.compile(r"(?:b|band)[ _-]?0*(\d{1,2})(a?)")
_COMMON_COLOURS = ("red", "green", "blue")
_SHOWN = 60
"""Characters of a description that a message quotes: what follows must be read, too."""


class Named(Protocol):
    """A file as far as its bands are to be told apart."""

    descriptions: list[str | None]
    colours: list[str]

    @property
    def has_palette(self) -> bool:
        """Whether its one band holds indices of colours."""

    def expand_palette(self) -> None:
        """Show red, green and blue instead of the indices."""


def choose_bands(
    where: str, expected: Sequence[Band], files: Sequence[Named], asked: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """Numbers (from 1) of the bands in the encoder's order, counted on through `files`, and what to warn of.

    A palette is expanded to red, green and blue where the encoder wants nothing else. Its indices themselves are used
    only where `asked` (--bands) names them by number. Raises as `pick_bands` does.
    """
    notes: list[str] = []
    colours_only = all(b.common_name in _COMMON_COLOURS for b in expected)
    for file in files:
        if not file.has_palette:
            continue
        items = [] if asked is None else [item.strip() for item in asked.split(",")]
        by_number = bool(items) and all(i.isdecimal() and int(i) <= len(file.descriptions) for i in items)
        if by_number:
            notes.append("found a palette: its indices are taken as values, as --bands asked")
        elif colours_only and len(files) == 1:
            file.expand_palette()
            notes.append("found a palette: expanded to red, green and blue")
    descriptions = [d for file in files for d in file.descriptions]
    colours = [c for file in files for c in file.colours]
    return pick_bands(where, expected, descriptions, colours, asked), notes


def band_names(description: str | None) -> set[str]:
    """Names that a description may stand for, normalised: "B2", "B02" and "band 2" are all "b2".

    A numbered name is also found inside a longer text ("B4, central wavelength 665 nm"). A common name must be the
    whole text: "red edge" is not red.
    """
    text = (description or "").strip().lower()
    names = {text} if text else set()
    if match := _NUMBERED.fullmatch(text):
        return {f"b{match[1]}{match[2]}"}
    for word in re.split(r"[^0-9a-z]+", text):
        if match := _NUMBERED.fullmatch(word):
            names.add(f"b{match[1]}{match[2]}")
    return names


def pick_bands(
    where: str,
    expected: Sequence[Band],
    descriptions: Sequence[str | None],
    colours: Sequence[str],
    asked: str | None,
) -> tuple[int, ...]:
    """Numbers (from 1) of the scene's bands, in the encoder's order.

    `colours` are the colour interpretations of all bands. `asked` is `--bands`: numbers or names, separated by commas.
    Raises UsageError for a `--bands` that does not fit the scene, InputError where the bands cannot be told.
    """
    if asked is not None:
        return _asked_bands(where, expected, descriptions, asked)
    wanted = ",".join(f"{b.name} ({b.common_name})" for b in expected)
    usable = [i for i, c in enumerate(colours) if c != "alpha"]
    mend = f"name them with --bands, e.g. --bands {','.join(str(i + 1) for i in range(len(expected)))}"
    found = _say(descriptions, colours)
    if len(usable) < len(expected):
        palette = " (a palette: indices of colours, no measurements)" if "palette" in colours else ""
        raise InputError(
            f"{where}: found {found}{palette}, expected {len(expected)} bands {wanted}; give what has them"
        )
    if not any(descriptions[i] for i in usable):
        by_colour = [[i + 1 for i in usable if colours[i] == b.common_name] for b in expected]
        if all(b.common_name in _COMMON_COLOURS for b in expected) and all(len(m) == 1 for m in by_colour):
            return tuple(m[0] for m in by_colour)
        raise InputError(f"{where}: found {found} without names, expected {wanted}; {mend}")
    picked = []
    for band in expected:
        names = band_names(band.name) | {band.common_name.lower()}
        matches = [i + 1 for i in usable if band_names(descriptions[i]) & names]
        if len(matches) != 1:
            several = f"{len(matches)} bands called" if matches else "no band called"
            raise InputError(
                f"{where}: found {several} {band.name} or {band.common_name} among {found}, expected {wanted}; {mend}"
            )
        picked.append(matches[0])
    return tuple(picked)


def _asked_bands(
    where: str, expected: Sequence[Band], descriptions: Sequence[str | None], asked: str
) -> tuple[int, ...]:
    items = [item.strip() for item in asked.split(",")]
    order = ",".join(b.name for b in expected)
    if len(items) != len(expected) or not all(items):
        raise UsageError(f"--bands {asked}: found {len(items)} bands, expected {len(expected)} in the order {order}")
    picked = []
    for item in items:
        if item.isdecimal():
            if not 1 <= int(item) <= len(descriptions):
                raise UsageError(f"--bands {asked}: found band {item}, expected 1 to {len(descriptions)} of {where}")
            picked.append(int(item))
            continue
        names = band_names(item)
        for band in expected:  # "green" may stand for the scene's B03, as the encoder calls it
            if names & (both := band_names(band.name) | {band.common_name.lower()}):
                names |= both
        matches = [i + 1 for i, d in enumerate(descriptions) if band_names(d) & names]
        if len(matches) != 1:
            named = ", ".join(f"{i}={d}" for i, d in enumerate(descriptions, 1) if d) or "no named band"
            raise UsageError(
                f"--bands {asked}: found {len(matches)} bands called {item} in {where} ({named}), "
                f"expected one; give numbers in the order {order}"
            )
        picked.append(matches[0])
    return tuple(picked)


def _say(descriptions: Sequence[str | None], colours: Sequence[str]) -> str:
    named = [(d or c)[:_SHOWN] for d, c in zip(descriptions, colours, strict=True)]
    shown = ", ".join(named[:8]) + (", …" if len(named) > 8 else "")
    return f"{len(named)} band{'s' if len(named) != 1 else ''} ({shown})"
