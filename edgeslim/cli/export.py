"""`edgeslim export`: plan -> proven artifacts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.console import stderr_console, stdout_console
from edgeslim.cli.need_ground import need_ground
from edgeslim.cli.schema import schema_flag
from edgeslim.units import MOST_BATCH


def export(
    plan: Annotated[Path | None, typer.Argument(help="Plan to export; plan.json if left out.")] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Artifact folder to write; of several artifacts, the folder of them.")
    ] = Path("artifact"),
    tiles: Annotated[
        Path | None, typer.Option(help="Tiles to prove it on: a folder or zip of image tiles, or a GeoTIFF scene.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder card, or the path of a checkpoint, instead of a plan.")
    ] = None,
    width_multiplier: Annotated[
        float | None, typer.Option("--width-multiplier", "-w", help="Kept fraction, 0 < w <= 1, instead of a plan.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Blocks to keep, the first ones, instead of a plan; default all.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            help="Head that `edgeslim head` wrote; without encoder and plan, on the encoder it was fitted on."
        ),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Format card; more than once: each. Default: the plan's, or onnx. all: what its device runs."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, int8-dynamic, int8-static; more than once: each.")
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Batch size to prove, and to write TFLite for; more than once: each. Default: 1 and the plan's."
        ),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="Share of agreement, and of score on labelled tiles, that int8 may cost.")
    ] = 0.01,
    bundle: Annotated[
        Path | None, typer.Option(help="Write the artifact as one archive, too, for `edgeslim apply`.")
    ] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    accept_gsd: Annotated[
        bool, typer.Option("--accept-gsd", help="Take tiles from a scene of another or unknown pixel size.")
    ] = False,
    bands: Annotated[
        str | None, typer.Option(help="Bands of --tiles in the encoder's order, numbers or names.")
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Bring --tiles to the encoder's tile, or a scene to its pixel size."),
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Bundle weights whose licence is research-only or not known to be open."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificates as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("export")] = False,
) -> None:
    """Slim, convert, prove against torch, and pack: artifacts, or nothing at all."""
    need_ground()
    import json

    from edgeslim import cost
    from edgeslim.cli.ground import chosen_cut, cut_of_head, full_checkpoint, requests_of
    from edgeslim.errors import UsageError
    from edgeslim.ground.exporting.capture import Proving, Source
    from edgeslim.ground.exporting.export import export as run_export
    from edgeslim.ground.golden import golden_tiles, proof_tiles
    from edgeslim.ground.heads.head_file import read_head
    from edgeslim.onboard.uplink.bundle import write_bundle
    from edgeslim.onboard.uplink.packed import require_free
    from edgeslim.planning.plan import CUTTING, METHODS, check_method
    from edgeslim.report.certificate import print_certificate

    if not 0 < max_drop < 1:
        raise UsageError(f"--max-drop: found {max_drop:g}, expected a share above 0 and below 1")
    if bad := [b for b in batch or () if not 1 <= b <= MOST_BATCH]:
        raise UsageError(f"--batch: found {bad[0]}, expected 1 to {MOST_BATCH}")
    if bundle is not None:
        require_free(bundle, False, "--bundle")
        to, archive = (Path(os.path.realpath(path)) for path in (out, bundle))
        if to == archive or archive in to.parents:
            raise UsageError(f"--bundle {bundle}: found the folder of -o {out}, expected a file's name of its own")
        if to in archive.parents:
            raise UsageError(
                f"--bundle {bundle}: lies in -o {out}, which holds the artifact alone; choose another place"
            )
    progress = stderr_console()
    fitted = None if head is None else read_head(head)
    if fitted is None:
        chosen = chosen_cut(plan, encoder, width_multiplier, depth, cards)
    else:
        chosen = cut_of_head(fitted.card, plan, encoder, width_multiplier, depth, cards)
    profile, cut, made = chosen.profile, chosen.cut, chosen.plan
    if (method := str(made.get("method", METHODS[0]))) not in CUTTING:
        raise UsageError(
            f"{plan or 'plan.json'}: found method {method!r}, whose heads are yet to be fitted, expected "
            f"{METHODS[0]!r}; `edgeslim slim` writes the encoder, or plan again without --method"
        )
    check_method(method, profile)
    requests = requests_of(target, precision, made, cards)
    if bundle is not None and len(requests) > 1:
        raise UsageError(f"--bundle {bundle}: found {len(requests)} artifacts, expected one target and one precision")
    full, digest = full_checkpoint(profile, checkpoint, cards)
    if fitted is not None:
        profile, full = fitted.at_work(profile, full, digest)
    golden = golden_tiles(profile, tiles, accept_gsd, bands=bands, resample=resample)
    proof, calibration = (None, None) if tiles is None else proof_tiles(profile, tiles, accept_gsd, bands, resample)
    flown = int(made.get("batch", 0)) or cost.default_batch(profile.architecture.at(*cut))
    proving = Proving(golden, proof, calibration, tuple(sorted(set(batch or (1, flown)))), max_drop)
    known = None if fitted is None else fitted.known()
    source = Source(profile, full, digest, cut.width_multiplier, made, accept_licence, known, cut.depth)
    done = run_export(source, requests, proving, out, progress.print)
    if bundle is not None:
        write_bundle(done[0].folder, bundle)
    if as_json:
        found = [{"artifact": str(one.folder), "manifest": one.manifest.to_dict()} for one in done]
        typer.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2))
        return
    print_certificate([one.manifest for one in done], stdout_console())
    for one in done:
        typer.echo(str(one.folder))
