"""Could the embedded encoder ship with limits that hold for surface reflectance, too?

    python benchmarks/unknown_levels.py [--shared FOLDER]

It was trained on EuroSAT RGB, top of atmosphere. Limits are fitted on that part as it is, and on it together with the
same tiles less a whole path radiance, the stand-in for surface reflectance that it was trained and scored with. FOLDER
holds eurosat/ and scenes/.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onboard_process import markdown  # noqa: E402
from unknown import SHARE, Flies, folds_in  # noqa: E402
from unknown_subjects import ENCODERS, eurosat, eye, nothing, sensors  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "unknown_levels"
WIDTH = 1.0
TRAIN, TEST, OTHERS = 250, 100, 200
"""Tiles: a class to fit on, a class to judge by, of each other kind."""


def less_path_radiance(levels: np.ndarray) -> np.ndarray:
    """Levels (n, 3, 64, 64) as if of surface reflectance."""
    import torch

    from edgeslim.ground.augment import surface_reflectance

    found: np.ndarray = surface_reflectance(torch.from_numpy(levels)).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    shared = parser.parse_args().shared
    tiles = shared / "eurosat" / "eurosat_rgb_train.zip"
    train, labels, classes = eurosat(tiles, "train", TRAIN)
    test = eurosat(tiles, "test", TEST)[0]
    sight = eye(ENCODERS[0], WIDTH, shared, train)
    judged = {"test part": test, "test part, path radiance taken away": less_path_radiance(test)}
    judged |= sensors(shared / "scenes", OTHERS) | nothing(OTHERS)
    seen = {name: sight.see(values) for name, values in judged.items()}
    rows: dict[str, dict[str, float]] = {}
    for name, views in (("as imaged", [train]), ("with the stand-in", [train, less_path_radiance(train)])):
        parts = [sight.see(view) for view in views]
        fitted = np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts])
        of_all, many = np.tile(labels, len(views)), len(classes)
        limits = Flies(fitted, of_all, many, folds_in(of_all, many))
        rows[name] = {kind: float(limits.beyond(tiles).mean()) for kind, tiles in seen.items()}
    found = {"width": WIDTH, "share": SHARE, "train": TRAIN, "test": TEST, "unknown": rows}
    RESULT.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    body = [[kind, *(f"{row[kind]:.1%}" for row in rows.values())] for kind in seen]
    RESULT.with_suffix(".md").write_text(
        "# Unknown, by processing level: could the embedded encoder ship with limits?\n\n"
        f"`python benchmarks/unknown_levels.py`\n\nShares of tiles that are called unknown, at width {WIDTH:g}, by "
        f"limits set for {SHARE:.0%} of tiles like those that they are fitted on: {TRAIN} tiles a class of EuroSAT's "
        "train part as imaged (top of atmosphere), and with them the same less a whole path radiance.\n\n"
        f"{markdown(['tiles', *rows], body)}\n"
    )
    print(RESULT.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
