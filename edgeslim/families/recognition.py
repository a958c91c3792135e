"""Recognition: whose checkpoint it is, told from its tensors' names and shapes by the families' key maps. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from edgeslim.errors import InputError
from edgeslim.families.asked import bands_asked, gsd_asked, modalities_asked, split_gsd
from edgeslim.families.family import Family
from edgeslim.families.reading import Reading, Shape, Source
from edgeslim.shelf import shown

_WRAPPED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")


def recognise(
    shapes: Mapping[str, Shape],
    families: Iterable[Family],
    where: str,
    made_for: str | None = None,
    bands: int | None = None,
    gsd_m: float | None = None,
) -> Reading:
    """The family whose map understands every name of a checkpoint, for what is asked (`made_for`: see asked.py).

    Where nothing is asked, a checkpoint of several modalities is read for the only one of `bands` bands, and positions
    are made for the card's ground sample distance `gsd_m`. Several families may understand it where nothing tells them
    apart: where a ground sample distance is asked it is one that is told it, where none is, one that is not; and among
    these, which all make the same of it, the first. Raises InputError naming the nearest family and what it does not
    understand, or what can be asked.
    """
    text, asked_m = split_gsd(made_for, where)
    readings = [reading for family in families for reading in _readings(family, shapes)]
    understood = [reading for reading in readings if reading.fits]
    if not understood:
        raise InputError(_of_no_family(readings, len(shapes), where))
    first = min(understood, key=lambda reading: reading.family.takes_gsd != (asked_m is not None))
    family = first.family
    first = replace(first, gsd_m=gsd_asked(family, asked_m, gsd_m, where))
    if family.takes_any_bands:
        return replace(first, bands=bands_asked(family, text, where))
    if not first.modalities and text is not None:
        raise InputError(f"{where}: found {shown(text)} asked of {family.name}, which takes one kind of tile")
    if not first.modalities:
        return first
    fitting = {reading.modalities[0]: reading for reading in understood if reading.family is family}
    asked = modalities_asked(family, list(fitting), text, bands, where)
    return _together([fitting[modality] for modality in asked], where)


def _together(readings: list[Reading], where: str) -> Reading:
    """One encoder that takes the tiles of several modalities: their tokens stand one after the other.

    Raises InputError where more is their own than how patches are embedded: they are several encoders then.
    """
    if len(readings) == 1:
        return readings[0]
    first = readings[0]
    every = dict.fromkeys(name for reading in readings for name in reading.pieces)
    pieces: dict[str, list[Source]] = {}
    for name in every:
        if all(reading.pieces.get(name) == first.pieces.get(name) for reading in readings):
            pieces[name] = first.pieces[name]
            continue
        before, dot, kind = name.rpartition(".") if name != "pos_embed" else (name, "", "")
        if before not in ("patch_embed.proj", "pos_embed"):
            ids = " and ".join(reading.modalities[0].id for reading in readings)
            raise InputError(f"{where}: {ids} of {first.family.id} are encoders of their own, expected one of them")
        for number, reading in enumerate(readings):
            if name in reading.pieces:
                pieces[f"{before}.{number}{dot}{kind}"] = reading.pieces[name]
    return Reading(first.family, pieces, (), tuple(reading.modalities[0] for reading in readings))


def _of_no_family(readings: Iterable[Reading], tensors: int, where: str) -> str:
    # To tell a ConvNeXt V2 less is needed: it is not the nearest to what none of its names are in.
    nearest = min(
        readings,
        key=lambda one: (not one.pieces and one.family.kind != "vit", len(one.problems) + len(one.left)),
    )
    odd = [*nearest.problems, *(f"{name}: not known" for name in nearest.left)]
    return (
        f"{where}: found {tensors} tensors of no family; the nearest is {nearest.family.id}: {odd[0]}"
        + (f", and {len(odd) - 1} more" if len(odd) > 1 else "")
        + "; expected one of `edgeslim encoders families`, or a family card of your own (--cards)"
    )


def _unwrapped(name: str) -> str:
    """A name without what torch.compile, fully sharded training and checkpointing of activations put into it."""
    return _WRAPPED.sub("", name)


def _readings(family: Family, shapes: Mapping[str, Shape]) -> Iterator[Reading]:
    """What a family's map makes of a checkpoint, once for each modality that it has."""
    taken_off = _prefix(family.prefixes, map(_unwrapped, shapes))
    for modality in family.modality or (None,):
        pieces: dict[str, list[Source]] = {}
        left: list[str] = []
        for original, shape in shapes.items():
            # Where only some names have the prefix, the others are not of the encoder.
            unwrapped = _unwrapped(original)
            inside = unwrapped.startswith(taken_off)
            name = unwrapped.removeprefix(taken_off)
            key = "" if modality is None else modality.key
            groups = len(family.band_groups)
            made = next(((rule, to) for rule in family.key if (to := rule.names(name, key, groups))), None)
            if made is not None and inside:
                rule, names = made
                for canonical in names:
                    pieces.setdefault(canonical, []).append(Source(original, tuple(shape), rule.part, rule.make))
            elif inside and not any(re.fullmatch(text, name) for text in family.dropped):
                left.append(original)
        yield Reading(family, pieces, tuple(left), () if modality is None else (modality,))


def _prefix(known: Iterable[str], names: Iterable[str]) -> str:
    """The longest chain of known beginnings, each once, that some names of the checkpoint have."""
    taken, remaining = "", list(known)
    names = list(names)
    while True:
        found = next((one for one in remaining if any(name.startswith(taken + one) for name in names)), None)
        if found is None:
            return taken
        taken += found
        remaining.remove(found)
