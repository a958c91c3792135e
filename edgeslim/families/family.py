"""Family: the card of a family of encoders: what its checkpoint calls each tensor of the canonical one. No torch.

A card is a key map: rules that turn the names of a checkpoint into canonical ones (edgeslim/ground/vit.py), with the
few changes of shape that families need. A rule's text is matched whole, in the order of the card; `(...)` groups are
put in as {1}, {2}, ... So a family is added by a card, on edgeslim's shelf or on one's own, and no code. What no rule
can say, tensors that are computed from others, is a fold (edgeslim/ground/checkpoints/fold.py), which the card names,
and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeslim.architecture import ACTIVATIONS, POOLS, POSITIONS, USUAL_NORM_EPS
from edgeslim.errors import InputError
from edgeslim.figure import must_be_known
from edgeslim.shelf import distinct_card_paths, read_record, read_toml, shown

SHELF = "families"
SCHEMA = 1
MAKES = (
    *("as it is", "batched", "convolution", "convolution of bands", "first frame", "first positions"),
    *("no bias of k", "frames as bands", "one pixel", "flat", "sparse kernel"),
)
"""What a rule makes of a tensor. "batched": a token (d,) or positions (N, d), as (1, N, d); "convolution": the weights
of a linear layer over flattened patches (row, column, band), as a convolution's; "convolution of bands": the same of
(band, row, column); "first frame": of a convolution over frames, as for one frame; "first positions": of positions of
several frames, those of the class token and the first; "no bias of k": of q, k and v, with zeros for k's; "frames as
bands": a convolution over bands that are taken for frames, (d, 1, bands, patch, patch), as one of bands; "one pixel":
the weights of a linear layer over channels, as a 1 x 1 convolution's, which they may be already; "flat": values that
stand behind axes of one, (1, 1, 1, C), as (C,); "sparse kernel": MinkowskiEngine's kernel over places, column by
column, (k x k, in, out) or, of each channel by itself, (k x k, C), as a convolution's."""
KINDS = ("vit", "convnext-v2")
"""Canonical encoders: edgeslim/ground/vit.py, and edgeslim/ground/convnext.py."""
STACKED = ("q", "k", "v")
"""Parts that are stacked into one tensor, in this order."""
TERM = "term"
"""A part of a sum, by a rule for each: tensors of this part are added up, broadcast."""
BRANCH = "branch"
"""One of parallel branches, which are fused into one wide block; a LayerNorm of each goes into the layer behind it."""
FOLDS: dict[str, tuple[str, ...]] = {
    "dofa": ("patch_embed.proj.weight", "patch_embed.proj.bias"),
    "copernicus-fm": ("patch_embed.proj.weight", "patch_embed.proj.bias"),
    "galileo": ("pos_embed",),
    "scale-mae": ("pos_embed",),
    "panopticon": (
        *("patch_embed.score.weight", "patch_embed.band_score", "patch_embed.band_shift.weight"),
        *("patch_embed.proj.weight", "patch_embed.proj.bias"),
    ),
    "clay": ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"),
}
"""Fold of edgeslim/ground/checkpoints/fold.py -> the canonical tensors that it makes of those under `fold.`."""
_BY_GSD = ("scale-mae", "clay")
"""Folds that compute with the ground sample distance asked."""
_MODALITY = "{modality}"
_GROUP = "{group}"


def ungrouped(canonical: str) -> str:
    """What a canonical tensor is, whichever group of bands or modality it is of.

    "patch_embed.proj.2.weight" is "patch_embed.proj.weight", and "pos_embed.2" "pos_embed".
    """
    return re.sub(r"^(patch_embed\.proj|pos_embed)\.\d+(?=\.|$)", r"\1", canonical)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a key map."""

    original: str
    """Regular expression that a checkpoint's name matches whole; {modality} is the key of the modality asked."""
    canonical: str
    """The canonical name; {1} is the first group. Under `fold.`: what the card's fold computes with. {group} is each of
    the card's groups of bands: all of them have that tensor."""
    part: str | None = None
    """One of STACKED, TERM or BRANCH, where several tensors make one."""
    make: str = MAKES[0]
    """One of MAKES."""

    def __post_init__(self) -> None:
        groups = _compiled(self.original, "original").groups
        try:
            self.canonical.format("", *[""] * groups, group="")
        except (IndexError, KeyError, ValueError, AttributeError):
            raise InputError(
                f"canonical: found {shown(self.canonical)}, expected a name with groups up to {{{groups}}}, as "
                "`original` has them"
            ) from None
        must_be_known(self.make, MAKES, "make")
        if self.part is not None:
            must_be_known(self.part, (*STACKED, TERM, BRANCH), "part")

    @property
    def of_every_group(self) -> bool:
        """Whether the tensor is that of each group of bands."""
        return _GROUP in self.canonical

    def names(self, original: str, modality: str = "", band_groups: int = 0) -> list[str]:
        """The canonical names of a tensor: one, or one for each group of bands; none where the rule is for others."""
        found = re.fullmatch(self.original.replace(_MODALITY, re.escape(modality)), original)
        if found is None:
            return []
        numbers = range(band_groups) if self.of_every_group else range(1)
        return [self.canonical.format(found.group(0), *found.groups(default=""), group=n) for n in numbers]


@dataclass(frozen=True, slots=True)
class Modality:
    """One of several kinds of tiles that a family takes, each with tensors of its own in the checkpoint."""

    id: str
    """As it is asked for: "s2l2a"."""
    key: str
    """What stands for it in the checkpoint's names."""
    bands: tuple[str, ...]
    """Its bands, in the order in which the encoder takes them."""


@dataclass(frozen=True, slots=True)
class SeenBand:
    """A band that a family saw, and what its embedding is made from."""

    name: str
    """As it is asked for: "B04"."""
    wavelength_um: float
    """Centre wavelength as the family was told it, micrometres."""
    bandwidth_um: float | None = None
    """Width as the family was told it, micrometres; None: it is not told any."""

    def __post_init__(self) -> None:
        for key in ("wavelength_um", "bandwidth_um"):
            if (value := getattr(self, key)) is not None and not value > 0:
                raise InputError(f"{key}: found {value:g}, expected more than 0 micrometres")


@dataclass(frozen=True, slots=True)
class Size:
    """An encoder of a family, known by its dimension."""

    dim: int
    """Residual width d."""
    head_dim: int
    """Of an attention head, where it is another than the family's."""


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
    kind: str = KINDS[0]
    """One of KINDS: which canonical encoder it is converted into."""
    confirmed: str | None = None
    """What holds the canonical encoder against the original; None: nothing does."""
    prefixes: tuple[str, ...] = ()
    """Beginnings that all names of a checkpoint may have, each of which is taken off once."""
    key: tuple[Rule, ...]
    """The key map. The first rule that fits a name is taken."""
    dropped: tuple[str, ...] = ()
    """Regular expressions of names that are not of the encoder: decoders, heads, mask tokens."""
    zeros: tuple[str, ...] = ()
    """Regular expressions of canonical names that are zero where there are none: biases that the family has not. A part
    of one is its name and the part: `blocks.0.attn.qkv.bias.k`."""
    ones: tuple[str, ...] = ()
    """Regular expressions of canonical names that are one where there are none: weights of a LayerNorm that the
    family's checkpoints leave to who tunes them."""
    has: tuple[str, ...] = ()
    """Canonical names that tell the family from others whose names are the same otherwise."""
    modality: tuple[Modality, ...] = ()
    """Kinds of tiles, where the checkpoint has an embedding for each."""
    band: tuple[SeenBand, ...] = ()
    """Bands that the family saw, where its embedding is made for the bands asked."""
    span_um: tuple[float, float] | None = None
    """From which to which wavelength, micrometres, other bands may be asked; None: none may."""
    band_groups: tuple[tuple[int, ...], ...] = ()
    """Of Architecture: which bands have patches of their own together. Positions are said for the patches of one group,
    and beside them `group_embed` for each group, added to them or behind them in the same token; where it is behind
    them, `group_embed_class` is the class token's."""
    fold: str | None = None
    """One of FOLDS: code that makes canonical tensors of others."""
    because: str | None = None
    """Why rules alone cannot say that."""
    head_dim: int = 64
    """Of an attention head: shapes do not tell it."""
    size: tuple[Size, ...] = ()
    """Encoders of the family whose heads are others."""
    norm_eps: float = USUAL_NORM_EPS
    """Of its LayerNorms; of a ConvNeXt V2, of the last one."""
    grn_eps: float = USUAL_NORM_EPS
    """Of ConvNextArchitecture."""
    patch_size: int | None = None
    """Side of a patch, px, where patches are embedded by a linear layer, whose shape does not tell it."""
    patch_padding: int = 0
    """Of Architecture."""
    tile_px: int | None = None
    """Side of a tile, px, where the number of positions does not tell it. Of a ConvNeXt V2, which takes any, the usual
    one."""
    band_attention_heads: int = 0
    """Of Architecture."""
    activation: str = "gelu"
    """Of Architecture."""
    positions: str = "absolute"
    """Of Architecture."""
    pool: str = "class"
    """What its features are: of Architecture, where the checkpoint has a class token; otherwise the mean."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema: found {self.schema}, expected {SCHEMA}")
        for key in ("head_dim", "patch_size", "tile_px"):
            if (size := getattr(self, key)) is not None and size < 1:
                raise InputError(f"{key}: found {size}, expected at least 1")
        for kind in ("dropped", "zeros", "ones"):
            for text in getattr(self, kind):
                _compiled(text, kind)
        must_be_known(self.kind, KINDS, "kind")
        must_be_known(self.pool, POOLS, "pool")
        must_be_known(self.positions, POSITIONS, "positions")
        must_be_known(self.activation, ACTIVATIONS, "activation")
        if self.fold is not None:
            must_be_known(self.fold, FOLDS, "fold")
        if (self.fold is None) != (self.because is None):
            raise InputError("because: expected why the family needs its fold, and none where it has no fold")
        if self.modality and self.band_groups:
            raise InputError("band_groups: found beside [[modality]], expected one of them")
        if not self.band_groups and any(rule.of_every_group for rule in self.key):
            raise InputError("canonical: found {group}, expected band_groups in a card that has it")
        if ("pos_embed" in self.made or self.positions != "absolute") and self.tile_px is None:
            raise InputError("tile_px: found none, expected the tile that positions are made for")
        if self.kind != "vit" and self.tile_px is None:
            raise InputError("tile_px: found none, expected the tile that a ConvNeXt V2 of the family is usually given")

    @property
    def made(self) -> tuple[str, ...]:
        """Canonical tensors that its fold makes."""
        return FOLDS[self.fold] if self.fold else ()

    @property
    def takes_any_bands(self) -> bool:
        """Whether its embedding is made for the bands asked."""
        return bool(self.band)

    @property
    def takes_gsd(self) -> bool:
        """Whether its positions are made for the ground sample distance asked."""
        return self.fold in _BY_GSD

    def filled(self, canonical: str) -> bool:
        """Whether a canonical tensor may be missing, because it is zero or one."""
        return any(re.fullmatch(text, ungrouped(canonical)) for text in (*self.zeros, *self.ones))

    def head_dim_of(self, dim: int) -> int:
        """Dimensions of a head in the family's encoder of this dimension."""
        return next((size.head_dim for size in self.size if size.dim == dim), self.head_dim)


def _compiled(text: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"{key}: found {shown(text)}, expected a regular expression ({error})") from None


def load_family(path: Path) -> Family:
    """Read a family's card. Raises InputError naming file, key, what was found and what was expected."""
    data = read_toml(path)
    if data.get("id") != path.stem:
        raise InputError(f"{path}: id: found {shown(data.get('id'))}, expected the file's name {path.stem!r}")
    return read_record(Family, data, str(path))


def all_families(cards: Path | None = None) -> list[Family]:
    """Every family, one's own first; one of these hides edgeslim's of the same id."""
    return [load_family(path) for path in distinct_card_paths(SHELF, cards)]
