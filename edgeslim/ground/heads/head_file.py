"""Head file: a fitted head and all that an export needs of it, as one small safetensors. Nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import read_header
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.head_card import LINEAR, HeadCard
from edgeslim.known import KNOWN_NAME, Known
from edgeslim.onboard.known import array_shapes
from edgeslim.profile import Profile
from edgeslim.shelf import read_record, table_once
from edgeslim.whole import new_file, require_makeable

SCHEMA = 1
KEY = "edgeslim_head"
"""Of the record in the file's metadata."""


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A head, read back."""

    card: HeadCard
    """What it is."""
    tensors: dict[str, Tensor]
    """"weight" (classes, d) and "bias" (classes,) of a linear head; "bank" (n, d) and "has" (n, classes) of "knn".

    With limits, besides, those of edgeslim.onboard.known.Distances.
    """

    def known(self) -> tuple[Known, dict[str, NDArray[np.float32]]] | None:
        """How it tells tiles unlike those that it was fitted on, and what with; None: it does not."""
        card = self.card
        if card.unknown_share is None:
            return None
        shapes = array_shapes(card.architecture.dim, len(card.classes), len(card.bands))
        arrays = {name: self.tensors[name].float().numpy() for name in shapes}
        return Known(KNOWN_NAME, card.fitted_tiles, card.unknown_share), arrays

    def at_work(self, profile: Profile, checkpoint: Checkpoint, digest: str) -> tuple[Profile, Checkpoint]:
        """The encoder's card and full-width weights with this head, for an export.

        Raises InputError for a head that cannot fly, or weights that it was not fitted on.
        """
        card = self.card
        if card.kind not in LINEAR:
            raise InputError(
                f"head: found {card.kind}, expected {' or '.join(LINEAR)}: every tile would be held against all "
                f"{len(self.tensors['bank'])} that it was fitted on; fit one of those"
            )
        if digest != card.checkpoint_sha256:
            raise InputError(
                f"head: was fitted on weights with SHA-256 {card.checkpoint_sha256[:12]}…, found {digest[:12]}…; give "
                "the checkpoint that `edgeslim head` had"
            )
        file = profile.checkpoint
        size = card.architecture.at(card.width_multiplier).units_of_width
        flying = replace(
            profile,
            # Of an encoder without a card the path is its id, which means nothing elsewhere.
            id=file.stem if file is not None and profile.id == str(file) else profile.id,
            architecture=card.architecture,
            gsd_m=card.gsd_m,
            bands=card.bands,
            radiometry=card.radiometry,
            classes=card.classes,
            land_share_source=card.land_share_source,
            scores=(),
        )
        heads = {size: (self.tensors["weight"], self.tensors["bias"])}
        return flying, replace(checkpoint, heads=heads, heads_depth=card.depth)


def write_head(card: HeadCard, tensors: Mapping[str, Tensor], path: Path, *, overwrite: bool) -> None:
    """Write a head file, whole or not at all.

    Raises InputError where something else stands there, or it cannot be written.
    """
    require_place(path, overwrite=overwrite)
    record = {"schema": SCHEMA, **asdict(card), "architecture": card.architecture.to_dict()}
    if card.depth is None:  # as heads were written before depth was cut
        del record["depth"]
    record["radiometry"] = card.radiometry.to_dict()
    data = save({k: v.contiguous() for k, v in tensors.items()}, metadata={KEY: json.dumps(record)})
    with new_file(path, "-o") as file:
        file.write(data)


def require_place(path: Path, *, overwrite: bool) -> None:
    """Raise InputError unless a head may be written to `path`: nothing stands there, or a head and `overwrite`."""
    if path.suffix != ".safetensors":
        raise InputError(f"-o {path}: found suffix {path.suffix!r}, expected .safetensors")
    require_makeable(path, "-o")
    if not path.exists():
        return
    if not path.is_file() or not _is_head(path):
        raise InputError(f"-o {path}: exists already and is no head; choose another name")
    if not overwrite:
        raise InputError(f"-o {path}: exists already; choose another name or add --overwrite")


def _is_head(path: Path) -> bool:
    try:
        return KEY in read_header(path)[1]
    except InputError:
        return False


def read_head(path: Path) -> HeadFile:
    """Read a head file. Raises InputError where it is none, or does not hold what it says."""
    if not path.is_file():
        raise InputError(f"--head {path}: found no such file, expected one that `edgeslim head` wrote")
    metadata = read_header(path)[1]
    if KEY not in metadata:
        raise InputError(f"--head {path}: is no head; expected a file that `edgeslim head` wrote")
    try:
        record: Any = json.loads(metadata[KEY], object_pairs_hook=partial(table_once, f"--head {path}"))
        schema = record.pop("schema")
    except (ValueError, AttributeError, KeyError):
        raise InputError(f"--head {path}: damaged; fit it again by `edgeslim head`") from None
    if schema != SCHEMA:
        raise InputError(f"--head {path}: schema: found {schema}, expected {SCHEMA}; fit it again with this edgeslim")
    card = read_record(HeadCard, record, f"--head {path}")
    card.radiometry.require_bands(len(card.bands), f"--head {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(f"--head {path}: not a whole file ({error}); copy it again") from None
    _check(card, tensors, f"--head {path}")
    return HeadFile(card, tensors)


def _check(card: HeadCard, tensors: Mapping[str, Tensor], where: str) -> None:
    count, dim = len(card.classes), card.architecture.dim
    expected: dict[str, tuple[int, ...]] = {"weight": (count, dim), "bias": (count,)}
    if card.kind not in LINEAR:
        bank = tensors.get("bank", torch.empty(0))
        expected = {"bank": (len(bank), dim), "has": (len(bank), count)}
    if card.unknown_share is not None:
        expected |= array_shapes(dim, count, len(card.bands))
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape or not bool(torch.isfinite(tensors[name].float()).all()):
            raise InputError(f"{where}: {name}: found shape {found}, expected {shape}, finite; fit it again")
