"""Convert: the tensors of a family's checkpoint -> the canonical state dict, as its key map says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import USUAL_NORM_EPS, Architecture
from edgeslim.errors import InputError
from edgeslim.family import PARTS, Reading
from edgeslim.ground.vit import Vit


def canonical_state(
    reading: Reading, tensors: Mapping[str, Tensor], arch: Architecture, where: str
) -> dict[str, Tensor]:
    """The state dict of `Vit(arch)`, float32, of the tensors that `reading` read.

    Positions are resampled (bicubic, as timm does) where `arch` takes another tile than they were made for; a family
    whose class token has no position gets zeros for it. Raises InputError naming `where` and the first tensor that is
    missing, left over or of another shape.
    """
    # A card that says nothing of it has the usual one; one that does, or a file of edgeslim's own, is believed.
    if arch.norm_eps == USUAL_NORM_EPS != reading.family.norm_eps:
        raise InputError(
            f"{where}: found {reading.family.id}, whose LayerNorms add {reading.family.norm_eps:g}, and "
            f"architecture.norm_eps {arch.norm_eps:g} in the card; set them alike"
        )
    state = {}
    for name, sources in reading.pieces.items():
        ordered = sorted(sources, key=lambda source: PARTS.index(source.part) if source.part else 0)
        made = [_made(tensors[source.name].float(), source.make, arch, f"{where}: {source.name}") for source in ordered]
        state[name] = made[0] if len(made) == 1 else torch.cat(made)
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Vit(arch).state_dict().items()}
    if "pos_embed" in state:
        state["pos_embed"] = _positions(state["pos_embed"], arch)
    for key, shape in expected.items():
        if key not in state and any(re.fullmatch(text, key) for text in reading.family.zeros):
            state[key] = torch.zeros(shape)
        if key not in state:
            raise InputError(f"{where}: {key} is missing, expected this encoder's {len(expected)}; wrong encoder card?")
        if (found := tuple(state[key].shape)) != shape:
            raise InputError(f"{where}: {key} has shape {found}, expected {shape}; wrong encoder card?")
    if left := sorted(set(state) - set(expected)):
        raise InputError(f"{where}: {left[0]} and {len(left) - 1} more are not of this encoder; wrong encoder card?")
    return state


def _made(tensor: Tensor, make: str, arch: Architecture, where: str) -> Tensor:
    if make == "convolution":
        side, bands = arch.patch_size, arch.bands
        if tensor.ndim != 2 or tensor.shape[1] != side * side * bands:
            raise InputError(f"{where}: found shape {tuple(tensor.shape)}, expected (d, {side} x {side} x {bands})")
        return tensor.view(-1, side, side, bands).permute(0, 3, 1, 2).contiguous()
    if make == "first frame":
        if tensor.ndim != 5 or tensor.shape[2] != 1:
            raise InputError(f"{where}: found shape {tuple(tensor.shape)}, expected (d, bands, 1, patch, patch)")
        return tensor[:, :, 0].contiguous()
    if make == "first positions":
        return tensor[:, : arch.patches + int(arch.class_token)].contiguous()
    return tensor


def _positions(positions: Tensor, arch: Architecture) -> Tensor:
    """(1, N, d) -> (1, class token + patches, d) of the tile that `arch` takes."""
    before, grid = int(arch.class_token), positions.shape[1]
    side = math.isqrt(grid)
    own = 0 if side * side == grid else before
    first, patches = positions[:, :own], positions[:, own:]
    side, wanted = math.isqrt(patches.shape[1]), arch.tile_px // arch.patch_size
    if side * side == patches.shape[1] and side != wanted:
        square = patches.view(1, side, side, -1).permute(0, 3, 1, 2)
        square = F.interpolate(square, (wanted, wanted), mode="bicubic", antialias=True, align_corners=False)
        patches = square.permute(0, 2, 3, 1).flatten(1, 2)
    if own < before:
        first = torch.zeros(1, before, positions.shape[2])
    return torch.cat([first, patches], dim=1)
