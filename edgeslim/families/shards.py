"""Shards: a checkpoint in several files, and the index beside them that says which tensor lies in which.

So Hugging Face's libraries write what is larger than their limit of a file, 5 or 50 GB by their versions
(https://huggingface.co/docs/transformers/big_models#sharded-checkpoints). The index stands for the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from edgeslim.errors import InputError, shown
from edgeslim.shelf import read_small_file

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
"""What makes the name of a file that of an index; the first is of safetensors."""
_INDEX_BYTES = 64 << 20
"""Of an index: a hundred bytes a tensor are the rule."""
_NAMED = 3
"""Files that a message names."""
Held = TypeVar("Held")


def is_index(path: Path) -> bool:
    """Whether a file is an index, by its name."""
    return path.name.endswith(INDEX_SUFFIXES)


def shards_of(index: Path) -> dict[str, Path]:
    """Tensor -> the file beside `index` that holds it.

    Raises InputError where the index is none, a file is missing, or one would lie in another folder.
    """
    try:
        found = json.loads(read_small_file(index, _INDEX_BYTES))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _no_index(index) from None
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise _no_index(index)
    for name in set(found.values()):
        # A link out of the folder is how the hub's own cache keeps its files; a path would be the index's word.
        if name in ("", ".", "..") or Path(name).name != name or "\\" in name or "\0" in name:
            raise InputError(f"{index}: found {shown(name)}, expected names of files beside it; do not trust it")
    files = sorted(set(found.values()))
    if missing := [name for name in files if not (index.parent / name).is_file()]:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{index}: found {len(files) - len(missing)} of its {len(files)} files, missing "
            f"{', '.join(missing[:_NAMED])}{more}; copy those beside it, too"
        )
    return {str(name): index.parent / file for name, file in found.items()}


def from_shards(index: Path, read: Callable[[Path], Mapping[str, Held]]) -> dict[str, Held]:
    """Tensor -> what `read` finds of it in the file that holds it; each file is read once.

    Raises InputError as `shards_of`, and where a file does not hold a tensor that the index says it does.
    """
    places = shards_of(index)
    files = {file: read(file) for file in sorted(set(places.values()))}
    for name, file in places.items():
        if name not in files[file]:
            raise InputError(
                f"{index}: {name} is not in {file.name}, where it says; copy all files of one version again"
            )
    return {name: files[file][name] for name, file in places.items()}


def _no_index(index: Path) -> InputError:
    return InputError(f"{index}: no index of a checkpoint in several files; copy it again")
