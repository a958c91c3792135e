"""How long does `plan` take from a cold process, with every card loaded, against what no command line can avoid?

    python benchmarks/plan_startup.py [--repeats 41] [--other-typer FOLDER]

Fresh processes, the commands interleaved: each round runs every one of them once, and a ratio is of two runs of one
round. Files are in the page cache, byte code is compiled as pip leaves it. The measure is a bare
`python -c "import numpy, typer, rich"`; `plan` may take twice as long. Beside it what the interpreter takes, and what
typer takes to run an empty verb with as many flags as `plan` has. With a folder that holds another one
(`pip install --target FOLDER --no-deps typer==0.29.2`, which imports pydantic there) the rows come once more with that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from onboard_process import Run, keep_to_cores, machine, markdown, measure

RESULT = Path(__file__).parent / "results" / "plan_startup"
ROOT = Path(__file__).parents[1]
LIMIT = 2.0
BARE = "bare"
FLAGS = 26
VERB = f"""
import typer
app = typer.Typer(add_completion=False)
@app.command()
def verb({", ".join(f"flag_{i}: float = 0" for i in range(FLAGS))}) -> None: ...
app(args=[], standalone_mode=False)
"""
SCENE = ["--min-score", ".9", "--scene", "10980x10980", "--deadline-s", "600"]
HARD = ["--min-score", ".9", "--scene", "10980x10980", "--deadline-s", "60"]
PLAN = ["-m", "edgeslim", "plan"]
SUBJECTS: dict[str, tuple[str, list[str], bool]] = {
    "interpreter": ("python -c pass", ["-c", "pass"], False),
    BARE: ('python -c "import numpy, typer, rich"', ["-c", "import numpy, typer, rich"], False),
    "verb": (f"an empty typer verb with {FLAGS} flags", ["-c", VERB], False),
    "device": ("plan --device raspberry-pi-4b-4gb", [*PLAN, "--device", "raspberry-pi-4b-4gb"], True),
    "alias": ("plan --device rk3588 (an alias: cards are read until it is found)", [*PLAN, "--device", "rk3588"], True),
    "boards": ("plan (every board)", PLAN, True),
    "scene": (f"plan {' '.join(SCENE)}", [*PLAN, *SCENE], True),
    "hard": (f"plan {' '.join(HARD)} (too short for every board)", [*PLAN, *HARD], True),
    "list": ("devices list", ["-m", "edgeslim", "devices", "list"], False),
}
"""Name -> what it is, arguments of the interpreter, whether the limit is for it."""
FORBIDDEN = ("torch", "rasterio")


def imported(arguments: list[str], environment: dict[str, str]) -> list[str]:
    """Modules of FORBIDDEN that a command line of edgeslim imports."""
    words = arguments[2:]
    code = (
        f"import sys, json, os\nfrom edgeslim.cli import main\nmain({words!r})\n"
        f"print(json.dumps({{'found': [name for name in {FORBIDDEN!r} if name in sys.modules]}}))"
    )
    run = measure([sys.executable, "-c", code], environment)
    return [*run.lines[-1]["found"]]


def main() -> None:
    """Time every subject in turn, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--other-typer", type=Path, help="folder with another typer, to be timed beside")
    arguments = parser.parse_args()
    host, cores = machine(), keep_to_cores(2)
    with tempfile.TemporaryDirectory() as folder:
        environments = {"": _environment(folder, None)}
        if arguments.other_typer is not None:
            environments["typer " + _version(arguments.other_typer)] = _environment(folder, arguments.other_typer)
        os.chdir(folder)
        found = {name: imported(words, environments[""]) for name, (_, words, held) in SUBJECTS.items() if held}
        runs: dict[tuple[str, str], list[Run]] = {(e, name): [] for e in environments for name in SUBJECTS}
        for turn in range(arguments.repeats + 1):
            for (which, name), kept in runs.items():
                run = measure([sys.executable, *SUBJECTS[name][1]], environments[which])
                if run.code not in (0, 3):  # 3: nothing fits
                    raise SystemExit(f"{name}: exit code {run.code}: {run.text}")
                if turn:  # the first compiles
                    kept.append(run)
    rows: list[dict[str, Any]] = []
    for (which, name), kept in runs.items():
        title, words, held = SUBJECTS[name]
        ratios = [run.wall_s / bare.wall_s for run, bare in zip(kept, runs[which, BARE], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "subject": name,
                "other": which,
                "command": title,
                "arguments": words,
                "median_ms": round(statistics.median(run.wall_s for run in kept) * 1e3, 1),
                "least_ms": round(min(run.wall_s for run in kept) * 1e3, 1),
                "cpu_ms": round(statistics.median(run.cpu_s for run in kept) * 1e3, 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_quartiles": [round(low, 3), round(high, 3)],
                "cpu_ratio": round(
                    statistics.median(r.cpu_s / b.cpu_s for r, b in zip(kept, runs[which, BARE], strict=True)), 3
                ),
                "held": held,
                "imported": None if which else found.get(name),
            }
        )
    cards = len(list((ROOT / "devices").glob("*.toml")))
    record = {
        "machine": host,
        "cores": len(cores),
        "versions": {name: metadata.version(name) for name in ("edgeslim", "numpy", "typer", "rich", "pydantic")},
        "repeats": arguments.repeats,
        "cards": cards,
        "limit": LIMIT,
        "rows": rows,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(table(record))


def _environment(folder: str, other: Path | None) -> dict[str, str]:
    """Byte code is kept, of each typer apart; edgeslim is this checkout's."""
    paths = (str(ROOT), "" if other is None else str(other.resolve()), os.environ.get("PYTHONPATH"))
    cache = f"{folder}/cache-{'usual' if other is None else 'other'}"
    first = {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": "", "COLUMNS": "100"}
    return {**first, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _version(folder: Path) -> str:
    return next(iter(metadata.distributions(name="typer", path=[str(folder)]))).version


def table(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    body = [
        [
            f"{row['other']}{': ' if row['other'] else ''}{row['command']}",
            f"{row['median_ms']:.0f}",
            f"{row['least_ms']:.0f}",
            f"{row['cpu_ms']:.0f}",
            _ratio(row, record["limit"]),
            f"{row['cpu_ratio']:.2f}",
            "" if row["imported"] is None else ", ".join(row["imported"]) or "neither",
        ]
        for row in record["rows"]
    ]
    head = ["", "wall ms, median", "least", "CPU ms", "times the bare import", "in CPU", "torch, rasterio"]
    said = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        "# Plan: start to end\n\n`python benchmarks/plan_startup.py`\n\n"
        f"{record['machine']['cpu']}, {record['cores']} cores, load {record['machine']['load_1min']} before; Python "
        f"{record['machine']['python']}, {said}; {record['cards']} device cards. Fresh processes, {record['repeats']} "
        "rounds of all of them in turn, warm page cache; the ratio is the median of the rounds' own, quartiles behind "
        f"it. Limit: {record['limit']:g} times "
        '`python -c "import numpy, typer, rich"`; **bold**: missed.\n\n' + markdown(head, body)
    )


def _ratio(row: dict[str, Any], limit: float) -> str:
    low, high = row["ratio_quartiles"]
    text = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
    return f"**{text}**" if row["held"] and row["ratio"] > limit else text


if __name__ == "__main__":
    main()
