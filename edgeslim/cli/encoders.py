"""`edgeslim encoders`: the encoders that edgeslim has cards of, and the families whose checkpoints it reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.encoder import encoder_of
from edgeslim.cli.schema import schema_flag
from edgeslim.families.family import all_families
from edgeslim.profile import all_profiles
from edgeslim.report.encoders import (
    KnownEncoders,
    KnownFamilies,
    known_encoder,
    print_encoder,
    print_encoders,
    print_families,
)

Cards = Annotated[Path | None, typer.Option("--cards", help="Folder with your own profiles/ and families/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

encoders = typer.Typer(help="Encoders that edgeslim has cards of, and families that it reads.", no_args_is_help=True)


@encoders.command("list")
def list_(
    cards: Cards = None, as_json: AsJson = False, json_schema: Annotated[bool, schema_flag("encoders")] = False
) -> None:
    """List every encoder: bands, tile, size, licence, what is known at each width, whether weights were ever tried."""
    found = tuple(known_encoder(profile) for profile in all_profiles(cards))
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(KnownEncoders(found))}, indent=2, allow_nan=False))
    else:
        print_encoders(found, stdout_console())


@encoders.command()
def show(
    encoder: Annotated[str, typer.Argument(help="Encoder card, or the path of a checkpoint.")],
    cards: Cards = None,
    as_json: AsJson = False,
    json_schema: Annotated[bool, schema_flag("encoder")] = False,
) -> None:
    """Show what a card says, or what a checkpoint is taken for."""
    found = known_encoder(encoder_of(encoder, cards))
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(found)}, indent=2, allow_nan=False))
    else:
        print_encoder(found, stdout_console())


@encoders.command()
def families(
    cards: Cards = None, as_json: AsJson = False, json_schema: Annotated[bool, schema_flag("families")] = False
) -> None:
    """List the families whose checkpoints are read, and what confirms that."""
    found = tuple(all_families(cards))
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(KnownFamilies(found))}, indent=2, allow_nan=False))
    else:
        print_families(found, stdout_console())


@encoders.command()
def hubs(
    cards: Cards = None, as_json: AsJson = False, json_schema: Annotated[bool, schema_flag("hubs")] = False
) -> None:
    """List the checkpoints that can be fetched by name, and those that were."""
    from edgeslim.families.hub import all_hubs
    from edgeslim.report.encoders import known_hubs, print_hubs

    found = known_hubs(all_hubs(cards))
    if as_json:
        typer.echo(json.dumps({"schema": 1, **asdict(found)}, indent=2, allow_nan=False))
    else:
        print_hubs(found, stdout_console())


@encoders.command()
def fetch(
    name: Annotated[str, typer.Argument(help="HUB:NAME, as `encoders hubs` lists them.")], cards: Cards = None
) -> None:
    """Fetch a checkpoint from the network into the cache folder; nothing else ever does."""
    from edgeslim.cli.need_ground import need_ground
    from edgeslim.errors import InputError
    from edgeslim.families.hub import all_hubs, asked_of_hub

    need_ground()
    asked = asked_of_hub(name, cards)
    if asked is None:
        known = ", ".join(hub.id for hub in all_hubs(cards))
        raise InputError(f"{name}: found no hub of that name, expected HUB:NAME with one of {known}")
    from edgeslim.ground.checkpoints.fetch import fetch as fetch_it
    from edgeslim.manifest import sha256_of

    path = fetch_it(asked)
    stderr_console().print(f"{asked.name}: licence {asked.file.licence}, SHA-256 {sha256_of(path)}", markup=False)
    typer.echo(str(path))
