"""ConvNextArchitecture: the shape of a ConvNeXt V2 encoder, at full width or slimmed. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

from edgeslim.architecture import USUAL_NORM_EPS, Architecture, check_cut, inner_size
from edgeslim.errors import InputError
from edgeslim.shelf import read_record

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
    """Shape of a ConvNeXt V2 (arXiv 2301.00808). Of each block the hidden axis is cut, its GRN with it; dims never."""

    depths: tuple[int, ...]
    """Blocks of each stage."""
    dims: tuple[int, ...]
    """Residual width of each stage, channels."""
    hidden: tuple[int, ...]
    """Hidden channels of a block in each stage; four times its dim in a full encoder."""
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
    def inner_text(self) -> str:
        """As of Architecture."""
        return f"hidden channels {_each(self.hidden)}"

    @property
    def shape_text(self) -> str:
        """As of Architecture, stage by stage."""
        return f"{_each(self.depths)} blocks, dims {_each(self.dims)}, hidden channels {_each(self.hidden)}"

    @property
    def units_of_width(self) -> int:
        """As of Architecture: hidden channels of a block in the narrowest stage."""
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
        """As of Architecture: every stage's hidden channels."""
        return not any(hidden % hidden_multiple for hidden in self.hidden)

    def at(self, width_multiplier: float, depth: int | None = None) -> ConvNextArchitecture:
        """The same encoder with each block's hidden axis cut to `width_multiplier`, 0 < s <= 1, and its first blocks.

        A stage of which `depth` leaves no block goes with the downsampling before it, so that the feature is the last
        kept stage's. Raises InputError outside either range.
        """
        check_cut(width_multiplier, depth, self.depth)
        kept = self.depth if depth is None else depth
        before = [total - blocks for total, blocks in zip(accumulate(self.depths), self.depths, strict=True)]
        depths = tuple(min(n, kept - start) for n, start in zip(self.depths, before, strict=True) if kept > start)
        return replace(
            self,
            depths=depths,
            dims=self.dims[: len(depths)],
            hidden=tuple(inner_size(full, width_multiplier) for full in self.hidden[: len(depths)]),
        )

    def width_steps(self) -> list[float]:
        """Width multipliers at which the narrowest stage's hidden axis changes: j / n for j = 1 ... n, ascending."""
        narrowest = min(self.hidden)
        return [j / narrowest for j in range(1, narrowest + 1)]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for cards, plans and manifests."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "architecture") -> ConvNextArchitecture:
        """Read what `to_dict` wrote. Raises InputError naming `where`, the key and what was expected."""
        return read_record(cls, data, where)


def _each(sizes: tuple[int, ...]) -> str:
    return "/".join(map(str, sizes))


AnyArchitecture = Architecture | ConvNextArchitecture
"""What an encoder is: both are read by the names of their sizes (edgeslim.shelf.read_value)."""
