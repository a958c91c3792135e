"""Are the features of a converted checkpoint those of the library that defines it, and in every format those of torch?

    python benchmarks/families.py [--libraries FOLDER] [--only CASE ...]

Every case of tests/ground/checkpoints/family_cases.py: a small module of the original library with random weights,
written as that library writes it, recognised, converted and run on random tiles at width 1.0; then slimmed, counted,
exported with each export card in fp32 and fp16, and run by the classes that fly. What fails says why in its cell. Takes
about a quarter of an hour on an idle core. Beside the table it writes what
tests/ground/checkpoints/test_family_figures.py holds families to where no library is installed.

FOLDER is put before the installed packages, for libraries that cannot live beside the others
(`pip install --no-deps --target FOLDER NAME==VERSION ...`): timm 1.0.31 and torchvision 0.28.0; open_clip_torch 3.3.0;
torchgeo 0.8.1 and what it imports; terratorch 1.1.1, of which single files are imported; and of repositories that are
no package, at the commits that their families' cards name, single_file_galileo.py of nasaharvest/galileo,
models_vit_group_channels.py and util/pos_embed.py of sustainlab-group/SatMAE, models_mae_group_channels.py of
techmn/satmae_pp, models_vit_tensor.py and util/video_vit.py of danfenghong/IEEE_TPAMI_SpectralGPT, which imports
einops, and claymodel of Clay-foundation/model; and as packages convnextv2_authors, models/convnextv2.py and
models/utils.py of facebookresearch/ConvNeXt-V2, and mmearth_models, models/convnextv2.py, convnextv2_unet.py and
norm_layers.py of vishalned/MMEarth-train; of each, as remap.py, its remap_checkpoint_keys (of utils.py and helpers.py,
which imports math, torch and OrderedDict), which makes what was trained sparsely dense.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "tests" / "ground" / "checkpoints" / "family_figures.json"
FIGURE_TILES = 2
WIDTHS = (0.5, 0.25, 0.1)
FORMATS = {"onnx": WIDTHS, "openvino": WIDTHS, "tflite": (0.5,), "tensorrt": (0.5,)}
"""Export card -> widths at which it is exported; TFLite takes the longest by far."""
NAMES = {"onnx": "ONNX", "openvino": "OpenVINO", "tflite": "TFLite", "tensorrt": "ONNX for TensorRT"}
HALF_AT = 0.5
"""Width at which fp16 is, too."""
RESULT = ROOT / "benchmarks" / "results" / "families"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, help="folder that holds timm")
    parser.add_argument("--only", nargs="+", default=[], help="cases that are run again; the others' rows stay")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), *([str(arguments.libraries)] if arguments.libraries else [])]
    from tests.ground.checkpoints.family_cases import CASES, NEAR

    rows, figures = [], {}
    before, with_versions = {}, {}
    if arguments.only:
        stored = json.loads(RESULT.with_suffix(".json").read_text())
        before, with_versions = {one["case"]: one for one in stored["rows"]}, stored["versions"]
        figures = json.loads(FIGURES.read_text())
    for name, one in CASES.items():
        stays = before.get(name.replace("_", " "), {})
        if name not in arguments.only and "formats" in stays:  # a row of old, without them, is made again
            rows.append(stays)
            continue
        started = time.monotonic()
        state, original = one.make()
        rows.append(row(name, one, state, original))
        print(f"{name}: {time.monotonic() - started:.0f} s, {rows[-1]}", file=sys.stderr, flush=True)
        if figure := figure_of(one, state, original):
            figures[name] = figure
    FIGURES.write_text(json.dumps(figures, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    found = {"versions": of_all_rows(with_versions, versions()), "near": NEAR, "widths": WIDTHS, "rows": rows}
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(page(found))
    print(RESULT.with_suffix(".md").read_text())


def page(found: dict[str, Any]) -> str:
    """Two tables: against the originals, and in each format."""
    from onboard_process import markdown

    said = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    rows = found["rows"]
    head = ["case", "family", "original", "difference / range", "M parameters", "MFLOP", "slimmed to"]
    body = [
        [one[key] for key in ("case", "family", "original", "difference")]
        + [both(one["parameters"], one["own"]), both(one["flop"], one["counted"]), one["slimmed"]]
        for one in rows
    ]
    columns = [(name, precision) for precision in ("fp32", "fp16") for name in FORMATS]
    shown = [f"{NAMES[name]}{'' if precision == 'fp32' else ', ' + precision} / range" for name, precision in columns]
    cells = {one["case"]: [one["formats"][name][precision] for name, precision in columns] for one in rows}
    worst = [worst_of([row[at] for row in cells.values()]) for at in range(len(columns))]
    named = {each: " and ".join(NAMES[name] for name in FORMATS if FORMATS[name] == each) for each in FORMATS.values()}
    at = "; ".join(f"{names} at {', '.join(f'{width:g}' for width in each)}" for each, names in named.items())
    return (
        f"# Families: converted checkpoints against their originals\n\n`python benchmarks/families.py`\n\n{said}. "
        f"Random weights, width 1.0; aim: at most {found['near']:g} of the features' range. Parameters and FLOP of the "
        "encoder by cost.py; a second number, where one stands, is what is counted in the module. Slimmed: widths at "
        f"which both counts are the module's, too.\n\n{markdown(head, body)}\n\n"
        "## In each format\n\nWritten by `edgeslim/ground/formats`, run by `edgeslim/onboard/runtimes`, on the CPU "
        "whatever it is for: largest difference of the features to torch's, as a share of their range; where it "
        f"failed, why. fp32, the worst of the widths: {at}. fp16 (weights) at {HALF_AT:g}.\n\n"
        f"{markdown(['case', *shown], [[case, *row] for case, row in [*cells.items(), ('**worst**', worst)]])}\n"
    )


def both(computed: str, counted: str) -> str:
    """One number where they are the same."""
    return computed if computed == counted else f"{computed}, counted {counted}"


def worst_of(cells: list[str]) -> str:
    """Largest of a column's differences, and how many cells are none."""
    known = [float(cell) for cell in cells if is_number(cell)]
    failed = len(cells) - len(known)
    return f"{max(known, default=float('nan')):.1e}" + (f", {failed} failed" if failed else "")


def is_number(cell: str) -> bool:
    """Not a reason."""
    with suppress(ValueError):
        float(cell)
        return True
    return False


def versions() -> dict[str, str]:
    """Of the libraries; terratorch's wheel may be unpacked without its record."""
    found = {}
    originals = ("timm", "transformers", "torchgeo", "terratorch", "open_clip_torch")
    for name in ("torch", *originals, "onnxruntime", "openvino", "litert-torch", "ai-edge-litert"):
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
    tiles, slimmed, narrowed = case.tiles(8), [], {}
    with torch.no_grad():
        expected, found = original(tiles), encoder(tiles)
    for width in WIDTHS:
        narrow, counted = slim(encoder, width), arch.at(width)
        narrowed[width] = narrow
        exact = cost.parameters(counted) == sum(value.numel() for value in narrow.parameters())
        if exact and cost.flop(counted) == count_flop(narrow, tiles[:1]):
            slimmed.append(f"{width:g}")
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
        "formats": in_formats(narrowed, tiles),
    }


def apart(found: Any, expected: Any) -> float:
    """Largest difference, as a share of the range."""
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


def in_formats(narrowed: dict[float, Any], tiles: Any) -> dict[str, dict[str, str]]:
    """Format -> precision -> largest difference of the exported encoders' features to torch's, or why there is none."""
    from edgeslim.ground.flight import folded_model

    found: dict[str, dict[str, list[float | str]]] = {name: {"fp32": [], "fp16": []} for name in FORMATS}
    for width, encoder in narrowed.items():
        with asked_once():
            model = flown(encoder)
            folded = folded_model(model)
            for name in (name for name, widths in FORMATS.items() if width in widths):
                precisions = ("fp32", "fp16") if width == HALF_AT else ("fp32",)
                for precision, one in differences(name, encoder, (model, folded), tiles, precisions).items():
                    found[name][precision].append(f"{width:g}: {one}" if isinstance(one, str) else one)
    return {name: {precision: cell_of(each) for precision, each in both.items()} for name, both in found.items()}


def cell_of(each: list[float | str]) -> str:
    """The first reason, or the largest difference."""
    return next((one for one in each if isinstance(one, str)), None) or f"{max(map(float, each)):.1e}"


@contextmanager
def asked_once() -> Iterator[None]:
    """torch's exporter, which takes the longest, is asked once for what the ONNX and the OpenVINO are made of."""
    from edgeslim.ground.formats import onnx

    ask, kept = onnx._program, {}

    def program(model: Any, example: Any, target: Any) -> Any:
        at = id(model), target.opset
        if at not in kept:
            kept[at] = model, ask(model, example, target)  # the model is held: no other takes its place in memory
        return kept[at][1]  # it serialises itself anew each time it is asked for the network

    with mock.patch.object(onnx, "_program", program):
        yield


def flown(encoder: Any) -> Any:
    """The module that flies, with a head and a normalisation that say nothing."""
    import torch

    from edgeslim.ground.flight import FlightModel
    from edgeslim.profile import Radiometry

    bands, dim = encoder.arch.bands, encoder.arch.dim
    plain = Radiometry(("L1C",), 1.0, 0.0, (-1e6, 1e6), (0.0,) * bands, (1.0,) * bands, 1.0)
    return FlightModel(encoder, (torch.zeros(2, dim), torch.zeros(2)), plain).eval()


def differences(
    name: str, encoder: Any, models: tuple[Any, Any], tiles: Any, precisions: tuple[str, ...]
) -> dict[str, float | str]:
    """Precision -> difference of the features of what is exported, or why there is none.

    `models` is what flies and the same folded: as `edgeslim export` does, fp32 is made of the folded one, and fp16 of
    one in which no fold rounds what the weights alone would not.
    """
    import numpy as np
    import torch

    from edgeslim.ground.formats import format_called
    from edgeslim.target import take_target

    target = take_target(name)
    module = format_called(target.format)
    plain, folded = models
    with torch.no_grad():
        expected = encoder(tiles)
    found: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for precision in precisions:
            folder = Path(scratch) / precision
            folder.mkdir()
            try:
                model = folded if precision == "fp32" else module.unfolded(plain)
                written = module.convert(model, tiles[:2], target, (1,), folder)
                if precision != "fp32":
                    made = folder / "made"
                    made.mkdir()
                    written = module.quantise(written, precision, np.empty(0, np.float32), (), made)
                target.require_graph(written.graph)
                _, features = runtime_of(written, target.runtime).outputs(tiles.numpy())
            except Exception as error:  # the converters raise many kinds
                return {**dict.fromkeys(precisions, reason(error)), **found}
            found[precision] = apart(torch.from_numpy(features), expected)
    return found


def runtime_of(written: Any, runtime: str) -> Any:
    """What flies the files."""
    from edgeslim.onboard.runtimes.litert import LiteRt
    from edgeslim.onboard.runtimes.onnx import OnnxRuntime
    from edgeslim.onboard.runtimes.openvino import OpenVino

    paths = {batch: written.folder / file for batch, file in written.models.items()}
    if runtime == "litert":
        return LiteRt({int(batch): path for batch, path in paths.items()}, written.names, threads=1)
    (path,) = paths.values()
    return {"onnxruntime": OnnxRuntime, "openvino": OpenVino}[runtime](path, written.names, threads=1)


def reason(error: Exception) -> str:
    """Of a failure, short enough for a cell."""
    from edgeslim.ground.exporting.capture import first_line

    return f"{type(error).__name__}: {first_line(error)}"[:100].replace("|", "/")


if __name__ == "__main__":
    main()
