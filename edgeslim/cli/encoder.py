"""Which encoder `--encoder` names: a card, or a checkpoint that has none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rich.markup import escape

from edgeslim.cli.console import stderr_console
from edgeslim.errors import InputError, shown
from edgeslim.families.shards import INDEX_SUFFIXES
from edgeslim.profile import Profile, take_profile

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".pt.tar", ".pyth", *INDEX_SUFFIXES)
"""What makes the name of an encoder that of a file."""
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_FILE = re.compile(rf"(?P<path>.*(?:{'|'.join(map(re.escape, SUFFIXES))}))(?::(?P<made_for>.*))?", re.DOTALL)
"""A file, and behind a colon what it is asked for (edgeslim/families/asked.py)."""


def encoder_of(name: str, cards: Path | None = None) -> Profile:
    """The card called `name`, or one made for the checkpoint at that path; what that was taken for goes to stderr.

    HUB:NAME is a checkpoint of a hub that was fetched before. Behind the path, or the name, and a colon stands the
    modality or the bands, and the ground sample distance, that are asked of a checkpoint that serves several:
    "dofa.pth:B04,B03,B02", "clay.ckpt:B04,B03,B02@10m". Raises UnknownName with the nearest cards, InputError for a
    file that no family's key map understands or that never saw what is asked, MissingExtra where the ground would be
    needed to read one that is no safetensors.
    """
    folder, colon, asked = name.partition(":")
    if os.path.isdir(folder):  # which a name that is too long for a file's is no error of
        name = f"{_weights_in(Path(folder))}{colon}{asked}"
    file = _FILE.fullmatch(name)
    if file is None and ":" in name:
        return _of_hub(name, cards)
    if file is None:
        return take_profile(name, cards)
    from edgeslim.families.checkpoint_file import is_safetensors, profile_of, read_header

    path, made_for = Path(file["path"]), file["made_for"]
    if not os.path.isfile(path):
        raise InputError(f"--encoder {name}: found no such file, expected a checkpoint, or the name of a card")
    if is_safetensors(path):
        shapes, metadata = read_header(path)
    else:
        from edgeslim.cli.need_ground import need_ground

        need_ground()
        from edgeslim.ground.checkpoints.checkpoint import shapes_of

        shapes, metadata = shapes_of(path), {}
    profile, said = profile_of(path, shapes, metadata, cards, made_for)
    stderr_console().print(escape(shown(said)))
    return profile


def _weights_in(folder: Path) -> Path:
    """The checkpoint of a folder as Hugging Face's hub keeps one: config.json and the weights, or an index of them."""
    for name in _IN_FOLDER:
        if (path := folder / name).is_file():
            return path
    for suffix in INDEX_SUFFIXES:
        for path in sorted(folder.glob(f"*{suffix}")):
            return path
    raise InputError(f"--encoder {folder}: found a folder without {' or '.join(_IN_FOLDER)}, expected a checkpoint")


def _of_hub(name: str, cards: Path | None) -> Profile:
    from dataclasses import replace

    from edgeslim.families.hub import all_hubs, asked_of_hub

    asked = asked_of_hub(name, cards)
    if asked is None:
        hubs = ", ".join(hub.id for hub in all_hubs(cards))
        raise InputError(f"--encoder {name}: found no hub {name.partition(':')[0]!r}, expected one of {hubs}")
    if not asked.path.is_file():
        raise InputError(
            f"--encoder {name}: was not fetched yet; `edgeslim encoders fetch {asked.name}` takes it from "
            f"{asked.file.url}"
        )
    found = encoder_of(f"{asked.path}:{asked.made_for}" if asked.made_for else str(asked.path), cards)
    licence = asked.file.licence if found.licence == "unknown" else found.licence
    return replace(found, id=name, name=f"{found.name.partition(':')[0]}: {asked.name}", licence=licence)
