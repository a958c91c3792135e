"""Checkpoint file: an encoder known by nothing but its weights. Names and shapes only, no torch.

Of safetensors the header says both (https://huggingface.co/docs/safetensors: eight bytes of its length, then JSON).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.families.family import all_families
from edgeslim.families.reading import Reading, Shape
from edgeslim.families.recognition import recognise
from edgeslim.families.sensor_bands import sensor_bands
from edgeslim.families.shards import INDEX_SUFFIXES, from_shards, is_index
from edgeslim.profile import FACTS, Profile, read_facts
from edgeslim.shelf import check_keys, read_value, shown

_LONGEST = 100_000_000
"""Bytes of a header, as safetensors itself allows."""


_POINTER = b"version https://git-lfs"


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, or the index of several, by its suffix, or by how it begins."""
    if is_index(path):
        return path.name.endswith(INDEX_SUFFIXES[0])
    if path.suffix == ".safetensors":
        return True
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return start[8:] == b"{" and 0 < int.from_bytes(start[:8], "little") <= _LONGEST


def _mistaken(path: Path) -> str:
    """What a file that is not one of safetensors may be instead."""
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        return "a pointer of Git LFS, not the file itself; `git lfs pull` fetches it"
    if start[:2] in (b"PK", b"\x80\x02"):
        return "not a safetensors file, but one of torch.save; call it .pth"
    return "not a whole safetensors file; copy it again"


def read_header(path: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """(shapes by name, metadata) of a safetensors file, or of several by their index. Raises InputError for others."""
    if is_index(path):
        return from_shards(path, lambda file: read_header(file)[0]), {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= _LONGEST else b""
            size = os.fstat(file.fileno()).st_size
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        shapes = {str(name): tuple(int(size) for size in entry["shape"]) for name, entry in header.items()}
        if size < 8 + length + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0):
            raise ValueError("shorter than its header says")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: {_mistaken(path)}") from None
    return shapes, {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def profile_of(
    path: Path,
    shapes: Mapping[str, Shape],
    metadata: Mapping[str, str],
    cards: Path | None = None,
    made_for: str | None = None,
) -> tuple[Profile, str]:
    """An encoder card for a checkpoint that has none, and one line that says what it was taken for.

    Its shape is what the tensors' shapes say; how many dimensions a head has they do not, and the family's card says.
    A file of edgeslim's own says all of it. `made_for` is what is asked of a checkpoint that serves several kinds of
    tiles (families/asked.py). Raises InputError where no family's key map understands the names, or where what is asked
    is none it saw.
    """
    inside = {name: shape for name, shape in shapes.items() if not name.startswith("heads.")}
    # A file of edgeslim's own says itself what it is: no key map is asked.
    reading = None if "architecture" in metadata else recognise(inside, all_families(cards), str(path), made_for)
    name = "edgeslim's own file" if reading is None else reading.family.name
    if made_for is not None and reading is None:
        raise InputError(f"{path}: found {shown(made_for)} asked of {name}, which takes one kind of tile")
    if reading is None:
        architecture, said = _own(path, inside, metadata["architecture"]), "edgeslim's own, as it says itself"
    else:
        architecture = _shape_of(reading, path)
        said = (
            f"{reading.family.name} ({reading.family.id}), {len(inside)} tensors"
            + (f", made for {reading.made_for}" if reading.made_for else "")
            + f"; {_taken(architecture)} are taken for granted, which shapes do not tell: a card of your own can say "
            "otherwise"
        )
    profile = Profile(
        id=f"{path}:{made_for}" if made_for else str(path),
        aliases=(),
        name=f"{name}: {path.name}",
        source=str(path),
        architecture=architecture,
        checkpoint=path,
        checkpoint_sha256=None,
        scores=(),
        weights_tried="that file",
        made_for=made_for,
        method=metadata.get("method") if reading is None else None,
        **_facts(path, metadata, architecture)
        | ({} if reading is None else {"gsd_m": reading.gsd_m, "bands": sensor_bands(reading.band_names)}),
    )
    return profile, f"{path}: {said}"


def _shape_of(reading: Reading, path: Path) -> AnyArchitecture:
    """What a checkpoint's tensors make. Raises InputError, naming the file, where they make no encoder."""
    try:
        return reading.architecture()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _taken(architecture: AnyArchitecture) -> str:
    """What shapes do not tell."""
    if isinstance(architecture, Architecture):
        heads = architecture.attention_heads
        return f"{heads} {'head' if heads == 1 else 'heads'} of {architecture.head_dim}"
    return f"tiles of {architecture.tile_px} px"


def _facts(path: Path, metadata: Mapping[str, str], architecture: AnyArchitecture) -> dict[str, Any]:
    """What the card of the encoder that was slimmed said of bands, values, classes and licence.

    Of a file that is not edgeslim's own nothing is known.
    """
    if "architecture" not in metadata or "card" not in metadata:
        return read_facts({}, str(path))
    try:
        card = json.loads(metadata["card"])
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise InputError(f"{path}: its own card is not JSON; write it again by `edgeslim slim`")
    check_keys(card, FACTS, f"{path}: card")
    facts = read_facts(card, f"{path}: card")
    if facts["bands"] and len(facts["bands"]) != architecture.bands:
        raise InputError(f"{path}: card: found {len(facts['bands'])} bands, expected {architecture.bands}")
    return facts


def _own(path: Path, shapes: Mapping[str, Shape], text: str) -> AnyArchitecture:
    """What a file of edgeslim's own says of itself, if its tensors do not say otherwise."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: its own architecture is not JSON; write it again by `edgeslim slim`") from None
    architecture: AnyArchitecture = read_value(AnyArchitecture, found, str(path))
    expected: dict[str, Shape]
    if isinstance(architecture, Architecture):
        last = architecture.depth - 1
        head_dim, ffn_hidden = architecture.inner_sizes[0][0], architecture.inner_sizes[last][1]
        expected = {
            "encoder.blocks.0.attn.qkv.weight": (3 * architecture.attention_heads * head_dim, architecture.dim),
            f"encoder.blocks.{last}.mlp.fc1.weight": (ffn_hidden, architecture.dim),
        }
    else:
        stages = zip(architecture.stage_sizes, architecture.dims, strict=True)
        expected = {
            f"encoder.stages.{stage}.blocks.{len(sizes) - 1}.mlp.fc1.weight": (sizes[-1], dim, 1, 1)
            for stage, (sizes, dim) in enumerate(stages)
        }
    for key, shape in expected.items():
        if shapes.get(key) != shape:
            raise InputError(f"{path}: {key}: found {shapes.get(key)}, expected {shape}, as it says itself")
    return architecture
