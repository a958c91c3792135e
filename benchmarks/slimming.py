"""What do the slimming methods keep of an encoder's features, at the same shape and cost?

    python benchmarks/slimming.py EUROSAT.zip --vit VIT_S14.safetensors --galileo ENCODER.pt
        [--pretrained CHECKPOINT ...] [--cache FOLDER] [--only CASE ...] [--at WIDTH ...] [--methods METHOD ...]

Encoders that are never averaged: a ViT-S/14 of DINOv2's architecture that was fine-tuned for saliency, on EuroSAT tiles
enlarged to 224 px, whole and cut after block 6 with the last LayerNorm behind; Galileo nano, on red, green and blue;
two small ViTs pretrained on the training part of this very set without labels, by a contrast (MoCo) and by masked
patches (MAE); and, apart, edgeslim's own eurosat-rgb, which was trained on that part and to be slimmed by `first`. Each
is slimmed by `first` and by `calibrated` to the narrowest width step of a plan (one dimension a head) and to the widest
width within 10, 25, 50 and 75 % of its FLOP, and by `healed` to the first two of these; some by `uneven`, too:
`calibrated` with inner widths for each block, within the FLOP of that one width, whether or not edgeslim would take
them. Head refitted at each width: k-NN (k = 5) and a linear probe (standardised, multinomial logistic, its penalty
chosen by cross-validation on the training tiles). Beside them a pixel baseline without any network: mean, deviation and
five quantiles of each band. Calibration tiles are of the validation part, tiles to heal with of the training part, all
without labels. Intervals are paired bootstraps over the test tiles: every score of a row is resampled with the same
tiles.

Features are kept in FOLDER, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galileo import as_fed
from slimming_page import page
from torch import Tensor
from torch.nn import functional as F

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.families.checkpoint_file import profile_of, read_header
from edgeslim.ground.checkpoints.checkpoint import read_checkpoint
from edgeslim.ground.flight import normalised, profile_checkpoint
from edgeslim.ground.labelled import LabelledTiles, load_labelled
from edgeslim.ground.measuring.redundancy import pixel_statistics
from edgeslim.ground.slimming.calibrated import calibrate
from edgeslim.ground.slimming.calibration import Calibration
from edgeslim.ground.slimming.healed import heal
from edgeslim.ground.slimming.healing import Healing
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.slimming.uneven import MARGIN, allotted
from edgeslim.ground.vit import Vit
from edgeslim.profile import take_profile

RESULT = Path(__file__).parent / "results" / "slimming"
COUNTS = {"train": 500, "test": 300, "validation": 256}
SHARES = (0.10, 0.25, 0.50, 0.75)
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
HEALED_AT = ("floor", "10%")
UNEVEN = ("galileo-nano", "vit-s14-block-6", "vit-s14")
"""Cases that are slimmed to widths for each block."""
METHODS = ("first", "calibrated", "uneven", "healed")
HEALED_WITH = 2000
"""Unlabelled tiles, of which every eighth is held out."""
HEALING: dict[str, dict[str, Any]] = {
    "galileo-nano": {"steps": 500, "batch": 64, "learning_rate": 3e-3},
    "vit-s14-block-6": {"steps": 1000, "batch": 32, "learning_rate": 3e-4, "precision": "bf16"},
}
"""Case -> how it is healed; others as `slim` does where nothing is said."""
DRAWS = 2000
SEED = 0
VIT_PX, VIT_MEAN, VIT_STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One encoder, and what a tile is to it."""

    name: str
    what: str
    encoder: Vit
    own: Any

    def features(self, encoder: Vit, images: Tensor) -> np.ndarray:
        """(n, 3, 64, 64) uint8 -> (n, d) float32."""
        with torch.inference_mode():
            return torch.cat([encoder(self.own(some)) for some in images.split(16)]).numpy()


def enlarged(images: Tensor) -> Tensor:
    """As the ViT takes tiles: bicubic to 224 px, ImageNet's statistics."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (VIT_MEAN, VIT_STD))
    large = F.interpolate(images.float() / 255, (VIT_PX, VIT_PX), mode="bicubic", align_corners=False)
    return (large.clamp(0, 1) - mean) / std


def pretrained(path: Path) -> Case:
    """An encoder that `edgeslim train` pretrained (benchmarks/pretraining.py), on tiles as its own card takes them."""
    profile, _ = profile_of(path, *read_header(path))
    radiometry = profile.radiometry
    assert radiometry is not None

    def own(images: Tensor) -> Tensor:
        return normalised((images.float() * radiometry.image_scale).round(), radiometry)

    what = f"{path.stem}, pretrained here on this set's training part without labels, 64 px"
    return Case(path.stem, what, read_checkpoint(path, profile.architecture).build(), own)


def cases(vit: Path | None, galileo: Path | None, others: list[Path]) -> list[Case]:
    made = [pretrained(path) for path in others]
    if galileo is not None:
        profile = take_profile("galileo-nano")
        encoder = read_checkpoint(galileo, profile.architecture, made_for=profile.made_for).build()
        what = "Galileo nano, on red, green and blue of one date, 64 px, patches of 8 px"
        made.append(Case("galileo-nano", what, encoder, partial(as_fed, profile)))
    if vit is not None:
        profile, _ = profile_of(vit, *read_header(vit))
        encoder = read_checkpoint(vit, replace(profile.architecture, tile_px=VIT_PX)).build()
        what = "ViT-S/14 of DINOv2's architecture, fine-tuned for saliency, EuroSAT tiles enlarged to 224 px"
        made.append(Case("vit-s14-block-6", f"{what}, cut after block 6", slim(encoder, 1.0, depth=6), enlarged))
        made.append(Case("vit-s14", f"{what}, whole", encoder, enlarged))
    profile = take_profile("eurosat-rgb")
    radiometry = profile.radiometry
    assert radiometry is not None

    def own(images: Tensor) -> Tensor:
        return normalised(images.float() * radiometry.image_scale, radiometry)

    what = "eurosat-rgb, edgeslim's own, trained slimmable on this set's training part, 64 px"
    made.insert(0, Case("eurosat-rgb", what, profile_checkpoint(profile)[0].build(), own))
    return made


def some_of(data: LabelledTiles, count: int) -> tuple[Tensor, np.ndarray]:
    """Tiles and labels, drawn once."""
    chosen = np.random.default_rng(SEED).permutation(len(data.labels))[:count]
    return data.images[chosen], data.labels.numpy()[chosen]


def right(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, scale: bool) -> dict[str, Any]:
    """Which test tiles k-NN and the linear probe get right; `scale` standardises for k-NN, too."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier

    mean, std = train.mean(0), train.std(0) + 1e-12
    scaled, scaled_test = (train - mean) / std, (test - mean) / std
    near = KNeighborsClassifier(5).fit(*(scaled if scale else train,), labels)
    probe = GridSearchCV(LogisticRegression(max_iter=2000), {"C": PENALTIES}, cv=3).fit(scaled, labels)
    return {
        "k-NN": near.predict(scaled_test if scale else test) == truth,
        "linear": probe.predict(scaled_test) == truth,
    }


def interval(values: np.ndarray) -> list[float]:
    """95 % of the draws."""
    low, high = np.nanquantile(values, (0.025, 0.975))
    return [round(float(low), 3), round(float(high), 3)]


def widths(encoder: Vit) -> dict[str, float]:
    """Label -> width multiplier: the narrowest width step, then the widest within each share of the FLOP."""
    arch = encoder.arch
    full, floor = cost.flop(arch), arch.width_steps()[0]
    found = {"floor": floor}
    steps = sorted({j / arch.ffn_hidden for j in range(1, arch.ffn_hidden + 1)})
    for share in SHARES:
        fitting = [w for w in steps if w >= floor and cost.flop(arch.at(w)) <= share * full]
        if fitting and fitting[-1] > floor:
            found[f"{share:.0%}"] = fitting[-1]
    return found


def to_heal_with(case: Case, images: Tensor, cache: Path) -> Tensor:
    """(n, 3, 64, 64) uint8 as the encoder takes them, in a memory-mapped file: 2000 of 224 px are 1.2 GB."""
    path = cache / f"{case.name}-tiles.npy"
    arch = case.encoder.arch
    shape = (len(images), arch.bands, arch.tile_px, arch.tile_px)
    if not path.exists():
        partial_ = path.with_suffix(".part")
        made = np.lib.format.open_memmap(partial_, "w+", np.float32, shape)
        for start in range(0, len(images), 64):
            made[start : start + 64] = case.own(images[start : start + 64]).numpy()
        made.flush()
        partial_.rename(path)
    return torch.from_numpy(np.load(path, mmap_mode="r+"))


def slimmed(
    case: Case, method: str, width: float, tiles: Tensor, unlabelled: Tensor, cache: Path
) -> tuple[Vit, dict[str, Any]]:
    """The encoder, and what is known of how it was made."""
    if method == "first":
        return slim(case.encoder, width), {}
    start = time.monotonic()
    say = lambda line: print(f"    {line}", file=sys.stderr, flush=True)  # noqa: E731
    narrow = case.encoder.arch.at(width)
    if method == "healed":
        some = Calibration(to_heal_with(case, unlabelled, cache), SEED, say)
        healed = heal(case.encoder, narrow, some, Healing(cache / f"{case.name}-healing", **HEALING.get(case.name, {})))
        neighbours = {str(step): round(share, 4) for step, share in healed.neighbours.items()}
        seconds = round(time.monotonic() - start)
        return healed.encoder, {"way": f"step {healed.step}", "neighbours": neighbours, "seconds": seconds}
    calibration = Calibration(tiles, SEED, say)
    if method == "uneven":
        narrow = allotted(case.encoder, narrow, calibration)
    made = calibrate(case.encoder, narrow, calibration)
    known = {"way": made.way, "neighbours": made.neighbours, "seconds": round(time.monotonic() - start)}
    return made.encoder, known | ({"architecture": narrow.to_dict()} if method == "uneven" else {})


def measure(
    case: Case,
    data: dict[str, tuple[Tensor, np.ndarray]],
    unlabelled: Tensor,
    cache: Path,
    at: list[str] | None,
    methods: list[str],
) -> dict[str, Any]:
    """Every method at every width of one encoder."""
    (train, labels), (test, truth) = data["train"], data["test"]
    arch = case.encoder.arch
    tiles = case.own(data["validation"][0])
    hits = {"pixels": right(pixel_statistics(train.numpy()), labels, pixel_statistics(test.numpy()), truth, scale=True)}
    plan = [("full", "full", 1.0)]
    plan += [
        (m, label, w)
        for label, w in widths(case.encoder).items()
        if not at or label in at
        for m in METHODS
        if m in {"first", *methods} and (m != "healed" or label in HEALED_AT) and (m != "uneven" or case.name in UNEVEN)
    ]
    known: dict[str, Any] = {}
    for method, label, width in plan:
        key = f"{method}@{label}"
        file = cache / f"{case.name}-{method}-{label.rstrip('%')}.npz"
        if not file.exists():
            encoder, about = (
                (case.encoder, {}) if method == "full" else slimmed(case, method, width, tiles, unlabelled, cache)
            )
            found = [case.features(encoder, images) for images in (train, test)]
            np.savez(file, train=found[0], test=found[1], about=json.dumps(about))
        with np.load(file) as kept:
            hits[key] = right(kept["train"], labels, kept["test"], truth, scale=False)
            known[key] = json.loads(str(kept["about"]))
        print(f"{case.name} {key}: {hits[key]['k-NN'].mean():.3f} {hits[key]['linear'].mean():.3f}", flush=True)
    draws = np.random.default_rng(SEED).integers(0, len(truth), (DRAWS, len(truth)))
    rows = [
        row(hits, probe, method, label, draws)
        | {"width_multiplier": round(width, 5)}
        | costs(arch, arch.at(width), known[f"{method}@{label}"])
        | {
            **(compared(hits, probe, known, label, draws) if method == "uneven" else {}),
            **({"healing": HEALING.get(case.name, {})} if method == "healed" else {}),
        }
        for probe in ("k-NN", "linear")
        for method, label, width in plan[1:]
    ]
    whole = {
        probe: {
            "pixels": round(float(hits["pixels"][probe].mean()), 4),
            "full": round(float(hits["full@full"][probe].mean()), 4),
        }
        for probe in ("k-NN", "linear")
    }
    return {"case": case.name, "what": case.what, "scores": whole, "rows": rows}


def costs(full: Architecture, even: Architecture, known: dict[str, Any]) -> dict[str, Any]:
    """Of a slimmed encoder; what is known of it besides."""
    about = dict(known)
    slim_ = Architecture.from_dict(about.pop("architecture")) if "architecture" in about else even
    return {
        "head_dim": even.head_dim,
        "ffn_hidden": even.ffn_hidden,
        "flop_share": round(cost.flop(slim_) / cost.flop(full), 4),
        "parameters": cost.parameters(slim_),
        **({"inner_sizes": slim_.inner_sizes} if slim_.is_uneven else {}),
        **about,
    }


def compared(hits: dict[str, Any], probe: str, known: dict[str, Any], label: str, draws: np.ndarray) -> dict[str, Any]:
    """Widths for each block against one width, and whether edgeslim would take them."""
    own, one = (hits[f"{method}@{label}"][probe] for method in ("uneven", "calibrated"))
    kept = [about["neighbours"][about["way"]] for about in (known[f"{m}@{label}"] for m in ("uneven", "calibrated"))]
    return {
        "above_calibrated": round(float(own.mean() - one.mean()), 4),
        "above_calibrated_interval": interval(own[draws].mean(1) - one[draws].mean(1)),
        "neighbours_above_calibrated": round(kept[0] - kept[1], 4),
        "taken": kept[0] - kept[1] > MARGIN,
    }


def row(hits: dict[str, Any], probe: str, method: str, label: str, draws: np.ndarray) -> dict[str, Any]:
    """One slimmed encoder under one probe, with paired intervals."""
    own, full = hits[f"{method}@{label}"][probe], hits["full@full"][probe]
    base, first = hits["pixels"][probe], hits[f"first@{label}"][probe]
    again = {
        name: flags[draws].mean(1) for name, flags in (("own", own), ("full", full), ("base", base), ("first", first))
    }
    gained = full.mean() - base.mean()
    clear = interval(again["full"] - again["base"])[0] > 0
    return {
        "probe": probe,
        "method": method,
        "at": label,
        "score": round(float(own.mean()), 4),
        "ratio": round(float(own.mean() / full.mean()), 3),
        "ratio_interval": interval(again["own"] / again["full"]),
        # A share of nothing says nothing: only where the full encoder is clearly above the pixels.
        "share": round(float((own.mean() - base.mean()) / gained), 3) if clear else None,
        "share_interval": interval((again["own"] - again["base"]) / (again["full"] - again["base"])) if clear else None,
        "above_first": round(float(own.mean() - first.mean()), 4),
        "above_first_interval": interval(again["own"] - again["first"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiles", type=Path, help="EuroSAT RGB: a zip or folder, one folder a class")
    parser.add_argument("--vit", type=Path, help="the ViT-S/14; left out: only eurosat-rgb")
    parser.add_argument("--galileo", type=Path, help="encoder.pt of Galileo nano; left out: not that")
    parser.add_argument("--pretrained", type=Path, nargs="*", default=[], help="checkpoints of `edgeslim train`")
    parser.add_argument("--cache", type=Path, default=Path("runs/slimming"), help="features that are made already")
    parser.add_argument(
        "--at", nargs="*", help="only these widths (floor, 10%%, 25%%, 50%%, 75%%); others are written as they were"
    )
    parser.add_argument("--only", nargs="*", help="cases to make; others are written as they were")
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), help="only these, and first; others' rows stay as they were"
    )
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    parts = load_labelled(arguments.tiles, 64)
    data = {part: some_of(loaded, COUNTS[part]) for part, loaded in parts.items()}
    before = (
        json.loads(RESULT.with_suffix(".json").read_text())["cases"] if RESULT.with_suffix(".json").exists() else []
    )
    results = {case["case"]: case for case in before}
    unlabelled = some_of(parts["train"], HEALED_WITH)[0]
    for case in cases(arguments.vit, arguments.galileo, arguments.pretrained):
        if not arguments.only or case.name in arguments.only:
            made = measure(case, data, unlabelled, arguments.cache, arguments.at, arguments.methods)
            remade = {(row["probe"], row["at"], row["method"]) for row in made["rows"]}
            before = results[case.name]["rows"] if case.name in results else []
            made["rows"] += [row for row in before if (row["probe"], row["at"], row["method"]) not in remade]
            labels = ["floor", *(f"{share:.0%}" for share in SHARES)]
            made["rows"].sort(key=lambda r: (r["probe"], labels.index(r["at"]), METHODS.index(r["method"])))
            results[case.name] = made
    setting = (
        f"{COUNTS['train']} training, {COUNTS['test']} test, {COUNTS['validation']} calibration tiles of "
        f"{len(parts['train'].classes)} classes; seed {SEED}; torch {torch.__version__}, {torch.get_num_threads()} "
        "threads. Ends of 95 % intervals in brackets, in points. `calibrated` names the way that it took, `healed` the "
        f"step after which its weights were kept (0: those of calibration). It had {HEALED_WITH} unlabelled tiles of "
        "the training part, the labelled ones among them, of which every eighth was held out."
    )
    found = {"setting": setting, "counts": COUNTS, "cases": list(results.values())}
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(page(found, __doc__.split("\n\n")[2]))


if __name__ == "__main__":
    main()
