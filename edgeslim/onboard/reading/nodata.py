"""Nodata: which pixels hold nothing. Compared in the scene's own type, in one pass a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mark:
    """The values of one band that mean "no data": low ... high, both included."""

    low: Any
    """Scalar of the band's type."""
    high: Any
    """The same number as `low` for whole numbers."""


def mark_of(nodata: float | int | None, stored: np.dtype[Any], read: np.dtype[Any]) -> Mark | None:
    """The mark of a band of type `stored`, read as `read`; None where no finite value of that type is nodata.

    A real nodata matches to within 2·eps·|a + b|, eps of float32 whatever the type, as GDAL's mask does
    (ARE_REAL_EQUAL in gdal_priv.h), because it often lost digits on its way. One outside of the type is its largest or
    smallest value.
    """
    if nodata is None or not np.isfinite(nodata):
        return None
    if not np.issubdtype(stored, np.floating):
        limits = np.iinfo(stored)
        if nodata != int(nodata) or not limits.min <= int(nodata) <= limits.max:
            return None
        return Mark(read.type(int(nodata)), read.type(int(nodata)))
    real = np.finfo(stored)
    centre = float(np.clip(float(nodata), float(real.min), float(real.max)))
    reach = 4 * float(np.finfo(np.float32).eps) * abs(centre)
    ends = np.clip(
        [centre - reach, centre + reach] if np.isfinite(centre + reach) else [centre] * 2, real.min, real.max
    )
    return Mark(read.type(ends[0]), read.type(ends[1]))


def strike(
    values: NDArray[Any],
    marks: Sequence[Mark | None],
    alpha: NDArray[Any],
    masks: Sequence[NDArray[np.uint8]],
) -> NDArray[np.bool_] | None:
    """Validity (h, w) of values (bands, h, w): False where any band, the alpha (n, h, w) or a mask (h, w) says so.

    None: every pixel is valid.
    """
    valid: NDArray[np.bool_] | None = None

    def keep(good: NDArray[np.bool_]) -> None:
        nonlocal valid
        valid = good if valid is None else np.logical_and(valid, good, out=valid)

    for plane, mark in zip(values, marks, strict=True):
        if np.issubdtype(plane.dtype, np.floating):
            keep(np.isfinite(plane))
        if mark is None:
            continue
        if mark.low == mark.high:
            # Nearly every mark is the least value of its type, and a minimum is found in a fraction of the time.
            if plane.dtype.kind in "iu" and mark.low == np.iinfo(plane.dtype).min and plane.min() > mark.low:
                continue
            keep(plane != mark.low)
        else:
            good = plane < mark.low
            keep(np.logical_or(good, plane > mark.high, out=good))
    for plane in (*alpha, *masks):
        keep(plane != 0)
    return valid
