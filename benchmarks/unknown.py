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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onboard_process import markdown  # noqa: E402
from unknown_subjects import ENCODERS, Encoder, eurosat, eye, nothing, sensors  # noqa: E402

from edgeslim.ground.fitting import confidence_of, fit_linear  # noqa: E402
from edgeslim.ground.known import known_of, limits_for, whitened_means  # noqa: E402
from edgeslim.ground.split import Split, folds_of  # noqa: E402
from edgeslim.onboard.known import LIMIT, nearest  # noqa: E402
from edgeslim.onboard.scores import calibration_error, wilson_interval  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "unknown"
SHARE = 0.05
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
Folds = list[tuple[np.ndarray, np.ndarray]]
Pair = tuple[np.ndarray, np.ndarray]
"""Features and pixel statistics of the same tiles."""


class Both:
    """What flies: the larger of the two distances, each over its limit."""

    def __init__(self, fitted: Pair, labels: np.ndarray, classes: int, folds: Folds) -> None:
        self._arrays = known_of(*fitted, labels, classes, folds, SHARE)

    def beyond(self, tiles: Pair) -> np.ndarray:
        apart = [
            nearest(values, self._arrays[f"{name}_whitening"], self._arrays[f"{name}_means"])
            for name, values in zip(("features", "pixels"), tiles, strict=True)
        ]
        return np.maximum(*apart) > LIMIT


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
    "Mahalanobis, features and pixels (flies)": Both,
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
    }
    order = np.argsort(-sure, kind="stable")
    for coverage in COVERAGES:
        row["risk_at_coverage"][str(coverage)] = float(1 - right[order[: round(coverage * len(order))]].mean())
    for name, method in METHODS.items():
        made = method(fitted, labels, many, folds)
        beyond = made.beyond(held)
        found: dict[str, Any] = {
            "false_rejection": float(beyond.mean()),
            "accuracy_of_named": float(right[~beyond].mean()),
            "accepted": {kind: float(1 - made.beyond(tiles).mean()) for kind, tiles in others.items()},
            "held_out_class": {},
        }
        for number, label in enumerate(classes):
            keep = labels != number
            some = (fitted[0][keep], fitted[1][keep])
            without = method(
                some, np.unique(labels[keep], return_inverse=True)[1], many - 1, folds_in(labels[keep], many)
            )
            strange = tuple(values[truth == number] for values in held)
            found["held_out_class"][label] = float(1 - without.beyond(strange).mean())  # type: ignore[arg-type]
        row["methods"][name] = found
    return row


def folds_in(labels: np.ndarray, classes: int) -> Folds:
    every = np.arange(len(labels))
    return list(folds_of(Split(every, every, None, ""), np.arange(classes) == labels[:, None], 0))


def cost(shared: Path, width: float) -> dict[str, float]:
    """Microseconds a tile of an artifact's network alone, and with distances; batch 8, one thread."""
    from edgeslim.cli import main as edgeslim
    from edgeslim.manifest import read_standing
    from edgeslim.onboard.integrity import Guard
    from edgeslim.onboard.runtime import open_runtime

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
        tiles = np.ascontiguousarray(train[:8] * 2750 / 255, np.float32)
        times: dict[str, list[float]] = {"network": [], "with_distances": []}
        for _ in range(300):  # in turn, as the machine drifts
            for key, call in (("network", guard.run), ("with_distances", guard.answers)):
                start = time.perf_counter()
                call(tiles)
                times[key].append(time.perf_counter() - start)
        return {key: min(values) / len(tiles) * 1e6 for key, values in times.items()}


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
    text += [
        "## What it costs\n",
        "Microseconds a tile of 64 px on one thread, batch 8, ONNX Runtime; the two in turn, the least of 300.\n",
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
        "encoder was trained on the part that its head and limits are fitted on, the ViT-S/14 never saw it (tiles "
        "brought to 224 px).",
        "rows": rows,
        "cost_us": {str(width): cost(shared, width) for width in (1.0, 0.25)},
    }
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
