"""Judge a class map by a band that the network never sees: class against NDVI and NDWI.

    python benchmarks/judge_by_b08.py SCENE RESULT_FOLDER [-o benchmarks/results/NAME.json]

NDVI = (B08 - B04) / (B08 + B04), NDWI = (B03 - B08) / (B03 + B08) (McFeeters 1996). Dense vegetation is NDVI > 0.6,
open water NDWI > 0.2; both thresholds were written down before the first map was made.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rich.console import Console
from rich.table import Table

from edgeslim.onboard.reading.bands import band_names

DENSE_NDVI, WATER_NDWI = 0.6, 0.2
WATER, BUILT = ("River", "SeaLake"), ("Residential", "Industrial", "Highway")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with rasterio.open(arguments.scene) as scene:
        where = {name: i for i, text in enumerate(scene.descriptions, 1) for name in band_names(text)}
        missing = [name for name in ("b3", "b4", "b8") if name not in where]
        if missing:
            raise SystemExit(f"{arguments.scene}: no band is described as {missing[0].upper()}, expected B03, B04, B08")
        green, red, infrared = (scene.read(where[name]).astype(float) for name in ("b3", "b4", "b8"))
    with rasterio.open(arguments.result / "classes.tif") as mapped:
        classes, nodata = mapped.read(1), mapped.nodata
    summary = json.loads((arguments.result / "summary.json").read_text())
    names = [row["name"] for row in summary["classes"]]
    with np.errstate(all="ignore"):
        ndvi = (infrared - red) / (infrared + red)
        ndwi = (green - infrared) / (green + infrared)
    valid = (classes != nodata) & np.isfinite(ndvi) & np.isfinite(ndwi)
    dense, water = valid & (ndvi > DENSE_NDVI), valid & (ndwi > WATER_NDWI)
    rows = []
    for value, name in enumerate(names):
        here = valid & (classes == value)
        rows.append(
            {
                "class": name,
                "share": _share(here, valid),
                "median_ndvi": round(float(np.median(ndvi[here])), 3) if here.any() else None,
                "median_ndwi": round(float(np.median(ndwi[here])), 3) if here.any() else None,
                "share_of_dense_vegetation": _share(here & dense, dense),
                "share_of_open_water": _share(here & water, water),
            }
        )

    def together(group: tuple[str, ...], key: str) -> float:
        return round(sum(row[key] for row in rows if row["class"] in group), 4)

    verdict = {
        "dense_vegetation_pixels": int(dense.sum()),
        "dense_vegetation_called_water": together(WATER, "share_of_dense_vegetation"),
        "dense_vegetation_called_built_up": together(BUILT, "share_of_dense_vegetation"),
        "open_water_pixels": int(water.sum()),
        "open_water_called_water": together(WATER, "share_of_open_water"),
    }
    table = Table(title=f"{arguments.scene.name}: class against NDVI and NDWI", title_justify="left")
    table.add_column("class", no_wrap=True)
    for heading in ("of the map", "median NDVI", "median NDWI", "of dense vegetation", "of open water"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["class"]),
            f"{row['share']:.1%}",
            _number(row["median_ndvi"]),
            _number(row["median_ndwi"]),
            f"{row['share_of_dense_vegetation']:.2%}",
            f"{row['share_of_open_water']:.1%}",
        )
    console = Console(width=100)
    console.print(table)
    for key, value in verdict.items():
        console.print(f"{key.replace('_', ' ')}: {value if isinstance(value, int) else f'{value:.2%}'}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "command": f"python benchmarks/judge_by_b08.py {arguments.scene.name} RESULT",
            "scene": arguments.scene.name,
            "artifact": summary["artifact"],
            "stride_px": summary["stride_px"],
            "prior": summary["prior"],
            "thresholds": {"dense_ndvi": DENSE_NDVI, "water_ndwi": WATER_NDWI},
            "verdict": verdict,
            "classes": rows,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return round(float(part.sum()) / max(1, int(whole.sum())), 4)


def _number(value: object) -> str:
    return "-" if value is None else f"{value:+.2f}"


if __name__ == "__main__":
    main()
