"""Masked: the masked autoencoder (arXiv 2111.06377), at any width.

The encoder sees a quarter of the patches; a light decoder, which is left behind later, paints the others from what it
says of them. The loss is the mean square of the hidden patches' pixels, each patch normalised by its own mean and
deviation over all bands. Both have LayerNorm alone.

Slimmable: every width has that loss, through the same decoder, which is not slimmed, with the same patches hidden; and
the tokens that a narrow one encodes are drawn to those of the full one, which are detached, by 1 - cosine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.ground.checkpoints.fold import sine_cosine
from edgeslim.ground.training import together
from edgeslim.ground.training.augment import Chance, dihedral
from edgeslim.ground.training.sandwich import distance, widths_of_step
from edgeslim.ground.training.unlabelled import OfUnlabelled
from edgeslim.ground.training.views import crop
from edgeslim.ground.vit import Block, Vit

DECODER_HEADS = 4
DECODER_DEPTH = 1
"""Blocks: one suffices for what features are good for (arXiv 2111.06377, table 1a)."""
_LOOKED_AT = 512
"""Tiles of the validation part that the log's loss is of, at most."""


def check_maskable(arch: Architecture) -> None:
    """Raise InputError where a hidden patch would be seen, or cannot be left out."""
    if arch.stem_channels or arch.patch_padding:
        raise InputError("--objective mae: found patches that overlap (stem_channels or patch_padding), expected none")
    if arch.positions != "absolute":
        raise InputError(f"--objective mae: found positions {arch.positions!r}, expected 'absolute'")


def patches_of(tiles: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, P, patch_size² C) pixels of each patch, row by row."""
    batch, bands, height, width = tiles.shape
    cut = tiles.view(batch, bands, height // patch_size, patch_size, width // patch_size, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch_size**2 * bands)


def normalise_patches(patches: Tensor) -> Tensor:
    """Each (B, P, values) patch to mean 0 and deviation 1; one without any variation to zeros."""
    mean, variance = patches.mean(2, keepdim=True), patches.var(2, keepdim=True, unbiased=False)
    return (patches - mean) * torch.rsqrt(variance + 1e-6)


def sines_of_places(side: int, dim: int) -> Tensor:
    """(side², dim) of the patches of a square tile, row by row: half of the dimensions say the row, half the column."""
    along = sine_cosine(torch.arange(side).float(), dim // 2)
    both = [along.repeat_interleave(side, 0), along.repeat(side, 1)]
    found = torch.cat(both, 1)
    return F.pad(found, (0, dim - found.shape[1]))


class Masked(nn.Module):
    """An encoder of normalised tiles with a decoder of half its width."""

    place: Tensor

    def __init__(self, encoder: Vit) -> None:
        super().__init__()
        arch = encoder.arch
        check_maskable(arch)
        head_dim = max(4, arch.dim // 2 // DECODER_HEADS)
        dim = head_dim * DECODER_HEADS
        own = Architecture(
            depth=DECODER_DEPTH,
            dim=dim,
            attention_heads=DECODER_HEADS,
            head_dim=head_dim,
            ffn_hidden=4 * dim,
            patch_size=arch.patch_size,
            tile_px=arch.tile_px,
            bands=arch.bands,
            class_token=False,
            pool="mean",
        )
        self.encoder = encoder
        self.enter = nn.Linear(arch.dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.blocks = nn.ModuleList(Block(own) for _ in range(DECODER_DEPTH))
        self.norm = nn.LayerNorm(dim)
        self.paint = nn.Linear(dim, arch.patch_size**2 * arch.bands)
        self.register_buffer("place", sines_of_places(arch.tile_px // arch.patch_size, dim)[None])

    def visible(self, tiles: Tensor, seen: Tensor) -> Tensor:
        """Tokens before the blocks of (B, C, H, W) normalised tiles: those without a place, and patches `seen` (B, k).

        (B, extra + k, d).
        """
        tokens = self.encoder.embed(tiles)
        extra = self.encoder.arch.tokens - self.encoder.arch.patches
        patches = tokens[:, extra:].gather(1, seen[:, :, None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, :extra], patches], 1)

    def decode(self, encoded: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """(B, extra + k, d) encoded tokens -> (B, P - k, values) of the patches that are `hidden` (B, P - k)."""
        kept = self.enter(encoded[:, self.encoder.arch.tokens - self.encoder.arch.patches :])
        masks = self.mask_token.expand(*hidden.shape, -1).to(kept.dtype)
        places = torch.cat([seen, hidden], 1)[:, :, None].expand(-1, -1, kept.shape[2])
        x = torch.cat([kept, masks], 1) + self.place.expand(len(kept), -1, -1).gather(1, places)
        for block in self.blocks:
            x = block(x)
        painted: Tensor = self.paint(self.norm(x[:, seen.shape[1] :]))
        return painted.float()


@dataclass(frozen=True)
class MaskedAutoencoding(OfUnlabelled):
    """Unlabelled tiles and what is learnt of them by a `Masked`."""

    def loss(self, model: nn.Module, _: nn.Module, chosen: Tensor, chance: Chance) -> Tensor:
        """Of one step on the tiles whose numbers are `chosen`, (B,)."""
        masked = _masked(model)
        tiles = crop(dihedral(self.train.normalised(chosen), chance), chance)
        order = self._order(masked, tiles, chance)
        widths = widths_of_step(masked.encoder.arch, self.recipe, chance)
        tiles, order = together.share(tiles), together.share(order)
        with torch.autocast(tiles.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return self._widths(masked, tiles, order, widths)

    def _order(self, model: Masked, tiles: Tensor, chance: Chance) -> Tensor:
        """(B, P) patches of each tile in random order: those that are seen come first."""
        return chance.rand(len(tiles), model.encoder.arch.patches).argsort(1)

    def _widths(self, model: Masked, tiles: Tensor, order: Tensor, widths: list[float]) -> Tensor:
        """Sum over widths, of (B, C, H, W) tiles."""
        arch = model.encoder.arch
        count = max(1, round((1 - self.recipe.masked_share) * arch.patches))
        seen, hidden = order[:, :count], order[:, count:]
        pixels = normalise_patches(patches_of(tiles, arch.patch_size))
        target = pixels.gather(1, hidden[:, :, None].expand(-1, -1, pixels.shape[2]))
        tokens = model.visible(tiles, seen)
        full, loss = None, tokens.new_zeros((), dtype=torch.float32)
        for width in widths:
            encoded = model.encoder.encode(tokens, width)
            loss = loss + F.mse_loss(model.decode(encoded, seen, hidden), target)
            if full is None:
                full = encoded.detach()
            else:
                loss = loss + self.recipe.distil_weight * distance(encoded, full)
        return loss

    def scores(self, average: nn.Module) -> dict[str, float]:
        """The loss on the validation part, at full width."""
        model, chance = _masked(average), Chance.seeded(self.recipe.seed, self.validation.images.device)
        with torch.no_grad():
            tiles = self.validation.normalised(slice(_LOOKED_AT))
            return {"1.0": float(self._widths(model, tiles, self._order(model, tiles, chance), [1.0]))}


def _masked(model: nn.Module) -> Masked:
    if not isinstance(model, Masked):
        raise TypeError(f"found {type(model).__name__}, expected the Masked that MaskedAutoencoding trains")
    return model
