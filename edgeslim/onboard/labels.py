"""Labels: which tiles a person has, and the classes of each: a folder a class, or a CSV that says."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeslim.errors import InputError, one_line, shown
from edgeslim.onboard.tile_files import tile_files
from edgeslim.profile import require_printable

COLUMNS = ("file", "class")
"""Of a CSV of labels."""


@dataclass(frozen=True, slots=True)
class TileFile:
    """One labelled tile, not opened yet."""

    name: str
    """FOLDER/FILE, or as the CSV names it; it decides the part of a split by name."""
    classes: tuple[str, ...]
    """Sorted; more than one of a tile that shows several, none of one that nobody labelled."""
    read: Callable[[], bytes]
    """Gives the file's bytes. Raises OSError."""

    @property
    def is_tiff(self) -> bool:
        """Whether it may have coordinates and scale tags."""
        return PurePosixPath(self.name).suffix.lower() in (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Labelled:
    """The tiles of a folder or zip, in the order of their names."""

    files: tuple[TileFile, ...]
    """At least one."""
    classes: tuple[str, ...]
    """Every class that a tile has, sorted."""
    source: str
    """Name of the folder or zip, without its path."""

    @property
    def multi_label(self) -> bool:
        """Whether any tile has more than one class."""
        return any(len(file.classes) > 1 for file in self.files)


def labelled_tiles(source: Path, labels: Path | None = None) -> Labelled:
    """The tiles under `source` and their classes: by the CSV `labels`, or each by the folder that it lies in.

    Raises InputError where there are none, where a tile lies in no class's folder, where a class has no name that can
    be shown, or where the CSV is none or names files that are not there.
    """
    found = tile_files(source)
    if not found:
        raise InputError(f"--tiles {source}: found no tile, expected .png, .jpg or .tif, one folder a class")
    if labels is not None:
        files = _by_csv(source, found, labels)
    else:
        files = [TileFile(_short(path), (_class_of(source, path),), read) for path, read in found.items()]
    files.sort(key=lambda file: file.name)
    classes = sorted({name for file in files for name in file.classes})
    for name in classes:
        require_printable(name, f"--tiles {source}: class")
    return Labelled(tuple(files), tuple(classes), source.name)


def tiles_of(source: Path) -> Labelled:
    """The tiles under `source`, wherever they lie and without classes. Raises InputError where there are none."""
    found = tile_files(source)
    if not found:
        raise InputError(f"{source}: found no tile, expected .png, .jpg or .tif")
    files = sorted((TileFile(_short(path), (), read) for path, read in found.items()), key=lambda file: file.name)
    return Labelled(tuple(files), (), source.name)


def _short(path: str) -> str:
    """FOLDER/FILE: the name that a tile has wherever its data set was unpacked."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _class_of(source: Path, path: str) -> str:
    folder = PurePosixPath(path).parent.name
    if not folder:
        raise InputError(
            f"--tiles {source}: {shown(path)} lies in no folder, expected one folder a class, or --labels CSV"
        )
    return folder


def _by_csv(source: Path, found: dict[str, Callable[[], bytes]], labels: Path) -> list[TileFile]:
    """Tiles that the CSV names: by their path in `source`, or by their file name where one file has it."""
    where = f"--labels {labels}"
    by_file: dict[str, list[str]] = {}
    for path in found:
        by_file.setdefault(PurePosixPath(path).name, []).append(path)
    classes: dict[str, set[str]] = {}
    missing: list[str] = []
    for number, file, name in _rows(labels, where):
        if not file or not name:
            raise InputError(f"{where}: line {number}: found no {COLUMNS[0 if not file else 1]}, expected both columns")
        same = [file] if file in found else by_file.get(PurePosixPath(file).name, [])
        if len(same) > 1:
            raise InputError(
                f"{where}: line {number}: {shown(file)} is the name of {len(same)} tiles; give its path in {source}"
            )
        if same:
            classes.setdefault(same[0], set()).add(name)
        else:
            missing.append(file)
    if missing:
        raise InputError(
            f"{where}: names {len(missing)} files that are not in {source} ({shown(missing[0])}"
            f"{', …' if len(missing) > 1 else ''}); expected paths of tiles there; remove these lines"
        )
    if not classes:
        raise InputError(f"{where}: found no line, expected one for each tile and class: {','.join(COLUMNS)}")
    return [TileFile(path, tuple(sorted(names)), found[path]) for path, names in classes.items()]


def _rows(labels: Path, where: str) -> list[tuple[int, str, str]]:
    """Number of its (last) line, file and class of each row."""
    try:
        with labels.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            fields = list(reader.fieldnames or ())
            if any(fields.count(column) != 1 for column in COLUMNS):
                have = ", ".join(map(shown, fields)) or "nothing"
                raise InputError(
                    f"{where}: found columns {have}, expected {' and '.join(COLUMNS)}, with a comma between"
                )
            return [(reader.line_num, (row["file"] or "").strip(), (row["class"] or "").strip()) for row in reader]
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror}), expected a CSV") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: no CSV ({one_line(error)}), expected text in UTF-8") from None
