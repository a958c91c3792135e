"""Are the features of a converted checkpoint those of the library that defines it?

    python benchmarks/families.py [--libraries FOLDER]

Every case of tests/ground/test_families.py: a small module of the original library with random weights, written as that
library writes it, recognised, converted and run on random tiles at width 1.0. Beside it parameters and FLOP as cost.py
counts them and as they are counted in the canonical module. FOLDER is put before the installed packages, for a library
that cannot live beside the others (`pip install --no-deps --target FOLDER timm==1.0.31 torchvision==0.28.0`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "families"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, help="folder that holds timm")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), *([str(arguments.libraries)] if arguments.libraries else [])]
    from onboard_process import markdown

    from tests.ground.test_families import CASES, NEAR

    rows = [row(name) for name in CASES]
    found = {
        "versions": {name: version(name) for name in ("torch", "timm", "transformers")},
        "near": NEAR,
        "rows": rows,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    head = ["case", "family", "original", "difference / range", "M parameters", "as counted", "MFLOP", "as counted"]
    body = [
        [r[key] for key in ("case", "family", "original", "difference", "parameters", "own", "flop", "counted")]
        for r in rows
    ]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    RESULT.with_suffix(".md").write_text(
        f"# Families: converted checkpoints against their originals\n\n`python benchmarks/families.py`\n\n{versions}. "
        f"Random weights, width 1.0; aim: at most {NEAR:g} of the features' range. Parameters and FLOP of the encoder "
        f"by cost.py, and as counted in the module.\n\n{markdown(head, body)}\n"
    )
    print(RESULT.with_suffix(".md").read_text())


def row(name: str) -> dict[str, Any]:
    """One case."""
    import torch
    from safetensors.torch import save_file

    from edgeslim import cost
    from edgeslim.family import all_families, recognise
    from edgeslim.ground.checkpoint import read_checkpoint, shapes_of
    from tests.ground.counter import count_flop
    from tests.ground.test_families import BANDS, CASES, DIM, HEADS, TILE

    _, state, original = CASES[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        reading = recognise(shapes_of(path), all_families(), name)
        arch = reading.architecture(DIM // HEADS)
        encoder = read_checkpoint(path, arch).build()
    tiles = torch.randn(16, BANDS, TILE, TILE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = original(tiles), encoder(tiles)
    return {
        "case": name.replace("_", " "),
        "family": reading.family.id,
        "original": reading.family.original.split(":")[0].split(";")[0],
        "difference": f"{float((found - expected).abs().max() / (expected.max() - expected.min())):.1e}",
        "parameters": f"{cost.parameters(arch) / 1e6:.6f}",
        "own": f"{sum(value.numel() for value in encoder.parameters()) / 1e6:.6f}",
        "flop": f"{cost.flop(arch) / 1e6:.4f}",
        "counted": f"{count_flop(encoder, tiles[:1]) / 1e6:.4f}",
    }


if __name__ == "__main__":
    main()
