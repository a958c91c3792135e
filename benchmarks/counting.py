"""How many FLOP and parameters do edgeslim and the usual counters find in the same module?

    python benchmarks/counting.py [--counters-python ENV/bin/python]

Each encoder of counting_subjects.py is counted at five widths with a head of 1000 classes: by edgeslim's closed forms,
by the audited counter of the tests (from the operands of the kernels, on the meta device), and by torch's own counter.
`--counters-python` names an environment with the others, and with timm, whose own modules are then counted, too:

    pip install torch==2.13.0 timm fvcore torchinfo thop calflops

Every tool runs in a process of its own, for each encoder on the CPU without gradients, as its README shows. Tools that
give MACs are doubled: 1 MAC = 2 FLOP. The table shows each figure / the audited one, in bold where it is off by more
than 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import counting_subjects  # noqa: E402

from edgeslim import cost  # noqa: E402

RESULT = Path(__file__).parent / "results" / "counting"
OWN = ("audited", "torch", "torch, meta")
OTHERS = ("fvcore", "torchinfo", "thop", "calflops")
PACKAGES = ("torch", "timm", *OTHERS)
_OFF = 0.01


def counts(python: str, tool: str) -> dict[str, dict[str, Any]]:
    """Subject -> what the tool found in it."""
    command = [python, str(ROOT / "benchmarks" / "counting_subjects.py"), tool]
    print(f"{tool} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"subject"')]
    return {row.pop("subject"): row for row in rows}


def versions(python: str) -> dict[str, str | None]:
    code = (
        "import json; from importlib import metadata as m\n"
        "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return None\n"
        f"print(json.dumps({{n: v(n) for n in {PACKAGES!r}}}))"
    )
    found: dict[str, str | None] = json.loads(subprocess.check_output([python, "-c", code], text=True))
    return found


def measure(python: str | None) -> dict[str, Any]:
    tools = OWN + (OTHERS if python else ())
    found = {tool: counts(python or sys.executable, tool) for tool in tools}
    rows = []
    for subject in counting_subjects.SUBJECTS:
        if subject.timm and not python:
            continue
        ours = {
            "flop": cost.flop(subject.arch, counting_subjects.CLASSES),
            "parameters": cost.parameters(subject.arch, counting_subjects.CLASSES),
        }
        rows.append({"subject": subject.key, "edgeslim": ours, **{tool: found[tool][subject.key] for tool in tools}})
    return {"versions": versions(python or sys.executable), "rows": rows}


def cell(counted: dict[str, Any], truth: dict[str, Any], what: str) -> str:
    if "error" in counted:
        return "**error**"
    ratio = counted[what] / truth[what]
    text = "=" if counted[what] == truth[what] else f"{ratio:.4f}"
    return f"**{text}**" if abs(ratio - 1) > _OFF else text


def table(rows: list[dict[str, Any]], what: str, unit: str, scale: float) -> list[str]:
    tools = [tool for tool in rows[0] if tool not in ("subject", "audited")]
    lines = [f"| encoder | audited, {unit} | {' | '.join(tools)} |", f"|---|---:|{'---:|' * len(tools)}"]
    for row in rows:
        cells = " | ".join(cell(row[tool], row["audited"], what) for tool in tools)
        lines.append(f"| {row['subject']} | {row['audited'][what] / scale:,.3f} | {cells} |")
    return lines


def report(result: dict[str, Any]) -> str:
    rows = result["rows"]
    used = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    exact = sum(row["edgeslim"] == {k: row["audited"][k] for k in ("flop", "parameters")} for row in rows)
    errors = dict.fromkeys(
        f"{tool}: {row[tool]['error']}" for row in rows for tool in row if tool != "subject" and "error" in row[tool]
    )
    lines = [
        "# Counting: each figure / the audited count",
        "",
        f"By `benchmarks/counting.py`; one tile, a head of {counting_subjects.CLASSES} classes.",
        f"{used}.",
        "",
        "`=`: the very number; bold: off by more than 1 %. MACs are doubled. `torch` is torch.utils.flop_counter on",
        "the CPU, `torch, meta` the same on the meta device. Rows of timm are its own modules, the others edgeslim's,",
        "at width w.",
        "",
        "Why they differ: on the CPU attention is one kernel, in which torch, fvcore, torchinfo, thop and calflops see",
        "no products. torchinfo counts a linear layer once a tile, not once a token. fvcore and thop add norms, which",
        "are no products. thop, and torchinfo for FLOP, see only layers that are called as modules: edgeslim's SwiGLU",
        "and ConvNeXt call their sliced products by function, so timm's rows are those tools at their best; thop",
        "leaves out parameters that stand in no layer (positions, class token, GRN), too.",
        "",
        f"edgeslim gives FLOP and parameters of {exact} of {len(rows)} rows exactly.",
        "",
        "## FLOP",
        "",
        *table(rows, "flop", "GFLOP", 1e9),
        "",
        "## Parameters",
        "",
        *table(rows, "parameters", "M", 1e6),
    ]
    if errors:
        lines += ["", "## Errors", "", *(f"- {error}" for error in errors)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counters-python", help="interpreter of an environment with the other counters")
    result = measure(parser.parse_args().counters_python)
    RESULT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = report(result)
    RESULT.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
