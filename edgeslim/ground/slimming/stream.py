"""Stream: a checkpoint's file -> that of the slimmed encoder, tensor by tensor, in the memory of the largest one.

By method "first", which looks at no other tensor than the one that it cuts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.families.reading import Shape
from edgeslim.ground.checkpoints.checkpoint import OpenCheckpoint, head_names
from edgeslim.ground.checkpoints.convert import OWN, expected_shapes
from edgeslim.ground.slimming.first import first_of

_FLOAT32 = 4
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What was written."""

    architecture: AnyArchitecture
    """Of the slimmed encoder."""
    has_head: bool
    """Whether a head of this width was in the file."""
    parameters: int
    """Of the encoder."""
    before: int
    """Of the full one."""


def slim_file(
    source: OpenCheckpoint, width_multiplier: float, path: Path, metadata: Mapping[str, str], depth: int | None = None
) -> Streamed:
    """Write `source` slimmed to a width by "first", with the head of that width if there is one, as float32.

    With `depth` its first blocks alone, and no head: those in a file are for all blocks. The file appears whole or not
    at all. Raises InputError as `source.tensors` does, for a width or a depth out of its range, and where the place
    cannot be written.
    """
    arch = source.architecture
    slim = arch.at(width_multiplier, depth)
    head = source.heads.get(slim.units_of_width) if slim.depth == arch.depth else None
    shapes = {f"{OWN}{name}": shape for name, shape in expected_shapes(slim).items()}
    heads = {} if head is None else dict(zip(head_names(slim.units_of_width), head, strict=True))
    shapes |= {name: tuple(value.shape) for name, value in heads.items()}

    def tensors() -> Iterable[tuple[str, Tensor]]:
        for name, tensor in source.tensors():
            kept = first_of({name: tensor}, arch, slim)
            del tensor
            yield from ((f"{OWN}{name}", cut) for cut in kept.values())
            del kept  # before the next one is read
        yield from heads.items()

    _write(path, shapes, tensors(), {**metadata, "architecture": json.dumps(slim.to_dict())})
    counts = [sum(map(_count, expected_shapes(one).values())) for one in (slim, arch)]
    return Streamed(slim, head is not None, counts[0], counts[1])


def _count(shape: Shape) -> int:
    return int(torch.Size(shape).numel())


def _write(
    path: Path, shapes: Mapping[str, Shape], tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]
) -> None:
    """A safetensors file (https://huggingface.co/docs/safetensors#format) of float32, whatever order they come in."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offsets, end = {}, 0
    for name in sorted(shapes):
        offsets[name], end = end, end + _FLOAT32 * _count(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [offsets[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            start = file.tell()
            file.truncate(start + end)
            for name, tensor in tensors:
                file.seek(start + offsets[name])
                file.write(tensor.detach().contiguous().numpy().data)
                del tensor
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            partial.unlink()
