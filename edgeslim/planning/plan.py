"""Plan: which cut of an encoder, in width and depth, flies on a device, and why no larger one; as a file. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.figure import Figure, must_not_be_negative
from edgeslim.planning.budget import Budget, Miss
from edgeslim.planning.durations import Scene
from edgeslim.planning.estimate import Estimate
from edgeslim.profile import Profile
from edgeslim.shelf import read_record, shown, table_once
from edgeslim.whole import Kind, write_whole

SCHEMA = 1
KEY = "edgeslim_plan"
"""Its presence in a JSON file marks that file as a plan, its value is the schema."""

METHODS = ("first", "calibrated", "healed", "learned")
"""Slimming methods: the first channels of each head and of each hidden layer (arXiv 2601.22841); weights for the same
shape from unlabelled tiles (edgeslim/ground/slimming/calibrated.py); these, taught by the full encoder
(slimming/healed.py); and the first channels of an encoder that was trained to be slimmed so."""
CUTTING = ("first", "learned")
"""Methods that keep the first channels as they are: they need no tiles, and heads of the card fit what they make."""

NOT_IN_SUMMARY = ("architecture", "slim_architecture", "steps", "multiples", "startup_lacks", "tried", "error_band")
"""Fields that a plan's summary leaves out."""


@dataclass(frozen=True, slots=True)
class Step:
    """One cut and what became of it."""

    verdict: str
    """"chosen", "over budget", "unaligned" (fits, but an aligned one fits too), "narrower" (than the chosen one, or in
    depth smaller by FLOP), or of one that fits and is larger, where the best score is wanted: "lower score" or "score
    not measured"."""
    misses: tuple[Miss, ...]
    """Budgets missed; empty unless "over budget"."""
    estimate: Estimate
    """What it costs."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Another way to run the encoder on the device, and what became of it."""

    target: str
    """Export card."""
    runtime: str
    """Of the device card."""
    precision: str
    """As exported."""
    outcome: str
    """Which cut fits at most, what is missed, or why it is not known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which cut of an encoder flies on a device, why, and why no larger one."""

    encoder: str
    """Profile card."""
    architecture: AnyArchitecture
    """At width multiplier 1.0."""
    classes: int
    """Of the head; 0 without one."""
    method: str
    """Slimming method: one of METHODS. The scores of the card were measured with "first"."""
    chosen: Estimate
    """The chosen width and depth, and what they are computed to cost."""
    slim_architecture: AnyArchitecture
    """After slimming to the chosen width and depth."""
    device: str
    """Device card."""
    device_name: str
    """For people."""
    power_mode: str
    """Of the device."""
    power_mode_basis: str
    """"asked", or why it is the device's default."""
    target: str
    """Export card."""
    runtime: str
    """Of the device card."""
    runtime_basis: str
    """What its efficiencies rest on: "measured", "related" or "assumed"."""
    precision: str
    """As exported: one of edgeslim.units.ARITHMETIC."""
    batch: int
    """Tiles a call."""
    multiples: tuple[int, ...]
    """Multiples of head_dim and of ffn_hidden that the hardware likes."""
    budget: Budget
    """What a tile may cost."""
    steps: tuple[Step, ...]
    """All width steps, and the cuts in depth whose score was measured: the most FLOP first, then the widest."""
    unverified: str | None = None
    """Why the unit that it runs on is refused unless asked for: it is no figure to rely on; None: it is not."""
    startup_lacks: tuple[str, ...] = ()
    """Keys that the device's card lacks for the start-up to be known."""
    uplink_kb_day: float | None = None
    """What the link takes up a day; None: not asked."""
    scene: Scene | None = None
    """To be classified; None: not asked."""
    objective: str = "widest"
    """Which of the cuts that fit was chosen: the "widest" (the most FLOP), or that of the best "score"."""
    tried: tuple[Tried, ...] = ()
    """Other ways to run it that were looked at."""
    error_band: Figure | None = None
    """b of the times: they are expected between the estimate / (1 + b) and the estimate * (1 + b); with its basis."""

    @property
    def width_multiplier(self) -> float:
        """The chosen one."""
        return self.chosen.width_multiplier

    @property
    def depth(self) -> int | None:
        """Blocks that are kept, the first ones; None: all."""
        return self.chosen.depth

    @property
    def larger(self) -> list[Step]:
        """The steps that were refused for the chosen one."""
        return [step for step in self.steps if step.estimate.size > self.chosen.size]

    @property
    def cuts_depth(self) -> bool:
        """Whether cuts in depth were looked at."""
        return any(step.estimate.depth is not None for step in self.steps)

    def summary(self) -> dict[str, Any]:
        """What crosses to the device with an artifact: all but the architectures and the steps not chosen."""
        return {key: value for key, value in self.to_dict().items() if key not in NOT_IN_SUMMARY}

    def to_dict(self) -> dict[str, Any]:
        """Plain types; read back by `from_dict`."""
        data: dict[str, Any] = asdict(self)
        data["architecture"] = self.architecture.to_dict()
        data["slim_architecture"] = self.slim_architecture.to_dict()
        return {KEY: SCHEMA, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "plan") -> Plan:
        """Read what `to_dict` wrote. Raises InputError naming `where`, the key and what was expected."""
        if data.get(KEY) != SCHEMA:
            found = f"{KEY} = {data[KEY]!r}" if KEY in data else f"no key {KEY!r}"
            raise InputError(f"{where}: found {found}, expected {KEY} = {SCHEMA}; `edgeslim plan` writes one")
        plan = read_record(cls, {k: v for k, v in data.items() if k != KEY}, where)
        for key, value in data.items():
            must_not_be_negative(value, f"{where}: {key}")
        if plan.method not in METHODS:
            raise InputError(f"{where}: method: found {shown(plan.method)}, expected one of {', '.join(METHODS)}")
        slim, expected = plan.slim_architecture, plan.architecture.at(*plan.chosen.cut)
        if slim != expected or (plan.chosen.head_dim, plan.chosen.ffn_hidden) != slim.told_sizes:
            raise InputError(
                f"{where}: slim_architecture: found {slim.inner_text} and {slim.depth} blocks, expected "
                f"{expected.inner_text} and {expected.depth} of width multiplier {plan.chosen.cut}; plan again"
            )
        return plan

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the plan as JSON, whole or not at all. A file that is no plan is replaced only with `overwrite`.

        Raises InputError if `path` cannot be written or holds something else.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        write_whole(path, text, PLAN_FILE, overwrite=overwrite)


def check_method(method: str, profile: Profile) -> None:
    """Raise InputError for a method that is none of this encoder's.

    "learned" is for one whose card says that it was trained to be slimmed.
    """
    if method == "learned" and not profile.slimmable:
        raise InputError(
            f"method learned: the card of {profile.id} does not say slimmable = true, expected an encoder that was "
            "trained to be slimmed; use first, which cuts the same channels, or calibrated or healed, which mend them"
        )


def _is_plan(path: Path) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and KEY in data


PLAN_FILE = Kind("plan", "-o", _is_plan)
"""What `Plan.write` writes."""


def read_plan(path: Path) -> Plan:
    """Read a plan.json. Raises InputError naming the file and what is wrong with it."""
    try:
        data = json.loads(path.read_bytes(), object_pairs_hook=partial(table_once, str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); `edgeslim plan` writes one") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); `edgeslim plan` writes one") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found no JSON object, expected a plan; `edgeslim plan` writes one")
    return Plan.from_dict(data, str(path))
