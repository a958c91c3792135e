"""`edgeslim devices`: the boards that edgeslim knows, what is known of each, and checks of a card of one's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.console import stdout_console
from edgeslim.cli.schema import schema_flag
from edgeslim.device import complete
from edgeslim.device_card import DeviceCard, all_cards, load_card, take_card
from edgeslim.errors import InputError
from edgeslim.planning.durations import startup_lacks
from edgeslim.report.devices import ValidatedCard, ValidatedCards, print_card, print_cards, to_dict
from edgeslim.target import targets_on

Cards = Annotated[Path | None, typer.Option("--cards", help="Folder with your own devices/; they come first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

devices = typer.Typer(help="Boards that edgeslim has cards of: list, show, validate.", no_args_is_help=True)


@devices.command("list")
def list_(
    cards: Cards = None,
    as_json: AsJson = False,
    json_schema: Annotated[bool, schema_flag("devices")] = False,
) -> None:
    """List every board: memory, peaks, power modes, and what can be planned on it."""
    found = all_cards(cards)
    if as_json:
        typer.echo(json.dumps({"schema": 1, "devices": [to_dict(card) for card in found]}, indent=2, allow_nan=False))
    else:
        print_cards(found, stdout_console())


@devices.command()
def show(
    device: Annotated[str, typer.Argument(help="Device card, or an alias of one.")],
    cards: Cards = None,
    as_json: AsJson = False,
    json_schema: Annotated[bool, schema_flag("device")] = False,
) -> None:
    """Show all that the card of a board says, with the source of every figure."""
    card = take_card(device, cards)
    if as_json:
        typer.echo(json.dumps(to_dict(card), indent=2, allow_nan=False))
    else:
        print_card(card, stdout_console())


@devices.command()
def validate(
    card: Annotated[list[Path], typer.Argument(help="Cards of your own, TOML.", metavar="CARD.toml...")],
    as_json: AsJson = False,
    json_schema: Annotated[bool, schema_flag("validated")] = False,
) -> None:
    """Check device cards: OK, or a line for each problem naming file, key, what was found and what was expected."""
    found: list[ValidatedCard] = []
    for path in card:
        problems: tuple[str, ...] = ()
        warnings: list[str] = []
        try:
            warnings = _warnings(load_card(path))
        except InputError as error:
            problems = error.problems
        found.append(ValidatedCard(str(path), not problems, problems, tuple(warnings)))
        if not as_json:
            lines = problems or (f"{path}: OK", *(f"{path}: note: {warning}" for warning in warnings))
            stdout_console(soft_wrap=True).print("\n".join(lines), markup=False)
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(ValidatedCards(tuple(found)))}, indent=2))
    if bad := sum(not one.ok for one in found):
        raise InputError(f"{bad} of {len(card)} cards cannot be used; mend what is listed")


def _warnings(card: DeviceCard) -> list[str]:
    """What a card that loads leaves out, or has in vain."""
    found = [
        f"runtime {runtime.id}: no card of export/ runs on it, nothing will be planned in it"
        for runtime in card.runtime
        if not targets_on([runtime.id])
    ]
    found += [f"unit {unit.id} is refused unasked: {unit.refused.reason}" for unit in card.unit if unit.refused]
    if lacks := card.lacks():
        return [*found, f"nothing can be planned on it: it lacks {', '.join(lacks)}"]
    device = complete(card)
    for runtime in device.runtime:
        if lacks := startup_lacks(device, runtime):
            found.append(f"no start-up and no scene is timed in {runtime.id}: it lacks {', '.join(lacks)}")
    if not any(mode.power_w for mode in card.power_mode):
        found.append("no watts and no energy are planned: no power_mode has a measured power_w")
    return found
