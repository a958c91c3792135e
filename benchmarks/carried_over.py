"""Which figures of device cards are carried over from another board's, and are they still as there?

    python benchmarks/carried_over.py            # rewrites the cards in devices/
    python benchmarks/carried_over.py --check    # says what differs, exit code 1 if anything does

A figure of a `[[runtime]]` whose source begins "as on NAME (why): " or "as on NAME, why: " is that of the card that
BOARDS gives for NAME, at the same runtime and key; its source ends with that card's own, less the benchmark that fitted
it. Run it when one of these cards was fitted anew (benchmarks/latency.py).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import tomli as tomllib
except ModuleNotFoundError:
    import tomllib

DEVICES = Path(__file__).parents[1] / "devices"
BOARDS = {
    "a Raspberry Pi 4": "raspberry-pi-4b-4gb",
    "a Raspberry Pi 5": "raspberry-pi-5-8gb",
    "an Orin Nano 8GB": "jetson-orin-nano-8gb",
    "an Orin NX 16GB": "jetson-orin-nx-16gb",
    "the x86-64 host's card": "x86-64-host",
}
"""As a source names it -> its card."""
_RESULT = "; benchmarks/results/latency.md"
"""Stands where the figure was fitted, and only there."""
_NAMES = "|".join(map(re.escape, BOARDS))
_FIGURE = re.compile(rf'^(\w+) = \{{ value = (\S+), source = "(as on ({_NAMES})(?: \([^()]*\)|, [^:]*)): (.*)" \}}$')
_RUNTIME, _EFFICIENCY = re.compile(r'^id = "([\w-]+)"$'), re.compile(r"^\[runtime\.efficiency\.(\w+)\]$")


def carried_over(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Lines of a card that carry a figure over: number, the line, as it should be, and what it is."""
    runtime, precision, inside = "", None, False
    for number, line in enumerate(text.splitlines()):
        if line.startswith("["):
            inside = line.startswith(("[[runtime]]", "[runtime."))
            precision = found[1] if (found := _EFFICIENCY.match(line)) else None
        elif inside and precision is None and (found := _RUNTIME.match(line)):
            runtime = found[1]
        elif inside and (found := _FIGURE.match(line)):
            key, prefix, name = found[1], found[3], found[4]
            there = figure(BOARDS[name], runtime, precision, key)
            value, source = there["value"], there["source"].removesuffix(_RESULT)
            yield number, line, f'{key} = {{ value = {value}, source = "{prefix}: {source}" }}', f"{runtime} {key}"


def figure(card: str, runtime: str, precision: str | None, key: str) -> dict[str, Any]:
    """A figure of a card's runtime."""
    data = tomllib.loads((DEVICES / f"{card}.toml").read_text(encoding="utf-8"))
    found = next(row for row in data["runtime"] if row["id"] == runtime)
    row: dict[str, Any] = found[key] if precision is None else found["efficiency"][precision][key]
    return row


def main() -> int:
    """Rewrite, or say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check, changed, seen = parser.parse_args().check, 0, 0
    for path in sorted(DEVICES.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for number, line, wanted, what in carried_over(text):
            seen += 1
            if line != wanted:
                changed += 1
                lines[number] = wanted
                print(f"{path.name}: {what}: {'differs' if check else 'brought up to date'}")
        if not check:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{seen} figures carried over, {changed} {'differ' if check else 'changed'}")
    return int(check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
