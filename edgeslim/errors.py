"""Every error that edgeslim raises on purpose.

    EdgeslimError            exit 1
    ├── InputError           1   a file, card or value that cannot be used
    │   ├── UsageError       2   a flag or argument that makes no sense here
    │   ├── CardLacks        1   a card has no figure for what is asked
    │   └── UnknownName      2   a name that no card has; the nearest are listed
    ├── NothingFits          3   no width meets the budget
    ├── ExportError          1   a stage of the export failed
    │   ├── CaptureError     1   1 capture: weights and card do not make a module
    │   ├── ConvertError     1   2 convert: the format's converter failed
    │   └── PackError        1   4 pack: the artifact cannot be put in place
    ├── ParityError          4   two outputs that must agree do not (stage 3, prove)
    ├── UntrustedResult      5   results that must not be used
    └── MissingExtra         1   an optional dependency is not installed

A message says what was found, what was expected and how to mend it, in one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

LONGEST = 1000
"""Characters of a line that is shown: a message quotes what it found, not a whole file."""


def shown(text: object) -> str:
    """Text that came from outside, fit for a terminal: one line, no control characters, not too long."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def one_line(error: BaseException | str) -> str:
    """An error of a foreign library as one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


class EdgeslimError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(EdgeslimError):
    """A file, card or value that cannot be used. The message is the first of its `problems`, each a line."""

    def __init__(self, problem: str, *more: str) -> None:
        super().__init__(problem)
        self.problems = (problem, *more)


class UsageError(InputError):
    """A flag or argument that makes no sense here."""

    exit_code = 2


class CardLacks(InputError):
    """A card has no figure for what is asked; `keys` are those that it lacks."""

    def __init__(self, message: str, keys: Iterable[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class UnknownName(InputError):
    """A name that no card has. The message lists the nearest ones."""

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        import difflib  # slow to import, and few need it

        by_letters = {one.casefold(): one for one in reversed(names)}
        near = [by_letters[found] for found in difflib.get_close_matches(name.casefold(), by_letters, n=3, cutoff=0.4)]
        near = near or names
        super().__init__(f"unknown {kind} {name!r}: expected one of {', '.join(near)}")


class NothingFits(EdgeslimError):
    """No width meets the budget; the message names the nearest miss.

    `nearest` is that for a table, `over` how far it is from its budget, as Miss.over.
    """

    exit_code = 3

    def __init__(self, message: str, nearest: str = "", over: float = math.inf) -> None:
        super().__init__(message)
        self.nearest, self.over = nearest or message, over


class ExportError(EdgeslimError):
    """A stage of the export failed; the message names stage and next step."""


class CaptureError(ExportError):
    """Stage 1: weights and card do not make a module that runs."""


class ConvertError(ExportError):
    """Stage 2: the format's converter failed."""


class PackError(ExportError):
    """Stage 4: the artifact cannot be put in place."""


class ParityError(EdgeslimError):
    """Two outputs that must agree do not.

    `trials`, of an int8 export that gave up: how many layers were left in fp32, and what was beyond its ceiling then.
    """

    exit_code = 4

    def __init__(self, message: str, trials: Iterable[tuple[int, str]] = ()) -> None:
        super().__init__(message)
        self.trials = tuple(trials)


class UntrustedResult(EdgeslimError):
    """Results that must not be used."""

    exit_code = 5


class MissingExtra(EdgeslimError):
    """An optional dependency is not installed, or not one that works; the message names the pip line."""

    def __init__(self, module: str, extra: str, found: str = "") -> None:
        what = f"found {found}, expected {module}" if found else f"{module} is not installed"
        super().__init__(f"{what}: pip install 'edgeslim[{extra}]'")
