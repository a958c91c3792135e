"""Are the features of a converted checkpoint those of the library that defines it?

    python benchmarks/families.py [--libraries FOLDER] [--only CASE ...]

Every case of tests/ground/checkpoints/family_cases.py: a small module of the original library with random weights,
written as that library writes it, recognised, converted and run on random tiles at width 1.0; then slimmed, counted and
exported. Beside the table it writes what tests/ground/checkpoints/test_family_figures.py holds families to where no
library is installed.

FOLDER is put before the installed packages, for libraries that cannot live beside the others: timm 1.0.31 and
torchvision 0.28.0; torchgeo 0.8.1 and what it imports; terratorch 1.1.1, unpacked
(`pip install --no-deps --target FOLDER NAME==VERSION ...`); and of repositories that are no package, at the commits
that their families' cards name, single_file_galileo.py of nasaharvest/galileo, models_vit_group_channels.py and
util/pos_embed.py of sustainlab-group/SatMAE, models_mae_group_channels.py of techmn/satmae_pp, models_vit_tensor.py and
util/video_vit.py of danfenghong/IEEE_TPAMI_SpectralGPT, which imports einops; and as packages
convnextv2_authors, models/convnextv2.py and models/utils.py of facebookresearch/ConvNeXt-V2, and mmearth_models,
models/convnextv2.py, convnextv2_unet.py and norm_layers.py of vishalned/MMEarth-train; of each, as remap.py, its
remap_checkpoint_keys (of utils.py and helpers.py), which makes what was trained sparsely dense.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "tests" / "ground" / "checkpoints" / "family_figures.json"
FIGURE_TILES = 2
WIDTHS = (0.5, 0.25, 0.1)
RESULT = ROOT / "benchmarks" / "results" / "families"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, help="folder that holds timm")
    parser.add_argument("--only", nargs="+", default=[], help="cases that are run again; the others' rows stay")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), *([str(arguments.libraries)] if arguments.libraries else [])]
    from onboard_process import markdown

    from tests.ground.checkpoints.family_cases import CASES, NEAR

    rows, figures = [], {}
    before, with_versions = {}, {}
    if arguments.only:
        stored = json.loads(RESULT.with_suffix(".json").read_text())
        before, with_versions = {one["case"]: one for one in stored["rows"]}, stored["versions"]
        figures = json.loads(FIGURES.read_text())
    for name, one in CASES.items():
        if arguments.only and name not in arguments.only and name.replace("_", " ") in before:
            rows.append(before[name.replace("_", " ")])
            continue
        state, original = one.make()
        rows.append(row(name, one, state, original))
        if figure := figure_of(one, state, original):
            figures[name] = figure
    FIGURES.write_text(json.dumps(figures, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    found = {"versions": of_all_rows(with_versions, versions()), "near": NEAR, "widths": WIDTHS, "rows": rows}
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    head = {
        "case": "case",
        "family": "family",
        "original": "original",
        "difference": "difference / range",
        "parameters": "M parameters",
        "own": "as counted",
        "flop": "MFLOP",
        "counted": "as counted",
        "slimmed": "slimmed to",
        "onnx": "ONNX / range",
    }
    body = [[one[key] for key in head] for one in rows]
    said = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    RESULT.with_suffix(".md").write_text(
        f"# Families: converted checkpoints against their originals\n\n`python benchmarks/families.py`\n\n{said}. "
        f"Random weights, width 1.0; aim: at most {NEAR:g} of the features' range. Parameters and FLOP of the encoder "
        "by cost.py, and as counted in the module. Slimmed: widths at which both counts are the module's, too. ONNX: "
        f"largest difference of ONNX Runtime's features to torch's at these widths.\n\n"
        f"{markdown(list(head.values()), body)}\n"
    )
    print(RESULT.with_suffix(".md").read_text())


def versions() -> dict[str, str]:
    """Of the libraries; terratorch's wheel may be unpacked without its record."""
    found = {}
    for name in ("torch", "timm", "transformers", "torchgeo", "terratorch", "onnxruntime"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def of_all_rows(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """Versions of the rows that stay and of those that are run again: "1.32.0 and 1.31.1" where they differ."""
    every = {name: [*before.get(name, "").split(" and "), now.get(name, "")] for name in {**before, **now}}
    return {name: " and ".join(dict.fromkeys(filter(None, numbers))) for name, numbers in every.items()}


def figure_of(case: Any, state: dict[str, Any], original: Any) -> dict[str, Any] | None:
    """What a test without the library needs; None where not all tensors are those of their names."""
    import torch

    from tests.ground.checkpoints.family_cases import TILE, random_value

    if not all(torch.equal(value, random_value(name, value.shape)) for name, value in state.items()):
        return None
    with torch.no_grad():
        features = [[float(f"{value:.8g}") for value in one] for one in original(case.tiles(FIGURE_TILES)).tolist()]
    shapes = {name: list(value.shape) for name, value in state.items()}
    return {
        "family": case.family,
        "made_for": case.made_for,
        "heads": case.heads,
        "state": shapes,
        "features": features,
        # No shape tells it of a ConvNeXt.
        **({"tile_px": case.tile_px} if case.tile_px != TILE else {}),
    }


def row(name: str, case: Any, state: dict[str, Any], original: Any) -> dict[str, Any]:
    """One case."""
    import torch
    from safetensors.torch import save_file

    from edgeslim import cost
    from edgeslim.families.family import all_families
    from edgeslim.families.recognition import recognise
    from edgeslim.ground.checkpoints.checkpoint import read_checkpoint, shapes_of
    from edgeslim.ground.slimming.slim import slim
    from tests.ground.checkpoints.family_cases import DIM
    from tests.ground.counter import count_flop

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        reading = recognise(shapes_of(path), all_families(), name, case.made_for)
        arch = replace(reading.architecture(DIM // case.heads), tile_px=case.tile_px)
        encoder = read_checkpoint(path, arch, made_for=case.made_for).build()
    tiles, slimmed, onnx = case.tiles(8), [], []
    with torch.no_grad():
        expected, found = original(tiles), encoder(tiles)
    for width in WIDTHS:
        narrow, counted = slim(encoder, width), arch.at(width)
        exact = cost.parameters(counted) == sum(value.numel() for value in narrow.parameters())
        if exact and cost.flop(counted) == count_flop(narrow, tiles[:1]):
            slimmed.append(f"{width:g}")
        onnx.append(onnx_difference(narrow, tiles))
    return {
        "case": name.replace("_", " "),
        "family": reading.family.id,
        "original": reading.family.original.split(":")[0].split(";")[0],
        "difference": f"{apart(found, expected):.1e}",
        "parameters": f"{cost.parameters(arch) / 1e6:.6f}",
        "own": f"{sum(value.numel() for value in encoder.parameters()) / 1e6:.6f}",
        "flop": f"{cost.flop(arch) / 1e6:.4f}",
        "counted": f"{count_flop(encoder, tiles[:1]) / 1e6:.4f}",
        "slimmed": ", ".join(slimmed),
        "onnx": f"{max(onnx):.1e}",
    }


def apart(found: Any, expected: Any) -> float:
    """Largest difference, as a share of the range."""
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


def onnx_difference(encoder: Any, tiles: Any) -> float:
    """Of the exported encoder's features in ONNX Runtime to torch's."""
    import onnxruntime
    import torch

    from edgeslim.ground.flight import FlightModel, folded_model
    from edgeslim.ground.formats import onnx
    from edgeslim.profile import Radiometry
    from edgeslim.target import take_target

    bands, dim = encoder.arch.bands, encoder.arch.dim
    plain = Radiometry(("L1C",), 1.0, 0.0, (-1e6, 1e6), (0.0,) * bands, (1.0,) * bands, 1.0)
    model = FlightModel(encoder, (torch.zeros(2, dim), torch.zeros(2)), plain).eval()
    with tempfile.TemporaryDirectory() as folder:
        written = onnx.convert(folded_model(model), tiles[:2], take_target("onnx"), (1,), Path(folder))
        (file,) = set(written.models.values())
        session = onnxruntime.InferenceSession(str(Path(folder) / file), providers=["CPUExecutionProvider"])
        tiles_name, _, features_name = written.names
        (features,) = session.run([features_name], {tiles_name: tiles.numpy()})
    with torch.no_grad():
        return apart(torch.from_numpy(features), encoder(tiles))


if __name__ == "__main__":
    main()
