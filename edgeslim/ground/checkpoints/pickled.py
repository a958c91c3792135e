"""Pickled: the tensors of a file that torch.save wrote, by torch's restricted unpickler. No code of a file is ever run.

Beside the weights stands what trained them: options, paths, NumPy's numbers, states of optimisers. Of such classes an
object is made that is nothing (`_Unread`), so that the weights can be read; nothing of the class itself is imported. A
call of what reaches the system is refused, as no weights need one.
"""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeslim.errors import InputError

_DEEPEST = 2
"""State dicts in a state dict."""
_MOST_CLASSES = 200
"""Kinds of objects beside the weights."""
_WRAPPERS = (
    *("model", "state_dict", "model_state_dict", "model_state", "teacher", "target_encoder", "student"),
    *("network", "net", "module", "params", "weights", "backbone", "encoder", "model_ema", "state_dict_ema", "ema"),
)
"""Keys under which training keeps the weights, in the order in which they are looked for: the averaged teacher before
the student, as self-distillation evaluates it; what is evaluated beside an average is what was trained."""
_BESIDE = re.compile(r"(?:optim|opt$|.*sched|scaler|amp|rng|callbacks|loops|hyper_?param|args|config|loss).*")
"""Keys of what training keeps beside the weights, tensors among it."""
_GLOBAL = re.compile(r"GLOBAL ([\w.<>]+) was not an allowed global")
_BLOCKED = re.compile(r"GLOBAL ([\w.]+) whose module \S+ is blocked")
_PLAIN = frozenset(
    (
        *("_codecs", "argparse", "array", "collections", "copyreg", "dataclasses", "datetime", "decimal", "enum"),
        *("fractions", "functools", "logging", "numbers", "pathlib", "random", "re", "types", "typing", "uuid"),
        "zoneinfo",
    )
)
"""Modules of the standard library whose objects training keeps. Of its others, which open files and start programs,
nothing is stood for."""
_PLAIN_BUILTINS = frozenset(
    ["bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str", "tuple"]
)
"""Of Python's own, which torch names without their module: what a history of losses is kept in."""
_OF_PYTHON_2 = ("__builtin__", "commands", "exceptions")
"""Names that pickles keep."""
_POINTER = b"version https://git-lfs"


class _Unread:
    """Stands for an object that is no tensor; takes and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Unread:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    """Stands for a defaultdict: torch fills none but plain mappings, and there may be weights in it."""
    return OrderedDict()


def pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a state dict, or of one for each part (CROMA's), under the parts' names.

    Of what training wrote around it, the weights are found by _WRAPPERS. Raises InputError where the file is none that
    torch.save wrote, holds code, or no state dict.
    """
    loaded = _load(path)
    if not isinstance(loaded, Mapping):
        raise _no_state(path)
    for _ in range(_DEEPEST + 1):
        wrapped = (loaded.get(key) for key in _WRAPPERS)
        loaded = next((one for one in wrapped if isinstance(one, Mapping) and _holds_tensors(one)), loaded)
    found = dict(_named(loaded, "", path))
    if not found:
        raise _no_state(path)
    return found


def _load(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_stored(path)
    stood_for: dict[str, tuple[Any, str]] = {}
    while True:
        try:
            with torch.serialization.safe_globals([Namespace, *stood_for.values()]), warnings.catch_warnings():
                # Of protocols and storages of other days: what cannot be read is an error all the same.
                warnings.simplefilter("ignore")
                # A file older than torch 1.6 is no zip, and cannot be mapped.
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # torch raises many kinds for a file that is not a plain state dict
            text = str(error)
            name = found[1] if (found := _GLOBAL.search(text)) else ""
            if name in _PLAIN_BUILTINS:
                name = f"builtins.{name}"
            if not name or name in stood_for or _reaches(name) or len(stood_for) == _MOST_CLASSES:
                raise InputError(f"{path}: not a plain state dict ({_reason(path, text, name)})") from None
            stood_for[name] = (_mapping if name == "collections.defaultdict" else _Unread, name)


def _reaches(name: str) -> bool:
    """Whether what is called may reach the system."""
    module, _, inside = name.partition(".")
    if module == "builtins":
        return inside not in _PLAIN_BUILTINS
    return (module in sys.stdlib_module_names and module not in _PLAIN) or module in _OF_PYTHON_2


def _check_stored(path: Path) -> None:
    """Raise InputError unless tensors lie in the file as they are: it is mapped, and packed bytes are no weights."""
    try:
        with zipfile.ZipFile(path) as file:
            packed = [one.filename for one in file.infolist() if one.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"{path}: not a plain state dict ({error}); copy it again") from None
    if packed:
        raise InputError(
            f"{path}: not a plain state dict ({packed[0]} in it is compressed, which torch.save does not do); save its "
            "state_dict() as safetensors"
        )


def _reason(path: Path, text: str, name: str) -> str:
    """Why torch refuses, and what to do about it; `name` is that of what it does not allow."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return "a pointer of Git LFS; `git lfs pull` fetches the file itself"
    if blocked := _BLOCKED.search(text) or name:
        called = blocked if isinstance(blocked, str) else blocked[1]
        return f"it holds {called}, which no weights need: do not trust it"
    if "TorchScript" in text:
        return "a TorchScript program; save its state_dict() as safetensors"
    # What torch says of a damaged file is about its own code, or advises to load it with all of the file's.
    what = "damaged, or written by something else" if path.stat().st_size else "empty"
    return f"{what}; copy it again, or save its state_dict() as safetensors"


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Mapping) and depth <= _DEEPEST:
        return any(_holds_tensors(one, depth + 1) for one in value.values())
    return isinstance(value, Tensor)


def _named(loaded: Mapping[Any, Any], before: str, path: Path, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    for key, value in loaded.items():
        if isinstance(value, Tensor):
            yield f"{before}{key}", value
        elif isinstance(value, Mapping) and not (depth == 0 and _BESIDE.fullmatch(str(key))):
            if depth == _DEEPEST:
                raise _no_state(path)
            yield from _named(value, f"{before}{key}.", path, depth + 1)


def _no_state(path: Path) -> InputError:
    return InputError(f"{path}: found no state dict, expected names and tensors")
