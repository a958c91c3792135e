"""Is the answer the same on another processor? Used by arm64.sh.

python -m tests.onboard.portable scene SCENE                 writes a scene
python -m tests.onboard.portable fly SCENE ARTIFACT FOLDER   classifies it and keeps the golden tiles' logits
python -m tests.onboard.portable compare FOLDER FOLDER       holds two flights against each other
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
"""Of a logit: what the artifact's own proof allows."""
OTHER_PIXELS = 1e-3
"""Share of pixels that may change their class or, by more than one per cent, their confidence: ties are near."""


def write_scene(path: Path) -> None:
    from tests.onboard.artifacts import make_scene, smooth

    values = smooth(700, 900, seed=4)
    values[:, 200:260, 300:420] = 0
    make_scene(path, values, nodata=0, tiled=True, blockxsize=256, blockysize=256, compress="deflate")


def fly(scene: Path, artifact: Path, folder: Path) -> None:
    from edgeslim.manifest import read_manifest
    from edgeslim.onboard.check import read_golden
    from edgeslim.onboard.classify import ClassifyOptions, classify_scene
    from edgeslim.onboard.open_runtime import open_runtime

    manifest = read_manifest(artifact)
    tiles, golden = read_golden(artifact, manifest)
    logits = open_runtime(artifact, manifest, threads=1).run(tiles)
    classify_scene(scene, artifact, folder / "map", ClassifyOptions(threads=1))
    np.savez(folder / "logits.npz", logits=logits, golden=golden)
    (folder / "machine").write_text(f"{platform.machine()} Python {platform.python_version()}", encoding="ascii")


def compare(here: Path, there: Path) -> None:
    import rasterio

    machines = [(folder / "machine").read_text(encoding="ascii") for folder in (here, there)]
    if machines[0].split()[0] == machines[1].split()[0]:
        raise SystemExit(f"found {machines[0]} twice, expected two kinds of processor")
    with np.load(here / "logits.npz") as a, np.load(there / "logits.npz") as b:
        apart = float(np.abs(a["logits"] - b["logits"]).max())
        proven = float(np.abs(b["logits"] - b["golden"]).max())
    maps = []
    for name in ("classes.tif", "confidence.tif"):
        with rasterio.open(here / "map" / name) as a, rasterio.open(there / "map" / name) as b:
            maps.append((a.read(1).astype(int), b.read(1).astype(int)))
    (class_a, class_b), (percent_a, percent_b) = maps
    other = float((class_a != class_b).mean())
    unsure = float((np.abs(percent_a - percent_b) > 1).mean())
    print(f"{machines[0]} and {machines[1]}: largest difference of a logit {apart:.2e}, from torch's {proven:.2e};")
    print(f"{class_a.size} pixels: {other:.4%} of another class, {unsure:.4%} of another confidence by more than 1 %")
    same = [p.name for p in sorted((here / "map").iterdir()) if p.read_bytes() == (there / "map" / p.name).read_bytes()]
    print(f"the same to the byte: {', '.join(same) or 'none'}")
    if apart > TOLERANCE or proven > TOLERANCE or other > OTHER_PIXELS or unsure > OTHER_PIXELS:
        raise SystemExit("the two processors do not agree")


def main() -> None:
    verb, *paths = sys.argv[1:]
    {"scene": write_scene, "fly": fly, "compare": compare}[verb](*map(Path, paths))


if __name__ == "__main__":
    main()
