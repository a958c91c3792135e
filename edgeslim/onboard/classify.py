"""Classify: a scene and an artifact into a class map, a confidence map, a summary and a quicklook."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from edgeslim import __version__
from edgeslim.errors import InputError, UntrustedResult, UsageError
from edgeslim.grid import Axis, plan_axis
from edgeslim.manifest import MANIFEST_NAME, Manifest, read_manifest, sha256_of
from edgeslim.onboard.blend import Blender
from edgeslim.onboard.outputs import (
    NODATA,
    QUICKLOOK_NAME,
    RESULT_NAMES,
    SUMMARY_NAME,
    Cells,
    Maps,
    ResultFolder,
    decide,
)
from edgeslim.onboard.quicklook import LegendRow, Thumbnail, compose, nodata_row, write_png
from edgeslim.onboard.runtime import Runtime, available_threads, open_runtime
from edgeslim.onboard.scene import Scene, SceneOptions, gdal_environment
from edgeslim.profile import ClassLabel

SUMMARY_SCHEMA = 1
F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """How to classify. Invalid values cannot be built."""

    stride_px: int | None = None
    """Step between windows, px; None: half a tile."""
    cells: bool = False
    """One output pixel a stride instead of a scene pixel."""
    batch: int = 16
    """Tiles given to the network at once."""
    threads: int | None = None
    """Threads of the runtime; None: every core that this process may use."""
    training_prior: bool = False
    """Take classes to be as frequent as in the training set, not as on land."""
    overwrite: bool = False
    """Replace results that stand in OUT."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    """What the scene does not say itself."""

    def __post_init__(self) -> None:
        for flag, value in (("--stride", self.stride_px), ("--batch", self.batch), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise UsageError(f"{flag}: found {value}, expected a whole number of at least 1")


@dataclass(frozen=True, slots=True)
class ClassArea:
    """One class of a summary."""

    index: int
    """Value in the class raster."""
    name: str
    """As in the training set."""
    title: str
    """For people."""
    color: str
    """RRGGBB."""
    pixels: int
    """Of the class raster."""
    share: float
    """Of its classified pixels, 0 ... 1."""
    area_km2: float | None
    """On the ground; None where the scene has no CRS."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done, as summary.json holds it. Same inputs and versions give the same summary."""

    edgeslim: str
    """Version."""
    versions: dict[str, str]
    """Of what computed."""
    scene: dict[str, Any]
    """Path, size, bands used, CRS, ground sample distance."""
    artifact: dict[str, Any]
    """Name, width and hashes."""
    radiometry: dict[str, Any]
    """Levels that the encoder knows; reflectance = value * scale + offset by band, and who said so."""
    prior: str
    """How frequent classes are taken to be: "land" or "training set"."""
    tile_px: int
    """Side of a tile."""
    stride_px: int
    """Step between windows."""
    cells: bool
    """Whether one output pixel is one stride."""
    tiles: dict[str, int]
    """Classified and skipped."""
    classes: tuple[ClassArea, ...]
    """In the order of the logits."""
    nodata_pixels: int
    """Pixels of the class raster without a class."""
    mean_confidence: float | None
    """Mean probability of the winning class, 0 ... 1; None where nothing was classified."""
    warnings: tuple[str, ...]
    """What a person should know."""
    files: tuple[str, ...] = RESULT_NAMES
    """In the result folder."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {"schema": SUMMARY_SCHEMA, **asdict(self)}


class _Tally:
    """Pixels and ground area by class."""

    def __init__(self, classes: int) -> None:
        self.pixels = np.zeros(classes, np.int64)
        self.area_m2 = np.zeros(classes)
        self.nodata = 0
        self.percent = 0

    def add(self, classes: NDArray[np.uint8], confidence: NDArray[np.uint8], pixel_m2: list[float | None]) -> None:
        """Count rows (n, width); `pixel_m2` is the area of a pixel of each."""
        for row, area in zip(classes, pixel_m2, strict=True):
            counts = np.bincount(row, minlength=NODATA + 1)
            self.pixels += counts[: self.pixels.size]
            self.nodata += int(counts[NODATA])
            if area is not None:
                self.area_m2 += counts[: self.pixels.size] * area
        self.percent += int(confidence[classes != NODATA].sum(dtype=np.int64))


def land_log_odds(classes: Sequence[ClassLabel]) -> F32 | None:
    """What to add to logits (n, classes) so that classes are as frequent as on land: log(land / training share).

    A tenth of EuroSAT's tiles are rivers, a tenth of the land is not. Bayes' rule under a shifted prior (Saerens et
    al. 2002, doi 10.1162/089976602753284446). None where a class has no shares.
    """
    shares = [(label.land_share, label.trained_share) for label in classes]
    if any(land is None or trained is None for land, trained in shares):
        return None
    pairs = np.array(shares, np.float64)
    odds: F32 = np.log(pairs[:, 0] / pairs[:, 1]).astype(np.float32)
    return odds


def classify_scene(
    scene_path: Path,
    artifact: Path,
    out: Path,
    options: ClassifyOptions | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Classify a scene into the folder `out`, which appears complete or not at all.

    Raises InputError or UsageError for a scene, artifact, folder or option that cannot be used, UntrustedResult for a
    damaged artifact or logits that are not finite, MissingExtra without the runtime.
    """
    options = options or ClassifyOptions()
    manifest = read_manifest(artifact)
    stride = options.stride_px or max(1, manifest.tile_px // 2)
    if stride > manifest.tile_px:
        raise UsageError(f"--stride: found {stride} px, expected 1 to {manifest.tile_px} (the tile)")
    with (
        gdal_environment(),
        Scene(scene_path, manifest, options.scene) as scene,
        ResultFolder(out, options.overwrite) as folder,
    ):
        runtime = open_runtime(artifact, manifest, options.threads or available_threads())
        rows = plan_axis(scene.height, manifest.tile_px, stride)
        columns = plan_axis(scene.width, manifest.tile_px, stride)
        summary, page = _stream(scene, manifest, runtime, (rows, columns), options, folder.path, progress)
        summary = _describe(summary, artifact, manifest, runtime)
        try:
            text = json.dumps(summary.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
            (folder.path / SUMMARY_NAME).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{SUMMARY_NAME}: cannot be written ({error.strerror})") from None
        legend = [
            LegendRow(label, c.share, c.area_km2) for label, c in zip(manifest.classes, summary.classes, strict=True)
        ]
        empty = summary.nodata_pixels / (summary.nodata_pixels + sum(c.pixels for c in summary.classes))
        last = [nodata_row(empty)] if empty else []
        write_png(folder.path / QUICKLOOK_NAME, compose(page, *_titles(summary), legend, manifest.classes, last))
        folder.commit()
    return summary


def _stream(
    scene: Scene,
    manifest: Manifest,
    runtime: Runtime,
    axes: tuple[Axis, Axis],
    options: ClassifyOptions,
    folder: Path,
    progress: Progress | None,
) -> tuple[Summary, Thumbnail]:
    """Row by row of windows: read, classify, blend, write what is settled."""
    rows, columns = axes
    classes, step = len(manifest.classes), rows.stride_px if options.cells else 1
    size = (rows.cells, columns.cells) if options.cells else (rows.size, columns.size)
    blender, cells, tally = Blender(rows, columns, classes), Cells(rows, columns, classes), _Tally(classes)
    page = Thumbnail((scene.height, scene.width), size, manifest.bands)
    tiles = len(rows.windows) * len(columns.windows)
    classified = skipped = 0

    prior = None if options.training_prior else land_log_odds(manifest.classes)

    def infer(batch: F32) -> F32:
        logits = runtime.run(batch)
        if logits.shape != (batch.shape[0], classes):
            raise InputError(
                f"{manifest.name}: found logits of shape {logits.shape}, expected {(batch.shape[0], classes)}; "
                "export it again"
            )
        if not np.isfinite(logits).all():
            raise UntrustedResult(f"{manifest.name}: found logits that are not finite; run `edgeslim check`")
        return logits if prior is None else logits + prior

    with Maps(folder, size[1], size[0], scene.georeference, manifest.classes, manifest.name, step) as maps:
        for index, window in enumerate(rows.windows):
            raw, valid = scene.rows(window.start, window.stop)
            settled, taken, left = blender.add_row(index, raw, valid, infer, options.batch)
            classified, skipped = classified + taken, skipped + left
            page.add_scene(settled)
            if options.cells:
                best, confidence, middles = cells.add(settled)
            else:
                best, confidence = decide(settled.probabilities, settled.known)
                middles = np.arange(best.shape[0], dtype=np.float64) + (settled.row + 0.5)
            maps.append(best, confidence)
            page.add_map(best)
            areas = [scene.georeference.pixel_area_m2(row) for row in middles]
            tally.add(best, confidence, [None if a is None else a * step * step for a in areas])
            if progress is not None:
                progress(classified + skipped, tiles)
        maps.close()
    return _summarise(scene, manifest, rows, options, tally, {"classified": classified, "skipped": skipped}), page


def _summarise(
    scene: Scene, manifest: Manifest, rows: Axis, options: ClassifyOptions, tally: _Tally, tiles: dict[str, int]
) -> Summary:
    known = int(tally.pixels.sum())
    ground = scene.georeference
    notes = list(scene.warnings)
    if ground.gsd_m is None:
        notes.append("the scene has no usable CRS: areas are unknown, the rasters have no place on Earth")
    if not known:
        notes.append("no tile had enough valid pixels: nothing was classified")
    return Summary(
        edgeslim=__version__,
        versions={},
        scene={
            "path": str(scene.path),
            "width": scene.width,
            "height": scene.height,
            "dtype": scene.dtype,
            "bands": [
                {"encoder": b.name, "scene_band": i, "scene_name": n}
                for b, i, n in zip(manifest.bands, scene.bands, scene.band_names, strict=True)
            ],
            "crs": ground.name,
            "gsd_m": ground.gsd_m,
            "expected_gsd_m": manifest.gsd_m,
        },
        artifact={},
        radiometry={
            "levels": list(manifest.radiometry.levels),
            "scale": list(scene.scale.scale),
            "offset": list(scene.scale.offset),
            "basis": scene.scale.basis,
        },
        prior="training set" if options.training_prior or land_log_odds(manifest.classes) is None else "land",
        tile_px=manifest.tile_px,
        stride_px=rows.stride_px,
        cells=options.cells,
        tiles=tiles,
        classes=tuple(
            ClassArea(
                i,
                label.name,
                label.title,
                label.color,
                int(tally.pixels[i]),
                int(tally.pixels[i]) / known if known else 0.0,
                None if ground.areas_m2 is None else float(tally.area_m2[i]) / 1e6,
            )
            for i, label in enumerate(manifest.classes)
        ),
        nodata_pixels=tally.nodata,
        mean_confidence=tally.percent / known / 100 if known else None,
        warnings=tuple(notes),
    )


def _describe(summary: Summary, artifact: Path, manifest: Manifest, runtime: Runtime) -> Summary:
    """Add who computed: artifact, hashes, versions."""
    gdal = getattr(rasterio, "__gdal_version__", "unknown")
    return replace(
        summary,
        versions={
            "runtime": runtime.version,
            "numpy": np.__version__,
            "rasterio": rasterio.__version__,
            "gdal": gdal,
        },
        artifact={
            "path": str(artifact),
            "name": manifest.name,
            "encoder": manifest.encoder,
            "width_multiplier": manifest.width_multiplier,
            "sha256": {MANIFEST_NAME: sha256_of(artifact / MANIFEST_NAME), **manifest.files},
        },
    )


def _titles(summary: Summary) -> tuple[str, str]:
    scene = summary.scene
    size = f"{scene['width']} x {scene['height']} px"
    place = "no CRS" if scene["crs"] == "none" else f"{scene['crs']}, {scene['gsd_m'] or 0:.3g} m a pixel"
    return Path(scene["path"]).name, f"{summary.artifact['name']}   {size}, {place}"


__all__ = ["ClassArea", "ClassifyOptions", "SceneOptions", "Summary", "classify_scene"]
