"""Boards: a plan the other way round: which boards an encoder flies on within a budget, and what the others lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeslim.device import Device, complete
from edgeslim.device_card import ALL_MODES, DeviceCard
from edgeslim.errors import CardLacks, InputError, NothingFits, UnknownName, UsageError
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.plan import Plan
from edgeslim.profile import Profile
from edgeslim.target import Target

SCHEMA = 1
KEY = "edgeslim_boards"
"""Its presence in a JSON object marks that as what `plan` says without a device, its value is the schema."""
VERDICTS = ("qualifies", "nothing fits", "no such mode", "card lacks", "refused")
"""What became of a board, in the order in which they are shown."""


_WITHOUT = {
    "no such mode": "without that power mode",
    "card lacks": "whose card has no figures for it",
    "refused": "refused",
}
"""Verdict -> why nothing was held against a budget."""


@dataclass(frozen=True, slots=True)
class Board:
    """One board in one power mode, and what became of it."""

    id: str
    """Device card."""
    name: str
    """For people."""
    family: str
    """Of boards that are listed together."""
    power_mode: str
    """Of the board."""
    verdict: str
    """One of VERDICTS."""
    plan: Plan | None = None
    """As `make_plan` makes it for this board alone; None unless it qualifies."""
    why: str = ""
    """What is missed, missing or refused, short; empty where it qualifies."""
    message: str = ""
    """What planning for this board alone ends with; empty where it qualifies."""
    lacks: tuple[str, ...] = ()
    """Keys that its card lacks."""
    over: float | None = None
    """How far the nearest width is from the budget, as Miss.over; None: not known, or it qualifies."""


TargetsOf = Callable[[Device], Sequence[Target]]
"""The formats that a device may run."""


def plan_boards(
    profile: Profile, cards: Iterable[DeviceCard], targets_of: TargetsOf, ask: Ask, allow_unverified: bool = False
) -> tuple[Board, ...]:
    """Plan an encoder for every card; those that qualify first, best first, then the others, nearest first.

    Best is, by the objective of `ask`, the most FLOP or the highest score; of equals the fastest: the scene's time
    where one is asked for, a call's otherwise. A board is planned in its default power mode, in that of `ask` where it
    has one of that name, or once in each for ALL_MODES.

    Raises UsageError for what no board could mend, such as a score that was never measured.
    """
    found = [
        _one(profile, card, mode, targets_of, ask, allow_unverified) for card in cards for mode in _modes(card, ask)
    ]
    return tuple(sorted(found, key=lambda board: (VERDICTS.index(board.verdict), _rank(board, ask), board.id)))


def require_mode(cards: Iterable[DeviceCard], ask: Ask) -> None:
    """Raise UnknownName for a power mode that no board has."""
    known = {ALL_MODES, *(mode.id for card in cards for mode in card.power_mode)}
    if ask.power_mode is not None and ask.power_mode not in known:
        raise UnknownName("power mode", ask.power_mode, known)


def _modes(card: DeviceCard, ask: Ask) -> list[str]:
    if ask.power_mode == ALL_MODES:
        return [mode.id for mode in card.power_mode]
    return [ask.power_mode or card.default_power_mode]


def _one(
    profile: Profile, card: DeviceCard, mode: str, targets_of: TargetsOf, ask: Ask, allow_unverified: bool
) -> Board:
    board = Board(card.id, card.name, card.family, mode, VERDICTS[0])
    try:
        device = complete(card, allow_unverified)
        if mode not in [known.id for known in card.power_mode]:
            return _refused(board, device, mode)
        asked = replace(ask, power_mode=ask.power_mode and mode)
        return replace(board, plan=make_plan(profile, device, targets_of(device), asked, narrower=False))
    except NothingFits as error:
        return replace(board, verdict="nothing fits", why=error.nearest, message=str(error), over=error.over)
    except CardLacks as error:
        why = f"card lacks {', '.join(error.keys)}"
        return replace(board, verdict="card lacks", why=why, message=str(error), lacks=error.keys)
    except UsageError:
        raise
    except InputError as error:
        why = "; ".join(f"{unit.id}: {unit.refused.reason}" for unit in card.unit if unit.refused is not None)
        return replace(board, verdict="refused", why=why or str(error), message=str(error))


def _refused(board: Board, device: Device, mode: str) -> Board:
    """A board that has no power mode of the asked name."""
    try:
        device.in_mode(mode)
    except UsageError as error:
        modes = ", ".join(known.id for known in device.power_mode)
        return replace(board, verdict="no such mode", why=f"has {modes}", message=str(error))
    raise AssertionError(f"{device.id} has power mode {mode}")  # pragma: no cover


def _rank(board: Board, ask: Ask) -> tuple[float, float]:
    if board.plan is None:
        return (float("inf") if board.over is None else board.over, 0.0)
    chosen = board.plan.chosen
    best = chosen.score if ask.objective == "score" and chosen.score is not None else chosen.gflop
    return -best, chosen.latency_high_ms if chosen.scene is None else chosen.scene.high_s


def to_dict(encoder: str, ask: Ask, boards: Sequence[Board]) -> dict[str, Any]:
    """Plain types: what was asked and every board, with the plan's summary where it qualifies."""
    asked = {key: value for key, value in asdict(ask).items() if value is not None}
    rows = []
    for board in boards:
        row = {name: getattr(board, name) for name in Board.__slots__ if name not in ("plan", "lacks")}
        rows.append({**row, "lacks": list(board.lacks), "plan": None if board.plan is None else board.plan.summary()})
    return {KEY: SCHEMA, "encoder": encoder, "asked": asked, "boards": rows}


def require_one(encoder: str, boards: Sequence[Board]) -> None:
    """Raise NothingFits where no board qualifies, naming the nearest."""
    if any(board.plan is not None for board in boards):
        return
    nearest = next((board for board in boards if board.verdict == "nothing fits"), None)
    if nearest is None:
        counts = ((verdict, sum(board.verdict == verdict for board in boards)) for verdict in VERDICTS[2:])
        found = ", ".join(f"{count} {_WITHOUT[verdict]}" for verdict, count in counts if count)
        raise NothingFits(
            f"no board of {len({board.id for board in boards})} can be planned for as asked: {found}; ask for less, "
            "add figures to a card of your own (--cards), or --allow-unverified"
        )
    where = f": the nearest, {nearest.id} ({nearest.power_mode}), misses {nearest.why}"
    raise NothingFits(
        f"no board of {len({board.id for board in boards})} flies {encoder} within these budgets{where}; loosen them, "
        "take a smaller encoder, or add a card of your own (--cards)"
    )
