"""Convert: the tensors of a family's checkpoint -> the canonical state dict, as its key map says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeslim.architecture import NORM_OF_MEAN, USUAL_NORM_EPS, Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.families.family import BRANCH, STACKED, TERM, ungrouped
from edgeslim.families.reading import Reading, Shape, Source, absent_parts
from edgeslim.ground.checkpoints.fold import folded
from edgeslim.ground.encoder import new_encoder
from edgeslim.ground.vit import side_by_side

_BLOCKS = ("blocks.", "stages.")
"""What the names of tensors inside blocks begin with."""
_QKV = ".attn.qkv."
OWN = "encoder."
"""What the names of an encoder's tensors begin with in a file of edgeslim's own."""


def canonical_tensors(
    reading: Reading, tensors: Mapping[str, Tensor], arch: AnyArchitecture, where: str
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the state dict of `new_encoder(arch)`, float32, made of those that `reading` read.

    What lies around the blocks comes first, as folds and positions need it together; then the blocks, tensor by tensor,
    so that an encoder need never be in memory whole. Positions are resampled (bicubic, as timm does) where `arch` takes
    another tile than they were made for; a family whose class token has no position gets zeros for it.

    Raises InputError naming `where` and the first tensor that is missing, left over or of another shape.
    """
    _check_facts(reading, arch, where)
    expected = expected_shapes(arch)
    names = [name for name in reading.pieces if not name.startswith(_BLOCKS)]
    around = {name: _joined(reading, name, tensors, arch, where) for name in names}
    if isinstance(arch, Architecture):
        around = folded(around, reading, arch, where)
        if any(ungrouped(name) == "pos_embed" for name in around):
            around = _positions(around, arch, where)
    found = {*around, *(name for name in reading.pieces if name.startswith(_BLOCKS))}
    for key, shape in expected.items():
        tensor = around.pop(key, None)
        if tensor is None and key in reading.pieces and key.startswith(_BLOCKS):
            tensor = _joined(reading, key, tensors, arch, where)
            if isinstance(arch, Architecture) and reading.family.positions == "rope" and _QKV in key:
                tensor = _paired(tensor, arch, f"{where}: {key}")
        for texts, filled in ((reading.family.zeros, torch.zeros), (reading.family.ones, torch.ones)):
            if tensor is None and any(re.fullmatch(text, ungrouped(key)) for text in texts):
                tensor = filled(shape)
        if tensor is None:
            raise InputError(f"{where}: {key} is missing, expected this encoder's {len(expected)}; wrong encoder card?")
        if tuple(tensor.shape) != shape:
            raise InputError(f"{where}: {key} has shape {tuple(tensor.shape)}, expected {shape}; wrong encoder card?")
        yield key, tensor
        del tensor
    if left := sorted(found - set(expected)):
        raise InputError(f"{where}: {left[0]} and {len(left) - 1} more are not of this encoder; wrong encoder card?")


def own_names(shapes: Mapping[str, Shape], arch: AnyArchitecture) -> list[str] | None:
    """Names of the tensors of `new_encoder(arch)` in a file of edgeslim's own; None where it is another's.

    It needs no key map: its names are the canonical ones under `encoder.`, whatever family the encoder came from.
    """
    expected = expected_shapes(arch)
    if dict(shapes) != {f"{OWN}{name}": shape for name, shape in expected.items()}:
        return None
    return list(expected)


def expected_shapes(arch: AnyArchitecture) -> dict[str, Shape]:
    """Names and shapes of the state dict of `new_encoder(arch)`."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in new_encoder(arch).state_dict().items()}


def _check_facts(reading: Reading, arch: AnyArchitecture, where: str) -> None:
    """What no shape tells must stand in the encoder's card as in the family's, or the features are others.

    A card that says nothing of it has the usual; one that does, or a file of edgeslim's own, is believed.
    """
    family = reading.family
    if (family.kind == "vit") != isinstance(arch, Architecture):
        kinds = ("a ViT", "a ConvNeXt V2") if family.kind == "vit" else ("a ConvNeXt V2", "a ViT")
        raise InputError(f"{where}: found {family.id}, {kinds[0]}, expected the card's {kinds[1]}; wrong encoder card?")
    if arch.norm_eps == USUAL_NORM_EPS != family.norm_eps:
        found = f"whose LayerNorms add {family.norm_eps:g}, and architecture.norm_eps {arch.norm_eps:g}"
    elif not isinstance(arch, Architecture):
        if family.grn_eps == arch.grn_eps:
            return
        found = f"whose GRN adds {family.grn_eps:g}, and architecture.grn_eps {arch.grn_eps:g}"
    elif arch.patch_padding == 0 != family.patch_padding:
        found = f"whose patches begin {family.patch_padding} px before the tile, and no architecture.patch_padding"
    elif family.pool in NORM_OF_MEAN and family.pool != arch.pool:
        found = f"whose last LayerNorm is of the mean, and architecture.pool {arch.pool!r}, not {family.pool!r},"
    elif arch.activation == "gelu" != family.activation:
        found = f"whose activation is {family.activation}, and no architecture.activation"
    elif arch.positions == "absolute" != family.positions:
        found = f"whose positions are {family.positions}, and no architecture.positions"
    elif reading.band_groups != len(arch.band_groups):
        found = f"whose bands are in {reading.band_groups or 1} groups, and architecture.band_groups of "
        found += f"{len(arch.band_groups) or 1}"
    elif arch.band_attention_heads == 0 != family.band_attention_heads:
        found = (
            f"whose bands are mixed by {family.band_attention_heads} heads, and no architecture.band_attention_heads"
        )
    else:
        return
    raise InputError(f"{where}: found {family.id}, {found} in the card; set them alike")


def _joined(reading: Reading, name: str, tensors: Mapping[str, Tensor], arch: AnyArchitecture, where: str) -> Tensor:
    """One tensor of those that make it: itself, q, k and v stacked, the sum of its terms, or branches side by side."""
    sources = reading.pieces[name]
    if sources[0].part == BRANCH:
        return _of_branches(reading, name, tensors, where)
    made = [_made(_taken(tensors, source, where), source.make, arch, f"{where}: {source.name}") for source in sources]
    if sources[0].part is None:
        return made[0]
    if sources[0].part == TERM:
        total = made[0]
        for term in made[1:]:
            total = total + term
        return total
    parts = dict.fromkeys(absent_parts(reading.family, name, sources), torch.zeros_like(made[0]))
    parts |= {source.part: value for source, value in zip(sources, made, strict=True) if source.part}
    return torch.cat([parts[part] for part in STACKED])


def _taken(tensors: Mapping[str, Tensor], source: Source, where: str) -> Tensor:
    return as_weights(tensors[source.name], f"{where}: {source.name}")


def as_weights(tensor: Tensor, where: str) -> Tensor:
    """A tensor of a file in float32. Raises InputError naming `where` for other than finite numbers in plain order."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or not tensor.is_floating_point():
        kind = "no values" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
        layout = "" if tensor.layout == torch.strided else f", {str(tensor.layout).removeprefix('torch.')}"
        raise InputError(f"{where}: found {kind}{layout}, expected weights in floating point; save them so")
    values = tensor.float()
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{where}: found NaN or infinite weights, expected finite ones; was the training well?")
    return values


def _of_branches(reading: Reading, name: str, tensors: Mapping[str, Tensor], where: str) -> Tensor:
    """One tensor of a fused block. Where each branch has a LayerNorm its scale and shift go into the layer behind it.

    W (g * n + b) + c = (W diag(g)) n + (W b + c), of the normalised n that all branches share.
    """

    def each(canonical: str) -> list[Tensor]:
        sources = reading.pieces.get(canonical, [])
        if any(source.part != BRANCH for source in sources):
            return []
        return [_taken(tensors, source, where) for source in sorted(sources, key=lambda source: source.name)]

    block, layer, kind = name.rsplit(".", 2)[0], *name.split(".")[-2:]
    if layer in ("norm1", "norm2"):
        like = each(name)[0]
        return torch.ones_like(like) if kind == "weight" else torch.zeros_like(like)
    found = each(name)
    if layer in ("qkv", "fc1", "fc3"):
        norm = f"{block.rpartition('.')[0]}.{'norm1' if layer == 'qkv' else 'norm2'}"
        if kind == "weight" and (scales := each(f"{norm}.weight")):
            found = [weight * scale for weight, scale in zip(found, scales, strict=True)]
        if kind == "bias" and (shifts := each(f"{norm}.bias")):
            weights = each(f"{block}.{layer}.weight")
            found = [c + w @ b for c, w, b in zip(found, weights, shifts, strict=True)]
    return side_by_side(layer, kind, found)


def _paired(qkv: Tensor, arch: Architecture, where: str) -> Tensor:
    """(3 x heads x dk, ...) of q, k and v in halves -> q and k in fours: a pair of rows, then one of columns.

    The family turns dimension i with i + dk / 2, those of rows in the first quarter of each half and those of columns
    in the second. A product of q and k is the same in any order that both have. Raises InputError where the rows are
    not those of `arch`.
    """
    dk, heads = arch.head_dim, arch.attention_heads
    if qkv.shape[0] != 3 * heads * dk or dk != arch.rope_dim:
        raise InputError(f"{where}: found {qkv.shape[0]} rows, expected 3 x {heads} heads of {arch.rope_dim}")
    order = torch.arange(dk).view(2, 2, dk // 4).permute(2, 1, 0).flatten()
    rows = qkv.view(3, heads, dk, *qkv.shape[1:])
    return torch.cat([rows[:2, :, order], rows[2:]]).flatten(0, 2)


def _made(tensor: Tensor, make: str, arch: AnyArchitecture, where: str) -> Tensor:
    if make == "one pixel":
        return tensor[..., None, None] if tensor.ndim == 2 else tensor
    if make == "flat":
        return tensor.flatten()
    if make == "sparse kernel":
        side = math.isqrt(len(tensor))
        if side * side != len(tensor):
            raise InputError(f"{where}: found {len(tensor)} places, expected those of a square kernel")
        # Its places come column by column.
        by_channel = tensor.view(side, side, -1, tensor.shape[-1])
        return by_channel.permute(3, 2, 1, 0).contiguous()
    return _made_of_vit(tensor, make, arch, where) if isinstance(arch, Architecture) else tensor


def _made_of_vit(tensor: Tensor, make: str, arch: Architecture, where: str) -> Tensor:
    if make in ("convolution", "convolution of bands"):
        side, bands = arch.patch_size, arch.bands
        if arch.band_groups and tensor.ndim == 2:  # how many of them this group has, its shape is held against
            bands = tensor.shape[1] // side**2
        if tensor.ndim != 2 or tensor.shape[1] != side * side * bands:
            raise InputError(f"{where}: found shape {tuple(tensor.shape)}, expected (d, {side} x {side} x {bands})")
        if make == "convolution of bands":
            return tensor.view(-1, bands, side, side)
        return tensor.view(-1, side, side, bands).permute(0, 3, 1, 2).contiguous()
    if make == "first frame":
        if tensor.ndim != 5 or tensor.shape[2] != 1:
            raise InputError(f"{where}: found shape {tuple(tensor.shape)}, expected (d, bands, 1, patch, patch)")
        return tensor[:, :, 0].contiguous()
    if make == "frames as bands":
        if tensor.ndim != 5 or tensor.shape[1] != 1:
            raise InputError(f"{where}: found shape {tuple(tensor.shape)}, expected (d, 1, bands, patch, patch)")
        return tensor[:, 0].contiguous()
    if make == "no bias of k":
        if len(tensor) % 3:
            raise InputError(f"{where}: found {len(tensor)} values, expected those of q, k and v")
        q, k, v = tensor.view(3, -1)
        return torch.cat([q, torch.zeros_like(k), v])
    if make == "batched":
        return tensor.view(1, -1, tensor.shape[-1])
    if make == "first positions":
        return tensor[:, : arch.patches + int(arch.class_token)].contiguous()
    return tensor


def _positions(state: Mapping[str, Tensor], arch: Architecture, where: str) -> dict[str, Tensor]:
    """The state with pos_embed (1, class token + patches, d) of the tile that `arch` takes, without what it is made of.

    Registers have none in the canonical encoder: where they have in the family, theirs are added to them for good.
    Groups of bands have positions each: their own, or those of one group with what tells groups apart.
    """
    before, groups = int(arch.class_token), arch.patch_groups
    parts = ("pos_embed", "group_embed")
    rest = {name: value for name, value in state.items() if not name.startswith(parts)}
    if "pos_embed" in state:
        first, patches = _resampled(state["pos_embed"], arch)
    else:
        each = [_resampled(state[f"pos_embed.{group}"], arch) for group in range(groups)]
        first, patches = each[0][0], torch.cat([own for _, own in each], dim=1)
    if "group_embed" in state:
        first, patches = _told_apart(first, patches, state, arch, where)
    elif "pos_embed" in state:
        patches = patches.repeat(1, groups, 1)
    own = first.shape[1]
    if own < before:
        first = torch.zeros(1, before, patches.shape[2])
    made = {"pos_embed": torch.cat([first[:, :before], patches], dim=1)}
    if own > before and "reg_token" in state:
        made["reg_token"] = state["reg_token"] + first[:, before:]
    return rest | made


def _told_apart(
    first: Tensor, patches: Tensor, state: Mapping[str, Tensor], arch: Architecture, where: str
) -> tuple[Tensor, Tensor]:
    """Positions of the class token (1, n, d') and of one group's patches (1, P, d') -> (1, n, d), (1, groups x P, d).

    What says a group is added, where both are of d values, or stands behind; the class token's is zero where there is
    none. Raises InputError where they do not fit together.
    """
    said, place = state["group_embed"], patches.shape[2]
    behind = 0 if place == arch.dim else said.shape[2]
    own = state.get("group_embed_class", torch.zeros(1, 1, behind))
    fits = place + behind == arch.dim and said.shape == (1, arch.patch_groups, behind or arch.dim)
    if not fits or own.shape != (1, 1, behind) or len(patches) != 1:
        raise InputError(
            f"{where}: found groups of bands told apart by shape {tuple(said.shape)} beside places of "
            f"{tuple(patches.shape)}, expected {arch.patch_groups} groups and {arch.dim} values in all"
        )
    if not behind:
        return first, (patches[:, None] + said[:, :, None]).flatten(1, 2)
    both = patches[:, None].expand(-1, arch.patch_groups, -1, -1), said[:, :, None].expand(-1, -1, patches.shape[1], -1)
    return torch.cat([first, own.expand(-1, first.shape[1], -1)], dim=2), torch.cat(both, dim=3).flatten(1, 2)


def _resampled(positions: Tensor, arch: Architecture) -> tuple[Tensor, Tensor]:
    """(1, others + patches, d) -> those of class token and registers, and those of the patches that `arch` has."""
    before, registers = int(arch.class_token), arch.register_tokens
    grids = {own: math.isqrt(max(0, positions.shape[1] - own)) for own in (0, before, before + registers)}
    own = next((own for own, side in grids.items() if own + side * side == positions.shape[1]), before)
    first, patches = positions[:, :own], positions[:, own:]
    side, wanted = grids[own], arch.tile_px // arch.patch_size
    if side * side == patches.shape[1] and side != wanted:
        square = patches.view(1, side, side, -1).permute(0, 3, 1, 2)
        square = F.interpolate(square, (wanted, wanted), mode="bicubic", antialias=True, align_corners=False)
        patches = square.permute(0, 2, 3, 1).flatten(1, 2)
    return first, patches
