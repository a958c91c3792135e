"""Pack: a proven network, its manifest, golden tiles and catalogue item into one folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeslim import __version__, cost
from edgeslim.ground.exporting.capture import Captured, Request
from edgeslim.ground.exporting.mlm import write_item
from edgeslim.ground.exporting.proof import run_all
from edgeslim.ground.flight import radiometry_of
from edgeslim.ground.formats import Written
from edgeslim.manifest import GOLDEN_NAME, Golden, Manifest, sha256_of
from edgeslim.onboard.open_runtime import load_runtime
from edgeslim.parity import Certificate
from edgeslim.planning.plan import METHODS
from edgeslim.profile import licence_obstacle


def manifest_of(
    captured: Captured,
    request: Request,
    written: Written,
    certificate: Certificate | None,
    tolerance: float,
    files: dict[str, str],
) -> Manifest:
    """What is known of an artifact; without a certificate, what its proof needs."""
    source, golden, target = captured.source, captured.proving.golden, request.target
    profile, arch = source.profile, captured.slimmed.architecture
    return Manifest(
        name=f"{profile.id}-w{source.width_multiplier:.4g}" + (f"-d{source.depth}" if source.depth else ""),
        edgeslim_version=__version__,
        encoder=profile.id,
        licence=profile.licence,
        checkpoint_sha256=source.checkpoint_sha256,
        method=source.profile.method or str(source.plan.get("method", METHODS[0])),
        width_multiplier=source.width_multiplier,
        architecture=arch,
        total_parameters=cost.parameters(arch, classes=profile.num_classes),
        gflop_per_tile=cost.flop(arch, classes=profile.num_classes) / 1e9,
        format=target.id,
        precision=request.precision,
        runtime=target.runtime,
        # What is not certified yet is being proven here, on the processor: the ground has no board's GPU.
        providers=() if certificate is None else target.providers,
        models=written.models,
        input_name=written.names[0],
        output_name=written.names[1],
        features_name=written.names[2],
        graph=written.graph,
        bands=profile.bands,
        gsd_m=profile.gsd_m,
        radiometry=radiometry_of(profile),
        classes=profile.classes,
        golden=Golden(tiles=len(golden), synthetic=golden.synthetic, source=golden.source, tolerance=tolerance),
        certificate=certificate,
        files=files,
        plan=source.plan,
        cpu_operators=() if certificate is None else target.cpu_operators,
        source=profile.source,
        licence_accepted=source.accept_licence and licence_obstacle(profile.licence) is not None,
        depth=source.depth,
    )


def pack(captured: Captured, request: Request, written: Written, certificate: Certificate) -> Manifest:
    """Complete the folder of what was written. Raises OSError."""
    made, golden = written.folder, captured.reference.golden
    draft = manifest_of(captured, request, written, None, 1.0, dict.fromkeys(written.models.values(), ""))
    tolerance = _tolerance(captured, request, draft, certificate, made)
    np.savez_compressed(made / GOLDEN_NAME, tiles=golden.tiles.tiles.astype(np.float32), logits=golden.logits)
    known = captured.source.known
    if known is not None:
        np.savez(made / known[0].file, **known[1])  # type: ignore[arg-type]
    files = {found.name: sha256_of(found) for found in sorted(made.iterdir())}
    manifest = manifest_of(captured, request, written, certificate, tolerance, files)
    manifest = replace(manifest, known=None if known is None else known[0])
    item = write_item(manifest, made)
    manifest = replace(manifest, files=files | {item.name: sha256_of(item)})
    manifest.write(made)
    made.chmod(0o755)
    return manifest


def _tolerance(captured: Captured, request: Request, draft: Manifest, certificate: Certificate, made: Path) -> float:
    """Largest difference of a golden logit that the device may show.

    Of int8, whose logits are apart from torch's by design: three times what it was here, as other processors and other
    versions of a runtime round otherwise (ONNX Runtime 1.23 was twice as far off as 1.31 on one and the same).
    """
    golden, limit = captured.reference.golden, certificate.ceiling.relative
    if limit is not None:
        return limit * max(captured.reference.logits_range, float(np.ptp(golden.logits)))
    found = run_all(load_runtime(made, draft, threads=1), golden.tiles.tiles, 1)[0]
    apart = [float(np.abs(found - golden.logits).max()), *(p.max_abs for p in certificate.batches.values())]
    return 3 * max(apart)
