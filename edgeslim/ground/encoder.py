"""Encoder: the canonical module of an architecture, of whichever kind that is."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.ground import convnext, vit
from edgeslim.ground.convnext import ConvNext
from edgeslim.ground.vit import Vit

AnyEncoder = Vit | ConvNext
"""A canonical encoder: normalised tiles in, features out."""


def new_encoder(arch: AnyArchitecture, *, batch_norm: bool = False) -> AnyEncoder:
    """A module of this shape, whose weights are not set yet; `batch_norm`: of a ViT, behind its stem's convolutions."""
    return Vit(arch, batch_norm=batch_norm) if isinstance(arch, Architecture) else ConvNext(arch)


def init_encoder(encoder: AnyEncoder, seed: int) -> None:
    """Set the weights that training begins with."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(encoder, Vit):
        vit.init_weights(encoder, generator)
    else:
        convnext.init_weights(encoder, generator)


def tokens_of(encoded: Tensor) -> Tensor:
    """What an encoder's `encode` gives, (B, N, d) tokens or (B, d, h, w) maps -> (B, N, d): of maps the places."""
    return encoded if encoded.ndim == 3 else encoded.flatten(2).transpose(1, 2)


def need_vit_shape(arch: AnyArchitecture, what: str) -> Architecture:
    """The same architecture. Raises InputError, naming `what` knows no other, where it is no vision transformer's."""
    if not isinstance(arch, Architecture):
        raise InputError(f"{what}: found a ConvNeXt V2, expected a vision transformer: it knows no other yet")
    return arch
