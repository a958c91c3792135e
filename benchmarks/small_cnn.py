"""Why not a small CNN? MobileNetV3-small and EfficientNet-Lite0 beside the embedded encoder, by measured time.

    python benchmarks/small_cnn.py EUROSAT.zip --torchvision FOLDER [--runs runs/small_cnn] [--train-only] [--only NAME]

The networks are torchvision's; EfficientNet-Lite0 is its EfficientNet-B0 without squeeze-and-excitation and with ReLU6,
which is what the Lite ones are. They are trained from scratch on the part of EuroSAT that the embedded encoder was
trained on, by the same code and recipe (augmentation, moving average, calm end), but on labels alone and for fewer
passes: its CNN teacher does not ship. Test accuracy is of tiles that none of them has seen, in torch. Time is ONNX
Runtime's on one thread: batches of one and of eight in turn, every network once a round, the median of so many rounds.

FOLDER is where `pip install --no-deps --target FOLDER torchvision==0.28.0` put it: its wheel is built for CUDA, and
what of it this needs is Python. A stopped run goes on after its last pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onboard_process import keep_to_cores, machine, markdown, versions
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.ground.flight import flight_model, profile_checkpoint
from edgeslim.ground.labelled import LabelledTiles, load_labelled
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.ground.training.classifier import NormalisedTeacher
from edgeslim.ground.training.embedded import calm
from edgeslim.ground.training.recipe import Recipe
from edgeslim.ground.training.supervised import Supervised, accuracy
from edgeslim.ground.training.train import fit
from edgeslim.ground.training.train import statistics as band_statistics
from edgeslim.onboard.scores import wilson_interval
from edgeslim.profile import take_profile

RESULT = Path(__file__).parent / "results" / "small_cnn"
TILE_PX = 64
WIDTHS = (1.0, 0.5, 0.25, 0.125, 1 / 32)
BATCHES = (1, 8)
ROUNDS = 60


@dataclass(frozen=True)
class Network:
    """One that is trained here."""

    name: str
    make: Callable[[], nn.Module]
    epochs: int
    calm_epochs: int


def networks(folder: Path, classes: int) -> list[Network]:
    """From torchvision in `folder`, whose compiled operators are named but not there."""
    sys.path.append(str(folder))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.models import efficientnet_b0, mobilenet_v3_small
    from torchvision.ops import SqueezeExcitation

    def lite() -> nn.Module:
        made: nn.Module = efficientnet_b0(num_classes=classes)
        for parent in list(made.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, SqueezeExcitation):
                    setattr(parent, name, nn.Identity())
                elif isinstance(child, nn.SiLU):
                    setattr(parent, name, nn.ReLU6())
        return made

    return [
        Network("MobileNetV3-small", lambda: mobilenet_v3_small(num_classes=classes), 40, 7),
        Network("EfficientNet-Lite0", lite, 14, 3),
    ]


def trained(network: Network, parts: dict[str, LabelledTiles], folder: Path) -> NormalisedTeacher:
    """By the embedded encoder's recipe, without teacher and widths; resumed where it was stopped."""
    torch.manual_seed(0)
    model = NormalisedTeacher(network.make(), *band_statistics(parts["train"].images))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions run faster so
    recipe = Recipe(epochs=network.epochs, slimmable=False, learning_rate=2e-3)
    stages = [("first", recipe)] + ([("calm", calm(recipe, network.calm_epochs))] if network.calm_epochs else [])
    for name, own in stages:
        objective = Supervised(own, parts["train"], parts["validation"])

        def say(line: str) -> None:
            print(f"{network.name}: {line}", file=sys.stderr, flush=True)

        model = fit(model, own, objective, folder / name, say=say)
    return model


def macs_of(model: nn.Module) -> int:
    """Multiply-accumulates of one tile's convolutions and linear layers, as the modules are called."""
    total = 0

    def count(module: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += out[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.inference_mode():
        model(torch.zeros(1, 3, TILE_PX, TILE_PX))
    for hook in hooks:
        hook.remove()
    return total


def exported(model: nn.Module, path: Path) -> Path:
    """As ONNX, any batch."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = {"tiles": {0: batch}}
    tiles = torch.zeros(2, 3, TILE_PX, TILE_PX)
    torch.onnx.export(model, (tiles,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)
    return path


class Named(nn.Module):
    """A module whose tiles are called so."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tiles: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes)."""
        out = self.model(tiles)
        return out[0] if isinstance(out, tuple) else out


def timed(paths: dict[str, Path]) -> dict[str, dict[int, float]]:
    """Milliseconds of CPU a tile, by batch: medians of rounds in which every network has its turn."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in paths.items()
    }
    random = np.random.default_rng(0)
    spent: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in paths}
    for _ in range(ROUNDS):
        for batch in BATCHES:
            tiles = random.uniform(0, 255, (batch, 3, TILE_PX, TILE_PX)).astype(np.float32)
            for name, session in sessions.items():
                given = {session.get_inputs()[0].name: tiles}
                session.run(None, given)  # what it needs is near again after the others' turns
                start = time.perf_counter()
                session.run(None, given)
                spent[name][batch].append((time.perf_counter() - start) * 1e3 / batch)
    return {name: {b: round(statistics.median(v), 4) for b, v in found.items()} for name, found in spent.items()}


def judged(name: str, model: nn.Module, test: LabelledTiles, **facts: Any) -> dict[str, Any]:
    """Test accuracy with its interval, beside `facts`."""
    share = accuracy(model, test)
    return {"name": name, **facts, "accuracy": share, "interval": wilson_interval(share, len(test.labels))}


def best(rows: list[dict[str, Any]], batch: int) -> list[str]:
    """Names on the front of accuracy against time: none is at least as good and faster."""
    return [
        row["name"]
        for row in rows
        if not any(
            other["accuracy"] >= row["accuracy"] and other["ms"][str(batch)] < row["ms"][str(batch)] for other in rows
        )
    ]


def who_wins(rows: list[dict[str, Any]]) -> str:
    """Of each CNN the fastest width of the embedded encoder that is at least as accurate, and how long that takes."""
    ours = [row for row in rows if row["passes"] == "slimmed"]
    said = []
    for row in (row for row in rows if row not in ours):
        equal = [one for one in ours if one["accuracy"] >= row["accuracy"]]
        for batch in BATCHES:
            if not equal:
                said.append(f"- {row['name']}: no width of the encoder is as accurate.")
                break
            one = min(equal, key=lambda one: one["ms"][str(batch)])
            share = one["ms"][str(batch)] / row["ms"][str(batch)]
            said.append(
                f"- {row['name']}, batch {batch}: {one['name']} is at least as accurate in {share:.2f} times its time."
            )
    return "\n".join(said)


def report(found: dict[str, Any]) -> str:
    rows = sorted(found["rows"], key=lambda row: row["ms"]["8"])
    table = [
        [
            row["name"],
            row["passes"],
            f"{row['parameters'] / 1e6:.3g}",
            f"{row['macs'] * 2e-6:.1f}",
            f"{row['accuracy']:.1%} [{row['interval'][0]:.1%}, {row['interval'][1]:.1%}]",
            *(f"{row['ms'][str(batch)]:.3f}" for batch in BATCHES),
            *("yes" if row["name"] in best(rows, batch) else "" for batch in BATCHES),
        ]
        for row in rows
    ]
    heads = ["network", "passes", "M parameters", "MFLOP", "test accuracy", "ms, batch 1", "ms a tile, batch 8"]
    heads += ["front, 1", "front, 8"]
    about = found["machine"]
    return (
        "# Why not a small CNN?\n\n`python benchmarks/small_cnn.py EUROSAT.zip --torchvision FOLDER`\n\n"
        + __doc__.split("\n\n")[2].replace("\n", " ")
        + f"\n\n{about['cpu']}, one thread; "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items())
        + f", torch {torch.__version__}, torchvision 0.28.0; {found['test']} test tiles of 64 px, Wilson intervals. "
        "Passes over 17,250 tiles, calm ones behind the +. MFLOP: 2 a multiply-accumulate.\n\n"
        + markdown(heads, table)
        + "\n\nFront: no other network is at least as accurate and faster.\n\n## Who wins where\n\n"
        + who_wins(rows)
        + "\n\nThe CNNs had no teacher and fewer passes than the encoder; EfficientNet-Lite0 had too few to be judged "
        "by them. Neither was pretrained on ImageNet, from where small CNNs reach 98.8 % in the literature: this says "
        "what a shape learns from this set alone, not what the best CNN would do.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path, help="EuroSAT RGB: a zip or folder, one folder a class")
    parser.add_argument("--torchvision", type=Path, required=True, help="folder that holds torchvision")
    parser.add_argument("--runs", type=Path, default=Path("runs/small_cnn"), help="checkpoints of the training")
    parser.add_argument("--train-only", action="store_true", help="train, and judge nothing")
    parser.add_argument("--only", nargs="+", help="networks to train and judge; others' rows stay out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = load_labelled(arguments.tiles, TILE_PX)
    made = {}
    for network in networks(arguments.torchvision, len(parts["train"].classes)):
        if not arguments.only or network.name in arguments.only:
            made[network.name] = network, trained(network, parts, arguments.runs / network.name)
    if arguments.train_only:
        return
    keep_to_cores(1)
    rows, paths = [], {}
    for name, (network, model) in made.items():
        paths[name] = exported(Named(model).eval(), arguments.runs / f"{name}.onnx")
        parameters = sum(p.numel() for p in model.parameters())
        passes = f"{network.epochs} + {network.calm_epochs}"
        rows.append(judged(name, model, parts["test"], macs=macs_of(model), parameters=parameters, passes=passes))
    profile = take_profile("eurosat-rgb")
    full, _ = profile_checkpoint(profile)
    # Tiles of 0 ... 255 are raw values here, so that all networks are given the same.
    assert profile.radiometry is not None
    scale = profile.radiometry.image_scale
    low, high = profile.radiometry.clip
    levels = replace(
        profile.radiometry,
        clip=(low / scale, high / scale),
        mean=tuple(v / scale for v in profile.radiometry.mean),
        std=tuple(v / scale for v in profile.radiometry.std),
    )
    for width in WIDTHS:
        name, arch = f"eurosat-rgb w {width:.4g}", profile.architecture.at(width)
        model = Named(flight_model(replace(profile, radiometry=levels), slimmed_checkpoint(full, width))).eval()
        paths[name] = exported(model, arguments.runs / f"{name}.onnx")
        facts = {"macs": cost.flop(arch) // 2, "parameters": cost.parameters(arch), "passes": "slimmed"}
        rows.append(judged(name, model, parts["test"], **facts))
    times = timed(paths)
    for row in rows:
        row["ms"] = {str(batch): ms for batch, ms in times[row["name"]].items()}
    found = {"machine": machine(), "versions": versions(), "test": len(parts["test"].labels), "rows": rows}
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
