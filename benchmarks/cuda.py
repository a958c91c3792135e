"""Does a real GPU compute what was exported, and is a fall back to the processor seen?

    python benchmarks/cuda.py make FOLDER [--tiles eurosat_rgb_train.zip]    on the ground: what follows runs these
    python benchmarks/cuda.py answer FOLDER [--seconds 3]                    on a machine with a GPU, without torch

`answer` needs ONNX Runtime's CUDA build. It runs `edgeslim check` and `edgeslim bench` on each artifact, then tries
what must be refused: an artifact with operators that CUDA does not have, and one for TensorRT where there is none; and
fp32 with TF32 allowed, which edgeslim forbids unless the environment says otherwise. `table` writes the table again.

    nodes          of the network that ran on the GPU, as ONNX Runtime's profile shows; any other makes `check` fail
    GPU / torch    largest difference of a golden logit, as a share of the logits' range; the same in batches
    allowed        by the manifest, of the same range
    ms a tile      median, at this batch, one call at a time
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onboard_process import machine, markdown

RESULT = Path(__file__).parent / "results" / "cuda"
CUDA = "CUDAExecutionProvider"
WIDTHS, PRECISIONS, BATCHES = (1.0, 0.25), ("fp32", "fp16"), (1, 64)
HEADINGS = ("artifact", "nodes", "GPU / torch", "same class", "allowed", *(f"ms a tile, {n}" for n in BATCHES))


def make(folder: Path, tiles: Path | None) -> None:
    import tomli
    import tomli_w

    from edgeslim.manifest import read_manifest

    proof = ["--tiles", str(tiles)] if tiles else []

    def export(name: str, *words: str) -> Path:
        out = folder / name
        command = [sys.executable, "-m", "edgeslim", "export", "--encoder", "eurosat-rgb", "-o", str(out), *words]
        subprocess.run([*command, *proof], check=True)
        return out

    with tempfile.TemporaryDirectory() as cards:
        (Path(cards) / "export").mkdir()
        # CUDA alone: without TensorRT every node must run there.
        card = tomli.loads((Path(__file__).parents[1] / "export" / "tensorrt.toml").read_text())
        card |= {"id": "cuda", "aliases": [], "name": "ONNX, run by ONNX Runtime on CUDA", "providers": [CUDA]}
        (Path(cards) / "export" / "cuda.toml").write_text(tomli_w.dumps(card))
        for width in WIDTHS:
            for precision in PRECISIONS:
                words = ("-w", str(width), "--precision", precision, "--target", "cuda", "--cards", cards)
                export(f"cuda-{precision}-w{width:g}", *words)
    export("tensorrt-fp32-w0.25", "-w", "0.25", "--target", "tensorrt")
    unfit = export("int8-w0.25", "-w", "0.25", "--target", "onnx", "--precision", "int8-dynamic")
    replace(read_manifest(unfit), providers=(CUDA,)).write(unfit)


def edgeslim(words: Sequence[str], **environment: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, the last line said to people, and the JSON printed."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeslim", *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    said = (done.stderr.strip().splitlines() or [""])[-1]
    return done.returncode, said, json.loads(done.stdout) if done.stdout.strip() else {}


def answer(folder: Path, seconds: float) -> None:
    import onnxruntime

    from edgeslim.manifest import read_manifest
    from edgeslim.onboard.machine import gpu

    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("cuda-*")):
        code, said, report = edgeslim(["check", str(path)])
        row: dict[str, Any] = {"artifact": path.name.removeprefix("cuda-"), "exit_code": code, "said": said}
        rows.append(row)
        if code:
            continue
        worst = max(report["batches"].values(), key=lambda batch: batch["max_abs"])
        row |= {
            "runtime": report["runtime"],
            "of_range": worst["max_abs"] / worst["logits_range"],
            "same": min(batch["argmax_agreement"] for batch in report["batches"].values()),
            "allowed": report["tolerance"] / worst["logits_range"],
            "golden": report["source"],
        }
        batches = [word for n in BATCHES for word in ("--batch", str(n))]
        code, said, bench = edgeslim(["bench", str(path), "--threads", "1", "--seconds", str(seconds), *batches])
        row |= {"bench": bench} if code == 0 else {"bench_said": said}
    unfit, trt, fp32 = folder / "int8-w0.25", folder / "tensorrt-fp32-w0.25", folder / "cuda-fp32-w1"
    outcomes = {
        "int8 operators, which CUDA has not": edgeslim(["check", str(unfit)]),
        "an artifact for TensorRT, which is not there": edgeslim(["check", str(trt)]),
        "fp32 with NVIDIA_TF32_OVERRIDE=1": edgeslim(["check", str(fp32)], NVIDIA_TF32_OVERRIDE="1"),
    }
    place = re.compile(rf"{re.escape(str(folder))}/|(?:/[^/\s:]+)+(?=/onnxruntime/capi)/")
    tried = {case: {"exit_code": code, "said": place.sub("", said)} for case, (code, said, _) in outcomes.items()}
    chip, capability = gpu()
    record = {
        "command": "python benchmarks/cuda.py answer FOLDER",
        "gpu": f"{chip}, compute capability {capability}",
        "onnxruntime": onnxruntime.__version__,
        "network": read_manifest(fp32).graph,
        "machine": machine(),
        "rows": rows,
        "tried": tried,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    write_table(record)


def write_table(record: dict[str, Any]) -> None:
    cells = []
    for row in record["rows"]:
        if row["exit_code"]:
            cells.append([row["artifact"], row["said"], *[""] * (len(HEADINGS) - 2)])
            continue
        nodes = re.search(rf"{CUDA} \((\d+) nodes\)", row["runtime"])
        timings = {t["batch"]: t["p50_ms"] for t in row.get("bench", {}).get("timings", [])}
        cells.append(
            [
                row["artifact"],
                nodes[1] if nodes else row["runtime"],
                f"{row['of_range']:.1e}",
                f"{row['same']:.1%}",
                f"{row['allowed']:.1e}",
                *(f"{timings[n]:.3f}" if n in timings else row.get("bench_said", "") for n in BATCHES),
            ]
        )
    tried = [[case, row["exit_code"], row["said"] or "passes"] for case, row in record["tried"].items()]
    golden = next((row["golden"] for row in record["rows"] if "golden" in row), "none")
    text = f"""# On a real GPU

`python benchmarks/cuda.py make FOLDER --tiles eurosat_rgb_train.zip`, then there `{record["command"]}`

{record["gpu"]}; ONNX Runtime {record["onnxruntime"]} on CUDA; {record["machine"]["cpu"]}, Python
{record["machine"]["python"]}, without torch. Encoder eurosat-rgb; golden tiles: {golden}. A GPU of a data centre is no
Jetson: what is shown is that the graph runs on CUDA whole, agrees with torch, and that a fall back is seen. The times
are no promise for a board.

{markdown(HEADINGS, cells)}

Tried besides (TF32 rounds the factors of fp32's products to 10 bits; edgeslim forbids it):

{markdown(("tried", "exit code", "said"), tried)}
"""
    RESULT.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "answer", "table"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/benchmarks/cuda"))
    parser.add_argument("--tiles", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, arguments.tiles)
    elif arguments.what == "answer":
        answer(arguments.folder, arguments.seconds)
    else:
        write_table(json.loads(RESULT.with_suffix(".json").read_text()))


if __name__ == "__main__":
    main()
