"""What the on-board benchmarks run on: scenes and artifacts, made once into a scratch folder that git ignores.

    python benchmarks/onboard_subjects.py scene OUT.tif --height 4096 --width 4096 --format deflate-tiled
    python benchmarks/onboard_subjects.py artifact OUT --encoder eurosat-rgb --width-multiplier 1

Scenes: Sentinel-2 like, 10 m, uint16, nodata 0. Their pixels are those of a real scene, mirrored over and over, so that
blocks compress and decode as real ones do; without that scene they are seeded noise of like entropy, and say so.
Artifacts: the embedded encoder with its weights, and encoders with seeded random weights: speed and memory do not ask
what a weight is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeslim.ground.checkpoints.checkpoint import Checkpoint
    from edgeslim.profile import Profile

REAL_SCENE = Path(__file__).parents[2] / "shared/data/scenes/s2_t30typ_20181023_10m_b2b3b4b8.tif"
SCRATCH = Path(__file__).parents[1] / "build" / "benchmarks"
GB = 1_000_000_000
FORMATS: dict[str, dict[str, object]] = {
    "deflate-tiled": {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512},
    "deflate-striped": {"compress": "deflate", "predictor": 2, "tiled": False},
    "lzw": {"compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512},
    "zstd": {"compress": "zstd", "predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512},
    "jpeg": {
        "compress": "jpeg", "jpeg_quality": 90, "photometric": "ycbcr",
        "tiled": True, "blockxsize": 512, "blockysize": 512,
    },
}  # fmt: skip
"""Name -> GDAL's creation options. Strips are as high as GDAL makes them unasked: one row of a wide scene."""
BYTE = 2750 / 255
"""Raw value of one unit of an 8-bit scene, as the embedded encoder's card has it."""
S2_BANDS = ("B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "B10")


def scene(
    height: int,
    width: int,
    form: str,
    bands: int = 3,
    sparse: bool = False,
    folder: Path = SCRATCH,
    block_px: int | None = None,
) -> Path:
    """The path of a scene, made in a process of its own where it does not stand yet.

    `block_px` is the side of its blocks; None: 512, of more than three bands 256.
    """
    blocks = "" if block_px is None else f"_{block_px}px"
    name = f"scene_{height}x{width}_{bands}b_{form}{blocks}{'_sparse' if sparse else ''}.tif"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["scene", str(path), f"--height={height}", f"--width={width}", f"--bands={bands}", f"--format={form}"]
        command += ["--sparse"] if sparse else []
        command += [] if block_px is None else [f"--block-px={block_px}"]
        subprocess.run([sys.executable, __file__, *command], check=True)
    return path


def artifact(
    encoder: str, width_multiplier: float = 1.0, bands: int = 3, random: bool = False, folder: Path = SCRATCH
) -> Path:
    """The path of an artifact, made in a process of its own (torch is large) where it does not stand yet."""
    path = folder / f"{encoder}-w{width_multiplier:g}-{bands}b"
    if not (path / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["artifact", str(path), f"--encoder={encoder}", f"--width-multiplier={width_multiplier}"]
        command += [f"--bands={bands}", *(["--random"] if random else [])]
        subprocess.run([sys.executable, __file__, *command], check=True)
    return path


def pixels_from() -> str:
    """Whose pixels the scenes show."""
    return f"{REAL_SCENE.name}, mirrored" if REAL_SCENE.exists() else "seeded noise (no real scene beside the checkout)"


def _pattern(bands: int) -> tuple[object, tuple[str, ...]]:
    """Pixels (bands, h, w) uint16 that repeat without a seam, B04, B03, B02 first, and the bands' names."""
    import numpy as np
    import rasterio

    names = S2_BANDS[:bands]
    if REAL_SCENE.exists():
        with rasterio.open(REAL_SCENE) as dataset:
            real = np.stack([dataset.read(list(dataset.descriptions).index(name) + 1) for name in S2_BANDS[:4]])
        real = real.clip(1, 20000).astype(np.uint16)  # 0 would be nodata
    else:
        random = np.random.default_rng(0)
        coarse = random.normal(0, 350, (4, 150, 150)).repeat(8, axis=1).repeat(8, axis=2)
        real = (1000 + coarse + random.normal(0, 60, coarse.shape)).clip(1, 20000).astype(np.uint16)
    planes = []
    for index in range(bands):  # further bands are the four again, turned: as hard to compress, and not the same
        plane = real[index % 4]
        turn = index // 4
        plane = plane[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
        plane = np.concatenate([plane, plane[::-1]])
        planes.append(np.concatenate([plane, plane[:, ::-1]], axis=1))
    return np.stack(planes), names


def make_scene(
    path: Path, height: int, width: int, bands: int, form: str, sparse: bool, block_px: int | None = None
) -> None:
    import numpy as np
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.transform import Affine
    from rasterio.windows import Window

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    pattern, names = _pattern(bands)
    assert isinstance(pattern, np.ndarray)
    byte = form == "jpeg"
    if byte:
        pattern = (pattern / BYTE).round().clip(0, 255).astype(np.uint8)
    options = dict(FORMATS[form])
    if options.get("tiled") and (block_px is not None or bands > 3):
        options |= {"blockxsize": block_px or 256, "blockysize": block_px or 256}
    if sparse:
        options |= {"sparse_ok": True}
    part = path.with_name(path.name + ".part.tif")
    random = np.random.default_rng(1)
    columns = np.arange(width) % pattern.shape[2]
    # Each repeat along a row begins further down: the same bytes twice in one strip would be no work to decode.
    shift = np.arange(width) // pattern.shape[2] * 131
    with (
        rasterio.Env(GDAL_CACHEMAX=256 << 20, GDAL_NUM_THREADS="ALL_CPUS"),
        rasterio.open(
            part, "w", driver="GTiff", dtype="uint8" if byte else "uint16", count=bands, height=height, width=width,
            crs="EPSG:32630", transform=Affine(10, 0, 600000, 0, -10, 4800000), nodata=None if byte else 0,
            interleave="pixel", bigtiff="if_safer", **options,
        ) as dataset,
    ):  # fmt: skip
        for index, name in enumerate(names, 1):
            dataset.set_band_description(index, name)
        step = 512
        for row in range(0, height, step):
            stop = min(height, row + step)
            rows = (np.arange(row, stop)[:, None] + shift) % pattern.shape[1]
            if not sparse:
                dataset.write(pattern[:, rows, columns], window=Window(0, row, width, stop - row))
                continue
            for column in np.flatnonzero(random.random(-(-width // step)) < 0.02) * step:  # one block in fifty
                end = min(width, int(column) + step)
                block = pattern[:, rows[:, column:end], columns[column:end]]
                dataset.write(block, window=Window(int(column), row, end - int(column), stop - row))
    part.replace(path)


def random_encoder(
    encoder: str | Profile, bands: int = 3, widths: Sequence[float] = (1.0,)
) -> tuple[Profile, Checkpoint]:
    """An encoder's card with bands, classes and radiometry of the embedded one, and seeded weights with a head."""
    from dataclasses import replace

    import torch

    from edgeslim.ground.checkpoints.checkpoint import Checkpoint
    from edgeslim.ground.vit import Vit
    from edgeslim.profile import Band, take_profile

    profile = take_profile(encoder) if isinstance(encoder, str) else encoder
    known = take_profile("eurosat-rgb")
    radiometry = known.radiometry
    assert radiometry is not None
    radiometry = replace(
        radiometry,
        mean=tuple(radiometry.mean[i % 3] for i in range(bands)),
        std=tuple(radiometry.std[i % 3] for i in range(bands)),
    )
    named = tuple(Band(name, name.lower(), 0.5) for name in S2_BANDS[:bands])
    profile = replace(
        profile,
        architecture=replace(profile.architecture, bands=bands),
        licence="CC0-1.0",  # of seeded numbers
        gsd_m=10.0,
        bands=known.bands if bands == 3 else named,
        radiometry=radiometry,
        classes=known.classes,
    )
    arch = profile.architecture
    torch.manual_seed(0)
    module = Vit(arch)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    head = (torch.randn(len(known.classes), arch.dim) * 0.05, torch.zeros(len(known.classes)))
    heads = {arch.at(width).head_dim: head for width in widths}
    return profile, Checkpoint(arch, {k: v.detach() for k, v in module.state_dict().items()}, heads)


def make_artifact(out: Path, encoder: str, width_multiplier: float, bands: int, random: bool) -> None:
    from edgeslim.ground.exporting.capture import Proving, Request, Source
    from edgeslim.ground.exporting.export import export
    from edgeslim.ground.flight import profile_checkpoint
    from edgeslim.ground.golden import synthetic_tiles
    from edgeslim.profile import take_profile
    from edgeslim.target import take_target

    profile, target = take_profile(encoder), take_target("onnx")
    if random:
        profile, checkpoint = random_encoder(encoder, bands, (width_multiplier,))
        digest = "0" * 64
    else:
        checkpoint, digest = profile_checkpoint(profile)
    proving = Proving(synthetic_tiles(profile))
    export(Source(profile, checkpoint, digest, width_multiplier), [Request(target)], proving, out)


def make_geodeep_model(artifact_folder: Path, out: Path, units: float) -> None:
    """The artifact's network as GeoDeep takes it: values 0..1 in, one score a pixel and class out.

    `units` undoes its division of integer pixels by their type's largest value. The scores of a tile are spread over
    its pixels inside the graph: GeoDeep knows detectors and segmentors, no classifiers.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    manifest = json.loads((artifact_folder / "manifest.json").read_text())
    model = onnx.load(artifact_folder / manifest["models"]["any"])
    graph, tile, classes = model.graph, manifest["architecture"]["tile_px"], len(manifest["classes"])
    name, logits = manifest["input_name"], manifest["output_name"]
    for node in graph.node:
        node.input[:] = ["geodeep_raw" if i == name else i for i in node.input]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(units).reshape(1), "geodeep_units"),
            numpy_helper.from_array(np.array([1, classes, tile, tile], np.int64), "geodeep_shape"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "geodeep_axes"),
        ]
    )
    graph.node.insert(0, helper.make_node("Mul", ["geodeep_image", "geodeep_units"], ["geodeep_raw"]))
    graph.node.append(helper.make_node("Unsqueeze", [logits, "geodeep_axes"], ["geodeep_scores"]))
    graph.node.append(helper.make_node("Expand", ["geodeep_scores", "geodeep_shape"], ["geodeep_mask"]))
    del graph.input[:], graph.output[:]
    shape = [1, 3, tile, tile]
    graph.input.append(helper.make_tensor_value_info("geodeep_image", TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info("geodeep_mask", TensorProto.FLOAT, [1, classes, tile, tile]))
    about = {
        "model_type": '"Segmentor"',
        "resolution": "1000",  # cm
        "tiles_overlap": "0",
        "seg_thresh": "-1e9",
        "seg_small_segment": "0",
        "class_names": json.dumps({str(i): c["name"] for i, c in enumerate(manifest["classes"])}),
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, out)


def geodeep_model(artifact_folder: Path, units: float) -> Path:
    """The path of the artifact's network for GeoDeep, made in a process of its own where it does not stand yet."""
    path = artifact_folder.with_name(f"{artifact_folder.name}-geodeep-{units:.0f}.onnx")
    if not path.exists():
        command = ["geodeep", str(artifact_folder), str(path), f"--units={units}"]
        subprocess.run([sys.executable, __file__, *command], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    scene_verb = verbs.add_parser("scene")
    scene_verb.add_argument("out", type=Path)
    scene_verb.add_argument("--height", type=int, default=4096)
    scene_verb.add_argument("--width", type=int, default=4096)
    scene_verb.add_argument("--bands", type=int, default=3)
    scene_verb.add_argument("--format", choices=tuple(FORMATS), default="deflate-tiled")
    scene_verb.add_argument("--sparse", action="store_true")
    scene_verb.add_argument("--block-px", type=int)
    artifact_verb = verbs.add_parser("artifact")
    artifact_verb.add_argument("out", type=Path)
    artifact_verb.add_argument("--encoder", default="eurosat-rgb")
    artifact_verb.add_argument("--width-multiplier", type=float, default=1.0)
    artifact_verb.add_argument("--bands", type=int, default=3)
    artifact_verb.add_argument("--random", action="store_true", help="seeded random weights")
    geodeep_verb = verbs.add_parser("geodeep")
    geodeep_verb.add_argument("artifact", type=Path)
    geodeep_verb.add_argument("out", type=Path)
    geodeep_verb.add_argument("--units", type=float, required=True)
    a = parser.parse_args()
    if a.verb == "scene":
        make_scene(a.out, a.height, a.width, a.bands, a.format, a.sparse, a.block_px)
    elif a.verb == "artifact":
        make_artifact(a.out, a.encoder, a.width_multiplier, a.bands, a.random)
    else:
        make_geodeep_model(a.artifact, a.out, a.units)


if __name__ == "__main__":
    main()
