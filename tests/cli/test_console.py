"""What is printed is what was found, to the letter, and no line of it ends in blanks."""

from __future__ import annotations

import sys

import pytest

from edgeslim.cli import main
from edgeslim.cli.console import stdout_console


@pytest.mark.parametrize(
    "line",
    [
        *("devices list", "devices show rpi4", "encoders list", "encoders show eurosat-rgb", "encoders families"),
        *("encoders hubs", "plan --latency-ms 9"),
    ],
)
def test_no_line_that_goes_into_a_file_ends_in_blanks(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(line.split())
    assert not [row for row in capsys.readouterr().out.splitlines() if row != row.rstrip()]


def test_a_terminal_is_written_to_as_rich_writes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stdout_console().print("a  ")
    assert capsys.readouterr().out == "a  \n"


def test_no_name_becomes_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", "rpi4", "--encoder", "a:b"]) == 1
    assert capsys.readouterr().err.startswith("error: --encoder a:b: found no hub 'a', expected one of ")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["devices", "list", "--cards", ""], "argument 4: found an empty word behind --cards"),
        (["devices", "list", "--cards="], "--cards: found nothing"),
        (["", "devices"], "argument 1: found an empty word"),
    ],
)
def test_an_unset_variable_of_the_shell_is_no_folder(
    words: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {found}, expected a value; is a variable of your shell not set?\n")
