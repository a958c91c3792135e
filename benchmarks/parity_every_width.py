"""How far is the exported file from torch, at every width of the embedded encoder?

    python benchmarks/parity_every_width.py --tiles ../shared/data/eurosat/eurosat_rgb_train.zip

Exports every width step and compares the runtime's logits with torch's on real tiles of the test part, at batch 1 and
64. Writes benchmarks/results/parity_every_width.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from edgeslim import cost
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import flight_model, profile_checkpoint
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.ground.labelled import load_labelled
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.onboard.runtimes.onnx import OnnxRuntime
from edgeslim.parity import compare
from edgeslim.profile import DEFAULT_ENCODER, take_profile
from edgeslim.target import take_target

RESULT = Path(__file__).parent / "results" / "parity_every_width.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, help="EuroSAT RGB: a folder or zip")
    parser.add_argument("--count", type=int, default=512, help="tiles compared")
    arguments = parser.parse_args()
    profile, target = take_profile(DEFAULT_ENCODER), take_target("onnx")
    checkpoint, digest = profile_checkpoint(profile)
    assert profile.radiometry is not None
    images = load_labelled(arguments.tiles, profile.architecture.tile_px, ("test",))["test"].images
    chosen = torch.linspace(0, len(images) - 1, arguments.count).long()
    tiles = (images[chosen].float() * profile.radiometry.image_scale).numpy()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for step in profile.architecture.width_steps():
            out = Path(folder) / "artifact"
            proving = Proving(synthetic_tiles(profile, 2))
            (done,) = export(Source(profile, checkpoint, digest, step), [Request(target)], proving, out)
            slimmed = slimmed_checkpoint(checkpoint, step)
            with torch.inference_mode():
                expected = flight_model(profile, slimmed)(torch.from_numpy(tiles))[0].numpy()
            runtime = OnnxRuntime(out / "model.onnx", ("tiles", "logits", ""), threads=1)
            worst = {}
            for batch in (1, 64):
                found = [runtime.run(tiles[i : i + batch]) for i in range(0, len(tiles), batch)]
                worst[batch] = compare(np.concatenate(found), expected)
            parameters = sum(p.numel() for p in flight_model(profile, slimmed).parameters())
            rows.append(
                {
                    "width_multiplier": step,
                    "parameters": parameters,
                    "closed_form": cost.parameters(profile.architecture.at(step), profile.num_classes),
                    "model_bytes": (done.folder / "model.onnx").stat().st_size,
                    "max_abs_batch_1": worst[1].max_abs,
                    "max_abs_batch_64": worst[64].max_abs,
                    "argmax_agreement": min(record.argmax_agreement for record in worst.values()),
                }
            )
    table = Table(title=f"{profile.id}: exported file against torch, {len(tiles)} real tiles", title_justify="left")
    for heading in ("width", "parameters", "closed form", "file, KiB", "max |Δ|, batch 1", "batch 64", "same class"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['width_multiplier']:.4g}",
            f"{row['parameters']:,}",
            f"{row['closed_form']:,}",
            f"{row['model_bytes'] / 1024:,.0f}",
            f"{row['max_abs_batch_1']:.1e}",
            f"{row['max_abs_batch_64']:.1e}",
            f"{row['argmax_agreement']:.1%}",
        )
    Console(width=110).print(table)
    record = {
        "command": "python benchmarks/parity_every_width.py --tiles EUROSAT",
        "tiles": f"{len(tiles)} of EuroSAT RGB's test part",
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "checkpoint_sha256": digest,
        "tolerance": target.tolerance["fp32"],
        "rows": rows,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
