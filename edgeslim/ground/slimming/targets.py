"""Targets: what the full encoder makes of unlabelled tiles, kept on disk for a slimmed one to be taught by.

A tile is seen as it is and, where few tiles are given, turned and mirrored: the eight views of a square. Of each view
are kept its features, (d,) float32, and of its encoded tokens some, (K, d) float16: neighbours are much alike. Tokens
of a ConvNeXt V2 are the places of its last map.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeslim.architecture import Architecture
from edgeslim.convnext_architecture import AnyArchitecture
from edgeslim.errors import InputError
from edgeslim.ground.encoder import AnyEncoder, tokens_of
from edgeslim.ground.slimming.calibration import PATCHES

VIEWS = 8
"""Of a tile: four quarter turns, each mirrored or not."""
_AT_ONCE = 16
"""Tiles the full encoder is given at once."""
_SAY_EVERY = 20
"""Batches between two lines of progress, each behind what is safely on disk."""


def view(tiles: Tensor, number: int) -> Tensor:
    """(..., H, W) tiles with H = W, turned by `number` % 4 quarters, and mirrored before that from number 4 on."""
    mirrored = tiles.flip(-1) if number >= 4 else tiles
    return mirrored.rot90(number % 4, (-2, -1))


def fingerprint(encoder: AnyEncoder, tiles: Iterable[Tensor], *facts: object) -> str:
    """16 hex digits that another encoder, other tiles or other facts would change."""
    digest = hashlib.sha256(repr((encoder.arch, facts)).encode())
    for value in encoder.state_dict().values():
        digest.update(value.detach().contiguous().numpy().data)
    for tile in tiles:
        digest.update(tile.contiguous().numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Targets:
    """What a slimmed encoder is to imitate. Example number e is view e // n of tile rows[e % n]."""

    tiles: Tensor
    """(m, bands, H, W) float32, normalised, which may lie in a memory-mapped file."""
    rows: Tensor
    """(n,) int64: which of the tiles."""
    views: int
    """Of each tile, 1 to VIEWS."""
    features: Tensor
    """(n * views, d) float32."""
    index: Tensor
    """(n * views, K) int64: which of the encoded tokens are kept; class token first, where it is the feature."""
    tokens: NDArray[np.float16]
    """(n * views, K, d), a memory map of the file."""

    def __len__(self) -> int:
        return len(self.features)

    def seen(self, chosen: Tensor) -> Tensor:
        """(b,) examples -> (b, bands, H, W) tiles in their views."""
        count = len(self.rows)
        return torch.stack([view(self.tiles[self.rows[e % count]], e // count) for e in chosen.tolist()])

    def encoded(self, chosen: Tensor) -> Tensor:
        """(b,) examples -> (b, K, d) float32 tokens."""
        return torch.from_numpy(self.tokens[chosen.numpy()].astype(np.float32))


def make_targets(
    encoder: AnyEncoder,
    tiles: Tensor,
    rows: Tensor,
    views: int,
    seed: int,
    folder: Path,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda _: None,
) -> Targets:
    """Run `encoder` over all views of the `rows` of `tiles`, or take up what `folder` holds of that already.

    Two files of a fingerprint's name: encoders, tiles and seeds share a folder without harm. Raises InputError where
    the folder cannot be written, and where the encoder gives no numbers.
    """
    arch, count = encoder.arch, len(rows) * views
    index = _kept_tokens(arch, count, torch.Generator().manual_seed(seed))
    name = folder / f"targets-{fingerprint(encoder, (tiles[row] for row in rows), len(rows), views, seed, device)}"
    shapes = {"features": (count, arch.dim), "tokens": (*index.shape, arch.dim)}
    kinds = {"features": np.float32, "tokens": np.float16}
    said = name.with_suffix(".json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = json.loads(said.read_text())["done"] if said.exists() else 0
        mode = "r+" if done else "w+"
        maps = {
            part: np.lib.format.open_memmap(Path(f"{name}-{part}.npy"), mode, kinds[part], shapes[part])
            for part in shapes
        }
        place = torch.device(device)
        full = encoder.to(place)
        for start in range(done, count, _AT_ONCE):
            chosen = range(start, min(start + _AT_ONCE, count))
            own = index[chosen.start : chosen.stop].to(place)
            seen = torch.stack([view(tiles[rows[e % len(rows)]], e // len(rows)) for e in chosen]).to(place)
            with torch.inference_mode():
                encoded = full.encode(full.embed(seen))
                features = full.pool(encoded)
                some = tokens_of(encoded).gather(1, own.unsqueeze(2).expand(-1, -1, arch.dim))
            if not features.isfinite().all():
                raise InputError(
                    "healing: the full encoder gives features that are not finite, expected numbers; are its weights "
                    "whole, and the tiles normalised?"
                )
            maps["features"][chosen.start : chosen.stop] = features.cpu().numpy()
            maps["tokens"][chosen.start : chosen.stop] = some.clamp(-6e4, 6e4).half().cpu().numpy()
            if (start // _AT_ONCE + 1) % _SAY_EVERY == 0 or chosen.stop == count:
                for one in maps.values():
                    one.flush()
                _note(said, chosen.stop)
                say(f"full encoder: {chosen.stop} of {count} views")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder by --run") from None
    finally:
        encoder.cpu()
    return Targets(tiles, rows, views, torch.from_numpy(np.array(maps["features"])), index, maps["tokens"])


def _kept_tokens(arch: AnyArchitecture, count: int, generator: torch.Generator) -> Tensor:
    """(count, K) int64: which of the encoded tokens of each example are kept."""
    kept = min(PATCHES, arch.patches)
    picked = torch.stack([torch.randperm(arch.patches, generator=generator)[:kept].sort().values for _ in range(count)])
    if not isinstance(arch, Architecture):
        return picked
    # Registers are nobody's feature, and the next encoder's may mean something else.
    index = picked + arch.tokens - arch.patches
    return torch.cat([torch.zeros(count, 1, dtype=torch.int64), index], dim=1) if arch.class_token else index


def _note(path: Path, done: int) -> None:
    """How many are on disk, whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps({"done": done}))
    os.replace(partial, path)
