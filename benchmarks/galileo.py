"""A real encoder of the field, end to end: Galileo nano from its own file to classes on a scene.

    python benchmarks/galileo.py encoder.pt --tiles EuroSAT.zip --scene SCENE.tif [--libraries FOLDER]

The encoder of profiles/galileo-nano.toml (red, green and blue of one date in June) on EuroSAT's RGB tiles, at each
width: 5 nearest neighbours by cosine, and ridge regression on standardised features, of the test part after the
training part. Then its ridge head flies: exported to ONNX, proven on real tiles, checked and run over a scene. With
FOLDER, which holds single_file_galileo.py of nasaharvest/galileo, its features are held against the original's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "galileo"
WIDTHS = (1.0, 0.5, 0.25, 0.125, 0.0625)
EVERY = 3
"""Of the training part: enough for a ridge of 128 features."""
FLOWN = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--libraries", type=Path)
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), *([str(arguments.libraries)] if arguments.libraries else [])]
    import torch
    from onboard_process import markdown

    from edgeslim import cost
    from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint
    from edgeslim.ground.labelled import load_labelled
    from edgeslim.ground.slimming.slim import slim
    from edgeslim.profile import take_profile

    torch.set_num_threads(1)
    profile = take_profile("galileo-nano")
    arch = profile.architecture
    encoder = read_checkpoint(arguments.weights, arch, made_for=profile.made_for).build()
    parts = load_labelled(arguments.tiles, arch.tile_px, ("train", "test"))
    train, test = (
        (as_fed(profile, part.images[::step]), part.labels[::step])
        for part, step in ((parts["train"], EVERY), (parts["test"], 1))
    )
    rows, heads = [], {}
    for width in WIDTHS:
        narrow, counted = slim(encoder, width), arch.at(width)
        seen, asked = features_of(narrow, train[0]), features_of(narrow, test[0])
        head = ridge(seen, train[1], len(parts["train"].classes))
        heads[counted.head_dim] = head
        right = (torch.nn.functional.linear(asked, *head).argmax(1) == test[1]).float().mean()
        rows.append(
            {
                "width": width,
                "parameters": cost.parameters(counted),
                "mflop": round(cost.flop(counted) / 1e6, 3),
                "neighbours": round(neighbours(seen, train[1], asked, test[1]), 4),
                "ridge": round(float(right), 4),
            }
        )
        print(rows[-1], flush=True)
    state = {name: value.detach() for name, value in encoder.state_dict().items()}
    flown = fly(Checkpoint(arch, state, heads), parts["test"].classes, arguments.tiles, arguments.scene)
    found: dict[str, Any] = {
        "tiles": {"train": len(train[1]), "test": len(test[1])},
        "original": against_original(arguments.weights, encoder, test[0][:16]) if arguments.libraries else None,
        "rows": rows,
        "flown": flown,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    parity = next(iter(flown["certificate"]["batches"].values()))
    body = [[f"{r['width']:g}", r["parameters"], r["mflop"], r["neighbours"], r["ridge"]] for r in rows]
    RESULT.with_suffix(".md").write_text(
        "# Galileo nano on EuroSAT, red, green and blue\n\n`python benchmarks/galileo.py`\n\n"
        f"{len(train[1])} training and {len(test[1])} test tiles of 64 px, patches of 8 px. Features of 16 tiles are "
        f"{found['original']} of their range from the original's.\n\n"
        f"{markdown(['width', 'parameters', 'MFLOP', '5 neighbours', 'ridge'], body)}\n\n"
        f"Width {FLOWN:g} flies with its ridge head: exported to ONNX, verdict of the certificate "
        f"{flown['certificate']['verdict']}, largest difference of {parity['tiles']} real tiles' logits "
        f"{parity['max_abs']:.1e}, equal classes {parity['argmax_agreement']:.1%}; and {flown['tiles']} tiles "
        f"of {flown['scene']} classified. That scene is surface reflectance, on which this head was not fitted: its "
        "map is no result, that it runs is.\n"
    )
    print(RESULT.with_suffix(".md").read_text())


def as_fed(profile: Any, images: Any) -> Any:
    """(n, 3, H, W) red, green, blue of 0 to 255 -> what the encoder takes: raw values, normalised, blue first."""
    import torch

    meant = profile.radiometry
    raw = images.flip(1).float() * meant.image_scale
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (meant.mean, meant.std))
    return (raw.clamp(*meant.clip) - mean) / std


def features_of(encoder: Any, tiles: Any) -> Any:
    import torch

    with torch.inference_mode():
        return torch.cat([encoder(tiles[i : i + 128]) for i in range(0, len(tiles), 128)])


def neighbours(seen: Any, labels: Any, asked: Any, expected: Any, count: int = 5) -> float:
    """Share of right votes of the `count` nearest by cosine."""
    import torch

    unit = torch.nn.functional.normalize
    nearest = (unit(asked) @ unit(seen).T).topk(count, dim=1).indices
    return float((labels[nearest].mode(1).values == expected).float().mean())


def ridge(features: Any, labels: Any, classes: int, strength: float = 10.0) -> tuple[Any, Any]:
    """Weight (classes, d) and bias of a ridge regression of one-hot labels on standardised features."""
    import torch

    mean, std = features.mean(0), features.std(0) + 1e-6
    x, y = (features - mean) / std, torch.nn.functional.one_hot(labels, classes).float()
    weight = torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1]), x.T @ (y - y.mean(0))).T / std
    return weight, y.mean(0) - weight @ mean


def against_original(weights: Path, encoder: Any, tiles: Any) -> str:
    """Largest difference to the original's features of the same tiles, as a share of their range."""
    import torch

    from families import apart
    from tests.ground.checkpoints.family_cases import galileo_features, library

    original = library("single_file_galileo")
    made = original.Encoder(8, 128, 4, 4, 8)
    made.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    with torch.no_grad():
        return f"{apart(encoder(tiles), galileo_features(original, made.eval(), 'S2_RGB')(tiles)):.1e}"


def fly(checkpoint: Any, classes: tuple[str, ...], tiles: Path, scene: Path) -> dict[str, Any]:
    """Export with its head, check, and classify a scene, by the verbs that people type."""
    import tomli_w
    import torch

    from edgeslim.cli import main as typed
    from edgeslim.ground.checkpoints.checkpoint import write_checkpoint
    from edgeslim.shelf import read_toml, shelf_folder

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "profiles").mkdir()
        card = read_toml(shelf_folder("profiles") / "galileo-nano.toml")
        write_checkpoint(checkpoint, work / "profiles" / "nano.safetensors", {}, torch.float32)
        labels = [{"name": name, "title": name, "color": f"{4000 * i:06X}"} for i, name in enumerate(classes, 1)]
        card |= {"id": "nano", "checkpoint": "nano.safetensors", "class": labels}
        card.pop("score", None)
        (work / "profiles" / "nano.toml").write_text(tomli_w.dumps(card))
        words = ["export", "--encoder", "nano", "-w", str(FLOWN), "--tiles", str(tiles), "--cards", folder]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            codes = [typed([*words, "-o", str(work / "artifact"), "--json"])]
        manifest = json.loads(printed.getvalue())["manifest"]
        codes.append(typed(["check", str(work / "artifact")]))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            words = ["classify", str(scene), "--artifact", str(work / "artifact"), "-o", str(work / "map"), "--json"]
            codes.append(typed(words))
        assert codes == [0, 0, 0], codes
        report = json.loads(printed.getvalue())
    return {"certificate": manifest["certificate"], "scene": scene.name, "tiles": report["tiles"]["classified"]}


if __name__ == "__main__":
    main()
