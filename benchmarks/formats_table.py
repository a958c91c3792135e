"""Results of benchmarks/formats.py as JSON and as a table; what a run does not measure stays as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onboard_process


def merged(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """A new record over an old one: an encoder's width that was measured now replaces the same of before.

    Each case keeps the `run` that it was measured in: command, date, machine and versions. What was refused before and
    is not made now stays refused, with the run that it was refused in.
    """
    if before is None:
        return now
    new = {_key(case): case for case in now["cases"]}
    cases = [_with_earlier_refusals(new.pop(_key(case), case), case) for case in before["cases"]]
    return {"cases": [*cases, *new.values()], "timmx": now["timmx"] or before["timmx"]}


def _with_earlier_refusals(case: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    earlier = {
        name: {"run": before["run"]} | note for name, note in before["refused"].items() if name in case["not_made"]
    }
    return case | {
        "refused": case["refused"] | earlier,
        "not_made": [name for name in case["not_made"] if name not in earlier],
    }


def write(record: dict[str, Any], out: Path) -> str:
    """OUT.json and OUT.md, merged with what stands there; the table."""
    path = out.with_suffix(".json")
    record = merged(json.loads(path.read_text()) if path.is_file() else None, record)
    path.write_text(json.dumps(record, indent=2) + "\n")
    text = table(record)
    out.with_suffix(".md").write_text(text)
    return text


def with_refusals(late: dict[tuple[str, float], dict[str, dict[str, Any]]], out: Path) -> None:
    """Add what was refused of (encoder, width), and not timed, to the cases of OUT.json, and write the table again."""
    path = out.with_suffix(".json")
    if not path.is_file():
        return
    record = json.loads(path.read_text())
    for case in record["cases"]:
        timed = {row["artifact"] for row in case["rows"]}
        case["refused"] |= {name: note for name, note in late.get(_key(case), {}).items() if name not in timed}
        case["not_made"] = [name for name in case["not_made"] if name not in case["refused"]]
    write(record, out)


def table(record: dict[str, Any]) -> str:
    """The result as Markdown; what misses an aim is bold."""
    timmx = record["timmx"]
    runs: list[dict[str, Any]] = []
    refusals = [note for case in record["cases"] for note in case["refused"].values() if "run" in note]
    for part in (*record["cases"], *([timmx] if timmx else []), *refusals):
        if part["run"] not in runs:
            runs.append(part["run"])

    def of(part: dict[str, Any]) -> str:
        return f" (run {runs.index(part['run']) + 1})" if "run" in part and len(runs) > 1 else ""

    text = ["# Formats and precisions"]
    for number, run in enumerate(runs, 1):
        text += ["", (f"Run {number}: " if len(runs) > 1 else "") + _described(run)]
    text += [
        "",
        "Parity is of the worst batch size, against torch in fp32. **Bold**: slower than torch, more than 3 % above "
        "the bare library, or int8 that is slower than fp32 in the same format. How each figure is made stands at the "
        "head of benchmarks/formats.py.",
    ]
    for case in record["cases"]:
        text += ["", f"## {case['encoder']} at width {case['width_multiplier']:g}: {case['gflop']:.3g} GFLOP a tile, "
                 f"{case['verdict']}{of(case)}", "", _measured(case["rows"])]  # fmt: skip
        if case["refused"]:
            text += ["", _refused(case["refused"], of)]
        if case["not_made"]:
            text += ["", f"Not made: {', '.join(case['not_made'])}."]
    if timmx:
        rows = [
            [row["format"], row["model"], f"refused: {row['refused']}", ""]
            if "refused" in row
            else [row["format"], row["model"], f"{row['ms_1']:.2f}", f"{row['of_peak_1']:.0%}"]
            for row in timmx["rows"]
        ]
        text += ["", f"## timmx 0.10.1, a ViT-S of random weights, batch 1{of(timmx)}", ""]
        text.append(onboard_process.markdown(["format", "timm's model", "ms", "of peak"], rows))
    return "\n".join(text).rstrip() + "\n"


def said_plainly(line: str) -> str:
    """What a tool printed of its failure, without the name of a Python class: at most 160 characters of one line."""
    plain = re.sub(r"<class '[\w.]+'>:\s*|^error:\s*", "", " ".join(line.split()), flags=re.IGNORECASE)
    return plain[:160]


def _key(case: dict[str, Any]) -> tuple[str, float]:
    return case["encoder"], case["width_multiplier"]


def _described(run: dict[str, Any]) -> str:
    about = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    products = ", ".join(f"{name} {gflop_s:.0f}" for name, gflop_s in run["gemm"].items())
    return (
        f"`{run['command']}`, {run['date']}. {about['cpu']}, {run['threads']} of {about['cores']} cores at work; "
        f"{versions}. Peak of a float32 matrix product: {run['peak_gflop_s']:.0f} GFLOP/s ({products})."
    )


def _measured(rows: list[dict[str, Any]]) -> str:
    headings = ["artifact", "KiB", "Δ of range", "same class", "cosine", "score", "fp32 layers"]
    batches = [key.removeprefix("ms_") for key in rows[0] if key.startswith("ms_")]
    for batch in batches:
        headings += [f"ms, batch {batch}", "/ torch", "/ bare", "of peak"]
    base = {row["artifact"]: row for row in rows}
    lines = []
    for row in rows:
        cells = [row["artifact"]]
        if "kib" in row:
            score = row["score"]
            cells += [f"{row['kib']:,.0f}", f"{row['relative']:.1e}", f"{row['agreement']:.2%}",
                      f"{row['cosine']:.5f}", "" if score is None else f"{score[1]:.2%} of {score[0]:.2%}",
                      str(row["kept"] or "")]  # fmt: skip
        else:
            cells += [""] * 6
        for batch in batches:
            ms, ratio, bare = row[f"ms_{batch}"], row[f"to_torch_{batch}"], row.get(f"to_bare_{batch}")
            plain = base.get(row["artifact"].partition("-")[0] + "-fp32", row)[f"ms_{batch}"]
            cells += [
                _bold(f"{ms:.2f}", "int8" in row["artifact"] and ms > plain),
                _bold(f"{ratio:.2f}", ratio > 1),
                "" if bare is None else _bold(f"{bare:.2f}", bare > 1.03),
                f"{row[f'of_peak_{batch}']:.0%}",
            ]
        lines.append(cells)
    return onboard_process.markdown(headings, lines)


def _refused(refused: dict[str, dict[str, Any]], of: Callable[[dict[str, Any]], str]) -> str:
    """One line a refused artifact: what was beyond its ceiling in its first trial and in its last."""
    lines = []
    for name, note in refused.items():
        tried = [f"{layers} layers in fp32: {_shortly(why, name)}" for layers, why in note["trials"]]
        lines.append([name + of(note), *([tried[0], tried[-1]] if tried else [_shortly(note["why"], name), ""])])
    return onboard_process.markdown(["refused", "first trial", "last trial"], lines)


def _shortly(why: str, name: str) -> str:
    why = why.removeprefix("stage 3, prove: ").removeprefix(f"{name} against torch ")
    return why.removesuffix("; do not fly this artifact").removeprefix("at ")


def _bold(text: str, yes: bool) -> str:
    return f"**{text}**" if yes else text
