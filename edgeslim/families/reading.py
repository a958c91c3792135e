"""Reading: what a family's key map makes of a checkpoint's names and shapes. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.families.convnext_reading import NEEDED as NEEDED_OF_CONVNEXT
from edgeslim.families.convnext_reading import convnext_of
from edgeslim.families.family import BRANCH, STACKED, TERM, Family, Modality, SeenBand, ungrouped

Shape = tuple[int, ...]
_AXES = {
    "batched": (1, 2),
    "convolution": (2,),
    "convolution of bands": (2,),
    "first frame": (5,),
    "first positions": (3,),
    "no bias of k": (1,),
    "frames as bands": (5,),
    "one pixel": (2, 4),
    "flat": (1, 2, 4),
    "sparse kernel": (2, 3),
}
"""Of the tensors that a rule makes something of."""
_PATCHES = "patch_embed.proj.weight"
_GROUP_EMBED = "group_embed"
"""(1, groups, ...) of what tells the tokens of groups of bands apart, beside `pos_embed` of one group."""
_GENERATOR = "fold.weight_generator.fc_weight.weight"
"""Of a fold that makes _PATCHES: its rows are those of one band, (patch x patch x d)."""
_EACH_BAND = "fold.conv3d.weight"
"""Of another: the convolution that every band goes through, (wide, 1, 1, patch, patch)."""
_NEEDED = {
    "pos_embed": 3,
    "norm.weight": 1,
    "blocks.0.norm1.weight": 1,
    "blocks.0.attn.qkv.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
}
"""Canonical tensors that every encoder has, and how many axes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of a checkpoint, as it goes into a canonical one."""

    name: str
    """In the file."""
    shape: Shape
    """In the file."""
    part: str | None
    """Of Rule."""
    make: str
    """Of Rule."""

    @property
    def made(self) -> Shape:
        """Its shape once it is what `make` says, as far as that is known without the patch's size."""
        if self.make == "batched":
            return (*(1,) * (3 - len(self.shape)), *self.shape)
        if self.make == "first frame":
            return (*self.shape[:2], *self.shape[3:])
        if self.make == "frames as bands":
            return (self.shape[0], *self.shape[2:])
        if self.make == "one pixel":
            return (*self.shape, *(1,) * (4 - len(self.shape)))
        if self.make == "flat":
            return self.shape[-1:]
        if self.make == "sparse kernel":
            places, *channels = self.shape
            return (channels[-1], *(channels[:-1] or [1]), math.isqrt(places), math.isqrt(places))
        return self.shape


@dataclass(frozen=True, slots=True)
class Reading:
    """A checkpoint, as a family's map understands it."""

    family: Family
    """Whose map it is."""
    pieces: dict[str, list[Source]]
    """Canonical name -> the tensors that make it."""
    left: tuple[str, ...]
    """Names that the map does not know."""
    modalities: tuple[Modality, ...] = ()
    """Whose embeddings are read, where the family has several. Of more than one, what each has of its own stands in
    `pieces` under numbers: "patch_embed.proj.1.weight"."""
    bands: tuple[SeenBand, ...] = ()
    """That the embedding is made for, where the family's is made for those asked."""
    gsd_m: float | None = None
    """Ground sample distance that positions are made for, metres a pixel, where the family's are made for one."""
    problems: tuple[str, ...] = field(init=False)
    """Why the encoder is not whole; empty where it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", tuple(_problems(self)))

    @property
    def fits(self) -> bool:
        """Whether every name is understood and the encoder is whole."""
        return not self.left and not self.problems

    @property
    def made_for(self) -> str | None:
        """The modality or the bands, the ground sample distance asked, for people; None where there is but one tile."""
        bands = ",".join(self.band_names)
        if self.modalities:
            return f"{'+'.join(modality.id for modality in self.modalities)} ({bands})"
        parts = [bands, f"{self.gsd_m:g} m a pixel" if self.gsd_m else ""]
        return " at ".join(filter(None, parts)) or None

    @property
    def band_names(self) -> tuple[str, ...]:
        """Of the bands that it is read for, in its order; empty where that is not known."""
        of_modalities = (band for modality in self.modalities for band in modality.bands)
        return tuple(of_modalities) or tuple(band.name for band in self.bands)

    @property
    def band_groups(self) -> int:
        """Groups of bands that have patches of their own; 0 where all bands are embedded together."""
        return len(self.modalities) if len(self.modalities) > 1 else len(self.family.band_groups)

    @property
    def kernels(self) -> list[str]:
        """Canonical names of the patch embeddings, one a group of bands, or the only one."""
        return [f"patch_embed.proj.{group}.weight" for group in range(self.band_groups)] or [_PATCHES]

    def shape(self, canonical: str) -> Shape | None:
        """Of a canonical tensor; None where the checkpoint has none of that name."""
        sources = self.pieces.get(canonical)
        if not sources:
            return None
        first = sources[0].made
        if sources[0].part == TERM:
            return tuple(max(sizes) for sizes in zip(*(source.made for source in sources), strict=False))
        if sources[0].part is None:
            return first
        if sources[0].part == BRANCH:
            return _side_by_side(canonical, [source.made for source in sources])
        zero = len(absent_parts(self.family, canonical, sources)) * first[0]
        return (sum(source.made[0] for source in sources) + zero, *first[1:])

    def architecture(self, head_dim: int | None = None) -> AnyArchitecture:
        """What the shapes say, with `head_dim` dimensions a head (None: the family's).

        Raises InputError where they do not fit together.
        """
        if self.family.kind != "vit":
            return convnext_of(self.family, self.pieces, self._need)
        qkv, fc1 = self._need("blocks.0.attn.qkv.weight"), self._need("blocks.0.mlp.fc1.weight")
        dim, inner = self._need("blocks.0.norm1.weight")[0], qkv[0] // 3
        kept = head_dim or self.family.head_dim_of(dim)
        if inner % kept:
            raise InputError(
                f"head_dim: found {kept}, expected one that divides the {inner} dimensions of q; a family "
                "card of your own says it (head_dim, or [[size]])"
            )
        blocks = {name.split(".")[1] for name in self.pieces if name.startswith("blocks.")}
        bands, patch_size, band_groups = self._patches(dim)
        has_class, found = "cls_token" in self.pieces, self.shape("reg_token")
        registers = 0 if found is None else found[-2]
        return Architecture(
            depth=len(blocks),
            dim=dim,
            attention_heads=inner // kept,
            head_dim=kept,
            ffn_hidden=fc1[0],
            patch_size=patch_size,
            tile_px=self.family.tile_px or self._side(int(has_class), registers) * patch_size,
            bands=bands,
            ffn="swiglu" if "blocks.0.mlp.fc3.weight" in self.pieces else "mlp",
            qkv_bias="blocks.0.attn.qkv.bias" in self.pieces,
            class_token=has_class,
            register_tokens=registers,
            layer_scale="blocks.0.ls1.gamma" in self.pieces,
            pool="mean" if self.family.pool == "class" and not has_class else self.family.pool,
            norm_eps=self.family.norm_eps,
            patch_padding=self.family.patch_padding,
            pre_norm="norm_pre.weight" in self.pieces,
            activation=self.family.activation,
            positions=self.family.positions,
            rope_dim=kept if self.family.positions == "rope" else 0,
            branches=_branches(self.pieces),
            band_groups=band_groups,
            band_attention_heads=self.family.band_attention_heads,
        )

    def _side(self, class_tokens: int, registers: int) -> int:
        """Patches along a side, of the positions."""
        positions = self._need("pos_embed" if "pos_embed" in self.pieces else "pos_embed.0")[-2]
        # Some families have a position for the class token, some for the registers, too, and others for neither.
        for patches in (positions, positions - class_tokens, positions - class_tokens - registers):
            if patches > 0 and math.isqrt(patches) ** 2 == patches:
                return math.isqrt(patches)
        raise InputError(f"pos_embed: found {positions} positions, expected those of a square of patches")

    def _patches(self, dim: int) -> tuple[int, int, tuple[tuple[int, ...], ...]]:
        """Bands, the side of a patch, px, and the groups of bands."""
        if _PATCHES in self.family.made and _EACH_BAND in self.pieces:
            return len(self.bands), self._need(_EACH_BAND)[-1], ()
        if _PATCHES in self.family.made:
            rows = self._need(_GENERATOR)[0]
            side = math.isqrt(rows // dim) if rows > 0 < dim else 0
            if side < 1 or side * side * dim != rows:
                raise InputError(f"{_GENERATOR}: found {rows} rows, expected those of a square patch of {dim} values")
            return len(self.bands), side, ()
        found = [self._kernel(name) for name in self.kernels]
        bands, side = sum(count for count, _ in found), found[0][1]
        if not self.band_groups:
            return bands, side, ()
        starts = [sum(count for count, _ in found[:group]) for group in range(len(found))]
        side_by_side = tuple(tuple(range(start, start + n)) for start, (n, _) in zip(starts, found, strict=True))
        groups = self.family.band_groups or side_by_side
        for name, (count, other), group in zip(self.kernels, found, groups, strict=True):
            if (count, other) != (len(group), side):
                raise InputError(
                    f"{name}: found {count} bands, patches of {other} px, expected {len(group)} and {side} px"
                )
        told = self.shape(_GROUP_EMBED)
        if told is not None and told[1] != len(groups):
            raise InputError(f"{_GROUP_EMBED}: found {told[1]} groups of bands, expected {len(groups)}")
        return bands, side, groups

    def _kernel(self, name: str) -> tuple[int, int]:
        """Bands, and the side of a patch, px, of one patch embedding."""
        shape, side = self._need(name), self.family.patch_size or 0
        if len(shape) == 4:
            return shape[1], shape[3]
        if len(shape) != 2 or not side or shape[1] % side**2:
            known = f"of {side} x {side}" if side else "of unknown size"
            raise InputError(
                f"{name}: found shape {shape}, expected that of a convolution, or (d, bands x patch {known})"
            )
        return shape[1] // side**2, side

    def _need(self, name: str) -> Shape:
        found = self.shape(name)
        if found is None:
            raise InputError(f"{name}: found none, expected one in every {self.family.name}")
        return found


def _problems(reading: Reading) -> Iterator[str]:
    pieces, family = reading.pieces, reading.family
    terms = Counter(rule.canonical for rule in family.key if rule.part == TERM)
    many = _branches(pieces)
    for name, sources in pieces.items():
        parts = sorted([*(source.part or "" for source in sources), *absent_parts(family, name, sources)])
        if parts not in ([""], sorted(STACKED), [TERM] * (terms[ungrouped(name)] or 1), [BRANCH] * many):
            count = terms[ungrouped(name)]
            expected = f"{count} that add up" if count else "one tensor, or q, k and v"
            if BRANCH in parts:
                expected = f"one of each of {many} branches"
            yield f"{name}: found {', '.join(source.name for source in sources)}, expected {expected}"
        for source in sources:
            if len(source.shape) not in (axes := _AXES.get(source.make, (len(source.shape),))):
                yield f"{source.name}: found shape {source.shape}, expected {' or '.join(map(str, axes))} axes"
    usual = (*reading.kernels, *_NEEDED) if family.kind == "vit" else tuple(NEEDED_OF_CONVNEXT)
    for needed in (*usual, *family.has):
        if needed == "pos_embed" and (family.positions != "absolute" or "pos_embed.0" in pieces):
            continue
        if needed not in pieces and ungrouped(needed) not in family.made and not family.filled(needed):
            yield f"{needed}: found none"
    wanted = {
        **_NEEDED,
        **NEEDED_OF_CONVNEXT,
        "reg_token": 3,
        _GROUP_EMBED: 3,
        f"{_GROUP_EMBED}_class": 3,
        _GENERATOR: 2,
        _EACH_BAND: 5,
    }
    for name, sources in pieces.items():
        if ungrouped(name) == _PATCHES and name not in reading.kernels:
            yield f"{sources[0].name}: found one more group of bands, expected {len(reading.kernels)}"
        for source in sources if ungrouped(name) in wanted else ():
            if len(source.made) != (count := wanted[ungrouped(name)]):
                yield f"{source.name}: found shape {source.shape}, expected {count} axes"


def _branches(pieces: Mapping[str, list[Source]]) -> int:
    """Parallel branches of each block."""
    return sum(source.part == BRANCH for source in pieces.get("blocks.0.attn.qkv.weight", ())) or 1


def _side_by_side(canonical: str, shapes: list[Shape]) -> Shape:
    """Of the tensor of all branches: heads and hidden units side by side; what is added up or the same stays."""
    layer, kind = canonical.split(".")[-2:]
    if layer in ("qkv", "fc1", "fc3"):
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])
    if layer in ("proj", "fc2") and kind == "weight":
        return (shapes[0][0], sum(shape[1] for shape in shapes))
    return shapes[0]


def absent_parts(family: Family, name: str, sources: Iterable[Source]) -> list[str]:
    """Which of q, k and v a stacked tensor is without, because the family says that they are zero."""
    there = {source.part for source in sources}
    return [part for part in STACKED if there & set(STACKED) and part not in there and family.filled(f"{name}.{part}")]
