"""ConvNeXt reading: what the shapes of a checkpoint's canonical tensors say of a ConvNeXt V2. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError
from edgeslim.families.family import Family

Shape = tuple[int, ...]
_STEM = "stem.0.weight"
_BEFORE = "initial_conv.0.weight"
_FIRST = "stages.0.blocks.0"
NEEDED = {
    _STEM: 4,
    f"{_FIRST}.conv_dw.weight": 4,
    f"{_FIRST}.mlp.fc1.weight": 4,
    f"{_FIRST}.mlp.grn.weight": 1,
}
"""Canonical tensors that every ConvNeXt V2 has, and how many axes."""


def convnext_of(family: Family, names: Collection[str], need: Callable[[str], Shape]) -> ConvNextArchitecture:
    """The architecture of an encoder with these canonical `names`; `need` gives the shape of one that must be there.

    Raises InputError where they do not fit together.
    """
    blocks = {tuple(name.split(".")[1:4:2]) for name in names if name.startswith("stages.") and ".blocks." in name}
    counts = Counter(int(stage) for stage, _ in blocks)
    depths = tuple(counts[stage] for stage in sorted(counts))
    if sorted(counts) != list(range(len(counts))):
        raise InputError(f"stages: found {', '.join(map(str, sorted(counts)))}, expected them from 0 on without a gap")
    stem, before = need(_STEM), need(_BEFORE) if _BEFORE in names else None
    if before is not None and len(before) != 4:
        raise InputError(f"{_BEFORE}: found shape {before}, expected that of a convolution")
    rows = [need(f"stages.{stage}.blocks.0.mlp.fc1.weight") for stage in range(len(depths))]
    assert family.tile_px is not None
    return ConvNextArchitecture(
        depths=depths,
        dims=tuple(row[1] for row in rows),
        hidden=tuple(row[0] for row in rows),
        tile_px=family.tile_px,
        bands=stem[1] if before is None else before[1],
        norm_eps=family.norm_eps,
        stem_stride=stem[3],
        conv_before_stem=before is not None,
        grn_eps=family.grn_eps,
    )
