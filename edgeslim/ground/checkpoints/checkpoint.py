"""Checkpoints: files -> canonical state dicts, and back. No pickled code is ever run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import is_safetensors, read_header
from edgeslim.families.family import all_families
from edgeslim.families.reading import Shape
from edgeslim.families.recognition import recognise
from edgeslim.families.shards import from_shards, is_index, shards_of
from edgeslim.ground.checkpoints.convert import OWN, as_weights, canonical_tensors, own_names
from edgeslim.ground.checkpoints.pickled import pickled_tensors
from edgeslim.ground.encoder import AnyEncoder, new_encoder


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder's weights and the heads that were fitted on its features."""

    architecture: AnyArchitecture
    """Of the encoder in this file: full, or slimmed."""
    encoder: dict[str, Tensor]
    """Canonical state dict, float32."""
    heads: dict[int, tuple[Tensor, Tensor]]
    """Units of a width (Architecture.units_of_width) -> weight (classes, d), bias (classes,) of its head, float32."""
    heads_depth: int | None = None
    """Blocks that gave the features which the heads were fitted to; None: all."""

    def build(self) -> AnyEncoder:
        """The encoder as a module, in evaluation mode."""
        encoder = new_encoder(self.architecture)
        encoder.load_state_dict(self.encoder)
        return encoder.eval()

    def heads_behind(self, depth: int | None) -> dict[int, tuple[Tensor, Tensor]]:
        """The heads, where they were fitted to features behind so many blocks (None: all); otherwise none."""
        full = self.architecture.depth
        return self.heads if (self.heads_depth or full) == (depth or full) else {}

    def head(self, units: int, depth: int | None = None) -> tuple[Tensor, Tensor]:
        """The head of the width of so many units (Architecture.units_of_width), behind so many blocks (None: all).

        Raises InputError if none was fitted.
        """
        if self.heads and not self.heads_behind(depth):
            full = self.architecture.depth
            raise InputError(
                f"checkpoint: no head behind {depth or full} of {full} blocks, found some behind "
                f"{self.heads_depth or full}; fit one by `edgeslim head`, and give it by --head"
            )
        if units not in self.heads:
            have = ", ".join(str(j) for j in sorted(self.heads)) or "none"
            kind = "dimensions a head" if isinstance(self.architecture, Architecture) else "hidden channels"
            raise InputError(f"checkpoint: no head for {units} {kind} (has: {have}); plan a width that has one")
        return self.heads[units]


class _Stored(Mapping[str, Tensor]):
    """Tensors of a safetensors file, or of several. Each is read when it is asked for; no file stays mapped longer."""

    def __init__(self, path: Path) -> None:
        """`path` may be the index of several files."""
        self.shapes = read_header(path)[0]
        self._files = shards_of(path) if is_index(path) else dict.fromkeys(self.shapes, path)
        for file in set(self._files.values()) or {path}:
            try:
                with safe_open(file, framework="pt"):  # looks whether the file is as long as its header says
                    pass
            except SafetensorError as error:
                raise _torn(file, error) from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except SafetensorError as error:
            raise _torn(path, error) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _torn(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a whole safetensors file ({error}); copy it again")


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if is_safetensors(path):
        return _Stored(path)
    return from_shards(path, pickled_tensors) if is_index(path) else pickled_tensors(path)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    if isinstance(tensors, _Stored):
        return dict(tensors.shapes)
    return {name: tuple(value.shape) for name, value in tensors.items()}


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """A checkpoint that is understood, and not read yet but for its heads."""

    architecture: AnyArchitecture
    """Of the encoder in this file."""
    heads: dict[int, tuple[Tensor, Tensor]]
    """As of Checkpoint."""
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
    """Canonical names and tensors, float32, one after another: what lies around the blocks, then block after block.
    Raises InputError naming the first tensor that is missing, left over, or of another shape."""


def open_checkpoint(
    path: Path,
    arch: AnyArchitecture,
    cards: Path | None = None,
    made_for: str | None = None,
    gsd_m: float | None = None,
) -> OpenCheckpoint:
    """A checkpoint of the architecture `arch`: edgeslim's own (encoder.*, heads.*), or one of any known family.

    `made_for` is what is asked of a checkpoint that serves several kinds of tiles (families/asked.py), and `gsd_m` the
    card's ground sample distance. A linear classifier under `head.` becomes the head of the full width. Raises
    InputError where no family's key map understands it, or where the encoder never saw what is asked.
    """
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected a checkpoint (.safetensors or a plain .pth)")
    tensors = _tensors(path)
    shapes = _shapes(tensors)
    names = {name: name for name in shapes if name.startswith("heads.")}
    if {"head.weight", "head.bias"} <= shapes.keys() and len(shapes["head.weight"]) == 2:
        names |= {f"heads.{arch.units_of_width}.{kind}": f"head.{kind}" for kind in ("weight", "bias")}
    heads = _heads(
        {name: as_weights(tensors[stored], f"{path}: {stored}") for name, stored in names.items()}, arch, path
    )
    inside = {name: shape for name, shape in shapes.items() if name not in names.values()}
    if (own := own_names(inside, arch)) is not None:
        return OpenCheckpoint(
            arch, heads, lambda: ((name, as_weights(tensors[f"{OWN}{name}"], f"{path}: {OWN}{name}")) for name in own)
        )
    reading = recognise(inside, all_families(cards), str(path), made_for, arch.bands, gsd_m)
    return OpenCheckpoint(arch, heads, lambda: canonical_tensors(reading, tensors, arch, str(path)))


def read_checkpoint(
    path: Path,
    arch: AnyArchitecture,
    cards: Path | None = None,
    made_for: str | None = None,
    gsd_m: float | None = None,
) -> Checkpoint:
    """Read a checkpoint whole. Arguments and errors as of `open_checkpoint` and of what it gives."""
    opened = open_checkpoint(path, arch, cards, made_for, gsd_m)
    return Checkpoint(arch, dict(opened.tensors()), opened.heads)


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors, none of which is read. Raises InputError as `read_checkpoint`."""
    if is_safetensors(path):
        return read_header(path)[0]
    return _shapes(_tensors(path))


def _heads(tensors: Mapping[str, Tensor], arch: AnyArchitecture, path: Path) -> dict[int, tuple[Tensor, Tensor]]:
    heads: dict[int, tuple[Tensor, Tensor]] = {}
    for key in tensors:
        _, size, name = (*key.split("."), "", "")[:3]
        if not size.isdigit() or name not in ("weight", "bias"):
            raise InputError(f"{path}: {key}: expected heads.DIM.weight / heads.DIM.bias")
        if name == "weight":
            weight, bias = tensors[key], tensors.get(f"heads.{size}.bias")
            if bias is None or weight.ndim != 2 or weight.shape[1] != arch.dim or bias.shape != weight.shape[:1]:
                raise InputError(f"{path}: {key}: found {tuple(weight.shape)}, expected (n, {arch.dim}) and a bias")
            heads[int(size)] = (weight, bias)
    return heads


def head_names(units: int) -> tuple[str, str]:
    """Of weight and bias of the head of a width, in a file of edgeslim's own."""
    return f"heads.{units:02d}.weight", f"heads.{units:02d}.bias"


def write_checkpoint(checkpoint: Checkpoint, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
    """Write safetensors atomically, tensors as `dtype`. Raises InputError if the place cannot be written."""
    tensors = {f"{OWN}{k}": v.detach().to(dtype, copy=True).contiguous() for k, v in checkpoint.encoder.items()}
    for size, head in checkpoint.heads.items():
        for name, value in zip(head_names(size), head, strict=True):
            tensors[name] = value.detach().to(dtype, copy=True).contiguous()
    partial = path.with_name(path.name + ".part")
    text = {**metadata, "architecture": json.dumps(checkpoint.architecture.to_dict())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=text)
        partial.chmod(0o644)  # safetensors writes for its owner alone; weights go into wheels
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"{path}: cannot be written ({error})") from None
