"""Does a head know what it does not know, and does its confidence mean what it says?

    python benchmarks/unknown.py [--shared FOLDER]

On EuroSAT RGB, whose test part neither head nor limits have seen: expected calibration error, risk against coverage,
tiles of a class that was held out, of other sensors, and tiles that show nothing. Limits are set for 5 % of tiles like
the fitted ones, by cross-validation among those. FOLDER holds eurosat/, scenes/ and weights/.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onboard_process import markdown  # noqa: E402
from unknown_subjects import ENCODERS, Encoder, eurosat, eye, nothing, sensors  # noqa: E402

from edgeslim.ground.heads.fitting import confidence_of, fit_linear  # noqa: E402
from edgeslim.ground.heads.known import beyond, known_of, limits_for, whitened_means  # noqa: E402
from edgeslim.ground.heads.split import Split, folds_of  # noqa: E402
from edgeslim.onboard.known import nearest  # noqa: E402
from edgeslim.onboard.scores import calibration_error, wilson_interval  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "unknown"
SHARE = 0.05
STRICTER = (0.03, 0.02, 0.01)
"""Smaller shares of known tiles that may be called unknown, tried with what flies."""
BATCH = 8
"""Tiles that the network is given at once where costs are timed."""
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
Folds = list[tuple[np.ndarray, np.ndarray]]
Pair = tuple[np.ndarray, np.ndarray]
"""Features and pixel statistics of the same tiles."""


class Flies:
    """What flies: the largest of the distances, each over its limit."""

    def __init__(self, fitted: Pair, labels: np.ndarray, classes: int, folds: Folds, share: float = SHARE) -> None:
        self._arrays = known_of(*fitted, labels, classes, folds, share)

    def beyond(self, tiles: Pair) -> np.ndarray:
        return beyond(self._arrays, *tiles)


class Whole:
    """Mahalanobis with all axes, of the features, and of the pixels, each over its limit; the same share of each."""

    def __init__(self, fitted: Pair, labels: np.ndarray, classes: int, folds: Folds) -> None:
        held = [
            [nearest(v[c], *whitened_means(v[f], labels[f], classes)).astype(np.float64) for v in fitted]
            for f, c in folds
        ]
        self._limits = limits_for([np.concatenate(parts) for parts in zip(*held, strict=True)], SHARE)
        self._fitted = [whitened_means(values, labels, classes) for values in fitted]

    def beyond(self, tiles: Pair) -> np.ndarray:
        apart = [nearest(v, *fitted) for v, fitted in zip(tiles, self._fitted, strict=True)]
        return np.logical_or.reduce([one > limit for one, limit in zip(apart, self._limits, strict=True)])


class Features:
    """The Mahalanobis distance of the features alone."""

    def __init__(self, fitted: Pair, labels: np.ndarray, classes: int, folds: Folds) -> None:
        held = [nearest(fitted[0][c], *self.fit(fitted[0][f], labels[f], classes)) for f, c in folds]
        (self._limit,) = limits_for([np.concatenate(held).astype(np.float64)], SHARE)
        self._fitted = self.fit(fitted[0], labels, classes)

    @staticmethod
    def fit(values: np.ndarray, labels: np.ndarray, classes: int) -> Any:
        return whitened_means(values, labels, classes)

    def beyond(self, tiles: Pair) -> np.ndarray:
        return nearest(tiles[0], *self._fitted) > self._limit


class Cosine:
    """The cosine distance of the features to the nearest class mean, about the mean of all."""

    def __init__(self, fitted: Pair, labels: np.ndarray, classes: int, folds: Folds) -> None:
        held = [self._apart(fitted[0][c], *self._fit(fitted[0][f], labels[f], classes)) for f, c in folds]
        (self._limit,) = limits_for([np.concatenate(held)], SHARE)
        self._fitted = self._fit(fitted[0], labels, classes)

    @staticmethod
    def _fit(values: np.ndarray, labels: np.ndarray, classes: int) -> Pair:
        middle = values.mean(0)
        means = np.stack([values[labels == k].mean(0) if (labels == k).any() else middle + 1 for k in range(classes)])
        return middle, (means - middle) / np.linalg.norm(means - middle, axis=1, keepdims=True)

    @staticmethod
    def _apart(values: np.ndarray, middle: np.ndarray, means: np.ndarray) -> np.ndarray:
        unit = (values - middle) / np.linalg.norm(values - middle, axis=1, keepdims=True)
        return 1 - (unit @ means.T).max(1)

    def beyond(self, tiles: Pair) -> np.ndarray:
        return self._apart(tiles[0], *self._fitted) > self._limit


METHODS = {
    "features, their direction, and pixels (flies)": Flies,
    "Mahalanobis of all axes, features and pixels": Whole,
    "Mahalanobis, features alone": Features,
    "cosine to class means, features alone": Cosine,
}


def judge(encoder: Encoder, width: float, shared: Path) -> dict[str, Any]:
    """One encoder at one width."""
    zipped = shared / "eurosat" / "eurosat_rgb_train.zip"
    train, labels, classes = eurosat(zipped, "train", encoder.train)
    test, truth, _ = eurosat(zipped, "test", encoder.test)
    sight = eye(encoder, width, shared, train)

    fitted, held = sight.see(train), sight.see(test)
    others = {
        k: sight.see(v) for k, v in (sensors(shared / "scenes", encoder.others) | nothing(encoder.others)).items()
    }
    many = len(classes)
    has = np.arange(many) == labels[:, None]
    folds = folds_in(labels, many)
    head = fit_linear("logistic", fitted[0], has, folds, False)
    logits = head.logits(held[0])
    right = logits.argmax(1) == truth
    sure = confidence_of(logits, False)
    row: dict[str, Any] = {
        "encoder": encoder.name,
        "width": width,
        "fitted_tiles": len(train),
        "test_tiles": len(test),
        "accuracy": float(right.mean()),
        "interval": wilson_interval(float(right.mean()), len(right)),
        "calibration_error": calibration_error(sure, right),
        "calibration_error_without_temperature": calibration_error(
            confidence_of(logits * head.temperature, False), right
        ),
        "temperature": head.temperature,
        "risk_at_coverage": {},
        "methods": {},
        "stricter": {},
    }
    order = np.argsort(-sure, kind="stable")
    for coverage in COVERAGES:
        row["risk_at_coverage"][str(coverage)] = float(1 - right[order[: round(coverage * len(order))]].mean())
    parts = fitted, labels, held, truth, others, right
    for name, method in METHODS.items():
        row["methods"][name] = accepted(method, classes, *parts)
    for share in STRICTER:
        row["stricter"][str(share)] = accepted(partial(Flies, share=share), classes, *parts)
    return row


def accepted(
    method: Callable[..., Any],
    classes: list[str],
    fitted: Pair,
    labels: np.ndarray,
    held: Pair,
    truth: np.ndarray,
    others: dict[str, Pair],
    right: np.ndarray,
) -> dict[str, Any]:
    """Which shares of what a method lets through."""
    many = len(classes)
    made = method(fitted, labels, many, folds_in(labels, many))
    beyond = made.beyond(held)
    found: dict[str, Any] = {
        "false_rejection": float(beyond.mean()),
        "accuracy_of_named": float(right[~beyond].mean()),
        "accepted": {kind: float(1 - made.beyond(tiles).mean()) for kind, tiles in others.items()},
        "held_out_class": {},
    }
    for number, label in enumerate(classes):
        keep = labels != number
        some, rest = (fitted[0][keep], fitted[1][keep]), np.unique(labels[keep], return_inverse=True)[1]
        without = method(some, rest, many - 1, folds_in(rest, many - 1))
        unseen = held[0][truth == number], held[1][truth == number]
        found["held_out_class"][label] = float(1 - without.beyond(unseen).mean())
    return found


def folds_in(labels: np.ndarray, classes: int) -> Folds:
    every = np.arange(len(labels))
    return list(folds_of(Split(every, every, None, ""), np.arange(classes) == labels[:, None], 0))


def cost(shared: Path, width: float) -> dict[str, float]:
    """Microseconds of CPU a tile of an artifact's network alone, and with distances; one thread.

    As many tiles at once as a flight cuts, each time copied anew, as a flight does.
    """
    from edgeslim import cost as formulas
    from edgeslim.cli import main as edgeslim
    from edgeslim.manifest import read_standing
    from edgeslim.onboard.integrity import Guard
    from edgeslim.onboard.open_runtime import open_runtime
    from edgeslim.onboard.resident import RUNNING_BLOCK_BYTES, map_blocks_from

    train, labels, classes = eurosat(shared / "eurosat" / "eurosat_rgb_train.zip", "train", 20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from PIL import Image

        for number, (tile, label) in enumerate(zip(train, labels, strict=True)):
            path = folder / "tiles" / classes[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tile.transpose(1, 2, 0).astype(np.uint8)).save(path)
        head, made = str(folder / "head.safetensors"), str(folder / "artifact")
        if edgeslim(["head", "eurosat-rgb", "--tiles", str(folder / "tiles"), "-w", str(width), "-o", head]):
            raise SystemExit("no head")
        if edgeslim(["export", "--head", head, "-o", made]):
            raise SystemExit("no artifact")
        standing, manifest = read_standing(Path(made))
        guard = Guard(standing, manifest, open_runtime(standing, manifest, 1), 1)
        arch = manifest.architecture
        count = formulas.tiles_at_once(BATCH, arch.bands, arch.tile_px)
        cut = np.ascontiguousarray(train[:count] * 2750 / 255, np.float32)
        tiles = np.empty_like(cut)
        map_blocks_from(RUNNING_BLOCK_BYTES)  # as a flight does

        def network() -> None:
            for start in range(0, len(tiles), BATCH):
                guard.run(tiles[start : start + BATCH])

        times: dict[str, list[float]] = {"network": [], "with_distances": []}
        for _ in range(300):  # in turn, as the machine drifts
            for key, call in (("network", network), ("with_distances", lambda: guard.answers(tiles, BATCH))):
                tiles[:] = cut
                start = time.thread_time()
                call()
                times[key].append(time.thread_time() - start)
        return {key: float(np.median(values)) / len(tiles) * 1e6 for key, values in times.items()}


def report(found: dict[str, Any]) -> str:
    rows, kinds = found["rows"], list(found["rows"][0]["methods"][next(iter(METHODS))]["accepted"])
    title = [f"{row['encoder']} w {row['width']:.4g}" for row in rows]
    confidence = [
        [
            name,
            str(row["test_tiles"]),
            f"{row['accuracy']:.1%}",
            f"{row['calibration_error_without_temperature']:.1%}",
            f"{row['calibration_error']:.1%}",
            *(f"{row['risk_at_coverage'][str(c)]:.1%}" for c in COVERAGES),
        ]
        for name, row in zip(title, rows, strict=True)
    ]
    text = [
        "# Unknown: does a head know what it does not know?\n",
        "By `python benchmarks/unknown.py`. " + found["about"] + "\n",
        "## Confidence\n",
        "Of the test part. Error: expected calibration error (15 bins). Risk: share of wrong answers among the surest "
        "tiles, by the share that is answered.\n",
        markdown(
            ["encoder", "tiles", "accuracy", "error before", "error", *(f"risk at {c:.0%}" for c in COVERAGES)],
            confidence,
        ),
        "\n## Unknown tiles\n",
        "Shares of tiles that are named all the same (false acceptance), and of the test part's that are called "
        "unknown (false rejection; the limits are set for 5 %). Bold: above 5 %. Of the class held out: the mean over "
        "all ten.\n",
    ]
    for method in METHODS:
        table = [["false rejection, test part", *(f"{r['methods'][method]['false_rejection']:.1%}" for r in rows)]]
        table += [
            ["accuracy of what is named", *(f"{r['methods'][method]['accuracy_of_named']:.1%}" for r in rows)],
            ["a class held out", *(_share(_mean(r["methods"][method]["held_out_class"])) for r in rows)],
            ["the worst of them", *(_worst(r["methods"][method]["held_out_class"]) for r in rows)],
        ]
        table += [[kind, *(_share(r["methods"][method]["accepted"][kind]) for r in rows)] for kind in kinds]
        text += [f"### {method}\n", markdown([method, *title], table), ""]
    flies = next(iter(METHODS))
    shares = [[f"{SHARE:.0%}", *_strict(rows[1]["methods"][flies], kinds)]]
    shares += [[f"{float(s):.0%}", *_strict(found, kinds)] for s, found in rows[1]["stricter"].items()]
    text += [
        f"## Stricter limits: {title[1]}\n",
        "The same for other shares of known tiles that the limits are set to call unknown.\n",
        markdown(["set for", "false rejection", "a class held out", *kinds], shares),
        "",
        "## What it costs\n",
        f"Microseconds of CPU a tile of 64 px on one thread, batch {BATCH}, ONNX Runtime; in turn, median of 300.\n",
        markdown(
            ["eurosat-rgb", "network", "with distances", "more"],
            [
                [
                    f"w {w}",
                    f"{c['network']:.0f}",
                    f"{c['with_distances']:.0f}",
                    f"{c['with_distances'] / c['network'] - 1:+.1%}",
                ]
                for w, c in found["cost_us"].items()
            ],
        ),
    ]
    return "\n".join(text) + "\n"


def _strict(found: dict[str, Any], kinds: list[str]) -> list[str]:
    others = (_share(found["accepted"][kind]) for kind in kinds)
    return [f"{found['false_rejection']:.1%}", _share(_mean(found["held_out_class"])), *others]


def _share(value: float) -> str:
    return f"**{value:.1%}**" if value > 0.05 else f"{value:.1%}"


def _mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _worst(values: dict[str, float]) -> str:
    name = max(values, key=lambda key: values[key])
    return f"{_share(values[name])} {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cost-only", action="store_true", help="time anew, keep the rest of the results")
    arguments = parser.parse_args()
    shared = arguments.shared
    warnings.simplefilter("ignore")
    if arguments.cost_only:
        rows = json.loads(RESULT.with_suffix(".json").read_text())["rows"]
    else:
        rows = [judge(encoder, width, shared) for encoder in ENCODERS for width in encoder.widths]
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn", "numpy", "onnxruntime"))
    found = {
        "about": f"EuroSAT RGB, split by the hash of its names; {libraries}; {platform.machine()}. The embedded "
        "encoder was trained on the part that its head and limits are fitted on, and on the classes that are held out "
        "of those; the ViT-S/14 never saw any of it (tiles brought to 224 px).",
        "rows": rows,
        "cost_us": {str(width): cost(shared, width) for width in (1.0, 0.25)},
    }
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
