"""`edgeslim doctor`: what this machine is, and which device card is nearest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.console import stdout_console
from edgeslim.cli.schema import schema_flag


def doctor(
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("doctor")] = False,
) -> None:
    """Say what this machine is: board, cores, memory, power, heat, runtimes, and the nearest device card. No torch.

    What it prints can be pasted: no host's or user's name, no path, no serial number.
    """
    from edgeslim.onboard.doctor.diagnosis import diagnose
    from edgeslim.report.doctor import print_diagnosis

    found = diagnose(cards=cards)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
        return
    print_diagnosis(found, stdout_console())
