"""Is the time that `plan --scene` foretells the time that `classify` takes? And what goes on beside the network?

    python benchmarks/scene_time.py [--repeats 2]

`edgeslim calibrate` times this machine first, with the embedded encoder at three widths; a plan's scene on that card is
then held against the wall time of fresh `edgeslim classify` processes, a call on every core. Scenes stand in the page
cache, so that the part of the start-up that reads from storage is left out of what is foretold.

Beside the network: the processor time of a run on one thread from its first batch on, less that of the runtime's calls.
A least-squares fit shares it out over the bands of all pixels and over the windows: `band_pixel_ns` and `window_us` of
the device cards, on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onboard_subjects as subjects
from onboard_process import as_installed, keep_to_cores, machine, markdown, measure, versions, warm

RESULT = Path(__file__).parent / "results" / "scene_time"
SIZE_PX = 4096
ENCODER = "eurosat-rgb"
WIDTHS = (1.0, 0.25, 1 / 32)
STRIDES = (64, 32)
MORE_BANDS = 12
"""Of scenes and artifacts with seeded random weights, for what goes on beside the network alone."""


def child(arguments: Sequence[str]) -> None:
    """Run the verb in this process; print the processor time from its first batch on, and that of the runtime."""
    from edgeslim.cli import main as edgeslim
    from edgeslim.onboard.integrity import Guard
    from edgeslim.onboard.stream import Stream

    first: list[float] = []
    calls = [0.0]
    classify, run = Stream._classify, Guard.run

    def began(self: Stream, *more: Any) -> Any:
        if not first:
            first.append(time.process_time())
            calls[0] = 0.0
        return classify(self, *more)

    def timed(self: Guard, tiles: Any) -> Any:
        start = time.thread_time()
        try:
            return run(self, tiles)
        finally:
            calls[0] += time.thread_time() - start

    Stream._classify, Guard.run = began, timed  # type: ignore[method-assign]
    if code := edgeslim(list(arguments)):
        raise SystemExit(code)
    print(json.dumps({"beside_s": time.process_time() - first[0] - calls[0], "network_s": calls[0]}), flush=True)


def foretold(card: Path, width: float, stride: int) -> dict[str, float]:
    """Of a plan on `card`, s: the sum and its band, without what a cold start reads from storage."""
    from edgeslim.device import load_device
    from edgeslim.planning.durations import Scene, scene_time, startup_of
    from edgeslim.profile import take_profile

    profile, device = take_profile(ENCODER), load_device(card)
    arch = profile.architecture.at(width)
    runtime = next(r for r in device.runtime if r.id == "onnxruntime-cpu")
    startup = startup_of(profile, arch, device, runtime, "fp32")
    found = scene_time(Scene(SIZE_PX, SIZE_PX, stride), startup, profile, arch, device, runtime, "fp32")
    if startup is None or found is None:
        raise SystemExit(f"{card}: no start-up")
    storage_s, band = startup.storage_ms / 1e3, 1 + runtime.error_band.value
    return {
        "tiles": found.tiles,
        "start_s": found.startup_s - storage_s,
        "network_s": found.network_s,
        "beside_s": found.beside_s,
        "total_s": found.total_s - storage_s,
        "low_s": found.low_s - storage_s / band,
        "high_s": found.high_s - storage_s * band,
    }


def classify(artifact: Path, scene: Path, stride: int, threads: int, out: Path) -> list[object]:
    """Words behind `edgeslim`."""
    words: list[object] = ["classify", scene, "--artifact", artifact, "--training-prior", "-o", out]
    return [*words, "--stride", stride, "--threads", threads, "--overwrite"]


def beside(artifact: Path, scene: Path, bands: int, stride: int, out: Path) -> dict[str, Any]:
    """One run on one thread, in a process of its own."""
    words = classify(artifact, scene, stride, 1, out)
    run = measure([sys.executable, __file__, "--child", *words])
    if run.code:
        raise SystemExit(f"{' '.join(map(str, words))}: {run.text}")
    return {"bands": bands, "stride": stride, **run.lines[-1]}


def fitted(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """band_pixel_ns and window_us of the rows of `beside`."""
    import numpy as np

    from edgeslim.planning.durations import Scene

    counts = [[r["bands"] * SIZE_PX**2 * 1e-9, Scene(SIZE_PX, SIZE_PX, r["stride"]).tiles(64) * 1e-6] for r in rows]
    found = np.linalg.lstsq(np.array(counts), np.array([r["beside_s"] for r in rows]), rcond=None)[0]
    return float(found[0]), float(found[1])


def report(record: dict[str, Any]) -> str:
    about = record["machine"]
    rows = [
        [
            f"{r['width']:.4g}",
            str(r["stride"]),
            f"{r['tiles']:,}",
            f"{r['wall_s']:.2f}",
            f"{r['total_s']:.2f}",
            f"{r['start_s']:.2f}",
            f"{r['network_s']:.2f}",
            f"{r['beside_s']:.2f}",
            f"{r['total_s'] / r['wall_s']:.2f}",
            f"{(r['total_s'] - r['beside_s']) / r['wall_s']:.2f}",
            "yes" if r["low_s"] <= r["wall_s"] <= r["high_s"] else "**no**",
        ]
        for r in record["rows"]
    ]
    heads = ["w", "stride", "tiles", "wall s", "foretold s", "start", "network", "beside", "foretold / wall"]
    heads += ["without beside", "in its band"]
    off = [abs(r["total_s"] / r["wall_s"] - 1) for r in record["rows"]]
    apart = [
        [str(r["bands"]), str(r["stride"]), f"{r['beside_s']:.2f}", f"{r['network_s']:.2f}"] for r in record["beside"]
    ]
    ns, us = record["band_pixel_ns"], record["window_us"]
    return (
        "\n".join(
            [
                "# Scenes: foretold and flown",
                "",
                f"`{record['command']}`",
                "",
                f"{about['cpu']}, {len(record['cores'])} of {about['cores']} cores; load {about['load_1min']} before "
                "it began. " + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + f". {ENCODER}, scenes of "
                f"{SIZE_PX} x {SIZE_PX} px ({record['pixels']}); least wall time of {record['repeats']} fresh "
                "processes.",
                "",
                markdown(heads, rows),
                "",
                f"Off by {statistics.median(off):.1%} (median), {max(off):.1%} at most.",
                "",
                "## Beside the network",
                "",
                "Processor time on one thread, s, at width 1/32.",
                "",
                markdown(["bands", "stride", "beside s", "network s"], apart),
                "",
                f"Fitted: {ns:.2g} ns a band of a pixel, {us:.2g} us a window. The cards assume 9 ns and 55 us of one "
                "Zen 5 core, and more of slower ones.",
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    cores = keep_to_cores(2)
    as_installed()
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/scene_time.py", *sys.argv[1:]]),
        "machine": machine(),
        "cores": cores,
        "versions": versions(),
        "pixels": subjects.pixels_from(),
        "repeats": arguments.repeats,
        "rows": [],
        "beside": [],
    }
    few, many = (subjects.scene(SIZE_PX, SIZE_PX, "deflate-tiled", bands=bands) for bands in (3, MORE_BANDS))
    artifacts = {width: subjects.artifact(ENCODER, width) for width in WIDTHS}
    wide = subjects.artifact(ENCODER, WIDTHS[-1], bands=MORE_BANDS, random=True)
    edgeslim = [sys.executable, "-m", "edgeslim"]
    with tempfile.TemporaryDirectory(dir=subjects.SCRATCH) as name:
        folder = Path(name)
        card = folder / "cards" / "devices" / "this-machine.toml"
        run = measure([*edgeslim, "calibrate", *artifacts.values(), "-o", card])
        if run.code:
            raise SystemExit(run.text)
        warm(few)
        for width, artifact in artifacts.items():
            for stride in STRIDES:
                words = classify(artifact, few, stride, len(cores), folder / "out")
                runs = [measure([*edgeslim, *words]) for _ in range(arguments.repeats)]
                if any(one.code for one in runs):
                    raise SystemExit(runs[0].text)
                walls = [one.wall_s for one in runs]
                row = {"width": width, "stride": stride, "wall_s": min(walls), "all_s": walls}
                record["rows"].append(row | foretold(card, width, stride))
                print(record["rows"][-1], file=sys.stderr, flush=True)
        for scene, artifact, bands in ((few, artifacts[WIDTHS[-1]], 3), (many, wide, MORE_BANDS)):
            warm(scene)
            record["beside"] += [beside(artifact, scene, bands, stride, folder / "out") for stride in STRIDES]
    record["band_pixel_ns"], record["window_us"] = fitted(record["beside"])
    arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        child(sys.argv[2:])
    else:
        main()
