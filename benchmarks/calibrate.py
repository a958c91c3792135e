"""After `edgeslim calibrate`: how far off are widths that were not timed, and how often does a plan promise too much?

    python benchmarks/calibrate.py [--encoders eurosat-rgb,vit-s-16] [--targets onnx,openvino,tflite] [--make-only]

Makes artifacts of many widths (build/benchmarks/calibrate; an hour the first time), calibrates with three of them (1,
0.5 and 0.25, in every format) as `edgeslim calibrate` does, and times all others in processes of their own, each as
often as the three. Weights of a ViT-S/16 are random: they change no time.

    off           estimate / measured - 1 of a tile's time, of widths that were not timed for the card
    before        the same by the card x86-64-host, on which the calibrated one is built
    uncalibrated  the same for an encoder that the card was not calibrated with
    promised      plans for a latency, from the fastest width's time to the slowest's, that say a width fits whose
                  measured median does not
    narrower      than the widest width of which 95 of 100 calls fit: the planner holds that end against a budget
    behind        how much slower the chosen width runs as planned than in the fastest way measured for it
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onboard_process
import onboard_subjects
import tomllib
import torch

from edgeslim import cost
from edgeslim.device import Device, take_device
from edgeslim.device_text import device_text
from edgeslim.errors import EdgeslimError, NothingFits
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.measurement import Measurement
from edgeslim.onboard.calibrating.calibrate import calibrate
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import make_plan
from edgeslim.planning.durations import timed_call
from edgeslim.profile import Profile, take_profile
from edgeslim.shelf import read_record
from edgeslim.target import take_target

RESULT = Path(__file__).parent / "results" / "calibrate"
SCRATCH = Path(__file__).parents[1] / "build" / "benchmarks" / "calibrate"
TIMED = (1.0, 0.5, 0.25)
"""For the card."""
OTHERS = {
    "eurosat-rgb": (0.9375, 0.75, 0.625, 0.4375, 0.375, 0.28125, 0.125, 0.0625),
    "vit-s-16": (0.875, 0.75, 0.625, 0.375, 0.125),
}
TIMINGS = SCRATCH / "timings.json"
"""What was timed last."""
BUDGETS = 60
"""Latencies asked for, evenly spaced in their logarithm."""


def subject(encoder: str) -> tuple[Profile, Checkpoint]:
    """Encoder and weights."""
    profile = take_profile(encoder)
    if profile.checkpoint is not None:
        return profile, profile_checkpoint(profile)[0]
    return onboard_subjects.random_encoder(encoder, widths=(*TIMED, *OTHERS[encoder]))


def make(encoder: str, width: float, target: str) -> Path:
    """The artifact of a width as one format, exported once."""
    folder = SCRATCH / encoder / f"{target}-{width:g}"
    if not (folder / "manifest.json").exists():
        profile, checkpoint = subject(encoder)
        batches = (1, cost.default_batch(profile.architecture.at(width)))
        proving = Proving(synthetic_tiles(profile), batches=batches)
        source = Source(profile, checkpoint, "", width)
        export(source, [Request(take_target(target), "fp32")], proving, folder, lambda _: None)
    return folder


def estimate_ms(profile: Profile, device: Device, row: Measurement) -> float | None:
    """Of a tile, as timed in `row`; None where the card has no figures."""
    runtime = next((r for r in device.runtime if r.id == row.runtime), None)
    if runtime is None or "fp32" not in runtime.efficiency:
        return None
    arch = profile.architecture.at(row.width_multiplier)
    return timed_call(profile, arch, row.batch, device, runtime, "fp32", workers=row.workers).seconds / row.batch * 1e3


def off(profile: Profile, device: Device, rows: list[Measurement]) -> list[float | None]:
    """estimate / measured - 1 of each row."""
    estimates = [estimate_ms(profile, device, row) for row in rows]
    return [None if e is None else e / row.p50_ms - 1 for e, row in zip(estimates, rows, strict=True)]


def plans(
    profile: Profile, device: Device, targets: list[str], truth: dict[tuple[str, float], Measurement]
) -> dict[str, Any]:
    """Plans for many latencies, held against what was measured of (runtime, width) at batch 1 on all cores."""
    times = sorted(row.p50_ms for row in truth.values())
    asked = np.geomspace(times[0] * 0.9, times[-1] * 1.1, BUDGETS)
    known = {width for _, width in truth}
    found: dict[str, Any] = {"plans": 0, "unknown": 0, "broken": [], "behind": [], "narrower": []}
    for latency_ms in map(float, asked):
        try:
            plan = make_plan(profile, device, [take_target(t) for t in targets], Ask(latency_ms=latency_ms))
        except NothingFits:
            continue
        if plan.width_multiplier not in known:
            found["unknown"] += 1
            continue
        found["plans"] += 1
        measured = truth[plan.runtime, plan.width_multiplier].p50_ms
        if measured > latency_ms:
            found["broken"].append([latency_ms, plan.runtime, plan.width_multiplier, measured])
        fastest = min(row.p50_ms for (_, w), row in truth.items() if w == plan.width_multiplier)
        found["behind"].append(measured / fastest - 1)
        widest = max(w for (_, w), row in truth.items() if row.p95_ms <= latency_ms or w == plan.width_multiplier)
        found["narrower"].append(widest - plan.width_multiplier)
    return found


def main() -> None:
    """Make, calibrate, time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default="eurosat-rgb,vit-s-16")
    parser.add_argument("--targets", default="onnx,openvino,tflite")
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--again", action="store_true", help="the table anew from what was timed before")
    args = parser.parse_args()
    encoders, targets = args.encoders.split(","), args.targets.split(",")
    folders = {
        (encoder, width, target): make(encoder, width, target)
        for encoder in encoders
        for width in (*TIMED, *OTHERS[encoder])
        for target in targets
    }
    if args.make_only:
        return
    base, cards = take_device("x86-64-host"), [take_target(target) for target in targets]
    record: dict[str, Any] = {
        "machine": onboard_process.machine(),
        "versions": onboard_process.versions(),
        "encoders": {},
    }
    devices: dict[str, Device] = {}
    rows: dict[str, list[Measurement]] = {}
    for encoder in [] if args.again else encoders:
        three = [folders[encoder, width, target] for target in targets for width in TIMED]
        devices[encoder] = calibrate(three, base, cards, "here", seconds=args.seconds).device
        others = [folders[encoder, width, target] for width in OTHERS[encoder] for target in targets]
        rows[encoder] = list(calibrate(others, base, cards, "here", seconds=args.seconds).rows)
    if args.again:
        kept = json.loads(TIMINGS.read_text(encoding="utf-8"))
        record |= {name: kept[name] for name in ("machine", "versions")}
        for encoder in encoders:
            devices[encoder] = read_record(Device, kept[encoder]["card"], encoder)
            rows[encoder] = [read_record(Measurement, row, encoder) for row in kept[encoder]["rows"]]
    else:
        timings = {
            e: {"card": tomllib.loads(device_text(devices[e])), "rows": list(map(asdict, rows[e]))} for e in encoders
        }
        TIMINGS.write_text(json.dumps({**record, **timings}), encoding="utf-8")
    for encoder in encoders:
        profile, found = subject(encoder)[0], []
        after, before = off(profile, devices[encoder], rows[encoder]), off(profile, base, rows[encoder])
        foreign = [off(profile, devices[other], rows[encoder]) for other in encoders if other != encoder]
        for index, row in enumerate(rows[encoder]):
            found.append(
                {
                    "runtime": row.runtime, "width": row.width_multiplier, "batch": row.batch, "workers": row.workers,
                    "p50_ms": row.p50_ms, "off": after[index], "before": before[index],
                    "uncalibrated": [one[index] for one in foreign],
                }
            )  # fmt: skip
        timed = chain(devices[encoder].measurement, rows[encoder])
        truth = {(r.runtime, r.width_multiplier): r for r in timed if r.batch == 1 and r.workers == 1}
        record["encoders"][encoder] = {"rows": found, "plans": plans(profile, devices[encoder], targets, truth)}
    RESULT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(page(record, vars(args)), encoding="utf-8")
    print(page(record, vars(args)))


def page(record: dict[str, Any], args: dict[str, Any]) -> str:
    """The result as Markdown."""
    command = f"python benchmarks/calibrate.py --encoders {args['encoders']} --targets {args['targets']}"
    about = record["machine"]
    lines = [
        *("# After `edgeslim calibrate`", "", f"`{command}`", ""),
        f"{about['cpu']}, {about['cores']} cores, load {about['load_1min']:g} before it began. "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        + f". Of each encoder the widths {', '.join(f'{w:g}' for w in TIMED)} were calibrated with; those below were "
        "not. Off: estimate / measured - 1 (**bold**: more than 10 %); before: by the card x86-64-host, on which the "
        "calibrated one is built; uncalibrated: by the card that was calibrated with the other encoder.",
        "",
    ]
    for encoder, found in record["encoders"].items():
        lines += [f"## {encoder}", "", *_summary(found["rows"], found["plans"]), ""]
        body = []
        for row in found["rows"]:
            off, *others = (_percent(v) for v in (row["off"], row["before"], *row["uncalibrated"][:1]))
            missed = row["off"] is None or abs(row["off"]) > 0.1
            body.append(
                (
                    *(row["runtime"], f"{row['width']:g}", row["batch"], row["workers"], f"{row['p50_ms']:.3g}"),
                    *(f"**{off}**" if missed else off, *others),
                )
            )
        heads = ["runtime", "w", "batch", "at once", "measured ms", "off", "before", "uncalibrated"]
        lines.append(onboard_process.markdown(heads, body))
        lines.append("")
    return "\n".join(lines)


def _summary(rows: list[dict[str, Any]], tried: dict[str, Any]) -> list[str]:
    said = []
    for name in ("off", "before"):
        values = [abs(row[name]) for row in rows if row[name] is not None]
        if values:
            said.append(
                f"- {name}: median {statistics.median(values):.1%}, largest {max(values):.1%}, {len(values)} rows"
            )
    foreign = [abs(v) for row in rows for v in row["uncalibrated"] if v is not None]
    if foreign:
        said.append(f"- uncalibrated: median {statistics.median(foreign):.1%}, largest {max(foreign):.1%}")
    count = max(tried["plans"], 1)
    behind, narrower = tried["behind"] or [0.0], tried["narrower"] or [0.0]
    said.append(
        f"- {tried['plans']} plans: {len(tried['broken'])} promised too much ({len(tried['broken']) / count:.1%}; "
        f"aim 2 %); behind the fastest way for the chosen width by {statistics.median(behind):.1%} (median), "
        f"{max(behind):.1%} (largest; aim 5 %); narrower than the widest measured to fit by "
        f"{statistics.mean(narrower):.3f} of the width on average; {tried['unknown']} more chose a width nobody timed"
    )
    return said


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:+.1%}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    except EdgeslimError as error:
        raise SystemExit(f"error: {error}") from None
