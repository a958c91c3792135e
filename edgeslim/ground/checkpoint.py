"""Checkpoints: files -> canonical state dicts, and back. No pickled code is ever run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.vit import Vit


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
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise InputError(f"{path}: found no state dict, expected names and tensors")
    return {str(key): value for key, value in loaded.items()}


def read_checkpoint(path: Path, arch: Architecture) -> Checkpoint:
    """Read a checkpoint of the architecture `arch`: edgeslim's own (encoder.*, heads.*), or plain timm ViT keys.

    A classifier under `head.` in a timm file becomes the head of the full width. Raises InputError naming the first
    key that is missing, left over, or of another shape.
    """
    if not path.is_file():
        raise InputError(f"{path}: found no such file, expected a checkpoint (.safetensors or a plain .pth)")
    tensors = {key: value.float() for key, value in _tensors(path).items()}
    if any(key.startswith("encoder.") for key in tensors):
        encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        rest = {k: v for k, v in tensors.items() if not k.startswith("encoder.")}
    else:
        encoder = {k: v for k, v in tensors.items() if not k.startswith("head.")}
        rest = {k.replace("head.", f"heads.{arch.head_dim}."): v for k, v in tensors.items() if k.startswith("head.")}
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Vit(arch).state_dict().items()}
    for key, shape in expected.items():
        if key not in encoder:
            raise InputError(
                f"{path}: {key} is missing, expected this encoder's {len(expected)}; is it another family?"
            )
        if (found := tuple(encoder[key].shape)) != shape:
            raise InputError(f"{path}: {key} has shape {found}, expected {shape}; wrong encoder card?")
    if left := sorted(set(encoder) - set(expected)):
        raise InputError(f"{path}: {left[0]} and {len(left) - 1} more are not of this encoder; wrong encoder card?")
    heads: dict[int, tuple[Tensor, Tensor]] = {}
    for key in rest:
        kind, size, name = (*key.split("."), "", "")[:3]
        if kind != "heads" or not size.isdigit() or name not in ("weight", "bias"):
            raise InputError(f"{path}: {key}: expected encoder.* or heads.DIM.weight / heads.DIM.bias")
        if name == "weight":
            weight, bias = rest[key], rest.get(f"heads.{size}.bias")
            if bias is None or weight.ndim != 2 or weight.shape[1] != arch.dim or bias.shape != weight.shape[:1]:
                raise InputError(f"{path}: {key}: found {tuple(weight.shape)}, expected (n, {arch.dim}) and a bias")
            heads[int(size)] = (weight, bias)
    return Checkpoint(arch, encoder, heads)


def write_checkpoint(checkpoint: Checkpoint, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
    """Write safetensors atomically, tensors as `dtype`. Raises InputError if the place cannot be written."""
    tensors = {f"encoder.{k}": v.detach().to(dtype, copy=True).contiguous() for k, v in checkpoint.encoder.items()}
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
