"""Encoder cards and families, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.families.asked import other_bands
from edgeslim.families.family import Family
from edgeslim.families.hub import Asked, Hub
from edgeslim.profile import Profile
from edgeslim.report.tables import grid, number, titled_table
from edgeslim.score import Score
from edgeslim.units import gflop

SHIPS = "ship with edgeslim"
NEVER = "never tried"


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """An encoder's card, in short."""

    id: str
    """Of the card."""
    name: str
    """For people."""
    licence: str
    """SPDX id of the weights, or what is known."""
    source: str
    """Where architecture and weights come from."""
    weights: str
    """Whether real weights were ever tried: they ship, how they were tried, or that they never were."""
    architecture: AnyArchitecture
    """At width 1."""
    gsd_m: float | None
    """Ground sample distance, metres a pixel; null: not tied to one."""
    parameters: int
    """Encoder without a head."""
    gflop: float
    """A tile, encoder without a head, 1 MAC = 2 FLOP."""
    scores: tuple[Score, ...]
    """What was measured at each width, ascending."""


@dataclass(frozen=True, slots=True)
class KnownEncoders:
    """What `edgeslim encoders list` says."""

    encoders: tuple[KnownEncoder, ...]
    """By id."""


@dataclass(frozen=True, slots=True)
class KnownFamilies:
    """What `edgeslim encoders families` says."""

    families: tuple[Family, ...]
    """One's own first."""


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    """A checkpoint that can be fetched."""

    name: str
    """HUB:NAME, as it is asked for; of a hub that has one of every name that exists there: HUB:NAME itself."""
    url: str
    """Where it lies; {name} in it stands for NAME."""
    sha256: str
    """Beginning of its hex SHA-256; empty: not known."""
    licence: str | None
    """SPDX id, "unknown", or null: the hub says it of each."""
    fetched: bool | None
    """Whether it lies in the cache folder; null: of a name that is not given nobody can say."""


@dataclass(frozen=True, slots=True)
class KnownHubs:
    """What `edgeslim encoders hubs` says."""

    checkpoints: tuple[KnownCheckpoint, ...]
    """By hub, in the order of its card."""


def known_hubs(hubs: Iterable[Hub]) -> KnownHubs:
    """Every checkpoint that they name, and of those that name none how one is asked for."""
    found: list[KnownCheckpoint] = []
    for hub in hubs:
        for file in hub.file:
            here = Asked(hub, file, None).path.is_file()
            found.append(KnownCheckpoint(f"{hub.id}:{file.name}", file.url, file.sha256, file.licence, here))
        if hub.every:
            found.append(KnownCheckpoint(f"{hub.id}:NAME", hub.every, "", None, None))
    return KnownHubs(tuple(found))


def known_encoder(profile: Profile) -> KnownEncoder:
    """A card, in short."""
    arch = profile.architecture
    return KnownEncoder(
        id=profile.id,
        name=profile.name,
        licence=profile.licence,
        source=profile.source,
        weights=profile.weights_tried or (SHIPS if profile.checkpoint is not None else NEVER),
        architecture=arch,
        gsd_m=profile.gsd_m,
        parameters=cost.parameters(arch),
        gflop=gflop(cost.flop(arch)),
        scores=profile.scores,
    )


def print_encoders(encoders: Sequence[KnownEncoder], console: Console) -> None:
    """A line a card."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("encoder", no_wrap=True)
    for name in ("bands", "tile", "M", "GFLOP"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("licence", no_wrap=True)
    table.add_column("scored", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for one in encoders:
        arch = one.architecture
        counts = (str(arch.bands), str(arch.tile_px), number(one.parameters / 1e6), number(one.gflop))
        weights = {SHIPS: "ship", NEVER: "untried"}.get(one.weights, "tried")
        table.add_row(one.id, *counts, Text(one.licence.split(":")[0]), _scored(one.scores), weights)
    console.print(table)
    console.print()
    console.print(
        "tile: px a side; M: million parameters; scored: widths x data sets; weights: ship with edgeslim, were tried, "
        "or never were; `edgeslim encoders show ENCODER` says more",
        markup=False,
    )


def _scored(scores: Iterable[Score]) -> str:
    """Widths that were scored, times the data sets."""
    widths: dict[str, set[float]] = {}
    for score in scores:
        widths.setdefault(score.dataset, set()).add(score.width_multiplier)
    return f"{max(map(len, widths.values()))} x {len(widths)}" if widths else "no"


def print_encoder(one: KnownEncoder, console: Console) -> None:
    """All of a card that matters to who plans with it."""
    arch, facts = one.architecture, grid()
    facts.add_row("encoder", Text(one.name, style="bold"))
    facts.add_row("called", Text(one.id))
    facts.add_row("licence", Text(one.licence))
    facts.add_row("source", Text(one.source))
    facts.add_row("weights", Text(one.weights))
    facts.add_row("takes", f"{arch.bands} bands of {arch.tile_px} px{f' at {one.gsd_m:g} m' if one.gsd_m else ''}")
    facts.add_row(
        "shape",
        f"{_blocks(arch)}, {_around(arch)}",
    )
    facts.add_row("costs", f"{number(one.parameters / 1e6)} M parameters, {number(one.gflop)} GFLOP a tile")
    console.print(facts)
    if not one.scores:
        return
    table = titled_table("What it keeps")
    deep = any(score.depth is not None for score in one.scores)
    for name in ("width", *(["blocks"] if deep else []), "score", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("of", overflow="fold")
    for score in one.scores:
        interval = "" if score.interval is None else f"{score.interval[0]:.3f} to {score.interval[1]:.3f}"
        what = ", ".join(filter(None, (score.metric, score.dataset, score.probe)))
        blocks = [str(score.depth or arch.depth)] if deep else []
        table.add_row(f"{score.width_multiplier:.4g}", *blocks, f"{score.value:.3f}", interval, Text(what))
    console.print()
    console.print(table)
    for source in dict.fromkeys(score.source for score in one.scores):
        console.print(Text(source), soft_wrap=True)


def _blocks(arch: AnyArchitecture) -> str:
    """What the blocks are."""
    if not isinstance(arch, Architecture):
        return f"ConvNeXt V2, {arch.shape_text}"
    head_dim, hidden = arch.inner_texts
    return (
        f"{arch.depth} blocks, dim {arch.dim}, {arch.attention_heads} heads of {head_dim}, {arch.ffn.upper()} {hidden}"
    )


def _around(arch: AnyArchitecture) -> str:
    """What comes before the blocks, and behind them."""
    if not isinstance(arch, Architecture):
        return f"a map of {arch.sides[-1]} x {arch.sides[-1]} at the end, its mean"
    groups = f" of {len(arch.band_groups)} groups of bands" if arch.band_groups else ""
    bands = f", {arch.band_attention_heads} heads over the bands" if arch.band_attention_heads else ""
    return f"patches of {arch.patch_size} px{groups}, {arch.tokens} tokens, pool {arch.pool}{bands}"


def print_families(families: Sequence[Family], console: Console) -> None:
    """What each is, and what holds it against the original."""
    for index, family in enumerate(families):
        if index:
            console.print()
        facts = grid()
        facts.add_row("family", Text(f"{family.id}: {family.name}", style="bold"))
        facts.add_row("original", Text(family.original))
        facts.add_row("confirmed", Text(family.confirmed or "no: nothing holds it against the original yet"))
        heads = "".join(f", {size.head_dim} in that of dimension {size.dim}" for size in family.size)
        said = f"heads of {family.head_dim}{heads}, unless a card says otherwise"
        if family.kind != "vit":
            said = f"tiles of {family.tile_px} px, unless a card says otherwise"
        facts.add_row("map", f"{len(family.key)} rules; {said}")
        if family.modality:
            facts.add_row("asked for", Text("; ".join(f"{m.id} ({','.join(m.bands)})" for m in family.modality)))
        if family.band:
            facts.add_row("asked for", Text(", ".join(band.name for band in family.band) + other_bands(family)))
        if family.takes_gsd:
            facts.add_row("asked for", Text("a ground sample distance, behind the rest: @10m"))
        if family.because:
            facts.add_row("code", Text(f"fold {family.fold}: {family.because}"))
        console.print(facts)


def print_hubs(hubs: KnownHubs, console: Console) -> None:
    """A row a checkpoint: name, licence, and whether it was fetched."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "licence", "fetched"):
        table.add_column(title, no_wrap=title != "name")
    for one in hubs.checkpoints:
        name = one.name if one.fetched is not None else f"{one.name}, for every name there"
        table.add_row(Text(name), Text(one.licence or "see there"), "yes" if one.fetched else "")
    console.print(table)
