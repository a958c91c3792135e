"""Export: capture -> convert -> prove -> pack. Nothing is left behind by a stage that fails.

The proof runs the written file in the runtime that flies, with the code that flies, at batch 1 and at all golden tiles.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeslim import __version__, cost
from edgeslim.errors import CaptureError, ConvertError, EdgeslimError, InputError, PackError
from edgeslim.ground.checkpoint import Checkpoint
from edgeslim.ground.flight import FlightModel, flight_model, radiometry_of, slimmed_checkpoint
from edgeslim.ground.formats import onnx
from edgeslim.ground.golden import GoldenTiles
from edgeslim.ground.slim import METHOD
from edgeslim.manifest import GOLDEN_NAME, MANIFEST_NAME, Golden, Manifest, read_manifest, sha256_of
from edgeslim.onboard.runtime import OnnxRuntime
from edgeslim.parity import Parity, compare
from edgeslim.profile import Profile
from edgeslim.target import Target


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    folder: Path
    """The artifact."""
    manifest: Manifest
    """Its manifest."""
    parity: dict[int, Parity]
    """Batch size -> how far the runtime was from torch."""


def prove(
    model: FlightModel, path: Path, golden: GoldenTiles, tolerance: float, threads: int = 1
) -> tuple[NDArray[np.float32], dict[int, Parity]]:
    """Run the written file and the module on the golden tiles; return torch's logits and parity by batch size.

    Raises ParityError where they are further apart than `tolerance`.
    """
    with torch.inference_mode():
        expected = model(torch.from_numpy(golden.tiles)).numpy()
    runtime = OnnxRuntime(path, threads=threads)
    parity = {}
    for batch in sorted({1, 3, len(golden.tiles)}):
        pieces = [runtime.run(golden.tiles[i : i + batch]) for i in range(0, len(golden.tiles), batch)]
        parity[batch] = compare(np.concatenate(pieces), expected)
        parity[batch].require(tolerance, f"stage 3, prove: {path.name} against torch at batch {batch}")
    return expected, parity


def export(
    profile: Profile,
    checkpoint: Checkpoint,
    checkpoint_sha256: str,
    width_multiplier: float,
    target: Target,
    golden: GoldenTiles,
    out: Path,
    *,
    plan: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Slim `checkpoint` (full width) to `width_multiplier` and write the artifact folder `out`.

    `plan` is noted in the manifest. An artifact that stands at `out` is replaced whole; anything else there is refused.
    Raises CaptureError, ConvertError, ParityError or PackError, after which `out` is as before.
    """
    _check_place(out)
    precision = "fp32"
    say(f"1/4 capture: {profile.id} at width {width_multiplier:.4g}")
    checkpoint.head(profile.architecture.at(width_multiplier).head_dim)  # says which widths have one, before any work
    try:
        slimmed = slimmed_checkpoint(checkpoint, width_multiplier)
        model = flight_model(profile, slimmed)
        with torch.inference_mode():
            shape = tuple(model(torch.from_numpy(golden.tiles[:2])).shape)
    except InputError:
        raise
    except RuntimeError as error:
        raise CaptureError(f"stage 1, capture: {_line(error)}; does the card fit the weights?") from None
    if shape[1] != profile.num_classes:
        raise InputError(f"encoder {profile.id!r}: head has {shape[1]} classes, its card {profile.num_classes}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise PackError(f"stage 4, pack: {out.parent}: cannot be written ({error.strerror})") from None
    try:
        path = work / target.model_file
        say(f"2/4 convert: {target.id}, opset {target.opset}, dynamic batch")
        try:
            onnx.convert(model, torch.from_numpy(golden.tiles[:2]), target, path)
        except EdgeslimError:
            raise
        except OSError as error:
            raise PackError(f"stage 2, convert: {path.name} cannot be written ({error.strerror})") from None
        except Exception as error:  # the converter raises many kinds; each ends the export
            raise ConvertError(f"stage 2, convert: {_line(error)}; report it with this plan") from error
        say(f"3/4 prove: {len(golden.tiles)} {'synthetic' if golden.synthetic else 'real'} golden tiles")
        logits, parity = prove(model, path, golden, target.tolerance[precision])
        say("4/4 pack")
        try:
            np.savez_compressed(work / GOLDEN_NAME, tiles=golden.tiles, logits=logits)
            arch, classes = slimmed.architecture, profile.num_classes
            manifest = Manifest(
                name=f"{profile.id}-w{width_multiplier:.4g}",
                edgeslim_version=__version__,
                encoder=profile.id,
                licence=profile.licence,
                checkpoint_sha256=checkpoint_sha256,
                method=METHOD,
                width_multiplier=width_multiplier,
                architecture=arch,
                total_parameters=cost.parameters(arch, classes=classes),
                gflop_per_tile=cost.flop(arch, classes=classes) / 1e9,
                runtime=target.module,
                model=target.model_file,
                input_name=onnx.INPUT_NAME,
                output_name=onnx.OUTPUT_NAME,
                bands=profile.bands,
                gsd_m=profile.gsd_m,
                radiometry=radiometry_of(profile),
                classes=profile.classes,
                golden=Golden(
                    tiles=len(golden.tiles),
                    synthetic=golden.synthetic,
                    source=golden.source,
                    tolerance=target.tolerance[precision],
                    parity={str(batch): record.to_dict() for batch, record in parity.items()},
                ),
                files={found.name: sha256_of(found) for found in sorted(work.iterdir())},
                plan=plan or {},
            )
            manifest.write(work)
            work.chmod(0o755)
            _swap(work, out)
        except OSError as error:
            raise PackError(f"stage 4, pack: {out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(out, manifest, parity)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check_place(out: Path) -> None:
    """An artifact may be replaced and an empty folder filled; a user's own files are never touched."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifact")
    ours = {MANIFEST_NAME, *read_manifest(out).files} if (out / MANIFEST_NAME).is_file() else set()
    if strangers := sorted(p.name for p in out.iterdir() if p.name not in ours):
        raise InputError(f"-o {out}: holds {strangers[0]}, which is no part of an artifact; choose another folder")


def _swap(work: Path, out: Path) -> None:
    """Put `work` in the place of `out`; the old artifact stands until the new one is complete."""
    if not out.exists():
        os.replace(work, out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent)) / out.name
    os.replace(out, aside)
    try:
        os.replace(work, out)
    except OSError:
        os.replace(aside, out)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
