"""Reading: what a family's key map makes of a checkpoint's names and shapes. No torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgeslim.architecture import Architecture
from edgeslim.asked import bands_asked, gsd_asked, modality_asked, split_gsd
from edgeslim.errors import InputError
from edgeslim.family import BRANCH, STACKED, TERM, Family, Modality, SeenBand
from edgeslim.shelf import shown

Shape = tuple[int, ...]
_AXES = {
    "batched": (1, 2),
    "convolution": (2,),
    "convolution of bands": (2,),
    "first frame": (5,),
    "first positions": (3,),
    "no bias of k": (1,),
}
"""Of the tensors that a rule makes something of."""
_PATCHES = "patch_embed.proj.weight"
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
    modality: Modality | None = None
    """Whose embedding is read, where the family has several."""
    bands: tuple[SeenBand, ...] = ()
    """That the embedding is made for, where the family's is made for those asked."""
    gsd_m: float | None = None
    """Ground sample distance that positions are made for, metres a pixel, where the family's are made for one."""
    problems: tuple[str, ...] = field(init=False)
    """Why the encoder is not whole; empty where it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", tuple(_problems(self.pieces, self.family)))

    @property
    def fits(self) -> bool:
        """Whether every name is understood and the encoder is whole."""
        return not self.left and not self.problems

    @property
    def made_for(self) -> str | None:
        """The modality, the bands, the ground sample distance asked, for people; None where there is but one tile."""
        if self.modality is not None:
            return f"{self.modality.id} ({','.join(self.modality.bands)})"
        parts = [",".join(band.name for band in self.bands), f"{self.gsd_m:g} m a pixel" if self.gsd_m else ""]
        return " at ".join(filter(None, parts)) or None

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

    def architecture(self, head_dim: int | None = None) -> Architecture:
        """What the shapes say, with `head_dim` dimensions a head (None: the family's).

        Raises InputError where they do not fit together.
        """
        qkv, fc1 = self._need("blocks.0.attn.qkv.weight"), self._need("blocks.0.mlp.fc1.weight")
        dim, inner = self._need("blocks.0.norm1.weight")[0], qkv[0] // 3
        kept = head_dim or self.family.head_dim_of(dim)
        if inner % kept:
            raise InputError(f"head_dim: found {kept}, expected one that divides the {inner} dimensions of q; give it")
        blocks = {name.split(".")[1] for name in self.pieces if name.startswith("blocks.")}
        bands, patch_size = self._patches(dim)
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
            band_attention_heads=self.family.band_attention_heads,
        )

    def _side(self, class_tokens: int, registers: int) -> int:
        """Patches along a side, of the positions."""
        positions = self._need("pos_embed")[-2]
        # Some families have a position for the class token, some for the registers, too, and others for neither.
        for patches in (positions, positions - class_tokens, positions - class_tokens - registers):
            if patches > 0 and math.isqrt(patches) ** 2 == patches:
                return math.isqrt(patches)
        raise InputError(f"pos_embed: found {positions} positions, expected those of a square of patches")

    def _patches(self, dim: int) -> tuple[int, int]:
        """Bands, and the side of a patch, px."""
        if _PATCHES in self.family.made and _EACH_BAND in self.pieces:
            return len(self.bands), self._need(_EACH_BAND)[-1]
        if _PATCHES in self.family.made:
            rows = self._need(_GENERATOR)[0]
            side = math.isqrt(rows // dim) if rows > 0 < dim else 0
            if side < 1 or side * side * dim != rows:
                raise InputError(f"{_GENERATOR}: found {rows} rows, expected those of a square patch of {dim} values")
            return len(self.bands), side
        shape, side = self._need(_PATCHES), self.family.patch_size or 0
        if len(shape) == 4:
            return shape[1], shape[3]
        if len(shape) != 2 or not side or shape[1] % side**2:
            known = f"of {side} x {side}" if side else "of unknown size"
            raise InputError(
                f"{_PATCHES}: found shape {shape}, expected that of a convolution, or (d, bands x patch {known})"
            )
        return shape[1] // side**2, side

    def _need(self, name: str) -> Shape:
        found = self.shape(name)
        if found is None:
            raise InputError(f"{name}: found none, expected one in every {self.family.name}")
        return found


def _readings(family: Family, shapes: Mapping[str, Shape]) -> Iterator[Reading]:
    """What a family's map makes of a checkpoint, once for each modality that it has."""
    taken_off = _prefix(family.prefixes, shapes)
    for modality in family.modality or (None,):
        pieces: dict[str, list[Source]] = {}
        left: list[str] = []
        for original, shape in shapes.items():
            # Where only some names have the prefix, the others are not of the encoder.
            inside = original.startswith(taken_off)
            name = original.removeprefix(taken_off)
            key = "" if modality is None else modality.key
            made = next(((rule, to) for rule in family.key if (to := rule.name(name, key)) is not None), None)
            if made is not None and inside:
                rule, canonical = made
                pieces.setdefault(canonical, []).append(Source(original, tuple(shape), rule.part, rule.make))
            elif inside and not any(re.fullmatch(text, name) for text in family.dropped):
                left.append(original)
        yield Reading(family, pieces, tuple(left), modality)


def _prefix(known: Iterable[str], names: Iterable[str]) -> str:
    """The longest chain of known beginnings, each once, that some names of the checkpoint have."""
    taken, remaining = "", list(known)
    names = list(names)
    while True:
        found = next((one for one in remaining if any(name.startswith(taken + one) for name in names)), None)
        if found is None:
            return taken
        taken += found
        remaining.remove(found)


def _problems(pieces: Mapping[str, list[Source]], family: Family) -> Iterator[str]:
    terms = Counter(rule.canonical for rule in family.key if rule.part == TERM)
    many = _branches(pieces)
    for name, sources in pieces.items():
        parts = sorted([*(source.part or "" for source in sources), *absent_parts(family, name, sources)])
        if parts not in ([""], sorted(STACKED), [TERM] * (terms[name] or 1), [BRANCH] * many):
            expected = f"{terms[name]} that add up" if terms[name] else "one tensor, or q, k and v"
            if BRANCH in parts:
                expected = f"one of each of {many} branches"
            yield f"{name}: found {', '.join(source.name for source in sources)}, expected {expected}"
        for source in sources:
            if len(source.shape) not in (axes := _AXES.get(source.make, (len(source.shape),))):
                yield f"{source.name}: found shape {source.shape}, expected {' or '.join(map(str, axes))} axes"
    for needed in (_PATCHES, *_NEEDED, *family.has):
        if needed == "pos_embed" and family.positions != "absolute":
            continue
        if needed not in pieces and needed not in family.made and not family.filled(needed):
            yield f"{needed}: found none"
    for name, count in {**_NEEDED, "reg_token": 3, _GENERATOR: 2, _EACH_BAND: 5}.items():
        for source in pieces.get(name, ()):
            if len(source.made) != count:
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


def recognise(
    shapes: Mapping[str, Shape],
    families: Iterable[Family],
    where: str,
    made_for: str | None = None,
    bands: int | None = None,
    gsd_m: float | None = None,
) -> Reading:
    """The family whose map understands every name of a checkpoint, for what is asked (`made_for`: see asked.py).

    Where nothing is asked, a checkpoint of several modalities is read for the only one of `bands` bands, and positions
    are made for the card's ground sample distance `gsd_m`. Several families may understand it where nothing tells them
    apart: where a ground sample distance is asked it is one that is told it, where none is, one that is not; and among
    these, which all make the same of it, the first. Raises InputError naming the nearest family and what it does not
    understand, or what can be asked.
    """
    text, asked_m = split_gsd(made_for, where)
    readings = [reading for family in families for reading in _readings(family, shapes)]
    understood = [reading for reading in readings if reading.fits]
    if not understood:
        raise InputError(_of_no_family(readings, len(shapes), where))
    first = min(understood, key=lambda reading: reading.family.takes_gsd != (asked_m is not None))
    family = first.family
    first = replace(first, gsd_m=gsd_asked(family, asked_m, gsd_m, where))
    if family.takes_any_bands:
        return replace(first, bands=bands_asked(family, text, where))
    if first.modality is None and text is not None:
        raise InputError(f"{where}: found {shown(text)} asked of {family.name}, which takes one kind of tile")
    if first.modality is None:
        return first
    fitting = {reading.modality: reading for reading in understood if reading.family is family}
    present = [modality for modality in fitting if modality is not None]
    return fitting[modality_asked(family, present, text, bands, where)]


def _of_no_family(readings: Iterable[Reading], tensors: int, where: str) -> str:
    nearest = min(readings, key=lambda reading: len(reading.problems) + len(reading.left))
    odd = [*nearest.problems, *(f"{name}: not known" for name in nearest.left)]
    return (
        f"{where}: found {tensors} tensors of no family; the nearest is {nearest.family.id}: {odd[0]}"
        + (f", and {len(odd) - 1} more" if len(odd) > 1 else "")
        + "; expected one of `edgeslim encoders families`, or a family card of your own (--cards)"
    )
