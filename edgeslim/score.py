"""Score: what was measured of an encoder at one cut, of width or of depth; a row of the encoder's card."""

from __future__ import annotations

from dataclasses import dataclass

from edgeslim.errors import InputError


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured of one cut."""

    width_multiplier: float
    """Of the encoder that was scored."""
    metric: str
    """"accuracy"."""
    dataset: str
    """Data set and part."""
    value: float
    """0 ... 1."""
    source: str
    """The command, or the publication."""
    probe: str | None = None
    """What was put on the features: "5 nearest neighbours", "linear head"; None: not said."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval; None: nobody gave one."""
    depth: int | None = None
    """Blocks that were run, the first ones, the last LayerNorm behind them; None: all."""

    def __post_init__(self) -> None:
        if not 0 < self.width_multiplier <= 1:
            raise InputError(f"width_multiplier: found {self.width_multiplier:g}, expected more than 0, at most 1")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"depth: found {self.depth}, expected at least 1 block")
        if not 0 <= self.value <= 1:
            raise InputError(f"value: found {self.value:g}, expected a share from 0 to 1")
        if self.interval is not None and not 0 <= self.interval[0] <= self.value <= self.interval[1] <= 1:
            low, high = self.interval
            raise InputError(f"interval: found {low:g} to {high:g}, expected shares about the value {self.value:g}")

    @property
    def basis(self) -> str:
        """What it is, for people: metric, data set, probe, interval, source."""
        parts = [self.metric, self.dataset, *([self.probe] if self.probe else [])]
        if self.interval is not None:
            parts.append(f"95 % interval {self.interval[0]:.3f} to {self.interval[1]:.3f}")
        return f"{', '.join(parts)}; {self.source}"
