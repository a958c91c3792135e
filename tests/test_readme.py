"""What the README shows of `plan` is what `plan` prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from edgeslim.cli import main
from edgeslim.device_card import all_cards

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^    \$ edgeslim (plan .*)\n((?:    .*\n|\n)*)", README, re.MULTILINE)


def test_the_readme_counts_the_boards() -> None:
    assert f"There are cards of {len(all_cards())}:" in README


def test_the_readme_shows_plans() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_shown_plans_are_printed_plans(
    command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    main(shlex.split(command))
    captured = capsys.readouterr()
    printed = [line.rstrip() for line in (captured.out + captured.err).splitlines()]
    expected = "\n".join(line.removeprefix("    ").rstrip() for line in shown.rstrip().splitlines())
    # A line of dots stands for lines that are left out.
    first, *others = expected.split("\n...\n")
    assert "\n".join(printed[: len(first.splitlines())]) == first
    rest = printed[len(first.splitlines()) :]
    for part in others:
        lines = part.splitlines()
        at = next((i for i in range(len(rest)) if rest[i : i + len(lines)] == lines), None)
        assert at is not None, f"not printed: {part}"
        rest = rest[at + len(lines) :]
    assert not any(rest)
