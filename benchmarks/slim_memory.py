"""Is a checkpoint that no board's memory holds slimmed in little memory?

    python benchmarks/slim_memory.py [--folder build/benchmarks/slim_memory] [--keep]

Writes the parallel ViT of arXiv 2304.05215 with random weights (2.42 billion parameters, 9.7 GB as float32; four
branches fused into each block, in edgeslim's own names), then runs `edgeslim slim` on it in a fresh process, inside a
memory cgroup where the machine lets it.

    peak, MiB      highest resident memory of the process, mapped pages of the file included
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from onboard_process import MIB, MemoryCgroup, as_installed, machine, markdown, measure

from edgeslim import cost
from edgeslim.architecture import Architecture

RESULT = Path(__file__).parent / "results" / "slim_memory"
LIMIT_MIB = 1024
WIDTH = 0.05
BRANCHES = 4
SIZES = {
    "86 M": (768, 12, 1),
    "605 M": (1024, 16, BRANCHES),
    "1.36 B": (1536, 24, BRANCHES),
    "2.42 B": (2048, 32, BRANCHES),
}
"""d, heads of one branch and branches; heads of 64."""
HEADINGS = ("encoder", "parameters, M", "file, MB", "slimmed, M", "peak, MiB", "largest tensor, MiB", "s")


def architecture(size: str) -> Architecture:
    dim, heads, branches = SIZES[size]
    return Architecture(
        depth=12,
        dim=dim,
        attention_heads=heads * branches,
        head_dim=64,
        ffn_hidden=4 * dim * branches,
        patch_size=16,
        tile_px=224,
        bands=3,
        branches=branches,
    )


def write_random(path: Path, arch: Architecture) -> None:
    """Tensor by tensor, as nobody needs to hold it whole."""
    import torch

    from edgeslim.ground.checkpoints.checkpoint import OpenCheckpoint
    from edgeslim.ground.checkpoints.convert import expected_shapes
    from edgeslim.ground.slimming.stream import slim_file

    generator = torch.Generator().manual_seed(0)

    def tensors():
        for name, shape in expected_shapes(arch).items():
            yield name, torch.randn(shape, generator=generator).mul_(0.02)

    slim_file(OpenCheckpoint(arch, {}, tensors), 1.0, path, {"encoder": "random", "licence": "Apache-2.0"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks/slim_memory"))
    parser.add_argument("--size", action="append", choices=SIZES, help="default: all; others keep their row")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    as_installed()
    known = RESULT.with_suffix(".json")
    before = json.loads(known.read_text())["rows"] if arguments.size and known.exists() else []
    rows = [row for row in before if row["encoder"] not in arguments.size]
    for size in arguments.size or SIZES:
        arch = architecture(size)
        width = max(step for step in arch.width_steps() if step <= WIDTH)
        full, slim = arguments.folder / f"{size.replace(' ', '')}.safetensors", arguments.folder / "slim.safetensors"
        if not full.exists():
            write_random(full, arch)
        command = [sys.executable, "-m", "edgeslim", "slim", "--encoder", full, "-w", width, "-o", slim, "--overwrite"]
        try:
            with MemoryCgroup(LIMIT_MIB * MIB) as cgroup:
                run = measure(command, cgroup=cgroup)
        except OSError:
            run = measure(command)
        largest = max(arch.dim * arch.ffn_hidden, 3 * arch.attention_dim * arch.dim)
        rows.append(
            {
                "encoder": size,
                "architecture": asdict(arch),
                "width_multiplier": width,
                "parameters": cost.parameters(arch),
                "file_mb": full.stat().st_size / 1e6,
                "slimmed_parameters": cost.parameters(arch.at(width)),
                "exit_code": run.code,
                "said": run.text.replace(str(arguments.folder) + os.sep, ""),
                "peak_mib": run.peak_mib,
                "largest_tensor_mib": largest * 4 / MIB,
                "wall_s": run.wall_s,
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr)
        if not arguments.keep:
            full.unlink()
        slim.unlink(missing_ok=True)
    if not arguments.keep:
        shutil.rmtree(arguments.folder)
    rows.sort(key=lambda row: row["parameters"])
    about = machine()
    record = {"command": "python benchmarks/slim_memory.py", "limit_mib": LIMIT_MIB, "machine": about, "rows": rows}
    RESULT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    cells = [
        [
            row["encoder"],
            f"{row['parameters'] / 1e6:,.1f}",
            f"{row['file_mb']:,.0f}",
            f"{row['slimmed_parameters'] / 1e6:,.1f}",
            f"{row['peak_mib']:,.0f}" if row["exit_code"] == 0 else f"failed: {row['said']}",
            f"{row['largest_tensor_mib']:,.0f}",
            f"{row['wall_s']:.0f}",
        ]
        for row in rows
    ]
    text = f"""# Slimming in bounded memory

`{record["command"]}`

The parallel ViTs of arXiv 2304.05215, random weights, float32, slimmed by `edgeslim slim -w {WIDTH:g}` (the width step
below it) in a fresh process; cgroup limit {LIMIT_MIB} MiB where the machine has memory cgroups.
{about["cpu"]}.

{markdown(HEADINGS, cells)}
"""
    RESULT.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
