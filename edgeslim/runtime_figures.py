"""RuntimeFigures: what one runtime reaches on one unit of a board."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.errors import InputError
from edgeslim.figure import Figure, must_be_known, must_be_positive, must_be_share
from edgeslim.units import OP_CLASSES, VALUE_BYTES


@dataclass(frozen=True, slots=True)
class RuntimeFigures:
    """What one runtime reaches on one unit of the board."""

    id: str
    """"onnxruntime-cpu": export targets name it."""
    unit: str
    """Which unit it runs on."""
    efficiency: dict[str, dict[str, Figure]]
    """Precision -> op class -> share of the unit's peak."""
    op_overhead_us: Figure
    """Time of one matrix product that no FLOP and no byte explain."""
    fixed_overhead_ms: Figure
    """Time of one call."""
    memory_mib: Figure
    """Resident with an open scene and a network, less its weights and activations: interpreter and libraries."""
    weight_copies: Figure
    """How many times the weights are resident: as mapped from their file and as packed, of one call and one file."""
    error_band: Figure
    """b: the latency is expected between estimate / (1 + b) and estimate * (1 + b)."""
    basis: str
    """"measured" (ViT rows of this runtime on this board), "related" (other networks or chips), "assumed"."""
    fused_attention: bool = False
    """Whether attention's scores stay in the processor, between its two products."""
    startup_ms: Figure | None = None
    """From process start to an open scene: interpreter, libraries, no network and no tile. All of it in the page cache,
    one core at the default power mode; None: not known."""
    startup_read_mb: Figure | None = None
    """Interpreter and libraries that a start reads from storage when nothing is in the page cache, MB."""
    weights_mb_s: Figure | None = None
    """Weights hashed, loaded and packed in a second, out of the page cache, MB/s; one core, default power mode."""
    band_pixel_ns: Figure | None = None
    """Processor time beside the network of each band of each pixel of a scene, ns: decoded, hashed, converted, and its
    share of the maps; one core, default power mode. None: not counted."""
    window_us: Figure | None = None
    """The same of each window of a scene, us: cut out, handed over, blended; None: not counted."""
    further_weight_copies: Figure | None = None
    """The same for each further call at the same time, and each further file; None: they share those of the first."""
    activation_copies: Figure | None = None
    """How many times the largest live set of activations (edgeslim.cost) a call holds: less than one where elementwise
    steps are fused, more where the runtime plans worse or rounds up; None: once."""
    block_mib: Figure | None = None
    """What each block of the network takes beside weights and activations: its graph and its kernels; None: nothing."""
    call_mib: Figure | None = None
    """What each further call at the same time takes beside its activations; None: nothing."""

    def __post_init__(self) -> None:
        must_be_known(self.basis, ("measured", "related", "assumed"), "basis")
        for precision, classes in self.efficiency.items():
            must_be_known(precision, VALUE_BYTES, "efficiency")
            for op_class in OP_CLASSES:
                if op_class not in classes:
                    raise InputError(f"efficiency.{precision}: missing key {op_class!r}, expected every op class")
            for op_class, figure in classes.items():
                must_be_known(op_class, OP_CLASSES, f"efficiency.{precision}")
                must_be_share(figure, f"efficiency.{precision}.{op_class}")
        if self.weights_mb_s is not None:
            must_be_positive(self.weights_mb_s, "weights_mb_s")
        if self.weight_copies.value < 1:
            raise InputError(f"weight_copies: found {self.weight_copies.value:g}, expected at least 1")

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that it has figures for."""
        return tuple(self.efficiency)
