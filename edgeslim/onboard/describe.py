"""Describe: what a run computes from what, for its journal; and what it found, for its summary."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from edgeslim import __version__
from edgeslim.errors import UntrustedResult
from edgeslim.grid import Axis
from edgeslim.manifest import MANIFEST_NAME, Manifest, read_manifest, sha256_of
from edgeslim.onboard.journal import as_json
from edgeslim.onboard.reading.scene import Scene
from edgeslim.onboard.recorder import Recorder
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.onboard.writing.layer import flavour_of
from edgeslim.onboard.writing.summary import ClassArea, Summary

if TYPE_CHECKING:
    from edgeslim.onboard.classify_options import ClassifyOptions


def inputs_of(
    scene: Scene, artifact: Path, manifest: Manifest, rows: Axis, options: ClassifyOptions, runtime: Runtime
) -> dict[str, Any]:
    """Everything that decides the bytes of the results, but for the scene's hashes, in JSON's types.

    Raises UntrustedResult where another artifact was put in place since the manifest was read.
    """
    asked = asdict(options.scene)
    return {
        "edgeslim": __version__,
        "versions": versions_of(runtime),
        "artifact": {MANIFEST_NAME: _manifest_sha256(artifact, manifest), **manifest.files},
        "scene": {
            "name": scene.path.name,
            "sizes": {path.name: path.stat().st_size for path in scene.files},
            "width": scene.width,
            "height": scene.height,
        },
        "options": {
            "stride_px": rows.stride_px,
            "cells": options.cells,
            "batch": options.batch,
            "max_ram_mib": options.max_ram_mib,
            "training_prior": options.training_prior,
            "probabilities": options.probabilities,
            "vector": options.vector,
            **{key: _plain(value) for key, value in asked.items()},
        },
    }


def _manifest_sha256(artifact: Path, manifest: Manifest) -> str:
    """Of the manifest's file, which `edgeslim apply` replaces beside files that lie there as they were exported."""
    digest = sha256_of(artifact / MANIFEST_NAME)
    if read_manifest(artifact) != manifest:
        raise UntrustedResult(f"{artifact}: was replaced while this run started; start it again")
    return digest


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Path) else value


def versions_of(runtime: Runtime) -> dict[str, str]:
    """Of what computes."""
    return {
        "runtime": runtime.version,
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "gdal": str(getattr(rasterio, "__gdal_version__", "unknown")),
    }


def inputs_sha256(inputs: dict[str, Any], hashes: dict[str, str]) -> str:
    """One hash of everything that decides the bytes of the results."""
    return hashlib.sha256(as_json({"inputs": inputs, "files": hashes})).hexdigest()


def summarise(
    scene: Scene,
    artifact: Path,
    manifest: Manifest,
    rows: Axis,
    recorder: Recorder,
    inputs: dict[str, Any],
    hashes: dict[str, str],
) -> Summary:
    """What summary.json says of a finished run; `hashes` are the scene's files' SHA-256."""
    ground, tally = scene.georeference, recorder.tally
    known = int(tally.pixels.sum())
    notes = list(scene.warnings)
    if ground.gsd_m is None:
        notes.append("the scene has no usable CRS: areas are unknown, the rasters have no place on Earth")
    elif flavour_of(ground.crs or ground.gcps_crs) is None:
        notes.append(f"the scene's CRS, {ground.name}, cannot stand in a GeoTIFF: the rasters have its transform only")
    if not known:
        notes.append("no tile had enough valid pixels: nothing was classified")
    return Summary(
        edgeslim=__version__,
        versions=inputs["versions"],
        inputs_sha256=inputs_sha256(inputs, hashes),
        scene={
            "path": scene.path.name,
            "files": hashes,
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
            "acquired": scene.acquired,
        },
        artifact={
            "name": manifest.name,
            "encoder": manifest.encoder,
            "width_multiplier": manifest.width_multiplier,
            "sha256": inputs["artifact"],
        },
        radiometry={
            "levels": list(manifest.radiometry.levels),
            "scale": list(scene.scale.scale),
            "offset": list(scene.scale.offset),
            "basis": scene.scale.basis,
        },
        prior=recorder.prior,
        tile_px=manifest.tile_px,
        stride_px=rows.stride_px,
        cells=inputs["options"]["cells"],
        tiles=recorder.tiles,
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
            for i, label in enumerate(manifest.answers)
        ),
        nodata_pixels=tally.nodata,
        mean_confidence=tally.mean_confidence,
        unknown_tiles=recorder.unknown_tiles,
        warnings=tuple(notes),
    )
