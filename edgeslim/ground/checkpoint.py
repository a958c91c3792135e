"""Checkpoints: files -> canonical state dicts, and back. No pickled code is ever run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.checkpoint_file import read_header
from edgeslim.errors import InputError
from edgeslim.family import all_families
from edgeslim.ground.convert import OWN, canonical_state, own_state
from edgeslim.ground.vit import Vit
from edgeslim.reading import recognise

_DEEPEST = 2
"""State dicts in a state dict."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An encoder's weights and the heads that were fitted on its features."""

    architecture: Architecture
    """Of the encoder in this file: full, or slimmed."""
    encoder: dict[str, Tensor]
    """Canonical state dict, float32."""
    heads: dict[int, tuple[Tensor, Tensor]]
    """Kept head_dim -> weight (classes, d) and bias (classes,) of the linear head at that width, float32."""

    def build(self) -> Vit:
        """The encoder as a module, in evaluation mode."""
        encoder = Vit(self.architecture)
        encoder.load_state_dict(self.encoder)
        return encoder.eval()

    def head(self, head_dim: int) -> tuple[Tensor, Tensor]:
        """The head of the width that keeps `head_dim` dimensions a head. Raises InputError if none was fitted."""
        if head_dim not in self.heads:
            have = ", ".join(str(j) for j in sorted(self.heads)) or "none"
            raise InputError(
                f"checkpoint: no head for {head_dim} dimensions a head (has: {have}); plan a width that has one"
            )
        return self.heads[head_dim]


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise InputError(f"{path}: not a whole safetensors file ({error}); copy it again") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a file that is not a plain state dict
        reason = str(error).strip().splitlines()[0][:120]
        raise InputError(f"{path}: not a plain state dict ({reason}); save its state_dict() as safetensors") from None
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: found no state dict, expected names and tensors")
    return dict(_named(loaded, "", path))


def _named(loaded: Mapping[Any, Any], before: str, path: Path, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a state dict; of one for each part (CROMA's), under the parts' names."""
    for key, value in loaded.items():
        if isinstance(value, Tensor):
            yield f"{before}{key}", value
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _named(value, f"{before}{key}.", path, depth + 1)
        else:
            raise InputError(f"{path}: found no state dict, expected names and tensors")


def read_checkpoint(
    path: Path, arch: Architecture, cards: Path | None = None, made_for: str | None = None
) -> Checkpoint:
    """Read a checkpoint of the architecture `arch`: edgeslim's own (encoder.*, heads.*), or one of any known family.

    `made_for` is the modality or the bands, where the checkpoint serves several. A linear classifier under `head.`
    becomes the head of the full width. Raises InputError where no family's key map understands it, where the encoder
    never saw what is asked, or naming the first tensor that is missing, left over, or of another shape.
    """
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected a checkpoint (.safetensors or a plain .pth)")
    tensors = _tensors(path)
    own = {key: tensors.pop(key).float() for key in list(tensors) if key.startswith("heads.")}
    if {"head.weight", "head.bias"} <= tensors.keys() and tensors["head.weight"].ndim == 2:
        own |= {f"heads.{arch.head_dim}.{kind}": tensors.pop(f"head.{kind}").float() for kind in ("weight", "bias")}
    if (state := own_state(tensors, arch)) is not None:
        return Checkpoint(arch, state, _heads(own, arch, path))
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    reading = recognise(shapes, all_families(cards), str(path), made_for, arch.bands)
    return Checkpoint(arch, canonical_state(reading, tensors, arch, str(path)), _heads(own, arch, path))


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors, none of which is read. Raises InputError as `read_checkpoint`."""
    if path.suffix == ".safetensors":
        return read_header(path)[0]
    return {key: tuple(value.shape) for key, value in _tensors(path).items()}


def _heads(tensors: Mapping[str, Tensor], arch: Architecture, path: Path) -> dict[int, tuple[Tensor, Tensor]]:
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


def write_checkpoint(checkpoint: Checkpoint, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
    """Write safetensors atomically, tensors as `dtype`. Raises InputError if the place cannot be written."""
    tensors = {f"{OWN}{k}": v.detach().to(dtype, copy=True).contiguous() for k, v in checkpoint.encoder.items()}
    for size, (weight, bias) in checkpoint.heads.items():
        tensors[f"heads.{size:02d}.weight"] = weight.detach().to(dtype, copy=True).contiguous()
        tensors[f"heads.{size:02d}.bias"] = bias.detach().to(dtype, copy=True).contiguous()
    partial = path.with_name(path.name + ".part")
    text = {**metadata, "architecture": json.dumps(checkpoint.architecture.to_dict())}
    try:
        save_file(tensors, partial, metadata=text)
        partial.chmod(0o644)  # safetensors writes for its owner alone; weights go into wheels
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error})") from None
