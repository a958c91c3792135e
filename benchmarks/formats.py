"""Every format in every precision: how large, how equal, how good, how fast, and how near to what this machine can do?

    python benchmarks/formats.py [--subjects embedded,vit-s14] [--widths 1,0.5,0.25]
        [--count embedded=1024,vit-s14=1000] [--threads 1] [--timmx-python ENV/bin/python] [--make-only | --time-only]

First each width of each encoder is exported in every format and precision with `edgeslim export`'s own code, proven on
real tiles (EuroSAT's test part), into build/benchmarks/formats (formats_making.py); that takes hours, and other work
beside it does no harm. A run that is broken off goes on where it was. Then the artifacts, torch eager and the bare
libraries are timed in one process, all on the same number of threads, in turns: of each round the median is taken, of
the rounds the least. That takes some three minutes a width of the ViT-S/14 and wants the machine for itself. What
OUT.json holds of other encoders and widths stays there (formats_table.py): `--subjects vit-s14 --time-only` times the
ViT-S/14 alone anew. What was refused has nothing to be timed: `--make-only` writes it into OUT.json where the rest of
its width stands there.

    ms            `Runtime.run`, a tile, at batch 1 and 8
    / torch       the same of torch eager, in the same rounds
    / bare        `Runtime.run` against a call of the library itself on the same file and tile, one after the other: the
                  median of such pairs
    of peak       FLOP of the encoder's matrix products a second / the most that a float32 matrix product reaches here:
                  the best of three sizes in NumPy (OpenBLAS) and torch (oneDNN or MKL), on as many threads

A row that is slower than torch, or than fp32 in the same format, says so in bold. timmx, from an environment of its
own (`pip install 'timmx[onnx,openvino,litert]==0.10.1'`), exports a ViT-S of random weights for each format, at batch
1; it is timed by the bare library.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import formats_subjects as subjects
import numpy as np
import onboard_process
import torch
from formats_making import BATCHES, TARGETS, folder_of, make, refused
from formats_table import said_plainly, with_refusals, write

from edgeslim import cost
from edgeslim.ground.exporting.capture import Request
from edgeslim.ground.flight import flight_model
from edgeslim.ground.golden import golden_tiles
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.manifest import Manifest, read_manifest
from edgeslim.onboard.open_runtime import load_runtime
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.target import take_target

RESULT = Path(__file__).parent / "results" / "formats"
_ROUNDS = 6
_ROUND_S = 0.4
_GEMM_SIDES = (512, 1024, 2048)


def peak_gflop_s(threads: int) -> dict[str, float]:
    """Library and size -> GFLOP/s of a float32 matrix product."""
    torch.set_num_threads(threads)
    found = {}
    for side in _GEMM_SIDES:
        a = np.random.default_rng(0).standard_normal((side, side), np.float32)
        b, out = a.T.copy(), np.empty_like(a)
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        calls: dict[str, Callable[[], Any]] = {
            f"numpy {side}": lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
            f"torch {side}": lambda ta=ta, tb=tb: ta @ tb,
        }
        for name, call in calls.items():
            found[name] = 2 * side**3 / best_s(call) / 1e9
    return found


def best_s(call: Callable[[], Any]) -> float:
    """Least median of some rounds."""
    return min(median_s(call) for _ in range(_ROUNDS))


def median_s(call: Callable[[], Any]) -> float:
    return float(np.median([times[0] for times in in_turns(call)]))


def in_turns(*calls: Callable[[], Any]) -> list[tuple[float, ...]]:
    """Seconds of each call, one after the other, for a while."""
    rows: list[tuple[float, ...]] = []
    for call in calls:
        call()
    end = time.perf_counter() + _ROUND_S * len(calls)
    while len(rows) < 3 or time.perf_counter() < end:
        at = [time.perf_counter()]
        for call in calls:
            call()
            at.append(time.perf_counter())
        rows.append(tuple(after - before for before, after in pairwise(at)))
    return rows


def bare_call(path: Path, tiles: np.ndarray, threads: int, names: tuple[str, str] | None = None) -> Callable[[], Any]:
    """The library itself, as its own documentation calls it; `names` of tiles and logits, None: the only ones."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given, wanted = names or (session.get_inputs()[0].name, session.get_outputs()[0].name)
        return lambda: session.run([wanted], {given: tiles})
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        )
        return lambda: compiled(tiles)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    index, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    if names is not None:
        output = interpreter.get_signature_runner().get_output_details()[names[1]]["index"]

    def call() -> Any:
        interpreter.set_tensor(index, tiles)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return call


def time_all(
    artifacts: dict[str, tuple[Path, Manifest]], module: torch.nn.Module, tiles: np.ndarray, threads: int
) -> dict[str, dict[str, float]]:
    """Contender -> {"run": ms a tile, "to_bare": its ratio to the bare library}, all in turns."""
    given = torch.from_numpy(tiles)
    torch.set_num_threads(threads)

    def eager() -> None:
        with torch.inference_mode():
            module(given)

    calls: dict[str, list[Callable[[], Any]]] = {"torch": [eager]}
    for name, (folder, manifest) in artifacts.items():
        runtime: Runtime = load_runtime(folder, manifest, threads)
        file = manifest.models.get("any") or manifest.models[str(len(tiles))]
        bare = bare_call(folder / file, tiles, threads, (manifest.input_name, manifest.output_name))
        calls[name] = [lambda runtime=runtime: runtime.run(tiles), bare]
    found: dict[str, list[list[tuple[float, ...]]]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, both in calls.items():
            found[name].append(in_turns(*both))
    times: dict[str, dict[str, float]] = {}
    for name, rounds in found.items():
        times[name] = {"run": min(float(np.median([row[0] for row in rows])) for rows in rounds) * 1e3 / len(tiles)}
        if name != "torch":
            times[name]["to_bare"] = float(np.median([run / bare for rows in rounds for run, bare in rows]))
    return times


def measure(subject: subjects.Subject, name: str, width: float, threads: int, peak: float) -> dict[str, Any]:
    """All rows of one width whose artifacts were made."""
    folder, profile = folder_of(name, width), subject.profile
    names = _names()
    artifacts = {
        name: (folder / name, read_manifest(folder / name))
        for name in names
        if (folder / name / "manifest.json").is_file()
    }
    if not artifacts:
        sys.exit(f"formats.py: found no artifacts in {folder}, expected those of --make-only")
    no = refused(folder, names)
    golden = golden_tiles(profile, subject.tiles)
    arch = profile.architecture.at(width)
    gflop = cost.flop(arch, profile.num_classes) / 1e9
    module = flight_model(profile, slimmed_checkpoint(subject.checkpoint, width))
    times = {
        batch: time_all(
            artifacts, module, np.resize(golden.tiles, (batch, *golden.tiles.shape[1:])).astype(np.float32), threads
        )
        for batch in BATCHES
    }
    rows = [_row("torch", None, None, times, gflop, peak)]
    rows += [_row(name, *artifacts[name], times, gflop, peak) for name in artifacts]
    certificates = [m.certificate for _, m in artifacts.values() if m.certificate is not None]
    return {
        "encoder": profile.id,
        "width_multiplier": width,
        "gflop": gflop,
        "verdict": " or ".join(dict.fromkeys(certificate.verdict for certificate in certificates)),
        "rows": rows,
        "refused": no,
        "not_made": [name for name in names if name not in artifacts and name not in no],
    }


def _names() -> list[str]:
    return [Request(target, precision).name for target in map(take_target, TARGETS) for precision in target.precisions]


def timmx_rows(python: Path, threads: int, peak: float) -> list[dict[str, Any]]:
    """What timmx makes of timm's ViT-S/14 at 224 px, or else of its ViT-S/16, timed as ours are bare."""
    rows = []
    for target, suffix in (("onnx", "onnx"), ("openvino", "xml"), ("litert", "tflite")):
        for model, patch in (("vit_small_patch14_dinov2", 14), ("vit_small_patch16_224", 16)):
            made = subjects.SCRATCH / "timmx" / f"{model}.{suffix}"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.unlink(missing_ok=True)
            words = ["export", target, model, "--num-classes", "10", "--input-size", "3", "224", "224"]
            words += ["--output", str(made)]
            done = subprocess.run([python.with_name("timmx"), *words], capture_output=True, text=True, check=False)
            row: dict[str, Any] = {"format": target, "model": model}
            rows.append(row)
            if done.returncode or not made.exists():
                said = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line or "FAIL" in line]
                row["refused"] = said_plainly((said or ["no file"])[-1])
                continue
            tokens, d, h = (224 // patch) ** 2 + 1, 384, 1536
            macs = 12 * (tokens * d * (4 * d + 2 * h) + 2 * tokens**2 * d) + (tokens - 1) * 3 * patch**2 * d + 10 * d
            tile = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
            row["ms_1"] = best_s(bare_call(made, tile, threads)) * 1e3
            row["of_peak_1"] = 2 * macs / 1e9 / (row["ms_1"] / 1e3) / peak
            break
    return rows


def _row(
    name: str, folder: Path | None, manifest: Manifest | None, times: dict[int, dict[str, dict[str, float]]],
    gflop: float, peak: float,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {"artifact": name}
    for batch, found in times.items():
        ms = found[name]["run"]
        row[f"ms_{batch}"] = ms
        row[f"to_torch_{batch}"] = ms / found["torch"]["run"]
        row[f"of_peak_{batch}"] = gflop / (ms / 1e3) / peak
        if "to_bare" in found[name]:
            row[f"to_bare_{batch}"] = found[name]["to_bare"]
    if folder is not None and manifest is not None and manifest.certificate is not None:
        certificate = manifest.certificate
        worst = max(certificate.batches.values(), key=lambda p: p.max_abs)
        row |= {
            "kib": sum(p.stat().st_size for p in folder.iterdir() if p.name in manifest.models.values()
                       or p.suffix == ".bin") / 1024,
            "relative": worst.relative,
            "agreement": min(p.argmax_agreement for p in certificate.batches.values()),
            "cosine": min(p.feature_cosine or 0.0 for p in certificate.batches.values()),
            "score": certificate.score,
            "kept": len(certificate.kept),
        }  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="embedded,vit-s14")
    parser.add_argument("--widths", default=",".join(f"{w:g}" for w in subjects.WIDTHS))
    parser.add_argument("--count", default="embedded=1024,vit-s14=1000", help="real tiles to prove on, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--precisions", default="fp32,fp16,int8-dynamic,int8-static", help="to make; others stay")
    parser.add_argument("--timmx-python", type=Path, help="interpreter of an environment that has timmx")
    parser.add_argument("--again", action="store_true", help="make anew what was made before on as many tiles, too")
    parser.add_argument("--make-only", action="store_true", help="export and prove, time nothing")
    parser.add_argument("--time-only", action="store_true", help="time what was made before")
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != str(arguments.threads):  # NumPy reads it when it is loaded
        os.environ["OPENBLAS_NUM_THREADS"] = str(arguments.threads)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if not subjects.EUROSAT.exists() or not subjects.WEIGHTS.exists():
        sys.exit("formats.py: found no ../shared/data with EuroSAT and the ViT-S/14, expected both: nothing measured")
    made = {"embedded": subjects.embedded, "vit-s14": subjects.vit_s14}
    chosen = {name: made[name]() for name in arguments.subjects.split(",")}
    counts = dict(pair.split("=") for pair in arguments.count.split(","))
    precisions = arguments.precisions.split(",")
    cases = [(name, float(width)) for name in chosen for width in arguments.widths.split(",")]
    if not arguments.time_only:
        for name, width in cases:
            make(chosen[name], name, width, int(counts[name]), arguments.max_drop, precisions, arguments.again)
    if arguments.make_only:
        late = {(chosen[name].profile.id, width): refused(folder_of(name, width), _names()) for name, width in cases}
        with_refusals(late, arguments.out)
        return
    gemm = peak_gflop_s(arguments.threads)
    peak = max(gemm.values())
    run = {
        "command": "python benchmarks/formats.py "
        + " ".join("ENV/bin/python" if a.endswith("/bin/python") else a for a in sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": onboard_process.machine(),
        "versions": _versions(),
        "threads": arguments.threads,
        "gemm": gemm,
        "peak_gflop_s": peak,
    }
    timed = [measure(chosen[name], name, width, arguments.threads, peak) | {"run": run} for name, width in cases]
    other = timmx_rows(arguments.timmx_python, arguments.threads, peak) if arguments.timmx_python else []
    print(write({"cases": timed, "timmx": {"run": run, "rows": other} if other else None}, arguments.out))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "onnxruntime", "openvino", "ai-edge-litert", "nncf", "litert-torch", "ai-edge-quantizer")
    return {name: version(name).split("+")[0] for name in names}


if __name__ == "__main__":
    main()
