"""Labelled tiles: a folder or zip of images, one folder a class, and the written rule that splits them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from edgeslim.errors import InputError
from edgeslim.onboard.tile_files import tile_files

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
PARTS = {"test": (0.0, 0.15), "validation": (0.15, 0.20), "train": (0.20, 1.0)}
"""The split: where the SHA-256 of CLASS/FILE, read as a fraction of its range, falls."""
_FORMATS = ("PNG", "JPEG")
"""That are opened; PIL knows fifty more by their beginnings, some of which start programs."""
_COLOURS = {"L": "grey levels", "LA": "grey levels", "1": "black and white", "P": "a palette", "PA": "a palette"}
"""PIL's modes that are no colours by themselves, in messages."""
_PNG_DEPTH = 24
"""Where a PNG says its bits a channel: in its header, which comes first (ISO/IEC 15948, 11.2.2)."""
_IMAGE_ERRORS = (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError, struct.error)
"""What PIL raises for an image that is damaged, or none."""


def part_of(name: str) -> str:
    """The part that tile `name` ("Forest/Forest_12.jpg") belongs to.

    The first 8 bytes of SHA-256(name) over 2^64: below 0.15 test, below 0.20 validation, else train. The rule needs
    neither a list nor a seed, and a tile keeps its part when others are added.
    """
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return next(part for part, (low, high) in PARTS.items() if low <= fraction < high)


class UnreadableImage(InputError):
    """An image file that is damaged, or none."""


@dataclass(frozen=True, slots=True)
class LabelledTiles:
    """Tiles of one part, in the order of their names."""

    images: Tensor
    """(n, bands, height, width) uint8."""
    labels: Tensor
    """(n,) int64, an index into `classes`."""
    classes: tuple[str, ...]
    """Class names, sorted."""
    names: tuple[str, ...]
    """CLASS/FILE of each tile."""

    def to(self, device: torch.device) -> LabelledTiles:
        """The same with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def image_files(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Images of a folder (at any depth) or zip in the order of their paths: CLASS/FILE and what reads it.

    Raises InputError if `source` is neither.
    """
    for path, read in tile_files(source, IMAGE_SUFFIXES).items():
        pure = PurePosixPath(path)
        yield f"{pure.parent.name or source.name}/{pure.name}", read


def read_image(source: Path, name: str, read: Callable[[], bytes], tile_px: int) -> NDArray[np.uint8]:
    """One RGB image as (tile_px, tile_px, 3).

    Raises UnreadableImage, and InputError for one of another size, of more than 8 bits or without colours.
    """
    try:
        data = read()
        image = Image.open(BytesIO(data), formats=_FORMATS)
        _require_tile(f"{source}: {name}", image, data, tile_px)
        return np.asarray(image.convert("RGB"))
    except _IMAGE_ERRORS as error:
        raise UnreadableImage(f"{source}: {name} cannot be read ({error}); remove or replace it") from None


def _require_tile(where: str, image: Image.Image, data: bytes, tile_px: int) -> None:
    """Raise InputError for an image, not decoded yet, that is no tile of red, green and blue in 8 bits."""
    if image.size != (tile_px, tile_px):
        raise InputError(f"{where} is {image.width}x{image.height} px, expected {tile_px}x{tile_px}")
    if image.format == "PNG" and data[_PNG_DEPTH] > 8:  # PIL would cut it to 8 in one way or another
        raise InputError(f"{where} has {data[_PNG_DEPTH]} bits, expected 8; store it as GeoTIFF, which says its scale")
    if image.mode not in ("RGB", "RGBA"):  # PIL would make colours of them that no sensor saw
        found = _COLOURS.get(image.mode, image.mode)
        raise InputError(f"{where} holds {found}, expected red, green and blue; convert or remove it")


def load_labelled(source: Path, tile_px: int, parts: tuple[str, ...] = tuple(PARTS)) -> dict[str, LabelledTiles]:
    """Read RGB tiles of `tile_px` x `tile_px` from `source` into their parts.

    Raises InputError for an unreadable image, one of another size, or a source without images.
    """
    rows: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {part: [] for part in parts}
    classes: set[str] = set()
    for name, opened in image_files(source):
        classes.add(name.split("/")[0])
        if (part := part_of(name)) in rows:
            rows[part].append((name, read_image(source, name, opened, tile_px)))
    if not classes:
        raise InputError(f"{source}: no image found, expected .jpg or .png tiles, one folder a class")
    ordered = tuple(sorted(classes))
    index = {name: i for i, name in enumerate(ordered)}
    loaded = {}
    for part, tiles in rows.items():
        if not tiles:
            raise InputError(f"{source}: part {part!r} is empty, expected at least one tile")
        images = torch.from_numpy(np.stack([pixels for _, pixels in tiles])).permute(0, 3, 1, 2)
        labels = torch.tensor([index[name.split("/")[0]] for name, _ in tiles])
        loaded[part] = LabelledTiles(images.contiguous(), labels, ordered, tuple(name for name, _ in tiles))
    return loaded
