"""`edgeslim demo`: the whole way once, on a real scene, by the commands that a person would type."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeslim.cli.ground import make_folder
from edgeslim.cli.need_ground import need_ground
from edgeslim.errors import EdgeslimError, MissingExtra

DEVICE = "raspberry-pi-5-8gb"
SAMPLE_BANDS = ("B02", "B03", "B04", "B08")


def demo(
    scene: Annotated[
        Path | None, typer.Argument(help="Your own Sentinel-2 scene; a sample of 300x300 px if left out.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for all that the demo writes.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="Device card to plan for.")] = DEVICE,
) -> None:
    """Plan for a Raspberry Pi 5, export, check, and classify a real Sentinel-2 scene."""
    need_ground()
    make_folder(out)
    flags: list[str] = []
    if scene is None:
        scene = out / "sentinel2_sample.tif"
        write_sample(scene)
        typer.echo(
            f"{scene}: a real Sentinel-2 sample (spyndex, MIT), 300x300 px, bands {', '.join(SAMPLE_BANDS)}.\n"
            "It comes without a coordinate system, so its pixel size is taken on trust (--accept-gsd)."
        )
        flags = ["--accept-gsd"]
    plan, artifact, result = (str(out / name) for name in ("plan.json", "artifact", "map"))
    run = _runner()
    run(["plan", "--device", device, "-o", plan])
    run(["export", plan, "--tiles", str(scene), *flags, "-o", artifact])
    run(["check", artifact])
    run(["classify", str(scene), "--artifact", artifact, "--stride", "8", *flags, "-o", result, "--overwrite"])


def _runner() -> Callable[[Sequence[str]], None]:
    # Imported late: the package imports this module while it is itself being imported.
    from edgeslim.cli import run

    def call(arguments: Sequence[str]) -> None:
        typer.secho(f"\n$ edgeslim {shlex.join(arguments)}", bold=True)
        run(arguments)

    return call


def write_sample(path: Path) -> None:
    """Write spyndex's Sentinel-2 sample as a GeoTIFF of 4 bands, uint16 DN, without CRS.

    Raises MissingExtra where spyndex is not installed.
    """
    import importlib.util
    import json
    import warnings

    import numpy as np
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    found = importlib.util.find_spec("spyndex")
    if found is None or found.origin is None:
        raise MissingExtra("spyndex", "demo")
    source = Path(found.origin).parent / "data" / "S2_10m.json"
    try:
        values = np.array(json.loads(source.read_text()), dtype=np.uint16)
    except (OSError, ValueError) as error:
        raise EdgeslimError(f"{source.name} of spyndex cannot be read ({error}); reinstall spyndex") from None
    bands, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=bands, dtype="uint16", compress="deflate"
        ) as scene:
            scene.write(values)
            scene.descriptions = SAMPLE_BANDS
