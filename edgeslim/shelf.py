"""The shelves: folders of TOML cards (devices, profiles, export), the user's own before edgeslim's."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeslim.errors import InputError, UnknownName

try:
    import tomli as tomllib  # the same parser, compiled: a third of the time
except ModuleNotFoundError:
    import tomllib  # type: ignore[import-not-found, no-redef]


CARD_BYTES = 4 << 20
"""More than any card takes."""


class Card(Protocol):
    """What every card has."""

    @property
    def id(self) -> str:
        """The name it is asked for by, and its file's stem."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names for it."""


AnyCard = TypeVar("AnyCard", bound=Card)


def shelf_folder(shelf: str) -> Path:
    """The folder of a shelf that ships with edgeslim: inside the installed package, or at a checkout's root."""
    package = Path(__file__).resolve().parent
    inside = package / "shelves" / shelf
    return inside if inside.is_dir() else package.parent / shelf


def shown(value: object) -> str:
    """A value as an error message quotes it: one line of at most 80 characters."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**80 else "a number of over 80 digits"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def read_small_file(path: Path, limit_bytes: int) -> bytes:
    """All of a file that people or edgeslim wrote.

    Raises InputError for one that cannot be read, is no regular file (reading a pipe or a device may never end) or is
    larger than `limit_bytes`, which no card or manifest is.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: found no regular file, expected one; give the file itself")
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a name that no file can have
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(data) > limit_bytes:
        raise InputError(
            f"{path}: found more than {limit_bytes >> 20} MiB, expected a small file; is it the right one?"
        )
    return data


def table_once(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads(..., object_pairs_hook=partial(table_once, where))`.

    Raises InputError naming `where` and the key that is there more than once: of its values the last would count, and
    the others would be read by nobody. TOML knows no such file.
    """
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{where}: {shown(twice)}: found more than once, expected each key once; leave one of them")
    return table


_DEEPEST = 64
"""Parts of a key, more than any card has."""
_DEEP_KEY = re.compile(rb"""(?<![\w"'-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d}""" % _DEEPEST)
"""The parser's time grows with the square of a key's parts. Begun inside a word, this search's would, too."""


def read_toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file. Raises InputError naming the file and the line that is wrong."""
    data = read_small_file(path, CARD_BYTES)
    # A key stands in one line, and few lines have as many dots; the search alone takes longer than parsing does.
    if any(line.count(b".") >= _DEEPEST and _DEEP_KEY.search(line) for line in data.splitlines()):
        raise InputError(f"{path}: nested too deep for a card; mend it")
    try:
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except (RecursionError, MemoryError):
        raise InputError(f"{path}: nested too deep for a card; mend it") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: found byte 0x{data[error.start]:02x}, which is no UTF-8, expected TOML in UTF-8; save it so"
        ) from None
    except ValueError as error:  # not TOML, a number of thousands of digits
        raise InputError(f"{path}: not valid TOML ({_first_words(error)}); mend that line") from None


def _first_words(error: ValueError) -> str:
    text = str(error)
    return text if len(text) <= 200 else f"{text[:199]}…"


def card_paths(shelf: str, cards: Path | None = None) -> list[Path]:
    """Card files of a shelf, the user's first: `cards`/SHELF/*.toml, then edgeslim's own.

    Raises InputError if `cards` is not a folder.
    """
    if cards is not None and not cards.is_dir():
        raise InputError(f"--cards {cards}: found no such folder, expected one holding {shelf}/*.toml")
    folders = [shelf_folder(shelf)] if cards is None else [cards / shelf, shelf_folder(shelf)]
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.toml"))]


def distinct_card_paths(shelf: str, cards: Path | None = None) -> list[Path]:
    """The same, each name once: a card of the user's own hides edgeslim's."""
    known: dict[str, Path] = {}
    for path in card_paths(shelf, cards):
        known.setdefault(path.stem, path)
    return list(known.values())


def take(shelf: str, kind: str, name: str, load: Callable[[Path], AnyCard], cards: Path | None = None) -> AnyCard:
    """The card called `name` (its id or an alias).

    Raises UnknownName with the nearest names, InputError where two of the user's own cards have it as an alias.
    """
    paths = card_paths(shelf, cards)
    for path in paths:
        if path.stem == name:
            return load(path)
    # Where a card's text has the name it may be an alias; all are read where none is, as TOML can write it otherwise.
    likely = [path for path in paths if name.encode() in read_small_file(path, CARD_BYTES)]
    names: list[str] = []
    for path in (*likely, *(path for path in paths if path not in likely)):
        card = load(path)
        if name in card.aliases:
            if path.parent != shelf_folder(shelf):  # of edgeslim's own no two have one
                _require_alone(name, path, likely, load)
            return card
        names += [card.id, *card.aliases]
    raise UnknownName(kind, name, names)


def _require_alone(name: str, path: Path, likely: list[Path], load: Callable[[Path], AnyCard]) -> None:
    for other in likely:
        if other != path and other.parent == path.parent and name in load(other).aliases:
            raise InputError(
                f"{path}: aliases: found {shown(name)}, as in {other}, expected it in one; take it from one"
            )


def check_keys(found: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Raise InputError if a table has a key that no card of its type has."""
    _raise(
        [f"{where}: unknown key {shown(key)}, expected some of {', '.join(known)}" for key in found if key not in known]
    )


def _raise(problems: list[str]) -> None:
    if problems:
        raise InputError(*problems)


def _read_items(items: dict[Any, tuple[Any, Any, str]]) -> dict[Any, Any]:
    problems: list[str] = []
    values = _read_all(items, problems)
    _raise(problems)
    return values


AnyRecord = TypeVar("AnyRecord")


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Type of each field of a dataclass that its maker takes, and those of them that must be given."""
    made = [field for field in fields(kind) if field.init]
    required = [f.name for f in made if f.default is MISSING and f.default_factory is MISSING]
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in made}, tuple(required)


_EXPECTED = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


def read_record(kind: type[AnyRecord], data: Any, where: str) -> AnyRecord:
    """Build the dataclass `kind` from plain data (a TOML table, a JSON object), checking every key and type.

    Nested dataclasses, tuples (from arrays), dictionaries of texts and optional fields are followed; a class with its
    own `from_dict(data, where)` is read by that. Raises InputError naming `where`, the key, what was found and what
    was expected, for all that is wrong; values that the class itself refuses are reported with the same `where`.
    """
    hints, required = _fields(kind)  # type: ignore[arg-type]
    names = list(hints)
    if not isinstance(data, dict):
        raise InputError(
            f"{where}: found {shown(data)}, expected a table {{ {', '.join(f'{n} = ...' for n in names)} }}"
        )
    problems: list[str] = []
    try:
        check_keys(data, names, where)
    except InputError as error:
        problems += error.problems
    for name in required:
        if name not in data:
            problems.append(f"{where}: missing key {name!r}, expected some of {', '.join(names)}")
    plain, others = {}, {}
    for key, value in data.items():
        if key in hints and _is_plain(hints[key], value):
            plain[key] = value
        elif key in hints:
            others[key] = (hints[key], value, f"{where}: {key}")
    values = plain | _read_all(others, problems)
    _raise(problems)
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(*(f"{where}: {problem}" for problem in error.problems)) from None


def _is_plain(hint: Any, value: Any) -> bool:
    """Whether a value is of its type as it stands. Most are, and need no slower look."""
    kind = type(value)
    return (
        kind in _EXPECTED
        and (kind is hint or _optional(hint) is kind)
        and (kind in (str, bool) or -(2**63) < value < 2**63)
    )


@cache
def _optional(hint: Any) -> Any:
    """X of `X | None`; None of any other type."""
    arguments = get_args(hint)
    return arguments[0] if get_origin(hint) in (Union, UnionType) and arguments[1:] == (NoneType,) else None


def _read_all(items: dict[Any, tuple[Any, Any, str]], problems: list[str]) -> dict[Any, Any]:
    """Read (type, value, where) each; what is wrong with any of them is added to `problems`."""
    values = {}
    for key, (hint, value, where) in items.items():
        try:
            values[key] = read_value(hint, value, where)
        except InputError as error:
            problems += error.problems
    return values


def _kind_of(options: Sequence[Any], value: Any) -> Any:
    """Of several kinds of records the one that a table has every required key of; the first where it has of none."""
    if len(options) > 1 and isinstance(value, dict):
        return next((one for one in options if set(_fields(one)[1]) <= value.keys()), options[0])
    return options[0]


def read_value(hint: Any, value: Any, where: str) -> Any:
    """One value of the type `hint`, as a field of `read_record` is read. Raises InputError naming `where`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        options = [a for a in arguments if a is not NoneType]
        if value is None and len(options) < len(arguments):
            return None
        return read_value(_kind_of(options, value), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where}: found {shown(value)}, expected an array")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise InputError(f"{where}: found {len(value)} values, expected {len(arguments)}")
        return tuple(_read_items({i: (arguments[0], item, f"{where} {i}") for i, item in enumerate(value, 1)}).values())
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: found {shown(value)}, expected a table")
        return _read_items({key: (arguments[1], item, f"{where}.{key}") for key, item in value.items()})
    if hint is Any:
        return value
    if hasattr(hint, "from_dict"):
        if not isinstance(value, dict):
            raise InputError(f"{where}: found {shown(value)}, expected a table")
        return hint.from_dict(value, where)
    if is_dataclass(hint):
        return read_record(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1 << 1023 else math.inf
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where}: found {shown(value)}, expected {_EXPECTED[hint]}")
    if hint is float and not math.isfinite(value):
        raise InputError(f"{where}: found {value:g}, expected a finite number")
    if hint is int and abs(value) >= 1 << 63:
        raise InputError(f"{where}: found {shown(value)}, expected a whole number of less than 2^63")
    return value
