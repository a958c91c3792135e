"""Slimming: an encoder and a width multiplier -> a narrower encoder that needs no slicing code.

Every method gives the same shape, and so the same parameters and FLOP; what differs are the weights in it. "first"
cuts off channels (slimming.first), and so does "learned" of an encoder that was trained for that; "calibrated" fits
what is left to unlabelled tiles (slimming.calibrated), and "healed" trains that on them (slimming.healed). Asked to,
"calibrated" shares the FLOP of that shape out among the blocks, where that pays (slimming.uneven).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeslim.errors import InputError
from edgeslim.ground.encoder import AnyEncoder, new_encoder
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.first import slim_state
from edgeslim.ground.slimming.healed import heal
from edgeslim.ground.slimming.healing import Healing
from edgeslim.ground.slimming.taken import FIRST, Calibrated
from edgeslim.ground.slimming.uneven import calibrate_uneven
from edgeslim.planning.plan import CUTTING, METHODS


@dataclass(frozen=True, slots=True)
class Slimmed:
    """What a method made."""

    encoder: AnyEncoder
    """Of the narrower shape, in evaluation mode."""
    method: str
    """Whose weights these are: the one that was asked for, or "calibrated" where healing made nothing better."""
    is_first: bool
    """Whether the weights are the first channels of the full encoder's, so that heads for those fit."""
    step: int | None = None
    """Of a healing, after which the weights were kept, 0 those of the calibration; None: there was none."""


def check_method(method: str, calibration: Calibration | None, healing: Healing | None = None) -> None:
    """Raise InputError for an unknown method, and where tiles or a healing are missing, or given in vain."""
    if method not in METHODS:
        raise InputError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    if (calibration is not None) == (method in CUTTING):
        found, expected = ("no tiles", "some") if calibration is None else ("tiles", "none")
        raise InputError(f"method {method!r}: found {found}, expected {expected}")
    if (healing is not None) != (method == "healed"):
        found, expected = ("no healing", "one") if healing is None else ("a healing", "none")
        raise InputError(f"method {method!r}: found {found}, expected {expected}")


def slim(
    encoder: AnyEncoder,
    width_multiplier: float,
    depth: int | None = None,
    *,
    method: str = METHODS[0],
    calibration: Calibration | None = None,
    healing: Healing | None = None,
    uneven: bool = False,
) -> AnyEncoder:
    """The encoder cut to `width_multiplier` and its first `depth` blocks by one of METHODS, in evaluation mode.

    Its shape, and so its parameters and FLOP, are those of `encoder.arch.at(width_multiplier, depth)` whatever the
    method; `uneven`, by "calibrated", each block may have a width of its own, of no more FLOP together. At 1.0 and full
    depth its weights are bit for bit the same. Raises InputError as `check_method`, `calibrate` and `heal` do, and for
    a width or a depth outside its range.
    """
    return slim_by(method, encoder, width_multiplier, depth, calibration, healing, uneven=uneven).encoder


def slim_by(
    method: str,
    encoder: AnyEncoder,
    width_multiplier: float,
    depth: int | None = None,
    calibration: Calibration | None = None,
    healing: Healing | None = None,
    *,
    uneven: bool = False,
) -> Slimmed:
    """The same, and what is known of it."""
    check_method(method, calibration, healing)
    if uneven and method != "calibrated":
        raise InputError(f"method {method!r}: found uneven widths, expected them of calibrated only")
    narrow = encoder.arch.at(width_multiplier, depth)
    whole = narrow == encoder.arch
    if calibration is None:
        slimmed = new_encoder(narrow)
        slimmed.load_state_dict(slim_state(encoder.state_dict(), encoder.arch, width_multiplier, depth))
        return Slimmed(slimmed.eval(), method, True)
    if healing is None:
        made: Calibrated[Any] = (
            calibrate_uneven(encoder, narrow, calibration) if uneven else calibrate(encoder, narrow, calibration)
        )
        # Heads are those of one width for all blocks.
        is_first = made.way == FIRST and made.encoder.arch == narrow
        return Slimmed(made.encoder, method, whole or is_first)
    healed = heal(encoder, narrow, calibration, healing)
    if healed.step:
        return Slimmed(healed.encoder, method, False, healed.step)
    return Slimmed(healed.encoder, "calibrated", whole or healed.start.way == FIRST, 0)
