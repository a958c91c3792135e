"""ConvNextArchitecture: the shape of a ConvNeXt V2 encoder, at full width or slimmed. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, chain, islice, repeat
from typing import Any

from edgeslim.architecture import USUAL_NORM_EPS, Architecture, check_cut, inner_size, span
from edgeslim.errors import InputError
from edgeslim.shelf import read_record, shown

STEM_STRIDE = 4
"""Side and stride of the usual first convolution, px."""
BEFORE_STEM = 3
"""Side of the convolution before the stem, where there is one."""
KERNEL = 7
"""Side of the depthwise convolutions."""
_LARGEST = {"tile_px": 1 << 14, "bands": 4096}
_LARGEST_STEM = 64
_STAGES = 8
"""Far beyond any encoder, as in Architecture."""


@dataclass(frozen=True, slots=True)
class ConvNextArchitecture:
    """Shape of a ConvNeXt V2 (arXiv 2301.00808). Of each block the hidden axis is cut, its GRN with it; dims never.

    Blocks of a stage have as many hidden channels, unless it names those of each.
    """

    depths: tuple[int, ...]
    """Blocks of each stage."""
    dims: tuple[int, ...]
    """Residual width of each stage, channels."""
    hidden: tuple[int, ...]
    """Hidden channels of a block in each stage, of its widest where they differ; four times its dim in a full
    encoder."""
    tile_px: int
    """Side of the square tile that the encoder takes, px; what no window of a convolution covers is not looked at."""
    bands: int
    """Input bands."""
    norm_eps: float = USUAL_NORM_EPS
    """Added to the variance in the last LayerNorm, that of the feature; in all others it is USUAL_NORM_EPS."""
    stem_stride: int = STEM_STRIDE
    """Side and stride of the stem's convolution, px."""
    conv_before_stem: bool = False
    """Whether a 3 x 3 convolution without padding, LayerNorm and GELU come first; the stem's convolution is one of each
    channel then, and begins stem_stride // 2 px before the map (MMEarth, arXiv 2405.02771)."""
    grn_eps: float = USUAL_NORM_EPS
    """Added to the channels' mean response in every GRN."""
    block_hidden: tuple[int, ...] = ()
    """Hidden channels of each block, stage after stage; empty: `hidden` of its stage in all of them."""

    def __post_init__(self) -> None:
        for field, largest in _LARGEST.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
                raise InputError(f"architecture.{field}: found {value!r}, expected a whole number of 1 to {largest}")
        for field, largest in (("depths", 1024), ("dims", 1 << 17), ("hidden", 1 << 20)):
            values = getattr(self, field)
            if not all(1 <= value <= largest for value in values):
                raise InputError(f"architecture.{field}: found {values}, expected whole numbers of 1 to {largest}")
        if not 1 <= len(self.depths) == len(self.dims) == len(self.hidden) <= _STAGES:
            raise InputError(
                f"architecture: found {len(self.depths)} depths, {len(self.dims)} dims and {len(self.hidden)} hidden, "
                f"expected one of each a stage, 1 to {_STAGES} stages"
            )
        if list(self.dims) != sorted(self.dims):
            raise InputError(f"architecture.dims: found {self.dims}, expected no stage narrower than the one before")
        for field in ("norm_eps", "grn_eps"):
            if not 0 < (eps := getattr(self, field)) < 0.1:
                raise InputError(f"architecture.{field}: found {eps:g}, expected more than 0, less than 0.1")
        if not 1 <= self.stem_stride <= _LARGEST_STEM:
            raise InputError(
                f"architecture.stem_stride: found {self.stem_stride}, expected a whole number of 1 to {_LARGEST_STEM}"
            )
        if self.sides[-1] < 1:
            raise InputError(
                f"architecture.tile_px: found {self.tile_px}, expected at least the total stride {self.stride}"
            )
        if self.block_hidden:
            self._check_blocks()

    def _check_blocks(self) -> None:
        sizes = self.block_hidden
        alike = len(sizes) == self.depth and all(len(set(stage)) == 1 for stage in self.stage_sizes)
        widest = tuple(map(max, self.stage_sizes)) if len(sizes) == self.depth else ()
        if alike or min(sizes) < 1 or widest != self.hidden:
            raise InputError(
                f"architecture.block_hidden: found {shown(sizes)}, expected a number for each of the {self.depth} "
                f"blocks, the largest of the stages {_each(self.hidden)}, or none where a stage's are alike"
            )

    @property
    def stride(self) -> int:
        """Pixels of the tile a value of the last feature map stands for."""
        return int(self.stem_stride * 2 ** (len(self.depths) - 1))

    @property
    def side_before_stem(self) -> int:
        """Side of the map that the stem is given: the tile, or what the convolution before it leaves of that."""
        return self.tile_px - (BEFORE_STEM - 1 if self.conv_before_stem else 0)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of each stage's feature map."""
        first = self.tile_px // self.stem_stride
        if self.conv_before_stem:
            first = (self.side_before_stem + self.stem_stride // 2 * 2) // self.stem_stride
        return tuple(first >> stage for stage in range(len(self.depths)))

    @property
    def patches(self) -> int:
        """Places of the last feature map, which stand for parts of the tile as a ViT's patch tokens do."""
        return self.sides[-1] ** 2

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def dim(self) -> int:
        """Width of the feature, channels: that of the last stage."""
        return self.dims[-1]

    @property
    def inner_sizes(self) -> tuple[int, ...]:
        """Hidden channels of each block, stage after stage."""
        return self.block_hidden or tuple(chain.from_iterable(map(repeat, self.hidden, self.depths)))

    @property
    def stage_sizes(self) -> tuple[tuple[int, ...], ...]:
        """The same, stage by stage."""
        return _stage_by_stage(self.inner_sizes, self.depths)

    @property
    def is_uneven(self) -> bool:
        """Whether blocks of a stage have other numbers of hidden channels than others."""
        return bool(self.block_hidden)

    @property
    def inner_text(self) -> str:
        """As of Architecture."""
        return f"hidden channels {self.inner_texts[-1]}"

    @property
    def inner_texts(self) -> tuple[str]:
        """As of Architecture: hidden channels alone, stage by stage."""
        return (_each(map(span, self.stage_sizes)),)

    @property
    def shape_text(self) -> str:
        """As of Architecture, stage by stage."""
        return f"{_each(self.depths)} blocks, dims {_each(self.dims)}, {self.inner_text}"

    @property
    def units_of_width(self) -> int:
        """As of Architecture: hidden channels of a block in the narrowest stage, of its widest where they differ."""
        return min(self.hidden)

    @property
    def told_sizes(self) -> tuple[int, int]:
        """As of Architecture: no head has a dimension, and the hidden channels of the narrowest stage."""
        return 0, min(self.hidden)

    @property
    def fewest_blocks(self) -> int:
        """As of Architecture: one of the last stage, whose channels the last LayerNorm is for."""
        return self.depth - self.depths[-1] + 1

    def is_aligned(self, head_multiple: float, hidden_multiple: float) -> bool:
        """As of Architecture: every block's hidden channels."""
        return not any(hidden % hidden_multiple for hidden in self.inner_sizes)

    def sized(self, sizes: Sequence[int]) -> ConvNextArchitecture:
        """The same encoder with these numbers of hidden channels, of each block."""
        each = _stage_by_stage(sizes, self.depths)
        uneven = any(len(set(stage)) > 1 for stage in each)
        return replace(self, hidden=tuple(map(max, each)), block_hidden=tuple(sizes) if uneven else ())

    def at(self, width_multiplier: float, depth: int | None = None) -> ConvNextArchitecture:
        """The same encoder with each block's hidden axis cut to `width_multiplier`, 0 < s <= 1, and its first blocks.

        A stage of which `depth` leaves no block goes with the downsampling before it, so that the feature is the last
        kept stage's. Raises InputError outside either range.
        """
        check_cut(width_multiplier, depth, self.depth)
        kept = self.depth if depth is None else depth
        before = [total - blocks for total, blocks in zip(accumulate(self.depths), self.depths, strict=True)]
        depths = tuple(min(n, kept - start) for n, start in zip(self.depths, before, strict=True) if kept > start)
        stages = len(depths)
        cut = replace(self, depths=depths, dims=self.dims[:stages], hidden=self.hidden[:stages], block_hidden=())
        return cut.sized([inner_size(full, width_multiplier) for full in self.inner_sizes[:kept]])

    def width_steps(self) -> list[float]:
        """Width multipliers at which the narrowest stage's hidden axis changes: j / n for j = 1 ... n, ascending."""
        narrowest = min(self.hidden)
        return [j / narrowest for j in range(1, narrowest + 1)]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for cards, plans and manifests; `block_hidden` only where blocks differ, as of Architecture."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "block_hidden" or self.is_uneven}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "architecture") -> ConvNextArchitecture:
        """Read what `to_dict` wrote. Raises InputError naming `where`, the key and what was expected."""
        return read_record(cls, data, where)


def _stage_by_stage(sizes: Sequence[int], depths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Sizes of all blocks -> those of each stage."""
    left = iter(sizes)
    return tuple(tuple(islice(left, depth)) for depth in depths)


def _each(sizes: Iterable[object]) -> str:
    return "/".join(map(str, sizes))


AnyArchitecture = Architecture | ConvNextArchitecture
"""What an encoder is: both are read by the names of their sizes (edgeslim.shelf.read_value)."""
