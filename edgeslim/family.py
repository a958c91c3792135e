"""Family: the card of a family of encoders: what its checkpoint calls each tensor of the canonical one. No torch.

A card is a key map: rules that turn the names of a checkpoint into canonical ones (edgeslim/ground/vit.py), with the
few changes of shape that families need. A rule's text is matched whole, in the order of the card; `(...)` groups are
put in as {1}, {2}, ... So a family is added by a card, on edgeslim's shelf or on one's own, and no code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeslim.architecture import USUAL_NORM_EPS, Architecture
from edgeslim.errors import InputError
from edgeslim.figure import must_be_known
from edgeslim.shelf import distinct_card_paths, read_record, read_toml, shown

SHELF = "families"
SCHEMA = 1
Shape = tuple[int, ...]
MAKES = ("as it is", "convolution", "first frame", "first positions")
"""What a rule makes of a tensor. "convolution": the weights of a linear layer over flattened patches (row, column,
band), as a convolution's; "first frame": of a convolution over frames, as for one frame; "first positions": of
positions of several frames, those of the class token and the first frame."""
_AXES = {"convolution": 2, "first frame": 5, "first positions": 3}
"""Of the tensors that a rule makes something of."""
PARTS = ("q", "k", "v")
"""Tensors that are stacked into one, in this order."""
_PATCHES = "patch_embed.proj.weight"
_NEEDED = {"pos_embed": 3, "norm.weight": 1, "blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc1.weight": 2}
"""Canonical tensors that every encoder has, and how many axes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a key map."""

    original: str
    """Regular expression that a checkpoint's name matches whole."""
    canonical: str
    """The canonical name; {1} is the first group."""
    part: str | None = None
    """One of PARTS, where three tensors make one."""
    make: str = MAKES[0]
    """One of MAKES."""

    def __post_init__(self) -> None:
        groups = _compiled(self.original, "original").groups
        try:
            self.canonical.format("", *[""] * groups)
        except (IndexError, KeyError, ValueError, AttributeError):
            raise InputError(
                f"canonical: found {shown(self.canonical)}, expected a name with groups up to {{{groups}}}, as "
                "`original` has them"
            ) from None
        must_be_known(self.make, MAKES, "make")
        if self.part is not None:
            must_be_known(self.part, PARTS, "part")

    def name(self, original: str) -> str | None:
        """The canonical name of a tensor, or None where the rule is for others."""
        found = re.fullmatch(self.original, original)
        return None if found is None else self.canonical.format(found.group(0), *found.groups(default=""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family's card."""

    schema: int
    """Of the card."""
    id: str
    """File stem and name."""
    name: str
    """For people."""
    original: str
    """The library or the repository whose modules these are, with its version."""
    confirmed: str | None = None
    """What holds the canonical encoder against the original; None: nothing does."""
    prefixes: tuple[str, ...] = ()
    """Beginnings that all names of a checkpoint may have, each of which is taken off once."""
    key: tuple[Rule, ...]
    """The key map. The first rule that fits a name is taken."""
    dropped: tuple[str, ...] = ()
    """Regular expressions of names that are not of the encoder: decoders, heads, mask tokens."""
    zeros: tuple[str, ...] = ()
    """Regular expressions of canonical names that are zero: biases that the family does not have."""
    has: tuple[str, ...] = ()
    """Canonical names that tell the family from others whose names are the same otherwise."""
    head_dim: int = 64
    """Of an attention head: shapes do not tell it."""
    norm_eps: float = USUAL_NORM_EPS
    """Of its LayerNorms."""
    patch_size: int | None = None
    """Side of a patch, px, where patches are embedded by a linear layer, whose shape does not tell it."""
    pool: str = "class"
    """What its features are: "class" token or "mean" of the patch tokens."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        for key in ("head_dim", "patch_size"):
            if (size := getattr(self, key)) is not None and size < 1:
                raise InputError(f"{key}: found {size}, expected at least 1")
        for kind in ("dropped", "zeros"):
            for text in getattr(self, kind):
                _compiled(text, kind)
        must_be_known(self.pool, ("class", "mean"), "pool")

    def read(self, shapes: Mapping[str, Shape]) -> Reading:
        """What this map makes of a checkpoint's names."""
        taken_off = _prefix(self.prefixes, shapes)
        pieces: dict[str, list[Source]] = {}
        left: list[str] = []
        for original, shape in shapes.items():
            # Where only some names have the prefix, the others are not of the encoder.
            inside = original.startswith(taken_off)
            name = original.removeprefix(taken_off)
            made = next(((rule, to) for rule in self.key if (to := rule.name(name)) is not None), None)
            if made is not None and inside:
                rule, canonical = made
                pieces.setdefault(canonical, []).append(Source(original, tuple(shape), rule.part, rule.make))
            elif inside and not any(re.fullmatch(text, name) for text in self.dropped):
                left.append(original)
        return Reading(self, pieces, tuple(left))


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
    problems: tuple[str, ...] = field(init=False)
    """Why the encoder is not whole; empty where it is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", tuple(_problems(self.pieces, self.family.has)))

    @property
    def fits(self) -> bool:
        """Whether every name is understood and the encoder is whole."""
        return not self.left and not self.problems

    def shape(self, canonical: str) -> Shape | None:
        """Of a canonical tensor; None where the checkpoint has none of that name."""
        sources = self.pieces.get(canonical)
        if not sources:
            return None
        first = sources[0].made
        return first if sources[0].part is None else (sum(source.made[0] for source in sources), *first[1:])

    def architecture(self, head_dim: int | None = None) -> Architecture:
        """What the shapes say, with `head_dim` dimensions a head (None: the family's).

        Raises InputError where they do not fit together.
        """
        kept = head_dim or self.family.head_dim
        qkv, fc1 = self._need("blocks.0.attn.qkv.weight"), self._need("blocks.0.mlp.fc1.weight")
        dim, inner = self._need("norm.weight")[0], qkv[0] // 3
        if inner % kept:
            raise InputError(f"head_dim: found {kept}, expected one that divides the {inner} dimensions of q; give it")
        blocks = {name.split(".")[1] for name in self.pieces if name.startswith("blocks.")}
        bands, patch_size = self._patches()
        positions, has_class = self._need("pos_embed")[-2], "cls_token" in self.pieces
        # Some families have a position for the class token, others none.
        sides = [math.isqrt(n) for n in (positions, positions - int(has_class)) if n > 0 and math.isqrt(n) ** 2 == n]
        if not sides:
            raise InputError(f"pos_embed: found {positions} positions, expected those of a square of patches")
        registers = self.shape("reg_token")
        return Architecture(
            depth=len(blocks),
            dim=dim,
            attention_heads=inner // kept,
            head_dim=kept,
            ffn_hidden=fc1[0],
            patch_size=patch_size,
            tile_px=sides[0] * patch_size,
            bands=bands,
            ffn="swiglu" if "blocks.0.mlp.fc3.weight" in self.pieces else "mlp",
            qkv_bias="blocks.0.attn.qkv.bias" in self.pieces,
            class_token=has_class,
            register_tokens=0 if registers is None else registers[-2],
            layer_scale="blocks.0.ls1.gamma" in self.pieces,
            pool=self.family.pool if has_class else "mean",
            norm_eps=self.family.norm_eps,
        )

    def _patches(self) -> tuple[int, int]:
        """Bands, and the side of a patch, px."""
        shape, side = self._need(_PATCHES), self.family.patch_size
        if len(shape) == 4:
            return shape[1], shape[3]
        if len(shape) != 2 or side is None or shape[1] % side**2:
            known = "of unknown size" if side is None else f"of {side} x {side}"
            raise InputError(
                f"{_PATCHES}: found shape {shape}, expected that of a convolution, or (d, bands x patch {known})"
            )
        return shape[1] // side**2, side

    def _need(self, name: str) -> Shape:
        found = self.shape(name)
        if found is None:
            raise InputError(f"{name}: found none, expected one in every {self.family.name}")
        return found


def _compiled(text: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"{key}: found {shown(text)}, expected a regular expression ({error})") from None


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


def _problems(pieces: Mapping[str, list[Source]], has: Iterable[str]) -> Iterable[str]:
    for name, sources in pieces.items():
        parts = [source.part for source in sources]
        if parts != [None] and sorted(filter(None, parts)) != sorted(PARTS):
            yield f"{name}: found {', '.join(source.name for source in sources)}, expected one tensor, or q, k and v"
        for source in sources:
            if len(source.shape) != (axes := _AXES.get(source.make, len(source.shape))):
                yield f"{source.name}: found shape {source.shape}, expected {axes} axes"
    for needed in (_PATCHES, *_NEEDED, *has):
        if needed not in pieces:
            yield f"{needed}: found none"
    for name, axes in {**_NEEDED, "reg_token": 3}.items():
        for source in pieces.get(name, ()):
            if len(source.shape) != axes:
                yield f"{source.name}: found shape {source.shape}, expected {axes} axes"


def load_family(path: Path) -> Family:
    """Read a family's card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(Family, data, str(path))


def all_families(cards: Path | None = None) -> list[Family]:
    """Every family, one's own first; one of these hides edgeslim's of the same id."""
    return [load_family(path) for path in distinct_card_paths(SHELF, cards)]


def recognise(shapes: Mapping[str, Shape], families: Iterable[Family], where: str) -> Reading:
    """The family whose map understands every name of a checkpoint.

    Several may where nothing tells them apart, and then all make the same of it: the first is taken. Raises InputError
    naming the nearest family and what it does not understand.
    """
    readings = [family.read(shapes) for family in families]
    for reading in readings:
        if reading.fits:
            return reading
    nearest = min(readings, key=lambda reading: (len(reading.problems), len(reading.left)))
    odd = [*nearest.problems, *(f"{name}: not known" for name in nearest.left)]
    raise InputError(
        f"{where}: found {len(shapes)} tensors of no family; the nearest is {nearest.family.id}: {odd[0]}"
        + (f", and {len(odd) - 1} more" if len(odd) > 1 else "")
        + "; expected one of `edgeslim encoders families`, or a family card of your own (--cards)"
    )
