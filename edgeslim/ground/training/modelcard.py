"""The model card that ships beside the weights: Markdown for people, every figure from the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.ground.labelled import PARTS
from edgeslim.ground.training.card import WidthScore
from edgeslim.profile import Profile


def write_model_card(profile: Profile, facts: dict[str, Any], rows: list[WidthScore], folder: Path) -> Path:
    """Write ID.md into `folder` from the profile card, the run's facts and the scores; return its path."""
    full, arch = rows[-1], profile.architecture
    parts, hours, recipe, course = facts["parts"], facts["hours"], facts["recipe"], facts["course"]
    low, high = PARTS["test"]
    taught = facts["teacher_accuracy"]
    optimizer = "Muon on the blocks' matrices, AdamW on the rest" if recipe["optimizer"] == "muon" else "AdamW"
    calm = (
        f"{course['calm_epochs']} more epochs end it, at a fifth of the learning rate, with a fifth of the batches\n"
        "joined and no other mixing. "
        if course["calm_epochs"]
        else ""
    )
    joined = recipe["patchwork_share"] + recipe["mosaic_share"]
    teacher = (
        ""
        if taught is None
        else (
            f"The teacher is a residual CNN of {facts['teacher_parameters'] / 1e6:.1f} M parameters, {taught:.2%} on "
            "the test part; it does not ship.\n"
            f"Its view counts {recipe['teacher_share']:.0%} against the labels, {recipe['mixed_teacher_share']:.0%} "
            "on mixed tiles."
        )
    )
    unit = "CPU hours" if course["device"] == "cpu" else "GPU hours"
    table = "\n".join(
        f"| {row.width_multiplier:.3f} | {row.gflop:.4f} | {row.gflop / full.gflop:.1%} | {row.parameters / 1e6:.3f} "
        f"| {row.as_imaged:.2%} | {row.as_surface:.2%} |"
        for row in rows
    )
    widths = (
        f"It is slimmable: each of {len(rows)} widths is\na working encoder with a head of its own, from the same "
        "weights"
        if recipe["slimmable"]
        else f"It was trained at full width alone: the other {len(rows) - 1} of the\n{len(rows)} widths below are cut "
        "from it, each with a head of its own"
    )
    text = f"""# {profile.id}

{profile.name}. Licence of the weights: {profile.licence}.

## What it is

{_shape(arch)}, {full.parameters / 1e6:.2f} M parameters, {full.gflop:.3f} GFLOP
a tile (1 MAC = 2 FLOP). It takes {arch.tile_px}×{arch.tile_px} pixel tiles of red, green and blue at
{profile.gsd_m:g} m and names one of {len(profile.classes)} land covers. {widths}.

## Data

EuroSAT RGB (Helber et al. 2019; MIT licence; contains modified Copernicus Sentinel data),
{sum(parts.values()):,} labelled tiles: {parts["train"]:,} to train, {parts["validation"]:,} to choose by,
{parts["test"]:,} to test. A tile's part follows from its name alone: the first 8 bytes of
SHA-256("Class/File.jpg") over 2^64; from {low:g} to {high:g} is test, to {PARTS["validation"][1]:g} validation, the
rest train. The shipped weights have never seen the test part. Tiles of one Sentinel-2 scene can fall into different
parts, so these scores flatter: expect less on a region of your own.

## Radiometry

A EuroSAT JPEG is about DN × 255 / 2750 of Level-1C (top of atmosphere), DN = reflectance × 10000, without a stretch
per scene. The encoder takes DN, clips it to 0 … 2750 and normalises inside the graph. It was trained on tiles as they
are and on tiles from which about a whole path radiance was taken away, under random gain by band, so that Level-1C and
Level-2A both work. The last column below is the test part with a whole path radiance (600 / 290 / 190 DN in blue /
green / red) taken away: a stand-in for L2A, not L2A itself. Products of baseline 04.00 and later carry +1000 DN:
classify them with `--scale 0.0001 --offset -0.1`.

## Land shares

EuroSAT has as many rivers as forests, a country has not. The profile card gives each class's share of the training
tiles and of the land. `classify` weighs probabilities by them; the accuracies below do not. Source of the land shares:
{profile.land_share_source}.

## Accuracy and cost at each width

| width multiplier | GFLOP a tile | of full | M parameters | test accuracy | test accuracy, as surface |
| --- | --- | --- | --- | --- | --- |
{table}

Heads are refitted at every width on the training part and scaled by a temperature; choices were made on the validation
part. Measured on the shipped fp16 weights, computed in float32.

## Recipe

    {facts["command"]}

{_rule(facts)}. {optimizer}, batch {recipe["batch"]}, peak learning rate {recipe["learning_rate"]:g},
weight decay {recipe["weight_decay"]:g}, cosine over {recipe["epochs"]} epochs; turns, zoom, random radiometry;
{joined:.0%} of the batches are joined from several tiles (a scene's windows straddle fields and woods, EuroSAT's tiles
do not), {recipe["mixup_share"]:.0%} are MixUp and {recipe["cutmix_share"]:.0%} CutMix; moving average of the weights;
{recipe["precision"]}, seed {recipe["seed"]}, torch {facts["torch"]}, {facts["machine"]}.
{calm}{unit}: teacher {hours["teacher"]:.2f}, student {hours["student"] + hours["calm"]:.2f}.
{teacher}
{facts.get("history", "")}

## What it must not be used for

- Anything where a wrong map harms people without a look by a person: disaster response, evictions, targeting.
- Other sensors, other ground sample distances than about {profile.gsd_m:g} m, night, thermal, radar: never tested.
- Clouds, snow, ice, desert, tundra, most of the world outside Europe: no such class; it names one all the same.
- Legal area statistics: tiles are whole squares of {arch.tile_px * (profile.gsd_m or 0):g} m, and borders between
  classes are blurred by as much.
"""
    path = folder / f"{profile.id}.md"
    path.write_text(text, encoding="utf-8")
    return path


def _rule(facts: dict[str, Any]) -> str:
    recipe = facts["recipe"]
    labels = "labels" if facts["teacher_accuracy"] is None else "labels and on the teacher's probabilities"
    if not recipe["slimmable"]:
        return f"Every step trains the full width on {labels}"
    hints = "; all of them also learn to tell the teacher's\nfeature map from their tokens" if facts["hinted"] else ""
    return (
        f"Sandwich rule: every step trains the widest width on {labels}, and the narrowest plus\n"
        f"{recipe['random_widths']} random width(s) on the widest one's output{hints}"
    )


def _shape(arch: AnyArchitecture) -> str:
    if not isinstance(arch, Architecture):
        return f"A ConvNeXt V2 of {arch.shape_text}"
    stem = " behind a small convolutional stem" if arch.stem_channels else ""
    return (
        f"A vision transformer of {arch.depth} blocks (d = {arch.dim}, {arch.attention_heads} heads of "
        f"{arch.head_dim}, FFN hidden\n{arch.ffn_hidden}){stem}"
    )
