"""Is the memory that a run foretells the memory that it takes?

    python benchmarks/onboard_memory.py [--cases tile13,mosaic1,mosaic3,heights,widths,vit-s,formats] [--threads 1,2]

Every case is `edgeslim classify --max-ram 256MiB` in a fresh process, twice: once free, where the peak (VmHWM) is held
against the figure that it foretold before its first tile, and once inside a memory cgroup whose hard limit is exactly
that figure, with the page cache dropped before, so that libraries, weights and the scene's own pages are charged to it
too. The result must be the same to the byte. Aim: never an underestimate, at most 15 % over, alive in the cgroup.

    tile13    10980 x 10980 px, 13 bands, uint16, tiled: a whole Sentinel-2 tile
    mosaic    40000 x 40000 px, 1 and 3 bands, sparse: one block in fifty holds pixels
    heights   4096 px wide, 2048 to 16384 px high: flat
    widths    2048 px high, 2048 to 16384 px wide: what grows with the width
    vit-s     a ViT-S at 224 px
    formats   the other ways to store a scene
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onboard_subjects as subjects
from onboard_process import (
    MIB,
    MemoryCgroup,
    Run,
    as_installed,
    drop_page_cache,
    keep_to_cores,
    machine,
    markdown,
    measure,
    versions,
)

RESULT = Path(__file__).parent / "results" / "onboard_memory"
MOST_OVER = 0.15


@dataclass(frozen=True, slots=True)
class Case:
    """One scene and artifact."""

    group: str
    height: int
    width: int
    bands: int = 3
    form: str = "deflate-tiled"
    sparse: bool = False
    encoder: str = "eurosat-rgb"
    stride: int | None = None
    """None: stride = tile."""

    @property
    def name(self) -> str:
        overlap = "" if self.stride is None else f", stride {self.stride}"
        kind = ", sparse" if self.sparse else f", {self.form}"
        return f"{self.encoder}, {self.height} x {self.width}, {self.bands} bands{kind}{overlap}"


CASES = [
    Case("tile13", 10980, 10980, 13),
    Case("mosaic1", 40000, 40000, 1, sparse=True),
    Case("mosaic3", 40000, 40000, 3, sparse=True),
    *[Case("heights", height, 4096) for height in (2048, 4096, 8192, 16384)],
    *[Case("widths", 2048, width) for width in (2048, 4096, 8192, 16384)],
    *[Case("widths", 2048, width, stride=32) for width in (2048, 8192)],
    Case("vit-s", 4096, 4096, encoder="vit-s-16"),
    *[Case("formats", 4096, 4096, form=form) for form in subjects.FORMATS if form != "deflate-tiled"],
]


def artifact_of(case: Case) -> tuple[Path, int]:
    """The artifact and its tile, px. The embedded encoder's weights are for three bands."""
    random = case.bands != 3 or case.encoder != "eurosat-rgb"
    path = subjects.artifact(case.encoder, bands=case.bands, random=random)
    return path, json.loads((path / "manifest.json").read_text())["architecture"]["tile_px"]


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every result but run.json."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "run.json"):
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(MIB):
                digest.update(piece)
        found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def foretold_mib(run: Run, out: Path) -> float | None:
    """The exact figure of run.json; that of the first event is rounded."""
    try:
        return float(json.loads((out / "run.json").read_text())["memory_mib"]["foretold"])
    except (OSError, KeyError, TypeError, ValueError):
        return run.event("start").get("memory_mib")


def measure_case(case: Case, threads: int, max_ram: str, flags: list[str]) -> dict[str, Any]:
    scene = subjects.scene(case.height, case.width, case.form, case.bands, case.sparse)
    artifact, tile = artifact_of(case)
    command = [sys.executable, "-m", "edgeslim", "classify", scene, "--artifact", artifact, "--progress", "json"]
    command += ["--stride", case.stride or tile, "--threads", threads, "--max-ram", max_ram, *flags]
    if case.form == "jpeg":
        command += ["--scale", subjects.BYTE / 10000, "--offset", 0]
    row: dict[str, Any] = {"group": case.group, "case": case.name, "threads": threads}
    with tempfile.TemporaryDirectory(dir=subjects.SCRATCH) as folder:
        free, held = Path(folder) / "free", Path(folder) / "held"
        run = measure([*command, "-o", free])
        foretold = foretold_mib(run, free)
        row |= {"wall_s": run.wall_s, "cpu_s": run.cpu_s, "peak_mib": run.peak_mib, "foretold_mib": foretold}
        if run.code or foretold is None:
            return {**row, "failed": f"exit {run.code}: {run.text}"}
        row["over"] = round(foretold / run.peak_mib - 1, 4)
        limit = math.ceil(foretold * MIB / 4096) * 4096
        try:
            group = MemoryCgroup(limit)
        except OSError as error:
            print(f"SKIPPED: no memory cgroup can be made here ({error}): that half is not shown", file=sys.stderr)
            return {**row, "cgroup": f"skipped: {error}"}
        with group:
            row["page_cache_dropped_by"] = drop_page_cache([scene, *artifact.iterdir()])
            run = measure([*command, "-o", held], cgroup=group)
            row["cgroup_limit_mib"] = round(limit / MIB, 2)
            row["cgroup_wall_s"] = run.wall_s
            row["cgroup_peak_rss_mib"] = run.peak_mib
            row["cgroup_peak_charge_mib"] = group.peak_mib()
        if run.code:
            said = "killed for memory" if run.code in (-9, 137) else f"exit {run.code}: {run.text}"
            return {**row, "cgroup": said}
        return {**row, "cgroup": "done", "cgroup_same_bytes": hashes(free) == hashes(held)}


def table(record: dict[str, Any]) -> str:
    """The result as Markdown; what misses an aim is marked."""
    about = record["machine"]
    text = ["# On board: memory foretold and taken", "", f"`{record['command']}`", ""]
    text += [
        f"`--max-ram {record['max_ram']}`, stride = tile unless said. {about['cpu']}, {about['cores']} cores. "
        + ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        + ". Over: foretold / peak - 1; aim 0 to 15 %. Cgroup: the same run under a hard limit of exactly the figure "
        "foretold, page cache dropped before. **Bold**: missed.",
    ]
    headings = ["case", "threads", "foretold MiB", "peak MiB", "over", "in the cgroup", "charged MiB", "wall s"]
    groups = dict.fromkeys(row["group"] for row in record["rows"])
    for group in groups:
        rows = []
        for row in record["rows"]:
            if row["group"] != group:
                continue
            if "failed" in row:
                told = "" if row["foretold_mib"] is None else f"{row['foretold_mib']:.1f}"
                rows.append([row["case"], row["threads"], told, f"{row['peak_mib']:.1f}", "", row["failed"], "", ""])
                continue
            good = 0 <= row["over"] <= MOST_OVER
            over = f"{row['over']:+.1%}" if good else f"**{row['over']:+.1%}**"
            cgroup = row["cgroup"]
            if cgroup == "done":
                cgroup = "same bytes" if row["cgroup_same_bytes"] else "**other bytes**"
            elif not cgroup.startswith("skipped"):
                cgroup = f"**{cgroup}**"
            charge = row.get("cgroup_peak_charge_mib")
            wall = f"{row['wall_s']:.1f}" + (f", in it {row['cgroup_wall_s']:.1f}" if "cgroup_wall_s" in row else "")
            cells = [f"{row['foretold_mib']:.1f}", f"{row['peak_mib']:.1f}", over, cgroup]
            rows.append([row["case"], row["threads"], *cells, "" if charge is None else f"{charge:.1f}", wall])
        text += ["", f"## {group}", "", markdown(headings, rows)]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = list(dict.fromkeys(case.group for case in CASES))
    parser.add_argument("--cases", default=",".join(groups), help="groups: " + ", ".join(groups))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--max-ram", default="256MiB")
    parser.add_argument("--shrink", type=int, default=1, help="divide every side by this, to try the script")
    parser.add_argument("--flag", dest="flags", action="append", default=[], help="more for edgeslim: --flag=--batch=8")
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    keep_to_cores(2)
    as_installed()
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/onboard_memory.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "max_ram": arguments.max_ram,
        "rows": [],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    wanted = arguments.cases.split(",")
    for case in CASES:
        if case.group not in wanted:
            continue
        if arguments.shrink > 1:
            size = (case.height // arguments.shrink, case.width // arguments.shrink)
            case = Case(case.group, *size, case.bands, case.form, case.sparse, case.encoder, case.stride)
        for threads in (int(t) for t in arguments.threads.split(",")):
            row = measure_case(case, threads, arguments.max_ram, arguments.flags)
            record["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
            arguments.out.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
