"""`edgeslim plan`: which width and depth of an encoder fit a device; without one, which devices it fits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.console import stdout_console
from edgeslim.cli.encoder import encoder_of
from edgeslim.cli.schema import print_schema
from edgeslim.device import Device, take_device
from edgeslim.device_card import all_cards
from edgeslim.errors import UsageError
from edgeslim.planning.budget import Ask
from edgeslim.planning.choose import NoWidthFits, make_plan
from edgeslim.planning.durations import Scene
from edgeslim.planning.plan import METHODS, Plan, check_method
from edgeslim.profile import DEFAULT_ENCODER, Profile
from edgeslim.report.plan import print_plan
from edgeslim.runtime_figures import RuntimeFigures
from edgeslim.shelf import shown
from edgeslim.target import Target, take_target, targets_on

ALL_BLOCKS = "all"
"""Asks for the encoder's whole depth."""


class Objective(str, Enum):
    """Which of the cuts that fit."""

    widest = "widest"
    score = "score"


def plan(
    device: Annotated[
        str | None, typer.Option(help="Device card, or an alias of one; without it every board is planned, and listed.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder card, or the path of a checkpoint.")] = DEFAULT_ENCODER,
    gflop: Annotated[float | None, typer.Option(help="Most GFLOP a tile (1 MAC = 2 FLOP).")] = None,
    memory_mib: Annotated[float | None, typer.Option(help="Most memory of the whole process, MiB.")] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Most time of a call (a tile, at batch 1), ms; held against the upper end.")
    ] = None,
    startup_s: Annotated[
        float | None,
        typer.Option(help="Most time from process start to the first finished tile, s; held against the upper end."),
    ] = None,
    artifact_mb: Annotated[float | None, typer.Option(help="Largest artifact, MB: all of its files.")] = None,
    uplink_kb_day: Annotated[
        float | None, typer.Option(help="What the link takes up a day, kB: says how many days the artifact takes.")
    ] = None,
    uplink_days: Annotated[
        float | None, typer.Option(help="Most days to uplink the artifact; needs --uplink-kb-day.")
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(help="Height x width of a scene, px, such as 10980x10980: says its time.", metavar="HxW"),
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Step between its windows, px; default half a tile.")] = None,
    deadline_s: Annotated[
        float | None,
        typer.Option(
            help="Most time from process start to its last tile, s; needs --scene; held against the upper end."
        ),
    ] = None,
    energy_j: Annotated[
        float | None, typer.Option(help="Most energy of the board a scene, J; needs --scene and a measured power.")
    ] = None,
    max_w: Annotated[
        float | None, typer.Option(help="Most power of the board, W; refused where its card has none measured.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Least score; a width whose score was not measured does not reach it.")
    ] = None,
    score_on: Annotated[
        str | None, typer.Option(help="Data set whose scores count; default: the first of the encoder's card.")
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="Of what fits: the widest, or that of the best measured score.")
    ] = Objective.widest,
    depth: Annotated[
        str | None,
        typer.Option(
            help="Blocks to keep, the first ones, or all; default: all, and fewer where the encoder's card has scores "
            "of them.",
            metavar="K|all",
        ),
    ] = None,
    power_mode: Annotated[
        str | None,
        typer.Option(
            help="Of the device, instead of its card's default; without a device the boards that have one of that name,"
            " or every mode of every board: all."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Format card; default: any that a runtime of the device runs, onnx first.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, fp16, int8-dynamic, int8-static; default: any that the cards have figures for."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Tiles a call; default: 1, and in a scene what `classify` takes.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="How `slim` is to slim: first, calibrated, healed or learned; none changes what a width costs."
        ),
    ] = METHODS[0],
    cards: Annotated[Path | None, typer.Option(help="Folder with your own devices/, profiles/, export/.")] = None,
    allow_unverified: Annotated[
        bool,
        typer.Option("--allow-unverified", help="Estimate on units that their card refuses, too, and mark the plan."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Plan to write (default plan.json); replaces an older plan."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Page to write as well (.html): the plan with its charts; also where nothing fits."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON instead of tables.")] = False,
    json_schema: Annotated[
        bool,
        typer.Option(
            "--json-schema",
            help="Print the JSON Schema of what --json prints: of a plan, or without --device of the boards.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is no plan, too.")] = False,
) -> None:
    """Find the widest cut of an encoder that fits a device, and say why no wider, or deeper, one does.

    Without --device: on which boards it fits, in their default power mode, and what the others lack.
    """
    if json_schema:
        print_schema("boards" if device is None else "plan")
        return
    if method not in METHODS:
        raise UsageError(f"--method: found {shown(method)}, expected one of {', '.join(METHODS)}")
    ask = Ask(
        gflop=gflop,
        memory_mib=memory_mib,
        latency_ms=latency_ms,
        startup_s=startup_s,
        artifact_mb=artifact_mb,
        uplink_kb_day=uplink_kb_day,
        uplink_days=uplink_days,
        scene=_scene(scene, stride),
        deadline_s=deadline_s,
        energy_j=energy_j,
        max_w=max_w,
        min_score=min_score,
        score_on=score_on,
        objective=objective.value,
        power_mode=power_mode,
        precision=precision,
        batch=batch,
    )
    blocks = _blocks(depth)
    if device is None:
        if out is not None or html is not None or overwrite or method != METHODS[0]:
            flags = {"-o": out is not None, "--html": html is not None, "--overwrite": overwrite, "--method": True}
            given = next(flag for flag, is_given in flags.items() if is_given)
            raise UsageError(
                f"{given}: found without --device, expected both: a plan is of one device, and without one none is "
                "written"
            )
        profile = encoder_of(encoder, cards)
        _plan_boards(profile, _of_depth(ask, blocks, profile), target, cards, allow_unverified, as_json)
        return
    board = take_device(device, cards, allow_unverified)
    out = out or Path("plan.json")
    if html is not None:
        from edgeslim.report.page import PAGE_FILE
        from edgeslim.whole import require_free

        if html == out:
            raise UsageError(f"--html: found {shown(str(html))}, which -o is, too; expected another name")
        require_free(html, PAGE_FILE, overwrite=overwrite)
    try:
        profile = encoder_of(encoder, cards)
        check_method(method, profile)
        found = make_plan(
            profile, board, _targets(target, board.runtime, cards)(board), _of_depth(ask, blocks, profile)
        )
        made = replace(found, method=method)
    except NoWidthFits as refusal:
        _write_page(refusal.plan, html, board, overwrite)
        raise
    made.write(out, overwrite=overwrite)
    _write_page(made, html, board, overwrite)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
        return
    console = stdout_console()
    print_plan(made, console)
    console.print()
    written = f"{out} and {html}" if html is not None else f"{out}"
    console.print(f"wrote {written}", markup=False, soft_wrap=True)


def _write_page(made: Plan, path: Path | None, board: Device, overwrite: bool) -> None:
    """Write the page of a plan where one is asked for."""
    if path is not None:
        from edgeslim.report.page import write_page

        write_page(made, path, board, overwrite=overwrite)


def _blocks(text: str | None) -> int | str | None:
    """A number of blocks, or "all". Raises UsageError for anything else."""
    if text is None or text == ALL_BLOCKS:
        return text
    if re.fullmatch("[0-9]{1,4}", text) is None or int(text) == 0:
        raise UsageError(f"--depth: found {shown(text)}, expected a number of blocks of at least 1, or {ALL_BLOCKS}")
    return int(text)


def _of_depth(ask: Ask, blocks: int | str | None, profile: Profile) -> Ask:
    """What is asked, of as many blocks of an encoder."""
    return replace(ask, depth=profile.architecture.depth if isinstance(blocks, str) else blocks)


def _scene(text: str | None, stride: int | None) -> Scene | None:
    """A scene of "HxW". Raises UsageError for anything else, or for a stride without a scene."""
    if text is None:
        if stride is not None:
            raise UsageError(f"--stride: found {stride} without --scene, expected both: a stride is a scene's")
        return None
    match = re.fullmatch(r"([0-9]{1,10})x([0-9]{1,10})", text)
    if match is None:
        raise UsageError(f"--scene: found {shown(text)}, expected height x width in px, such as 10980x10980")
    return Scene(int(match[1]), int(match[2]), stride)


def _targets(
    name: str | None, runtimes: Iterable[RuntimeFigures], cards: Path | None
) -> Callable[[Device], list[Target]]:
    """What a device may run: the one that is asked for, or all that one of its runtimes runs, ONNX first."""
    if name is not None:
        asked = take_target(name, cards)
        return lambda device: [asked]
    usual = take_target("onnx", cards)
    others = [other for other in targets_on({runtime.id for runtime in runtimes}, cards) if other.id != usual.id]

    def of(device: Device) -> list[Target]:
        ids = {runtime.id for runtime in device.runtime}
        return [usual, *(other for other in others if ids & set(other.runtimes))]

    return of


def _plan_boards(
    profile: Profile, ask: Ask, target: str | None, cards: Path | None, allow_unverified: bool, as_json: bool
) -> None:
    """Print which boards qualify. Raises NothingFits where none does, after what each lacks is printed."""
    from edgeslim.planning.boards import plan_boards, require_mode, require_one, to_dict
    from edgeslim.report.boards import print_boards

    boards = all_cards(cards)
    require_mode(boards, ask)
    targets_of = _targets(target, [runtime for card in boards for runtime in card.runtime], cards)
    found = plan_boards(profile, boards, targets_of, ask, allow_unverified)
    if as_json:
        typer.echo(json.dumps(to_dict(profile.id, ask, found), indent=2, allow_nan=False))
    else:
        console = stdout_console()
        print_boards(profile.id, ask, found, console)
        console.print()
        console.print("no plan written: --device names the board to write one for", markup=False, soft_wrap=True)
    require_one(profile.id, found)
