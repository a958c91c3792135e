"""Do the same files give the same answers on a board's processor?

    sudo tests/onboard/arm64.sh                                 all of it, on emulated processors
    python benchmarks/arm64.py answer ARTIFACTS FOLDER          on each machine
    python benchmarks/arm64.py table ARTIFACTS HERE THERE...    what they answered, side by side

`answer` runs `edgeslim check` on each artifact under ARTIFACTS with the libraries that this machine has, and keeps what
it says and the logits of the golden tiles, one tile at a time on one thread, in FOLDER. `table` holds the answers of
arm64 machines against this machine's. Where `check` refuses an artifact the row stays, and the exit code is 1.

    arm64 / here   largest difference of a golden logit from this machine's, as a share of the logits' range
    same           golden tiles of this machine's class
    here / torch   largest difference of this machine's golden logits from torch's, of the same range
    arm64 / torch  the same of the other machine
    allowed        by the artifact's manifest: what `check` holds the largest difference from torch against

The first run refused OpenVINO's static int8: edgeslim/onboard/runtimes/openvino.py says why, and what is done about it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onboard_process import machine, markdown

from edgeslim.errors import EdgeslimError
from edgeslim.manifest import read_manifest
from edgeslim.onboard.check import read_golden, replay
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.parity import compare

RESULT = Path(__file__).parent / "results" / "arm64"
HEADINGS = ("format, precision", "on", "`check`", "arm64 / here", "same", "here / torch", "arm64 / torch", "allowed")


def answer(artifacts: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for path in sorted(found.parent for found in artifacts.glob("*/manifest.json")):
        command = [sys.executable, "-m", "edgeslim", "check", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        row = rows[path.name] = {"exit_code": done.returncode, "said": "", "runtime": ""}
        if done.returncode:
            row["said"] = (done.stderr.strip().splitlines() or ["nothing"])[-1].replace(str(path), path.name)
        print(f"{path.name}: {row['said'] or 'check passes'}", file=sys.stderr, flush=True)
        if done.returncode < 0:  # the library died; here it would take this process with it
            row["said"] = f"died of signal {-done.returncode}: {row['said']}"
            continue
        manifest = read_manifest(path)
        try:
            runtime = open_runtime(path, manifest, threads=1)
            logits = replay(runtime, read_golden(path, manifest)[0], 1)
        except EdgeslimError as error:
            row["said"] = row["said"] or str(error)
        else:
            row["runtime"] = runtime.version
            np.save(folder / f"{path.name}.npy", logits)
    if not rows:
        raise SystemExit(f"{artifacts}: found no artifact in a folder of it")
    # One processor is emulated as another: only who starts this knows which.
    named = os.environ.get("BOARD", platform.machine())
    record = {"on": named, "architecture": platform.machine(), "python": platform.python_version(), "rows": rows}
    (folder / "answers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def side_by_side(artifacts: Path, here: Path, there: Path) -> list[dict[str, Any]]:
    mine, theirs = (json.loads((folder / "answers.json").read_text("utf-8")) for folder in (here, there))
    if mine["architecture"] == theirs["architecture"]:
        raise SystemExit(f"found {mine['architecture']} twice, expected two kinds of processor")
    rows = []
    for name, told in theirs["rows"].items():
        manifest = read_manifest(artifacts / name)
        golden = read_golden(artifacts / name, manifest)[1]
        row = {"format": manifest.format, "precision": manifest.precision, "on": theirs["on"], **told}
        row["allowed"] = manifest.golden.tolerance / float(np.ptp(golden))
        row["here_exit_code"] = mine["rows"][name]["exit_code"]
        if mine["rows"][name]["runtime"] != told["runtime"]:
            raise SystemExit(f"{name}: found {told['runtime']} on {theirs['on']}, expected the one that is here")
        files = [folder / f"{name}.npy" for folder in (here, there)]
        if all(file.is_file() for file in files):
            a, b = map(np.load, files)
            apart = compare(b, a, logits_range=float(np.ptp(golden)))
            row |= {"tiles": apart.tiles, "apart": apart.relative, "same_class": apart.argmax_agreement}
            row |= {"here_torch": compare(a, golden).relative, "there_torch": compare(b, golden).relative}
        rows.append(row)
    return rows


def table(record: dict[str, Any]) -> str:
    rows = []
    for row in record["rows"]:
        verdict = "passes" if row["exit_code"] == 0 else f"**exit {row['exit_code']}**"
        shares = [f"{row[key]:.1e}" if key in row else "" for key in ("apart", "here_torch", "there_torch")]
        same = f"{row['same_class']:.1%}" if "same_class" in row else ""
        cells = [row["on"], verdict, shares[0], same, *shares[1:], f"{row['allowed']:.1e}"]
        rows.append([f"{row['format']} {row['precision']}", *cells])
    emulated = f" emulated by {record['emulator']}: the binaries are real, the timing is not, and none is given."
    here = record["machine"]
    text = [
        "# The same files on arm64",
        "",
        "`sudo tests/onboard/arm64.sh`",
        "",
        f"Real aarch64 libraries ({', '.join(record['runtimes'])}; Debian 12, Python {record['python']}) on processors"
        + (emulated if record["emulator"] else ".")
        + f" Here: {here['cpu']}, {platform.machine()}, the same versions of the libraries. Encoder "
        f"{record['encoder']}; golden tiles: {record['golden']}.",
        "",
        markdown(HEADINGS, rows),
        "",
        "`arm64 / here`: largest difference of a golden logit from this machine's, as a share of the logits' range; "
        "`same`: golden tiles of this machine's class; `/ torch`: largest difference from torch's logits, of the same "
        "range; `allowed`: what the manifest's tolerance is of it, against which `check` holds the difference from "
        "torch at batch 1 and at all tiles at once.",
    ]
    if refused := [row for row in record["rows"] if row["said"]]:
        text += ["", *(f"- {row['format']} {row['precision']} on {row['on']}: {row['said']}" for row in refused)]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    asked = verbs.add_parser("answer")
    asked.add_argument("artifacts", type=Path)
    asked.add_argument("folder", type=Path)
    shown = verbs.add_parser("table")
    shown.add_argument("artifacts", type=Path)
    shown.add_argument("here", type=Path)
    shown.add_argument("there", type=Path, nargs="+")
    shown.add_argument("--emulator", default="", help="what the arm64 machines run on, if they are not real")
    shown.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    if arguments.verb == "answer":
        answer(arguments.artifacts, arguments.folder)
        return
    rows = [r for there in arguments.there for r in side_by_side(arguments.artifacts, arguments.here, there)]
    rows.sort(key=lambda row: (row["format"], ("fp32", "fp16", "int8-dynamic", "int8-static").index(row["precision"])))
    first = read_manifest(next(arguments.artifacts.glob("*/")))
    record: dict[str, Any] = {
        "machine": machine(),
        "emulator": arguments.emulator,
        "python": json.loads((arguments.there[0] / "answers.json").read_text("utf-8"))["python"],
        "runtimes": sorted({row["runtime"] for row in rows if row["runtime"]}),
        "encoder": first.name,
        "golden": first.golden.source + (", synthetic" if first.golden.synthetic else ""),
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(table(record), encoding="utf-8")
    print(table(record))
    if any(row["exit_code"] or row["here_exit_code"] for row in rows):
        raise SystemExit("a machine's `check` refuses an artifact")


if __name__ == "__main__":
    main()
