"""Slimming: an encoder and a width multiplier -> a narrower encoder that needs no slicing code.

Every method gives the same shape, and so the same parameters and FLOP; what differs are the weights in it. "first"
cuts off channels (edgeslim.ground.first), "calibrated" fits what is left to unlabelled tiles (ground.calibrated).
"""

from __future__ import annotations

from edgeslim.errors import InputError
from edgeslim.ground.calibrated import calibrate
from edgeslim.ground.calibration import Calibration
from edgeslim.ground.first import slim_state
from edgeslim.ground.vit import Vit
from edgeslim.plan import METHODS


def check_method(method: str, calibration: Calibration | None) -> None:
    """Raise InputError for an unknown method, "calibrated" without a calibration, or "first" with one."""
    if method not in METHODS:
        raise InputError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    if (calibration is not None) != (method == "calibrated"):
        found, expected = ("no tiles", "some") if calibration is None else ("tiles", "none")
        raise InputError(f"method {method!r}: found {found}, expected {expected}")


def slim(
    encoder: Vit,
    width_multiplier: float,
    depth: int | None = None,
    *,
    method: str = METHODS[0],
    calibration: Calibration | None = None,
) -> Vit:
    """The encoder cut to `width_multiplier` and its first `depth` blocks by one of METHODS, in evaluation mode.

    Its shape, and so its parameters and FLOP, are those of `encoder.arch.at(width_multiplier, depth)` whatever the
    method. At 1.0 and full depth its weights are bit for bit the same. Raises InputError as `check_method`
    and `calibrate` do, and for a width or a depth outside its range.
    """
    check_method(method, calibration)
    narrow = encoder.arch.at(width_multiplier, depth)
    if calibration is not None:
        return calibrate(encoder, narrow, calibration).encoder
    slimmed = Vit(narrow)
    slimmed.load_state_dict(slim_state(encoder.state_dict(), encoder.arch, width_multiplier, depth))
    return slimmed.eval()
