"""Size: bytes of an artifact, before it is exported. No torch.

Artifact = weights + graph + golden tiles + manifest and catalogue item.

    weights   values x bytes of a value; float16 are all but the head and what is no matrix, such as biases; int8 are
              the matrices of the blocks, and of an attention over bands, with a scale (4) and a zero point (1) a
              column, and all else stays in float32
    graph     graph_kb of the export card, for each block and once more for what stands around them
    golden    16 tiles of float32, compressed; their raw values are whole numbers

A format with a file a batch has the network for one tile and that of the plan's batch. Layers that int8 leaves in fp32
(`edgeslim export` says which) come on top.
"""

from __future__ import annotations

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC, KILO, MEGA, VALUE_BYTES

GOLDEN_TILES = 16
"""Golden tiles of an artifact."""
_GOLDEN_SHARE = 0.45
"""Of their bytes, compressed. Measured: 0.25 (EuroSAT), 0.39 (textures), 0.42 (Sentinel-2 as it is delivered)."""
_RECORDS_BYTES = 20_000
"""manifest.json and stac-item.json. Measured with ten classes: 15 to 16 kB."""
_COLUMN_BYTES = 5
"""Scale and zero point of a column of an int8 matrix."""


def golden_bytes(arch: AnyArchitecture) -> int:
    """Golden tiles in memory, float32."""
    return GOLDEN_TILES * arch.bands * arch.tile_px**2 * 4


def weights_bytes(arch: AnyArchitecture, classes: int, precision: str) -> int:
    """Every parameter and constant as an artifact of this precision stores it."""
    count = cost.parameters(arch, classes) + cost.constants(arch)
    arithmetic = ARITHMETIC[precision]
    if arithmetic == "fp32":
        return count * VALUE_BYTES[arithmetic]
    if arithmetic == "fp16":
        exact = _vectors(arch) + (arch.dim + 1) * classes
        return count * VALUE_BYTES[arithmetic] + exact * (VALUE_BYTES["fp32"] - VALUE_BYTES[arithmetic])
    if not isinstance(arch, Architecture):
        # What its products become differs between formats, and some leave convolutions as they are: the most of them.
        return count * VALUE_BYTES["fp32"]
    d, into_hidden = arch.dim, 1 if arch.ffn == "mlp" else 2
    a = sum(arch.attention_heads * head_dim for head_dim, _ in arch.inner_sizes)  # of all blocks
    h = sum(hidden for _, hidden in arch.inner_sizes)
    values = 4 * d * a + (into_hidden + 1) * d * h
    columns = 3 * a + into_hidden * h + 2 * arch.depth * d
    if mixed := arch.band_attention_heads:
        values += mixed * (arch.patch_size**2 * (1 + d) + arch.bands * d)
        columns += mixed + 2 * d
    return values + columns * _COLUMN_BYTES + (count - values) * VALUE_BYTES["fp32"]


def _vectors(arch: AnyArchitecture) -> int:
    """Values of the encoder's biases, LayerNorms, LayerScales, GRNs and tokens without a place."""
    if not isinstance(arch, Architecture):
        blocks = zip(arch.dims, arch.stage_sizes, strict=True)
        return 6 * sum(arch.dims) + sum(4 * d + 3 * hidden for d, sizes in blocks for hidden in sizes)
    d, into_hidden = arch.dim, 1 if arch.ffn == "mlp" else 2
    count = (arch.patch_groups + int(arch.class_token) + arch.register_tokens) * d + sum(arch.stem_channels)
    for head_dim, hidden in arch.inner_sizes:
        count += (3 * arch.attention_heads * head_dim if arch.qkv_bias else 0) + into_hidden * hidden
        count += (8 if arch.layer_scale else 6) * d
    return count + (4 if arch.pre_norm else 2) * d


def artifact_mb(arch: AnyArchitecture, classes: int, target: Target, precision: str, batch: int = 1) -> float | None:
    """All files of an artifact, MB; None where the export card does not say what the graph takes."""
    graph_kb = (target.graph_kb or {}).get(precision)
    if graph_kb is None:
        return None
    network = weights_bytes(arch, classes, precision) + graph_kb * KILO * (arch.depth + 1)
    files = 2 if target.batch == "static" and batch > 1 else 1
    return (files * network + golden_bytes(arch) * _GOLDEN_SHARE + _RECORDS_BYTES) / MEGA
