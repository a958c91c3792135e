"""What README and docs show of `plan` and `doctor` is what they print, their commands are commands, their links lead
somewhere, the exit codes are those of the errors."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from edgeslim import errors
from edgeslim.cli import main
from edgeslim.device_card import all_cards
from tests.pages import PAGES, ROOT, TEXT

BLOCKS = re.findall(r"^    \$ edgeslim (plan .*)\n((?:    .*\n|\n)*)", TEXT, re.MULTILINE)


def test_the_readme_counts_the_boards() -> None:
    assert f"There are cards of {len(all_cards())}:" in TEXT
    assert f"Any of {len(all_cards())} boards" in PAGES["README.md"]


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


def section(title: str) -> str:
    return re.split(r"\n##? ", TEXT.split(f"\n## {title}\n")[1])[0]


def shell(text: str) -> list[str]:
    return re.findall(r"^    \$ edgeslim (.*)$", text, re.MULTILINE)


def test_every_command_of_plan_and_doctor_is_run_here() -> None:
    assert [*shell(section("A mission"))[:1], *shell(section("plan"))] == [command for command, _ in BLOCKS]
    assert shell(section("doctor")) == ["doctor"]


@pytest.mark.parametrize("verb", ["plan", "doctor"])
def test_flags_that_the_readme_names_are_flags(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([verb, "--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    # What a command prints may name another verb's.
    typed = re.sub(r"^    (?!\$).*$", "", section(verb), flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", typed)) <= known


@pytest.mark.parametrize("command", shell(TEXT))
def test_shown_commands_have_flags_of_their_verb(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(command, comments=True)
    verb = words[: 2 if words[0] in ("devices", "encoders") else 1]
    assert main([*verb, "--help"]) == 0
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
    assert {word for word in words if word.startswith("-")} <= known


def anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    found = re.findall(r"\]\(([^)\s]+)\)", PAGES[page])
    assert found
    for link in found:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.relative_to(ROOT))), link


def names(text: str) -> list[str]:
    """Of a doctor's rows; what follows depends on the machine."""
    return [found[1] for line in text.splitlines() if (found := re.match(r"(\S.{0,13}?)(?:  |$)", line))]


def test_shown_rows_of_doctor_are_printed_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = re.search(r"^    \$ edgeslim doctor\n((?:    .*\n|\n)*)", section("doctor"), re.MULTILINE)
    assert shown is not None
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["doctor"]) == 0
    told = {"JetPack", "power mode"}  # rows that only some boards have
    printed = [name for name in names(capsys.readouterr().out) if name not in told]
    assert names("\n".join(line.removeprefix("    ") for line in shown[1].splitlines())) == printed
    assert len(printed) > 12


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.EdgeslimError)}
    assert [int(row) for row in rows] == sorted({0, *raised})


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["--device", "rpi4"]),
        (0, ["--json-schema"]),
        (1, ["--device", "rpi4", "-o", "notes.txt"]),
        (1, ["--device", "rpi4", "--html", "notes.txt"]),
        (1, ["--device", "odd", "--cards", "own"]),
        (1, ["--device", "rpi5", "--max-w", "5"]),
        (2, ["--device", "rpy4"]),
        (2, ["--device", "rpi4", "--no-such-flag"]),
        (2, ["--device", "rpi4", "--deadline-s", "60"]),
        (2, ["--device", "rpi4", "--latency-ms", "0"]),
        (2, ["--device", "rpi4", "--html", "plan.json"]),
        (3, ["--device", "rpi4", "--latency-ms", "1"]),
        (3, ["--device", "rpi4", "--latency-ms", "1", "--html", "plan.html", "--json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes_of_plan(
    code: int,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "own" / "devices").mkdir(parents=True)
    (tmp_path / "own" / "devices" / "odd.toml").write_text('id = "odd"\n')
    assert main(["plan", *arguments]) == code
    captured = capsys.readouterr()
    if code:
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert not (tmp_path / "plan.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
