"""How long from the start of the process to the first finished tile, and where does it go?

    python benchmarks/onboard_startup.py [--repeats 7] [--cold-repeats 3]

`edgeslim classify` in fresh processes on a 1024 x 1024 scene, one thread, warm (everything in the page cache) and cold
(the page cache dropped before each: by /proc/sys/vm/drop_caches as root, otherwise by POSIX_FADV_DONTNEED on scene and
artifact only; the result says which). The verb runs as it is installed; a few of its functions are wrapped to note the
time. Beside it, what nobody can avoid: the interpreter, and a script that imports numpy, rasterio and onnxruntime,
loads the same network and classifies one batch, as large as edgeslim's, that is already in memory.

    interpreter   process start to the first line of Python
    imports       numpy, rasterio, onnxruntime, typer, rich and edgeslim's own, wherever they happen
    scene         opening and checking the scene, its sample included
    load          artifact: hashes and loading of the network
    golden check  golden tiles replayed
    warm-up       one batch on every worker, so that its memory can be measured
    first read    first chunk read and cut up
    first tile    first batch through the network
    other         all that lies between
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onboard_subjects as subjects
from onboard_process import as_installed, drop_page_cache, keep_to_cores, machine, markdown, measure, versions, warm

RESULT = Path(__file__).parent / "results" / "onboard_startup"
STAGES = ("interpreter", "imports", "scene", "load", "golden check", "warm-up", "first read", "first tile", "other")
BUDGET_MS = {"embedded": 500, "embedded-0.25": 500, "vit-s": 1000}
"""From process start to the first finished tile, warm: what the plan of the on-board runner allows."""
ARTIFACTS = {"embedded": ("eurosat-rgb", 1.0, False), "embedded-0.25": ("eurosat-rgb", 0.25, False)}
ARTIFACTS["vit-s"] = ("vit-s-16", 1.0, True)


def child(arguments: Sequence[str]) -> None:
    """Run the verb in this process with a clock beside it; print what it read when the first tile is finished."""
    entered = time.monotonic()
    spent: dict[str, float] = {"interpreter": entered - float(os.environ["EDGESLIM_STARTED"])}
    inside: list[str] = []

    def wrap(owner: Any, name: str, stage: str, after: str | None = None) -> None:
        """Count the time in a function; with `after`, only its first call once that stage is over, and stop there."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            once = stage.startswith("first")
            if stage in inside or (once and stage in spent) or (after is not None and after not in spent):
                return inner(*args, **kwargs)
            inside.append(stage)
            start = time.monotonic()
            try:
                return inner(*args, **kwargs)
            finally:
                inside.remove(stage)
                spent[stage] = spent.get(stage, 0.0) + time.monotonic() - start
                if after is not None:
                    finish()

        setattr(owner, name, timed)

    def finish() -> None:
        total = time.monotonic() - float(os.environ["EDGESLIM_STARTED"])
        spent["other"] = total - sum(spent.values())
        print(json.dumps({"startup": {k: round(v * 1000, 2) for k, v in spent.items()}, "total_ms": total * 1000}))
        sys.stdout.flush()

    start = time.monotonic()
    import onnxruntime  # noqa: F401  (the runtime imports it late, inside `load`; here it counts as an import)

    import edgeslim.cli.classify  # noqa: F401  (a verb is imported when it is called; this too counts as an import)
    import edgeslim.onboard.classify as classify
    from edgeslim.cli import main
    from edgeslim.onboard import chunks, integrity

    spent["imports"] = time.monotonic() - start
    wrap(classify, "Scene", "scene")
    wrap(classify, "open_runtime", "load")
    wrap(classify, "Guard", "golden check")
    wrap(classify, "_warm_up", "warm-up")
    wrap(chunks.ChunkReader, "read", "first read")
    wrap(integrity.Guard, "run", "first tile", after="first read")
    sys.argv = ["edgeslim", "classify", *arguments]
    main()


def least(model: str, tile_px: str, bands: str, batch: str) -> None:
    """What nobody can avoid."""
    entered = time.monotonic()
    import numpy as np
    import onnxruntime
    import rasterio  # noqa: F401

    imported = time.monotonic()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    loaded = time.monotonic()
    tiles = np.ones((int(batch), int(bands), int(tile_px), int(tile_px)), np.float32)
    session.run(None, {session.get_inputs()[0].name: tiles})
    done, started = time.monotonic(), float(os.environ["EDGESLIM_STARTED"])
    stages = {"interpreter": entered - started, "imports": imported - entered, "load": loaded - imported}
    stages["first tile"] = done - loaded
    print(
        json.dumps({"startup": {k: round(v * 1000, 2) for k, v in stages.items()}, "total_ms": (done - started) * 1000})
    )


def one(command: list[Any]) -> dict[str, Any] | None:
    """The stages of one fresh process, ms."""
    # The clock is the system's own (CLOCK_MONOTONIC), so the child can subtract the parent's reading.
    run = measure(command, {"EDGESLIM_STARTED": repr(time.monotonic())})
    line = next((line for line in run.lines if "startup" in line), None)
    if line is None:
        print(f"failed: exit {run.code}: {run.text}", file=sys.stderr)
        return None
    return {**line["startup"], "total": round(line["total_ms"], 2), "process_s": run.wall_s, "process_cpu_s": run.cpu_s}


def measure_artifact(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    encoder, width, random = ARTIFACTS[name]
    artifact = subjects.artifact(encoder, width, random=random)
    manifest = json.loads((artifact / "manifest.json").read_text())
    tile, bands = manifest["architecture"]["tile_px"], manifest["architecture"]["bands"]
    scene = subjects.scene(1024, 1024, "deflate-tiled")
    files = [scene, *artifact.iterdir()]
    rows, batch = [], 1
    for state, repeats in (("warm", arguments.repeats), ("cold", arguments.cold_repeats)):
        ours: list[dict[str, Any]] = []
        bound: list[dict[str, Any]] = []
        how = ""
        for repeat in range(repeats + (state == "warm")):
            for found, kind in ((ours, "classify"), (bound, "least")):
                if state == "warm":
                    for path in files:
                        warm(path)
                else:
                    how = drop_page_cache(files)
                with tempfile.TemporaryDirectory(dir=subjects.SCRATCH) as out:
                    command: list[Any] = [sys.executable, __file__, "--child", kind]
                    if kind == "classify":
                        command += [scene, "-o", Path(out) / "out", "--artifact", artifact, "--threads", 1]
                        command += ["--stride", tile]
                    else:
                        command += [artifact / manifest["models"]["any"], tile, bands, batch]
                    stages = one(command)
                    if kind == "classify" and stages is not None:
                        batch = json.loads((Path(out) / "out" / "run.json").read_text())["batch"]
                if stages is not None and not (state == "warm" and repeat == 0):  # the first one warms the libraries
                    found.append(stages)
        for kind, found in (("edgeslim", ours), ("least possible", bound)):
            if found:
                keys = [*STAGES, "total", "process_s", "process_cpu_s"]
                median = {k: round(statistics.median(s[k] for s in found if k in s), 2) for k in keys if k in found[0]}
                best = min(s["total"] for s in found)
                rows.append(
                    {
                        "artifact": name,
                        "state": state,
                        "of": kind,
                        "median_ms": median,
                        "least_ms": best,
                        "dropped": how,
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def table(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    about = record["machine"]
    text = ["# On board: start-up", "", f"`{record['command']}`", ""]
    text += [
        f"{about['cpu']}, {about['cores']} cores. "
        + ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        + f". Milliseconds, median of {record['repeats']} fresh processes warm and {record['cold_repeats']} cold, from "
        "process start to the first finished tile. Budget, warm: "
        + ", ".join(f"{name} {ms} ms" for name, ms in BUDGET_MS.items())
        + "; **bold**: missed. `least possible`: imports, loading and one batch, no scene, no check.",
        "",
    ]
    rows = []
    for row in record["rows"]:
        median = row["median_ms"]
        over = row["of"] == "edgeslim" and row["state"] == "warm" and median["total"] > BUDGET_MS[row["artifact"]]
        total = f"**{median['total']:.0f}**" if over else f"{median['total']:.0f}"
        state = row["state"] if row["state"] == "warm" else f"cold ({row['dropped']})"
        cells = [f"{median[stage]:.0f}" if stage in median else "" for stage in STAGES]
        rows.append([f"{row['artifact']}, {row['of']}, {state}", *cells, total])
    return "\n".join([*text, markdown(["", *STAGES, "together"], rows)]) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        (child if sys.argv[2] == "classify" else lambda words: least(*words))(sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cold-repeats", type=int, default=3)
    parser.add_argument("--artifacts", default=",".join(ARTIFACTS), help="of " + ", ".join(ARTIFACTS))
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    keep_to_cores(2)
    as_installed()
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/onboard_startup.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "repeats": arguments.repeats,
        "cold_repeats": arguments.cold_repeats,
        "rows": [],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.artifacts.split(","):
        record["rows"] += measure_artifact(name, arguments)
        arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
