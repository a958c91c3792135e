"""Asked: what a checkpoint that serves several kinds of tiles is read for: "rgb+nir", "B04,B03,B02@10m". No torch.

It stands behind the checkpoint's name and a colon, or in an encoder's card as `made_for`: a modality or bands, then,
behind an @, the ground sample distance, each only where the family is made for what is asked.
"""

from __future__ import annotations

import math
import re

from edgeslim.errors import InputError
from edgeslim.families.family import Family, Modality, SeenBand
from edgeslim.shelf import shown

_MOST = 4096
"""Bands, as Architecture has them."""
_GSD = re.compile(r"(?P<text>[^@]*)@(?P<gsd>[^@]*?)m?")
_COARSEST_M = 1e5
"""Ground sample distance, far beyond any sensor's."""


def split_gsd(made_for: str | None, where: str) -> tuple[str | None, float | None]:
    """What is asked before an @, and the ground sample distance behind it, metres a pixel; None for what is not there.

    Raises InputError naming `where` where that is no distance.
    """
    if made_for is None or "@" not in made_for:
        return made_for, None
    found = _GSD.fullmatch(made_for)
    try:
        gsd_m = float(found["gsd"]) if found else math.nan
    except ValueError:
        gsd_m = math.nan
    if found is None or not 0 < gsd_m <= _COARSEST_M:
        raise InputError(
            f"{where}: found {shown(made_for)} asked, expected behind the @ metres a pixel, more than 0: @10m"
        )
    return found["text"] or None, gsd_m


def gsd_asked(family: Family, asked_m: float | None, card_m: float | None, where: str) -> float | None:
    """The ground sample distance, metres a pixel, that positions are made for: the one asked, or the card's `gsd_m`.

    None of a family that is told none. Raises InputError naming `where` where none is known, where both are and they
    differ, and where one is asked of a family that is told none.
    """
    if not family.takes_gsd:
        if asked_m is not None:
            raise InputError(
                f"{where}: found @{asked_m:g}m asked of {family.id}, which is told no ground sample distance"
            )
        return None
    if None not in (asked_m, card_m) and asked_m != card_m:
        raise InputError(f"{where}: found @{asked_m:g}m asked and a card's gsd_m of {card_m:g}; set them alike")
    gsd_m = card_m if asked_m is None else asked_m
    if gsd_m is None:
        raise InputError(
            f"{where}: {family.id} is made for the ground sample distance asked, found none; expected it behind its "
            f"name ({where}:@10m), or as gsd_m in a card"
        )
    return gsd_m


def bands_asked(family: Family, text: str | None, where: str) -> tuple[SeenBand, ...]:
    """The bands that an embedding is made for: names that the family saw, or wavelengths inside its span.

    A wavelength is in micrometres; where the family is told widths, one follows it ("0.49/0.065"). Raises InputError
    naming `where` and the first band that the encoder never saw.
    """
    names = ", ".join(band.name for band in family.band)
    if text is None:
        example = ",".join(band.name for band in family.band[:3])
        raise InputError(
            f"{where}: {family.id} is made for the bands asked, found none asked; expected bands behind its name "
            f"({where}:{example}) or as made_for in a card, of {names}{other_bands(family)}"
        )
    known = {band.name: band for band in family.band}
    asked = text.split(",")
    if len(asked) > _MOST:
        raise InputError(f"{where}: found {len(asked)} bands asked, expected at most {_MOST}")
    return tuple(known.get(name) or _by_wavelength(family, name, names, where) for name in asked)


def other_bands(family: Family) -> str:
    """What may be asked beside the bands that have names, for people; nothing where nothing may."""
    if family.span_um is None:
        return ""
    form = "wavelength/width" if _told_widths(family) else "wavelength"
    return f", or a {form} in micrometres from {family.span_um[0]:g} to {family.span_um[1]:g}"


def _told_widths(family: Family) -> bool:
    return any(band.bandwidth_um is not None for band in family.band)


def _by_wavelength(family: Family, text: str, names: str, where: str) -> SeenBand:
    wavelength, slash, width = text.partition("/")
    try:
        numbers = [float(wavelength), *([float(width)] if slash else [])]
    except ValueError:
        numbers = []
    low, high = family.span_um or (1.0, 0.0)
    if not numbers or not low <= numbers[0] <= high or bool(slash) != _told_widths(family) or not 0 < numbers[-1] < 1e4:
        raise InputError(
            f"{where}: band {shown(text)} is none that {family.id} ever saw, expected one of {names}"
            + other_bands(family)
        )
    return SeenBand(text, *numbers)


def modalities_asked(
    family: Family, present: list[Modality], text: str | None, bands: int | None, where: str
) -> list[Modality]:
    """The modalities called `text`, several with + between them; or the only one that has `bands` bands (None: any).

    Raises InputError naming `where` where there is none, where several are meant alike, and where a band would come
    twice.
    """
    if text is not None:
        found = [_modality(family, present, name, where) for name in text.split("+")]
        names = [band for modality in found for band in modality.bands]
        if twice := next((band for band in names if names.count(band) > 1), None):
            raise InputError(f"{where}: found band {twice} twice in {shown(text)}, expected each once")
        return found
    fitting = [modality for modality in present if bands in (None, len(modality.bands))]
    if len(fitting) == 1:
        return fitting
    ids = ", ".join(modality.id for modality in present)
    raise InputError(
        f"{where}: this {family.id} takes {ids}{f', found a card of {bands} bands' if bands else ''}; say which behind "
        f"its name ({where}:{present[0].id}) or as made_for in a card"
    )


def _modality(family: Family, present: list[Modality], name: str, where: str) -> Modality:
    for modality in present:
        if name in (modality.id, ",".join(modality.bands)):
            return modality
    has = "; ".join(f"{modality.id} ({','.join(modality.bands)})" for modality in present)
    raise InputError(f"{where}: {shown(name)} is none that this {family.id} ever saw, expected one of {has}")
