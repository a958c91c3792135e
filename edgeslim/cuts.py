"""Cuts: what of an encoder may fly: each block's inner widths cut to a share, and its first blocks. No torch.

Cuts are ordered by FLOP, then by width: of two depths neither is "wider". Of one depth that is the order of widths.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeslim.architecture import Architecture


class Cut(NamedTuple):
    """One of them."""

    width_multiplier: float
    """Kept fraction of each block's inner widths."""
    depth: int | None = None
    """Blocks that are kept, the first ones, the last LayerNorm behind them; None: all."""

    def __str__(self) -> str:
        """As people are told: "0.5", or "0.5 with 6 blocks"."""
        return cut_text(f"{self.width_multiplier:.4g}", self.depth)


def cut_text(width: str, depth: int | None) -> str:
    """A width as it is written, and the depth where it is cut: "0.5 with 6 blocks"."""
    return width if depth is None else f"{width} with {depth} block{'s' if depth > 1 else ''}"


def inner_text(arch: Architecture) -> tuple[str, str]:
    """Dimensions of a head and hidden units, for people: "8" and "128", or "4 to 12" where blocks differ."""
    heads, hidden = zip(*arch.inner_sizes, strict=True)
    return _span(heads), _span(hidden)


def _span(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"
