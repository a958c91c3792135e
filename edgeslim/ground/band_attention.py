"""Band attention: patches of a tile whose bands are mixed, patch by patch, before they are embedded (Panopticon)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeslim.architecture import Architecture


class BandAttention(nn.Module):
    """Tile -> patch tokens: each head mixes a patch's bands into one by a softmax over them, then all are embedded.

    Panopticon (Waldmann et al., arXiv 2503.10845, section 3.1) embeds each band by one convolution into a wide token,
    adds what tells the band, and lets a learned query attend to the tokens of a patch. The query is the same for every
    patch and nothing but products stands between the pixels and the values, so that the whole is the function here, of
    products that are multiplied out once (ground/checkpoints/fold.py): a score is a product of the patch itself, a
    head's output one of the patch that its weights mix. `score` and `band_score` are the scores' slope and offset,
    `proj` embeds the mixed patches, and `band_shift` adds what the bands are told by, weighted alike.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.patch_size, heads = arch.patch_size, arch.band_attention_heads
        values = arch.patch_size**2
        self.score = nn.Linear(values, heads, bias=False)
        self.band_score = nn.Parameter(torch.zeros(heads, arch.bands))
        self.proj = nn.Linear(heads * values, arch.dim)
        self.band_shift = nn.Linear(heads * arch.bands, arch.dim, bias=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, P, d)."""
        batch, bands, height, width = tiles.shape
        side = self.patch_size
        patches = tiles.view(batch, bands, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(batch, (height // side) * (width // side), bands, side * side)
        weights = (self.score(patches).transpose(2, 3) + self.band_score).softmax(-1)
        embedded: Tensor = self.proj(torch.matmul(weights, patches).flatten(2)) + self.band_shift(weights.flatten(2))
        return embedded
