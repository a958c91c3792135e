"""Known: what an artifact's manifest says of how it tells tiles unlike those that its head was fitted on."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.errors import InputError
from edgeslim.profile import ClassLabel

KNOWN_NAME = "known.npz"
"""File beside the manifest that holds what distances are measured with."""
UNKNOWN = ClassLabel("unknown", "Unknown", "F4F1F5")
"""What such a tile is called: the class after the last."""


@dataclass(frozen=True, slots=True)
class Known:
    """How far a tile may be from those that the head was fitted on; edgeslim.onboard.known measures it."""

    file: str
    """Beside the manifest: class means, axes and limits (edgeslim.onboard.known.array_shapes)."""
    fitted_tiles: int
    """Tiles that they come from."""
    unknown_share: float
    """Of tiles like those, held out of the fit, that the limits were set to call unknown."""

    def __post_init__(self) -> None:
        if not 0 < self.unknown_share < 1:
            raise InputError(f"unknown_share: found {self.unknown_share:g}, expected a share above 0 and below 1")
        if self.fitted_tiles < 1:
            raise InputError(f"fitted_tiles: found {self.fitted_tiles}, expected at least 1")
