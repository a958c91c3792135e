"""How to classify, whatever the scene and the artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeslim.errors import UsageError
from edgeslim.onboard.machine import MOST_THREADS
from edgeslim.onboard.reading.scene import SceneOptions
from edgeslim.onboard.writing.maps import OutputOptions
from edgeslim.units import MOST_BATCH

CHECK_EVERY_S = 300.0
"""Seconds between two replays of the golden tiles."""


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """How to classify. Invalid values cannot be built."""

    stride_px: int | None = None
    """Step between windows, px; None: half a tile."""
    cells: bool = False
    """One output pixel a stride instead of a scene pixel."""
    batch: int | None = None
    """Tiles given to the network at once; None: as many as make it fast."""
    threads: int | None = None
    """Batches computed at the same time, each on one thread; None: one for every core that this process may use."""
    max_ram_mib: float | None = None
    """Peak resident memory that the run must keep within, MiB."""
    training_prior: bool = False
    """Take classes to be as frequent as in the training set, not as on land."""
    probabilities: bool = False
    """Write the probability of every class too."""
    vector: str | None = None
    """Format of the cells as polygons; None: GeoJSON unless there are very many."""
    check_every_s: float = CHECK_EVERY_S
    """Seconds between two replays of the golden tiles."""
    resume: bool = False
    """Go on where an earlier run into OUT was cut off."""
    overwrite: bool = False
    """Replace results that stand in OUT, finished or not."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    """What the scene does not say itself."""

    def __post_init__(self) -> None:
        for flag, value in (("--stride", self.stride_px), ("--batch", self.batch), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise UsageError(f"{flag}: found {value}, expected a whole number of at least 1")
        for flag, value, most in (("--threads", self.threads, MOST_THREADS), ("--batch", self.batch, MOST_BATCH)):
            if value is not None and value > most:
                raise UsageError(f"{flag}: found {value}, expected at most {most}")
        for flag, number in (("--max-ram", self.max_ram_mib), ("--check-every-s", self.check_every_s)):
            if number is not None and not number > 0:
                raise UsageError(f"{flag}: found {number:g}, expected more than 0")
        if self.resume and self.overwrite:
            raise UsageError("found both --resume and --overwrite: go on with what stands in OUT, or replace it")
        OutputOptions(self.probabilities, self.vector)

    @property
    def output(self) -> OutputOptions:
        """What to write beside the two maps."""
        return OutputOptions(self.probabilities, self.vector)
