"""How close is `edgeslim classify` to the model's own speed, and to what else one would fly?

    python benchmarks/onboard_speed.py [--size 4096] [--main-size 10980] [--repeats 3]
        [--geodeep-python ENV/bin/python] [--torchgeo-python ENV/bin/python]

Every figure is a fresh process; contenders take turns within a repeat, so that a change of the machine's mood meets
them all; the table shows the least wall and least CPU of the repeats and the largest peak, the JSON all of them.
GeoDeep and torchgeo run in the first repeat only.
All processes are kept to two cores; scenes stand in the page cache, and byte code is compiled, as pip leaves it.

    inference   onnxruntime alone on as many tiles, already in memory, one thread: its loop, without imports and loading
    decode      every block of the scene decoded once, one thread: its loop, without imports
    bare        the process of `inference` whole: interpreter, imports, loading and the loop
    plain loop  benchmarks/onboard_plain_loop.py; "lean": with GDAL_CACHEMAX=64 (MB) instead of 5 % of the memory

Ratios of edgeslim's whole process (checks, COGs, journal and reports included):

    CPU strict  CPU / (inference + decode), loops only: what is not inference or decode is ours, the interpreter too
    CPU         CPU / (bare + decode): both sides start Python and load the network
    wall        one thread: wall / wall of bare; two threads: wall / ((bare + decode) CPU / 2)

"Pixels with edgeslim's class" are few for torchgeo because its grid begins at the lower left corner: other tiles.

GeoDeep and torchgeo need environments of their own (`pip install geodeep`; `pip install torch==2.13.0`, then
`pip install torchgeo==0.8.1 onnxruntime requests`); without their flags those rows are left out, and the result says
so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onboard_subjects as subjects
from onboard_process import Run, as_installed, keep_to_cores, machine, markdown, measure, versions, warm

HERE = Path(__file__).parent
RESULT = HERE / "results" / "onboard_speed"
ARTIFACTS = {
    "embedded": ("eurosat-rgb", 1.0, False, 4),
    "embedded-0.25": ("eurosat-rgb", 0.25, False, 16),
    "vit-s": ("vit-s-16", 1.0, True, 2),
}
"""Name -> encoder, width multiplier, random weights, batch of the bare runtime (where it is fastest)."""


@dataclass(slots=True)
class Case:
    """One scene and one artifact."""

    artifact: str
    form: str
    size: int
    default_stride: bool
    """Also at the default stride (half a tile: four times the tiles)."""
    rivals: bool
    """Also GeoDeep and torchgeo."""

    @property
    def name(self) -> str:
        return f"{self.artifact}, {self.form}, {self.size}²"


def windows(size: int, tile: int, stride: int) -> int:
    """Windows along an axis: regular ones, and one pulled back for what they leave."""
    regular = (size - tile) // stride + 1
    return regular + ((regular - 1) * stride + tile < size)


class Bench:
    """Runs cases and keeps what they gave."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.python = {
            "geodeep": arguments.geodeep_python,
            "torchgeo": arguments.torchgeo_python,
        }

    def commands(self, case: Case, scene: Path, artifact: Path, out: Path, rivals: bool) -> dict[str, list[Any]]:
        """Contender -> command; each writes into a folder of its own in `out`."""
        manifest = json.loads((artifact / "manifest.json").read_text())
        model, tile = artifact / manifest["models"]["any"], manifest["architecture"]["tile_px"]
        batch, bands = ARTIFACTS[case.artifact][3], manifest["architecture"]["bands"]
        unit = subjects.BYTE if case.form == "jpeg" else 1.0
        tiles = windows(case.size, tile, tile) ** 2
        more = ["--scale", unit / 10000, "--offset", 0] if case.form == "jpeg" else []
        here = [sys.executable, HERE / "onboard_contenders.py"]
        edgeslim = [sys.executable, "-m", "edgeslim", "classify", scene, "--artifact", artifact, "--training-prior"]
        edgeslim += [*self.arguments.flags, *more]
        plain = [sys.executable, HERE / "onboard_plain_loop.py", scene, model]
        found: dict[str, list[Any]] = {
            "decode": [*here, "decode", scene],
            "bare, 1 thread": [*here, "bare", model, tiles, tile, bands, batch, 1],
            "edgeslim, 1 thread": [*edgeslim, "-o", out / "edgeslim1", "--stride", tile, "--threads", 1],
            "plain loop, 1 thread": [*plain, out / "plain1", tile, 1, unit],
            "bare, 2 threads": [*here, "bare", model, tiles, tile, bands, batch, 2],
            "edgeslim, 2 threads": [*edgeslim, "-o", out / "edgeslim2", "--stride", tile, "--threads", 2],
            "plain loop, 2 threads": [*plain, out / "plain2", tile, 2, unit],
            "plain loop, lean, 1 thread": [*plain, out / "lean1", tile, 1, unit],
        }
        if rivals and self.python["geodeep"]:
            units = 2750 if case.form == "jpeg" else 65535
            adapted = subjects.geodeep_model(artifact, units)
            python = [self.python["geodeep"], HERE / "onboard_contenders.py"]
            found["GeoDeep, 1 thread"] = [*python, "geodeep", scene, adapted, out / "geodeep", 1]
        if rivals and self.python["torchgeo"]:
            python = [self.python["torchgeo"], HERE / "onboard_contenders.py"]
            found["torchgeo, 1 thread"] = [*python, "torchgeo", scene, model, out / "torchgeo", tile, unit, 1]
        if case.default_stride:
            overlapped = windows(case.size, tile, tile // 2) ** 2
            found["bare, 1 thread, default stride"] = [*here, "bare", model, overlapped, tile, bands, batch, 1]
            for threads in (1, 2):
                name = f"edgeslim, {threads} thread{'s' * (threads > 1)}, default stride"
                found[name] = [*edgeslim, "-o", out / f"overlap{threads}", "--threads", threads]
        only = self.arguments.only
        return {name: command for name, command in found.items() if not only or any(o in name for o in only)}

    def case(self, case: Case) -> dict[str, Any]:
        encoder, width, random, _ = ARTIFACTS[case.artifact]
        artifact = subjects.artifact(encoder, width, random=random)
        scene = subjects.scene(case.size, case.size, case.form)
        warm(scene)
        runs: dict[str, list[Run]] = {}
        agreement: dict[str, float] = {}
        for repeat in range(self.arguments.repeats):
            with tempfile.TemporaryDirectory(dir=subjects.SCRATCH) as folder:
                out = Path(folder)
                for name, command in self.commands(case, scene, artifact, out, case.rivals and repeat == 0).items():
                    if not name.startswith("edgeslim"):  # it makes its own folder
                        for word in command:
                            if isinstance(word, Path) and word.parent == out:
                                word.mkdir()
                    lean = {"GDAL_CACHEMAX": "64"} if "lean" in name else {}
                    run = measure(command, lean)
                    runs.setdefault(name, []).append(run)
                    failed = f" FAILED {run.code}: {run.text}" if run.code else ""
                    print(
                        f"{case.name}, repeat {repeat + 1}: {name}: {run.wall_s:.2f} s, CPU {run.cpu_s:.2f} s, "
                        f"{run.peak_mib:.0f} MiB{failed}",
                        file=sys.stderr,
                        flush=True,
                    )
                if repeat == 0:
                    agreement = self.agreement(out)
        return self.record(case, runs, agreement, scene)

    def agreement(self, out: Path) -> dict[str, float]:
        """Share of pixels whose class is that of edgeslim's map at one thread and stride = tile."""
        ours, found = out / "edgeslim1" / "classes.tif", {}
        for folder in sorted(out.iterdir()):
            path = folder / "classes.tif"
            if folder.name.startswith("overlap") or not path.is_file() or path == ours or not ours.is_file():
                continue
            run = measure([sys.executable, HERE / "onboard_contenders.py", "agree", ours, path])
            found[folder.name] = run.lines[0]["agree"] if run.lines else float("nan")
        return found

    def record(
        self, case: Case, runs: dict[str, list[Run]], agreement: dict[str, float], scene: Path
    ) -> dict[str, Any]:
        best = {name: _best(several) for name, several in runs.items()}
        rows = []
        for name, several in runs.items():
            run, good = best[name], [r for r in several if r.code == 0]
            rows.append(
                {
                    "contender": name,
                    "wall_s": run.wall_s,
                    "cpu_s": run.cpu_s,
                    "peak_mib": run.peak_mib,
                    "loop_wall_s": _loop(run, "loop_s"),
                    "loop_cpu_s": _loop(run, "loop_cpu_s"),
                    "median_wall_s": round(statistics.median(r.wall_s for r in good), 4) if good else None,
                    "median_cpu_s": round(statistics.median(r.cpu_s for r in good), 4) if good else None,
                    "failed": f"exit {run.code}: {run.text}" if run.code else None,
                    "all": [[r.wall_s, r.cpu_s, r.peak_mib] for r in several],
                    **_ratios(name, run, best),
                }
            )
        return {
            "artifact": case.artifact,
            "format": case.form,
            "size": case.size,
            "scene_mib": round(scene.stat().st_size / (1 << 20), 1),
            "rows": rows,
            "same_class_as_edgeslim": agreement,
        }


def _best(runs: list[Run]) -> Run:
    """Least wall, least CPU, loops' too, and largest peak of the repeats; the first one where none came through."""
    good = [r for r in runs if r.code == 0]
    if not good:
        return runs[0]
    loops = {
        key: min(found) for key in ("loop_s", "loop_cpu_s") if (found := [v for r in good if (v := _loop(r, key))])
    }
    least = (min(r.wall_s for r in good), min(r.cpu_s for r in good))
    return Run(*least, max(r.peak_mib for r in good), 0, [loops] if loops else [])


def _loop(run: Run, key: str) -> float | None:
    return next((line[key] for line in run.lines if key in line), None)


def _ratios(name: str, run: Run, best: dict[str, Run]) -> dict[str, float | None]:
    """Of a contender that does the whole work, to inference, decode, the bare runtime and the plain loop."""
    if run.code or name.startswith(("bare", "decode")):
        return {}
    stride = ", default stride" if name.endswith("default stride") else ""
    two = "2 threads" in name
    bare, decode = best.get(f"bare, 1 thread{stride}"), best["decode"]
    found: dict[str, float | None] = {}
    if bare is None or bare.code or decode.code:
        return found
    inference_cpu, decode_cpu = _loop(bare, "loop_cpu_s"), _loop(decode, "loop_cpu_s")
    if inference_cpu is None or decode_cpu is None:
        return found
    found["cpu_strict"] = round(run.cpu_s / (inference_cpu + decode_cpu), 3)
    found["cpu"] = round(run.cpu_s / (bare.cpu_s + decode_cpu), 3)
    found["wall"] = round(run.wall_s / ((bare.cpu_s + decode_cpu) / 2 if two else bare.wall_s), 3)
    plain = best.get(f"plain loop, {'2 threads' if two else '1 thread'}")
    lean = best.get("plain loop, lean, 1 thread")
    if not stride and plain is not None and plain.code == 0:
        found["wall_to_plain"] = round(run.wall_s / plain.wall_s, 3)
        found["cpu_to_plain"] = round(run.cpu_s / plain.cpu_s, 3)
        found["memory_to_plain"] = round(run.peak_mib / plain.peak_mib, 3)
    if lean is not None and lean.code == 0:
        found["memory_to_lean"] = round(run.peak_mib / lean.peak_mib, 3)
    return found


def table(record: dict[str, Any]) -> str:
    """The result as Markdown; what misses an aim is marked."""
    text = ["# On board: speed", "", f"`{record['command']}`", ""]
    about = record["machine"]
    text += [
        f"{about['cpu']}, {len(record['cores'])} of {about['cores']} cores; load {about['load_1min']} before it began. "
        + ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        + f". Scenes: {record['pixels']}. Least of {record['repeats']} fresh processes each, taken in turns; "
        "how each figure is defined stands at the head of benchmarks/onboard_speed.py.",
        "",
        "Aims: CPU, CPU strict and wall at most 1.05; never above 1 against the plain loop. **Bold**: missed.",
    ]
    text += ["", *record["left_out"]] if record["left_out"] else []
    headings = ["contender", "wall s", "CPU s", "peak MiB", "CPU strict", "CPU", "wall"]
    headings += ["wall / plain", "CPU / plain", "peak / plain", "peak / lean"]
    for case in record["cases"]:
        text += ["", f"## {case['artifact']}, {case['format']}, {case['size']}² px ({case['scene_mib']} MiB)", ""]
        rows = []
        for row in case["rows"]:
            if row["failed"]:
                rows.append([row["contender"], f"fails: {row['failed'][:90]}", *[""] * 9])
                continue
            ours = row["contender"].startswith("edgeslim")
            cells = [f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", f"{row['peak_mib']:.0f}"]
            cells += [_cell(row.get(key), 1.05, ours) for key in ("cpu_strict", "cpu", "wall")]
            keys = ("wall_to_plain", "cpu_to_plain", "memory_to_plain", "memory_to_lean")
            cells += [_cell(row.get(key), 1.0, ours) for key in keys]
            if row["loop_cpu_s"] is not None and row["contender"].startswith(("bare", "decode")):
                cells[0] += f" (loop {row['loop_wall_s']:.2f})"
                cells[1] += f" (loop {row['loop_cpu_s']:.2f})"
            rows.append([row["contender"], *cells])
        text.append(markdown(headings, rows))
        same = ", ".join(f"{name} {share:.2%}" for name, share in case["same_class_as_edgeslim"].items())
        text += ["", f"Pixels with edgeslim's class (one thread, stride = tile): {same}." if same else ""]
    return "\n".join(text).rstrip() + "\n"


def _cell(value: float | None, limit: float, ours: bool) -> str:
    if value is None:
        return ""
    return f"**{value:.2f}**" if ours and value > limit else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="side of the scenes of every format, px; 0: none")
    parser.add_argument("--main-size", type=int, default=10980, help="side of the main rows' scene, px; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--artifacts", default=",".join(ARTIFACTS), help="of " + ", ".join(ARTIFACTS))
    parser.add_argument("--formats", default=",".join(subjects.FORMATS), help="of " + ", ".join(subjects.FORMATS))
    parser.add_argument("--main", default="embedded,embedded-0.25", help="artifacts of the main rows")
    parser.add_argument("--main-format", default="deflate-tiled")
    parser.add_argument("--no-default-stride", action="store_true", help="stride = tile only")
    parser.add_argument("--geodeep-python", type=Path, help="interpreter of an environment that has GeoDeep")
    parser.add_argument("--torchgeo-python", type=Path, help="interpreter of an environment that has torchgeo")
    parser.add_argument("--flag", dest="flags", action="append", default=[], help="more for edgeslim: --flag=--batch=8")
    parser.add_argument("--only", action="append", help="contenders whose name contains this; more than once: any")
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    cases, overlap = [], not arguments.no_default_stride
    main_rows = [name for name in arguments.main.split(",") if name]
    if arguments.main_size:
        first = main_rows[:1]
        cases += [Case(a, arguments.main_format, arguments.main_size, overlap and a in first, True) for a in main_rows]
    if arguments.size:
        formats = arguments.formats.split(",")
        for artifact in arguments.artifacts.split(","):
            for form in formats:
                first_form = form == formats[0]
                rivals = artifact == "embedded" or (artifact == "vit-s" and first_form)
                cases.append(Case(artifact, form, arguments.size, overlap and first_form, rivals))
    left_out = [
        f"Without {name}: no --{name}-python was given."
        for name in ("geodeep", "torchgeo")
        if getattr(arguments, f"{name}_python") is None
    ]
    if arguments.only:
        left_out.append("Contenders run: those whose name contains " + " or ".join(arguments.only) + ".")
    cores = keep_to_cores(2)
    as_installed()
    record: dict[str, Any] = {
        "command": f"python benchmarks/onboard_speed.py {shlex.join(_public(sys.argv[1:]))}",
        "machine": machine(),
        "cores": cores,
        "versions": versions(),
        "pixels": subjects.pixels_from(),
        "repeats": arguments.repeats,
        "left_out": left_out,
        "cases": [],
    }
    bench = Bench(arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for case in cases:
        record["cases"].append(bench.case(case))
        # After each case: a run that is cut short keeps what it has.
        arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(table(record))
    print(table(record))


def _public(words: list[str]) -> list[str]:
    """The command line without this machine's folders."""
    return [("ENV/bin/python" if w.endswith("/bin/python") else Path(w).name) if "/" in w else w for w in words]


if __name__ == "__main__":
    main()
