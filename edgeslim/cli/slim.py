"""`edgeslim slim`: write the slimmed checkpoint of a plan, or of a width and depth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeslim.cli.console import stderr_console
from edgeslim.cli.need_ground import need_ground
from edgeslim.cli.schema import schema_flag

if TYPE_CHECKING:
    from edgeslim.convnext_architecture import AnyArchitecture
    from edgeslim.report.records import SlimmedRecord

_HEALING = "Healing"
"""Panel of the flags of that method in the help."""


def slim(
    plan: Annotated[Path | None, typer.Argument(help="Plan that names encoder and width.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Checkpoint to write (.safetensors).")] = Path(
        "slimmed.safetensors"
    ),
    encoder: Annotated[
        str | None, typer.Option(help="Encoder card, or the path of a checkpoint, instead of a plan.")
    ] = None,
    width_multiplier: Annotated[
        float | None, typer.Option("--width-multiplier", "-w", help="Kept fraction, 0 < w <= 1, instead of a plan.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Blocks to keep, the first ones, instead of a plan; default all.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="first: the first channels; calibrated: better weights of the same shape, from --tiles; healed: "
            "these, trained on --tiles to imitate the full encoder; learned: first, of an encoder that was trained to "
            "be slimmed so. Default: the plan's, or first."
        ),
    ] = None,
    tiles: Annotated[
        Path | None,
        typer.Option(
            help="Unlabelled tiles to calibrate or heal with: a folder or zip of image tiles, or a GeoTIFF scene."
        ),
    ] = None,
    tiles_max: Annotated[
        int | None,
        typer.Option(help="Most tiles; default 256 to calibrate, 1024 to heal, or what the encoder needs."),
    ] = None,
    uneven: Annotated[
        bool,
        typer.Option(
            "--uneven",
            help="Of calibrated: widths of their own for the blocks, within the FLOP of that width, where held-out "
            "tiles say that more is kept so.",
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of a calibration or healing: which tiles are held out, and their order.")
    ] = 0,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a healing: a stopped one resumes in it, and other widths find the full encoder's features "
            "there. Default: OUT with .healing for its suffix.",
            rich_help_panel=_HEALING,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Updates of the weights; default 1000.", rich_help_panel=_HEALING)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Tiles a step; default 32.", rich_help_panel=_HEALING)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Its peak, as a share of what it changes; default: by a short trial.",
            rich_help_panel=_HEALING,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (default), or bf16 where the processor or the GPU has it.", rich_help_panel=_HEALING),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu (default), or cuda: one GPU.", rich_help_panel=_HEALING)
    ] = None,
    accept_gsd: Annotated[
        bool, typer.Option("--accept-gsd", help="Take tiles from a scene of another or unknown pixel size.")
    ] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of those beside the card.")] = None,
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    json_schema: Annotated[bool, schema_flag("slim")] = False,
) -> None:
    """Write the slimmed checkpoint: narrower heads and feed-forward networks, or fewer blocks; the head of that cut."""
    need_ground()
    import json
    from dataclasses import replace

    import torch
    from rich.markup import escape

    from edgeslim.cli.ground import calibration_of, chosen_cut, healing_of, opened_checkpoint
    from edgeslim.errors import InputError, UsageError
    from edgeslim.ground.checkpoints.checkpoint import Checkpoint, write_checkpoint
    from edgeslim.ground.slimming.slim import slim_by
    from edgeslim.ground.slimming.slimmed_checkpoint import checkpoint_of
    from edgeslim.ground.slimming.stream import Streamed, slim_file
    from edgeslim.planning.plan import CUTTING
    from edgeslim.profile import card_facts
    from edgeslim.whole import require_makeable

    chosen = chosen_cut(plan, encoder, width_multiplier, depth, cards)
    profile, cut = chosen.profile, chosen.cut
    method = method or str(chosen.plan.get("method", "first"))
    if uneven and method != "calibrated":
        raise UsageError(f"--method {method}: found --uneven, expected it for calibrated only")
    if out.exists() and not overwrite:
        raise InputError(f"-o {out}: exists already; choose another name or add --overwrite")
    if out.suffix != ".safetensors":
        raise InputError(f"-o {out}: found suffix {out.suffix!r}, expected .safetensors")
    require_makeable(out, "-o")
    progress = stderr_console()
    healing = healing_of(
        method,
        run or out.with_suffix(".healing"),
        {
            "--run": run,
            "--steps": steps,
            "--batch": batch,
            "--learning-rate": learning_rate,
            "--precision": precision,
            "--device": device,
        },
    )
    calibration = calibration_of(
        profile, method, tiles, tiles_max, seed, accept_gsd, say=lambda line: progress.print(escape(line))
    )
    opened, digest = opened_checkpoint(profile, checkpoint, cards)
    metadata = {
        "encoder": profile.id,
        "licence": profile.licence,
        "method": method,
        "width_multiplier": repr(cut.width_multiplier),
        **({} if cut.depth is None else {"depth": str(cut.depth)}),
        "checkpoint_sha256": digest,
        "card": json.dumps(card_facts(profile)),
    }
    if calibration is None:
        done = slim_file(opened, cut.width_multiplier, out, metadata, cut.depth)
    else:
        full = Checkpoint(opened.architecture, dict(opened.tensors()), opened.heads)
        made = slim_by(method, full.build(), cut.width_multiplier, cut.depth, calibration, healing, uneven=uneven)
        metadata |= {"calibration_tiles": str(len(calibration.tiles)), "calibration_seed": str(seed)}
        # Widths of refitted weights are no longer nested.
        metadata |= {"method": made.method, "card": json.dumps(card_facts(replace(profile, slimmable=False)))}
        if healing is not None:
            metadata |= {"healing_step": str(made.step), "healing_steps": str(healing.steps)}
        slimmed = checkpoint_of(full, made)
        write_checkpoint(slimmed, out, metadata, torch.float32)
        counts = [sum(t.numel() for t in one.encoder.values()) for one in (slimmed, full)]
        done = Streamed(slimmed.architecture, bool(slimmed.heads), counts[0], counts[1])
    if as_json:
        record: SlimmedRecord = {
            "schema": 1,
            "checkpoint": str(out),
            "encoder": profile.id,
            "method": method,
            "width_multiplier": cut.width_multiplier,
            "depth": cut.depth,
            "architecture": done.architecture.to_dict(),
            "parameters": done.parameters,
            "full_parameters": done.before,
            "head": done.has_head,
        }
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(
        f"{profile.id} at width {cut}: {_cut_text(profile.architecture, done.architecture)}, "
        f"parameters {done.before:,} -> {done.parameters:,}"
    )
    if done.architecture.is_uneven:
        typer.echo(_each_text(done.architecture))
    if not done.has_head:
        unfitted = "no head was fitted at this width" if cut.depth is None else "heads are fitted behind all blocks"
        why = unfitted if method in CUTTING else "heads were fitted to the features of first"
        typer.echo(f"{why}: the file holds the encoder alone")
    typer.echo(str(out))


def _cut_text(before: AnyArchitecture, arch: AnyArchitecture) -> str:
    """What became of the inner sizes."""
    from edgeslim.architecture import Architecture

    if isinstance(before, Architecture) and isinstance(arch, Architecture):
        (heads, hidden), (kept_heads, kept_hidden) = before.inner_texts, arch.inner_texts
        return f"head_dim {heads} -> {kept_heads}, ffn_hidden {hidden} -> {kept_hidden}"
    return f"{before.inner_text} -> {arch.inner_texts[-1]}"


def _each_text(arch: AnyArchitecture) -> str:
    """The inner sizes of each block."""
    from edgeslim.architecture import Architecture

    if isinstance(arch, Architecture):
        return "head_dim/ffn_hidden of each block: " + ", ".join(f"{dk}/{dh}" for dk, dh in arch.inner_sizes)
    return f"hidden channels of each block: {', '.join(map(str, arch.inner_sizes))}"
