"""Radiometry: from a scene's numbers to the raw values that the encoder was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError, UsageError
from edgeslim.profile import Radiometry

DARKEST_P99 = 0.02
"""Below this 99th percentile of reflectance a scene is taken to be in other units: deep water alone reaches 0.03."""
BRIGHTEST_P99 = 2.0
"""Above it too: snow and cloud stay below 1.3."""
DARKEST = -0.5
"""No correction of the atmosphere makes a pixel darker: what is, stands for no data."""
LEAST_CEILING = 0.1
"""An integer type whose largest value stands for less reflectance than this cannot hold a land scene."""


_SPOKEN = {
    "flag": "--scale",
    "tags": "the scene's own scale tags",
    "manifest": "the manifest",
    "card": "the encoder's card",
}
"""A SceneScale's basis, in messages."""


@dataclass(frozen=True, slots=True)
class SceneScale:
    """reflectance = value * scale + offset, by band, in the encoder's order."""

    scale: tuple[float, ...]
    """Reflectance of one unit of the scene."""
    offset: tuple[float, ...]
    """Reflectance at 0."""
    basis: str
    """"flag", "tags" (of the scene), "manifest", or "card" (of the encoder)."""

    def reflectance(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reflectance of values (bands, ...)."""
        shape = (-1,) + (1,) * (values.ndim - 1)
        result: NDArray[np.float64] = values * np.reshape(self.scale, shape) + np.reshape(self.offset, shape)
        return result


class ToRaw:
    """From scene values to raw band values of the encoder. A scene in raw units passes unchanged, bit for bit."""

    def __init__(self, scale: SceneScale, radiometry: Radiometry) -> None:
        gain = np.array(scale.scale) / radiometry.scale
        bias = (np.array(scale.offset) - radiometry.offset) / radiometry.scale
        self._same = bool(np.all(gain == 1) and np.all(bias == 0))
        self._factors = {
            np.dtype(t): (gain.astype(t)[:, None, None], bias.astype(t)[:, None, None])
            for t in (np.float32, np.float64)
        }

    def __call__(self, values: NDArray[np.generic], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw band values of scene values (..., bands, height, width) of any real type, written into `out` float32."""
        if self._same and values.dtype.kind in "iu":
            out[...] = values
            return out
        with np.errstate(over="ignore", invalid="ignore"):  # what invalid pixels hold means nothing
            if self._same:
                np.copyto(out, values, casting="unsafe")
                return out
            # float32 holds 16-bit integers exactly and is half the memory; wider types are scaled before they are cut.
            narrow = values.dtype.itemsize <= 2 or values.dtype == np.float32
            gain, bias = self._factors[np.dtype(np.float32 if narrow else np.float64)]
            if narrow:
                np.multiply(values, gain, out=out, dtype=np.float32)
                np.add(out, bias, out=out)
            else:
                room = np.empty(values.shape[-2:])  # a plane at a time: all at once would take six times `out`
                for index in np.ndindex(values.shape[:-2]):
                    np.multiply(values[index], gain[index[-1]], out=room)
                    np.add(room, bias[index[-1]], out=room)
                    np.copyto(out[index], room, casting="unsafe")
            return out


_FEW = 0.01
"""Share of a sample that is passed over."""
LARGEST = 1e9
"""Of a scale or offset: float64 values of any scene stay in the range of float32 with it."""
SMALLEST_SCALE = 1e-30
"""Full 64-bit integers take one of 5e-20; less would leave the range of float32."""


def scale_of(
    where: str,
    tags: Sequence[tuple[float, float]],
    radiometry: Radiometry,
    scale: float | None,
    offset: float | None,
) -> SceneScale:
    """What a scene's numbers mean: the flags, else its own tags, else what the manifest expects.

    `tags` are (scale, offset) of each used band. Raises UsageError for a scale that is not a positive number,
    InputError for such a tag.
    """
    for flag, value in (("--scale", scale), ("--offset", offset)):
        if value is not None and not abs(value) <= LARGEST:
            raise UsageError(f"{flag} {value}: expected a number of at most {LARGEST:g}")
    if scale is not None and scale < SMALLEST_SCALE:
        raise UsageError(f"--scale {scale:g}: expected reflectance per unit above 0, e.g. 0.0001")
    bands = len(tags)
    tagged = any(tag != (1.0, 0.0) for tag in tags)
    if scale is not None:
        return SceneScale((scale,) * bands, (offset or 0.0,) * bands, "flag")
    scales = tuple(t[0] for t in tags) if tagged else (radiometry.scale,) * bands
    offsets = tuple(t[1] for t in tags) if tagged else (radiometry.offset,) * bands
    for gain, bias in zip(scales, offsets, strict=True):
        if not (SMALLEST_SCALE <= gain <= LARGEST and abs(bias) <= LARGEST):
            raise InputError(
                f"{where}: found scale {gain:g} and offset {bias:g} in the scene's own tags, expected a scale above 0; "
                "say what one unit is with --scale"
            )
    if offset is not None:
        return SceneScale(scales, (offset,) * bands, "flag")
    return SceneScale(scales, offsets, "tags" if tagged else "manifest")


def undeclared(sample: NDArray[np.generic], scale: SceneScale) -> list[str]:
    """A warning where a sample (bands, n) of pixels taken for valid holds what can only stand for no data."""
    if sample.shape[1] == 0:
        return []
    dark = (scale.reflectance(sample.astype(np.float64)) < DARKEST).any(axis=0)
    if dark.mean() <= _FEW:
        return []
    least = sample.min()
    return [
        f"{dark.mean():.0%} of the sampled pixels have a reflectance below {DARKEST:g} (values down to {least:g}) and "
        "no nodata value says that they are empty: they are classified; if they are empty, run gdal_edit -a_nodata "
        f"{least:g} first"
    ]


def check_range(
    where: str, sample: NDArray[np.generic], dtype: str, scale: SceneScale, radiometry: Radiometry
) -> list[str]:
    """Warnings about a sample (bands, n) of valid pixels.

    Raises InputError where its reflectance is impossible. With an explicit `--scale` a scene may be as dark as it
    likes (the sea at night is a scene too); one brighter than anything on Earth stays refused.
    """
    if sample.shape[1] == 0:
        return ["no valid pixel in the sampled windows: the radiometric range is unchecked"]
    values = sample.astype(np.float64)
    reflectance = scale.reflectance(values)
    p99 = float(np.percentile(reflectance, 99))
    too_dark, reach = p99 < DARKEST_P99, f"reach reflectance {p99:.3g}, expected {DARKEST_P99:g} … {BRIGHTEST_P99:g}"
    if np.issubdtype(np.dtype(dtype), np.integer):
        ceiling = float(scale.reflectance(np.full((len(scale.scale), 1), float(np.iinfo(dtype).max))).max())
        if ceiling < LEAST_CEILING:
            too_dark, reach = True, f"cannot exceed reflectance {ceiling:.3g}, expected at least {LEAST_CEILING:g}"
    if not too_dark and p99 <= BRIGHTEST_P99:
        return []
    read_as = "reflectance" if np.isclose(scale.scale[0], 1) else f"reflectance × {1 / scale.scale[0]:g}"
    by = _SPOKEN[scale.basis]
    fact = f"found {dtype} values {values.min():g} … {values.max():g}, which as {read_as} (by {by}) {reach}"
    if too_dark and scale.basis == "flag":
        return [f"{fact}: check --scale"]
    eight_bit = (
        f", {radiometry.image_scale * radiometry.scale:.4g} for 8-bit images stretched like the training images"
        if np.dtype(dtype).itemsize == 1
        else ""
    )
    raise InputError(
        f"{where}: {fact} (the encoder takes reflectance × {1 / radiometry.scale:g}); say what one unit is with "
        f"--scale (0.0001 for reflectance × 10000, 1 for reflectance 0 … 1{eight_bit})"
    )
