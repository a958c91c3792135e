"""Plans for every board, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeslim.planning.boards import Board
from edgeslim.planning.budget import KINDS, Ask
from edgeslim.planning.plan import Plan
from edgeslim.report.tables import number, titled_table


def print_boards(encoder: str, ask: Ask, boards: Sequence[Board], console: Console) -> None:
    """Print what was asked, the boards that qualify with what was chosen for each, and what the others lack."""
    qualify = [(board, board.plan) for board in boards if board.plan is not None]
    others = [board for board in boards if board.plan is None]
    named = len({(board.id, board.power_mode) for board in boards}) > len({board.id for board in boards})
    console.print(Text(f"{encoder}: {_asked(ask)}"))
    if qualify:
        console.print()
        modes = named or ask.power_mode is not None
        wide = _qualifying(qualify, ask, modes, narrow=False)
        needed = console.measure(wide, options=console.options.update(max_width=1000)).maximum
        console.print(wide if needed <= console.width else _qualifying(qualify, ask, modes, narrow=True))
        if any(plan.unverified for _, plan in qualify):
            console.print(Text("* unverified: on a unit that is refused unasked; measure before you rely on it"))
    if others:
        console.print()
        console.print(_lacking(others, named))


def _asked(ask: Ask) -> str:
    limits = [
        f"{kind.title} {'at least' if kind.least else 'at most'} {f'{value:g} {kind.unit}'.rstrip()}"
        for name, kind in KINDS.items()
        if (value := getattr(ask, name)) is not None
    ]
    scene = ask.scene
    if scene is not None:
        stride = "half a tile" if scene.stride_px is None else f"{scene.stride_px} px"
        limits.append(f"a scene of {scene.height_px} x {scene.width_px} px at a stride of {stride}")
    return ", ".join(limits) or "no budget asked; what each board's card allows"


def _qualifying(rows: Sequence[tuple[Board, Plan]], ask: Ask, modes: bool, narrow: bool) -> Table:
    """A row a board; mode and runtime below its name where the table would be too wide."""
    table = titled_table(f"Boards that qualify ({len(rows)}), best first")
    table.add_column("board", no_wrap=True)
    if modes and not narrow:
        table.add_column("mode", no_wrap=True)
    deep = any(plan.depth is not None for _, plan in rows)
    table.add_column("w × blocks" if deep else "w", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("call\nup to ms", justify="right", no_wrap=True)
    if ask.scene is not None:
        table.add_column("scene\nup to s", justify="right", no_wrap=True)
    table.add_column("MiB", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("runtime", no_wrap=True)
    table.add_column("basis,\nband" if narrow else "basis, band")
    for board, plan in rows:
        chosen = plan.chosen
        # The band's factor, 1 + b: an estimate is expected within a factor of it either way.
        factor = chosen.latency_high_ms / chosen.latency_ms
        mode, runtime = [board.power_mode] if modes else [], [f"{plan.runtime} {plan.precision}"]
        basis = ["unverified*" if plan.unverified else plan.runtime_basis, f"×{factor:.3g}"]
        table.add_row(
            *(["\n  ".join([board.id, *mode, *runtime])] if narrow else [board.id, *mode]),
            f"{chosen.width_multiplier:.4g}" + (f" × {plan.slim_architecture.depth}" if deep else ""),
            "–" if chosen.score is None else f"{chosen.score:.3f}",
            number(chosen.latency_high_ms * chosen.batch),
            *([] if ask.scene is None else ["–" if chosen.scene is None else number(chosen.scene.high_s)]),
            number(chosen.memory.total_mib),
            *([] if narrow else runtime),
            ("\n" if narrow else " ").join(basis),
        )
    return table


def _lacking(boards: Sequence[Board], modes: bool) -> Table:
    table = titled_table(f"What the others lack ({len(boards)})")
    table.add_column("board", no_wrap=True)
    if modes:
        table.add_column("mode", no_wrap=True)
    table.add_column("why not", overflow="fold")
    for why, alike in groupby(sorted(boards, key=_order(boards)), key=_why):
        rows = list(alike)
        ids, mode_ids = ("\n".join(values) for values in zip(*((b.id, b.power_mode) for b in rows), strict=True))
        table.add_row(ids, *([mode_ids] if modes else []), Text(why))
    return table


def _order(boards: Sequence[Board]) -> Callable[[Board], int]:
    """Those that lack the same come together, where the first of them stands."""
    whys = [_why(board) for board in boards]
    return lambda board: whys.index(_why(board))


def _why(board: Board) -> str:
    mode = f"no power mode {board.power_mode}: " if board.verdict == "no such mode" else ""
    return f"{mode}{'refused: ' if board.verdict == 'refused' else ''}{board.why}"
