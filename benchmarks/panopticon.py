"""What does it save to multiply out the attention over bands of Panopticon, and are the features the same?

    python benchmarks/panopticon.py --libraries FOLDER [--threads N]

Panopticon ViT-B/14 as torchgeo builds it, full size, 13 bands of Sentinel-2, random weights: the products before the
original's blocks are counted (tests/ground/counter.py), its features held against the converted encoder's, and both are
timed on the same tiles, in turns. FOLDER holds timm 1.0.31, torchgeo 0.8.1 and what it imports (families.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "panopticon"
TILES, ROUNDS = 2, 3
WIDTHS = (1.0, 0.5, 0.25, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(arguments.libraries)]
    import torch
    from onboard_process import markdown

    from edgeslim import cost
    from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
    from edgeslim.profile import take_profile
    from families import apart
    from tests.ground.counter import count_flop

    torch.set_num_threads(arguments.threads)
    profile = take_profile("panopticon-b-14")
    arch = profile.architecture
    whole, told = original(torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        torch.save(whole.model.state_dict() | {"mask_token": torch.zeros(1, arch.dim)}, path)
        encoder = read_checkpoint(path, arch, made_for=profile.made_for).build()
    tiles = torch.randn(TILES, arch.bands, arch.tile_px, arch.tile_px, generator=torch.Generator().manual_seed(1))

    def by_original(given: Any) -> Any:
        # It changes what it is given, in place.
        return whole({"imgs": given.clone(), "chn_ids": told.repeat(len(given), 1)})

    with torch.inference_mode():
        difference = apart(encoder(tiles), by_original(tiles))
        seconds = in_turns([lambda: by_original(tiles), lambda: encoder(tiles)])
    before, wide = (
        whole.model.patch_embed,
        torch.zeros(arch.patches, arch.bands, whole.model.patch_embed.proj.in_features),
    )
    attended = count_flop(before.chnfus.xattn, wide[:, :1], wide, wide)
    embedding = [
        count_flop(before.conv3d, tiles[:1]) + attended + count_flop(before.proj, wide[:, 0]),
        sum(op.flop for op in cost.ops(arch) if op.name.startswith("patch_embed")),
    ]
    blocks = cost.flop(arch) - embedding[1]
    names = ("original", "multiplied out")
    rows = [
        [name, f"{(flop + blocks) / 1e9:.2f}", f"{flop / 1e9:.2f}", f"{taken / TILES:.2f}"]
        for name, flop, taken in zip(names, embedding, seconds, strict=True)
    ]
    widths = {f"{width:g}": cost.flop(arch.at(width)) / 1e9 for width in WIDTHS}
    found = {
        "versions": {"torch": torch.__version__},
        "difference": difference,
        "parameters": [sum(value.numel() for value in whole.parameters()), cost.parameters(arch)],
        "embedding_gflop": [flop / 1e9 for flop in embedding],
        "blocks_gflop": blocks / 1e9,
        "seconds_a_tile": [value / TILES for value in seconds],
        "threads": arguments.threads,
        "gflop_at_width": widths,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    said = ", ".join(f"{value:.2f} at {width}" for width, value in widths.items())
    RESULT.with_suffix(".md").write_text(
        "# Panopticon: the attention over bands, multiplied out\n\n`python benchmarks/panopticon.py`\n\n"
        f"torch {torch.__version__}, torchgeo 0.8.1, ViT-B/14, 13 bands of 224 px, random weights, "
        f"{arguments.threads} thread(s), median of {ROUNDS} turns of {TILES} tiles on a machine that others used, too. "
        f"Features are {difference:.1e} of their range from the original's; {found['parameters'][0] / 1e6:.2f} M "
        f"parameters became {found['parameters'][1] / 1e6:.2f} M.\n\n"
        f"{markdown(['network', 'GFLOP a tile', 'of these before the blocks', 's a tile'], rows)}\n\n"
        f"What slimming leaves alone is what stands before the blocks. GFLOP at a width: {said}.\n"
    )
    print(RESULT.with_suffix(".md").read_text())


def original(generator: Any) -> tuple[Any, Any]:
    """Panopticon with random weights, none of which is an identity or zero, and the (1, 13) channels it is told."""
    import torch

    from edgeslim.families.family import all_families
    from tests.ground.checkpoints.family_cases import library

    library("timm")
    made = library("torchgeo.models").Panopticon().eval()
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.02 if value.ndim > 1 else 0.3))
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
    bands = next(family for family in all_families() if family.id == "panopticon").band[:13]
    return made, torch.tensor([[int(1000 * band.wavelength_um) for band in bands]])


def in_turns(functions: list[Callable[[], Any]]) -> list[float]:
    """Median seconds of each, one after the other, so that what slows the machine slows all."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, seen in zip(functions, times, strict=True):
            start = perf_counter()
            function()
            seen.append(perf_counter() - start)
    return [statistics.median(seen) for seen in times]


if __name__ == "__main__":
    main()
