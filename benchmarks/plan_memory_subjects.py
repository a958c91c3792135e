"""What benchmarks/plan_memory.py runs on: artifacts of four encoders, made once into a scratch folder that git ignores.

    python benchmarks/plan_memory_subjects.py NAME WIDTH OUT [[--target onnx] [--precision fp32]]

The embedded encoder has its own weights; the others have seeded random ones, as memory does not ask what a weight is.
Each width is exported by `edgeslim export`'s own code as ONNX, OpenVINO IR and TFLite, and proven on synthetic tiles.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onboard_subjects

from edgeslim.manifest import read_manifest
from edgeslim.profile import Profile, take_profile

TARGETS = ("onnx", "openvino", "tflite")
BATCHES = (1, 8)
ENCODERS = ("eurosat-rgb", "vit-s-16", "vit-ti-12b", "vit-b-16")


def card(name: str) -> Profile:
    """The encoder's card, a head of ten classes included."""
    if name == "vit-ti-12b":
        usual = take_profile("vit-s-16")
        sizes = {"dim": 192, "attention_heads": 3, "ffn_hidden": 768, "tile_px": 128, "bands": 12}
        profile = replace(usual, id=name, name="ViT-Ti/16, 12 bands", architecture=replace(usual.architecture, **sizes))
    else:
        profile = take_profile(name)
    return profile if profile.classes else replace(profile, classes=take_profile("eurosat-rgb").classes)


def folder_of(name: str, width: float) -> Path:
    """Where the artifacts of a width lie, one a target and precision."""
    return onboard_subjects.SCRATCH / "plan-memory" / f"{name}-w{width:g}"


def artifact(name: str, width: float, target: str, precision: str, batch: int | None = None) -> Path:
    """The path of an artifact, made in a process of its own (torch is large) where it does not stand yet.

    Of TFLite it has a file for one tile, and one for `batch` where that is more: as a plan of that batch asks for.
    """
    folder = folder_of(name, width)
    path = folder / f"{target}-{precision}"
    if not (path / "manifest.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, name, str(width), str(folder), f"--target={target}"]
        subprocess.run([*command, f"--precision={precision}"], check=True)
    return _one_file(path) if target == "tflite" and (batch or 1) == 1 else path


def _one_file(path: Path) -> Path:
    """The same artifact with its file for one tile only."""
    out = path.with_name(f"{path.name}-b1")
    manifest = read_manifest(path)
    if not (out / "manifest.json").exists():
        out.mkdir(exist_ok=True)
        dropped = {file for batch, file in manifest.models.items() if batch != "1"}
        files = {file: digest for file, digest in manifest.files.items() if file not in dropped}
        for file in files:
            (out / file).unlink(missing_ok=True)
            os.link(path / file, out / file)
        replace(manifest, models={"1": manifest.models["1"]}, files=files).write(out)
    return out


def make(name: str, width: float, out: Path, target: str, precision: str) -> None:
    """Export one artifact."""
    from edgeslim.ground.exporting.capture import Proving, Request, Source
    from edgeslim.ground.exporting.export import export
    from edgeslim.ground.flight import profile_checkpoint
    from edgeslim.ground.golden import synthetic_tiles
    from edgeslim.target import take_target

    profile, digest = card(name), "0" * 64
    if name == "eurosat-rgb":
        checkpoint, digest = profile_checkpoint(profile)
    else:
        profile, checkpoint = onboard_subjects.random_encoder(profile, profile.architecture.bands, (width,))
    source = Source(profile, checkpoint, digest, width)
    proving = Proving(synthetic_tiles(profile), batches=BATCHES)
    request = Request(take_target(target), precision)
    export(source, [request], proving, out / request.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ENCODERS)
    parser.add_argument("width", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("--target", choices=TARGETS, default="onnx")
    parser.add_argument("--precision", default="fp32")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    make(a.name, a.width, a.out, a.target, a.precision)


if __name__ == "__main__":
    main()
