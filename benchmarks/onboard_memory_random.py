"""Does a run ever take more than it foretold? Random scenes, artifacts and flags, drawn from a seed.

    python benchmarks/onboard_memory_random.py [--count 200] [--seed 1]

Each case is `edgeslim classify` of a scene in a fresh process: what run.json says was foretold before the first tile,
against its peak (VmHWM). Drawn are bands (1 to 13) and tile (8 to 512 px) of an artifact of closed form, or the
embedded encoder and a ViT-Ti of 12 bands in ONNX Runtime and LiteRT; the scene's type, sides, blocks, compression,
interleaving, nodata and bands that nobody asked for; batch, threads, stride, scale, probabilities and cells.
Aim: never below the peak. By how much it is above is told, too: of a tall strip decoded whole, twice as much.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plan_memory_subjects as subjects
import rasterio
from onboard_process import as_installed, keep_to_cores, machine, markdown, measure, versions
from rasterio.transform import Affine

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.onboard.artifacts import RGB, SENTINEL2, make_artifact

RESULT = Path(__file__).parent / "results" / "onboard_memory_random"
DTYPES = ("uint8", "uint16", "int16", "float32", "float64", "int32", "uint32")
CLOSED = [(bands, tile) for bands in (1, 2, 3, 5, 13) for tile in (8, 32, 64, 120, 224, 512)]
NETWORKS = [
    (encoder, width, target)
    for encoder, width in (("eurosat-rgb", 1.0), ("eurosat-rgb", 0.25), ("vit-ti-12b", 0.25))
    for target in ("onnx", "tflite")
]
SHOWN = 8
"""Rows of either end that the page shows; the JSON has all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    artifact: str
    scene: str
    flags: str
    foretold_mib: float
    peak_mib: float

    @property
    def over(self) -> float:
        """Foretold / peak - 1."""
        return self.foretold_mib / self.peak_mib - 1


def artifact_of(draw: random.Random, folder: Path) -> tuple[str, Path]:
    """A name and an artifact; closed ones are made in `folder` once."""
    if draw.random() < 0.3:
        encoder, width, target = draw.choice(NETWORKS)
        return f"{encoder} {width:g} {target}", subjects.artifact(encoder, width, target, "fp32", None)
    bands, tile = draw.choice(CLOSED)
    path = folder / f"closed-{bands}-{tile}"
    if not path.exists():
        make_artifact(path, bands=RGB if bands == 3 else SENTINEL2[:bands], tile_px=tile)
    return f"closed form, {bands} bands, {tile} px", path


def make_scene(draw: random.Random, path: Path, bands: list[str], tile: int) -> tuple[str, str]:
    """Write a scene; what it is, and numpy's name of its type."""
    dtype = draw.choice(DTYPES)
    sides = [(700, 900), (1500, 1200), (3000, 400), (300, 5000), (2048, 2048)]
    height, width = draw.choice([*sides, (tile // 2 + 3, 2000), (2500, tile // 2 + 5)])
    tiled = [{"tiled": True, "blockxsize": side, "blockysize": side} for side in (64, 256, 512, 1024)]
    layout: dict[str, Any] = draw.choice([*tiled, {"blockysize": 1}, {"blockysize": 16}, {"blockysize": height}])
    compress = draw.choice([None, "deflate", "lzw", "zstd", "lzma", "packbits", "lerc"])
    interleave, nodata = draw.choice(["pixel", "band"]), draw.choice([None, 0, 0])
    names = [*bands, *(f"X{number}" for number in range(draw.choice([0, 0, 1, 3])))]
    values = np.random.default_rng(draw.randrange(1 << 30))
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype, count=len(names), height=height, width=width, crs="EPSG:32630",
        transform=Affine(10, 0, 600000, 0, -10, 4800000), interleave=interleave, nodata=nodata,
        **layout, **({"compress": compress} if compress else {}),
    ) as dataset:  # fmt: skip
        for number, name in enumerate(names, 1):
            plane = values.integers(20, 250, (height, width)) * (1 if dtype == "uint8" else 10)
            if nodata is not None:
                plane[values.random((height, width)) < 0.001] = 0
                plane[: height // 3, : width // 4] = 0
            dataset.write(plane.astype(dtype), number)
            dataset.set_band_description(number, name)
    blocks = f"blocks of {layout.get('blockxsize', width)} x {layout['blockysize']}"
    empty = ", nodata" if nodata is not None else ""
    form = f"{len(names)} bands of {dtype}, {compress or 'uncompressed'}, by {interleave}, {blocks}{empty}"
    return f"{height} x {width}, {form}", dtype


def flags_of(draw: random.Random, tile: int, dtype: str) -> list[str]:
    """How it is classified."""
    flags = ["--accept-gsd", "--threads", str(draw.choice([1, 2, 4])), "--stride", str(tile // draw.choice([1, 2, 4]))]
    if draw.random() < 0.75:
        flags += ["--batch", str(draw.choice([1, 2, 4, 8, 16]))]
    if dtype == "uint8" or draw.random() < 0.4:
        flags += ["--scale", "0.004" if dtype == "uint8" else "0.00011"]
    for flag in ("--probabilities", "--cells"):
        flags += [flag] if draw.random() < 0.2 else []
    return flags


def run(draw: random.Random, folder: Path) -> Case:
    """Draw a case and run it."""
    name, artifact = artifact_of(draw, folder)
    manifest = json.loads((artifact / "manifest.json").read_text())
    tile = manifest["architecture"]["tile_px"]
    scene, dtype = make_scene(draw, folder / "scene.tif", [band["name"] for band in manifest["bands"]], tile)
    flags = flags_of(draw, tile, dtype)
    out = folder / "out"
    command = [sys.executable, "-m", "edgeslim", "classify", folder / "scene.tif", "--artifact", artifact, "-o", out]
    done = measure([*command, "--overwrite", *flags])
    if done.code:
        raise SystemExit(f"{name}; {scene}; {' '.join(flags)}: exit {done.code}: {done.text}")
    memory = json.loads((out / "run.json").read_text())["memory_mib"]
    return Case(name, scene, " ".join(flags), round(memory["foretold"], 1), round(memory["peak"], 1))


def table(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    cases = sorted((Case(**row) for row in record["rows"]), key=lambda case: case.over)
    over = np.array([case.over for case in cases])
    about = record["machine"]
    text = ["# Memory foretold and taken, of random scenes", "", f"`{record['command']}`", ""]
    text += [
        f"{about['cpu']}, {about['cores']} cores. "
        + ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        + ".",
        "",
        f"{len(cases)} runs; foretold below the peak: {int((over < 0).sum())}. Above it by {over.min():.1%} at least, "
        f"{np.median(over):.1%} in the median; {(over <= 0.15).mean():.0%} of them by 15 % at most.",
    ]
    headings = ["foretold MiB", "peak MiB", "over", "artifact", "scene", "flags"]
    for title, some in (("least", cases[:SHOWN]), ("most", cases[-SHOWN:])):
        rows = [[c.foretold_mib, c.peak_mib, f"{c.over:+.1%}", c.artifact, c.scene, f"`{c.flags}`"] for c in some]
        text += ["", f"## {title}", "", markdown(headings, rows)]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="OUT.json and OUT.md")
    arguments = parser.parse_args()
    keep_to_cores(2)
    as_installed()
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/onboard_memory_random.py", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "rows": [],
    }
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.count):
            case = run(draw, Path(folder))
            record["rows"].append({name: getattr(case, name) for name in Case.__slots__})
            print(f"{case.over:+.1%} {case.artifact}; {case.scene}; {case.flags}", file=sys.stderr, flush=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
