"""`--json-schema`: the published schema of what a verb prints with `--json`."""

from __future__ import annotations

from typing import Any

import typer

from edgeslim.shelf import shelf_folder


def print_schema(verb: str) -> None:
    """Print the schema of what a verb prints."""
    typer.echo((shelf_folder("schemas") / f"{verb}.schema.json").read_text(encoding="utf-8"), nl=False)


def schema_flag(verb: str) -> Any:
    """The flag, which ends the verb before it does anything else."""

    def show(asked: bool) -> None:
        if asked:
            print_schema(verb)
            raise typer.Exit

    return typer.Option(
        "--json-schema", callback=show, is_eager=True, help="Print the JSON Schema of what --json prints."
    )
