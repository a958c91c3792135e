"""STAC MLM: the artifact as a STAC Item with the Machine Learning Model extension, for catalogues of models.

It says nothing that the manifest does not: two exports that give the same manifest give the same bytes. Geometry is
null and the time range all-embracing, as nothing is known of where and when an encoder holds, and "the whole Earth"
would be a claim. The Item's own hash stands in the manifest like any file's; so the manifest, which is sealed by a hash
of itself, is the one asset without a checksum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeslim import cost
from edgeslim.manifest import ANY_BATCH, MANIFEST_NAME, Manifest
from edgeslim.onboard.writing.stac import SCHEMAS, STAC_VERSION, UNKNOWN_TIME, safe_name
from edgeslim.onboard.writing.summary import json_text
from edgeslim.profile import OPEN_LICENCES, Band, Radiometry

ITEM_NAME = "stac-item.json"
_EXTENSIONS = ("file/v2.1.0", "mlm/v1.5.2", "processing/v1.2.0", "raster/v2.0.0")
_EO = "eo/v2.0.0"
_COMMON_NAMES = (
    *("pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075"),
    *("rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12"),
)
"""All that the eo extension knows."""
_FRAMEWORKS = {"onnxruntime": ("ONNX", "onnx"), "openvino": ("OpenVINO", "openvino"), "litert": ("LiteRT", "tflite")}
"""Runtime -> mlm:framework and mlm:artifact_type."""
_MEDIA = {".json": "application/json", ".npz": "application/zip", ".xml": "application/xml"}
_CLASSIFY, _FEATURES = "scene-classification", "similarity-search"


def write_item(manifest: Manifest, folder: Path) -> Path:
    """Write the Item of an artifact whose files, but for manifest and Item, lie in `folder`; return its path.

    Raises OSError if one of them is missing or the Item cannot be written.
    """
    path = folder / ITEM_NAME
    sizes = {name: (folder / name).stat().st_size for name in manifest.files if name != ITEM_NAME}
    path.write_text(json_text(mlm_item(manifest, sizes)), encoding="utf-8")
    return path


def mlm_item(manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The Item (STAC 1.1, MLM 1.5.2) of an artifact; `sizes`: bytes of each of its files but manifest and Item."""
    bands = [_band(band, manifest.radiometry, i) for i, band in enumerate(manifest.bands)]
    extensions = [*_EXTENSIONS, *([_EO] if any(key.startswith("eo:") for band in bands for key in band) else [])]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [SCHEMAS.format(name) for name in sorted(extensions)],
        "id": safe_name(f"{manifest.name}-{manifest.format}-{manifest.precision}"),
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": UNKNOWN_TIME[0],
            "end_datetime": UNKNOWN_TIME[1],
            "title": f"{manifest.name}, {manifest.format}, {manifest.precision}",
            "description": _description(manifest),
            "license": _licence(manifest.licence),
            **({} if manifest.gsd_m is None else {"gsd": manifest.gsd_m}),
            "bands": bands,
            **_model(manifest),
            **_processing(manifest),
            "edgeslim:encoder": {
                "id": manifest.encoder,
                "source": manifest.source,
                "checkpoint_sha256": manifest.checkpoint_sha256,
                "licence": manifest.licence,
                "licence_accepted": manifest.licence_accepted,
            },
            "edgeslim:levels": list(manifest.radiometry.levels),
            "edgeslim:inside_the_network": _inside(manifest),
        },
        "links": [],
        "assets": _assets(manifest, sizes),
    }


def _description(manifest: Manifest) -> str:
    proof = "none" if manifest.certificate is None else manifest.certificate.verdict
    return (
        f"{manifest.encoder} at width multiplier {manifest.cut} with a head of "
        f"{len(manifest.classes)} classes. Proof at export: {proof}. Geometry and time range are left open: nothing is "
        "known of where and when it holds."
    )


def _licence(text: str) -> str:
    """As STAC takes it: one SPDX id, or "other"."""
    known = {name.lower(): name for name in OPEN_LICENCES}
    return known.get(text.strip().lower()) or (text if re.fullmatch(r"CC-BY-[A-Z0-9.-]+", text) else "other")


def _band(band: Band, radiometry: Radiometry, index: int) -> dict[str, Any]:
    """Statistics are of raw values, as STAC's are; scale and offset lead from them to the unit."""
    found: dict[str, Any] = {
        "name": band.name,
        "description": band.common_name,
        "unit": radiometry.unit,
        "statistics": {"mean": radiometry.mean[index], "stddev": radiometry.std[index]},
        "raster:scale": radiometry.scale,
        "raster:offset": radiometry.offset,
    }
    if band.common_name in _COMMON_NAMES:
        found["eo:common_name"] = band.common_name
    if band.wavelength_um is not None:
        found["eo:center_wavelength"] = band.wavelength_um
    return found


def _model(manifest: Manifest) -> dict[str, Any]:
    arch, batch, framework = manifest.architecture, _batch(manifest), _FRAMEWORKS[manifest.runtime][0]
    version = _framework_version(manifest)
    # At 4 bytes a value: a runtime may widen what is stored in fewer.
    memory = cost.footprint(arch, len(manifest.classes), batch)
    gpu = any(provider.startswith(("CUDA", "Tensorrt", "NvTensorRT")) for provider in manifest.providers)
    device = manifest.plan.get("device")
    return {
        "mlm:name": _name(manifest.name),
        "mlm:architecture": "Vision Transformer",
        "mlm:tasks": [_CLASSIFY, *([_FEATURES] if manifest.features_name else [])],
        "mlm:framework": framework,
        **({} if version is None else {"mlm:framework_version": version}),
        "mlm:memory_size": memory.weights_bytes + memory.activations_bytes + memory.buffers_bytes,
        "mlm:total_parameters": manifest.total_parameters,
        "mlm:pretrained": True,
        "mlm:pretrained_source": manifest.source,
        "mlm:batch_size_suggestion": batch,
        "mlm:accelerator": "cuda" if gpu else None,
        "mlm:accelerator_constrained": False,
        **({"mlm:accelerator_summary": f"planned for {device}"} if device else {}),
        "mlm:input": [_input(manifest)],
        "mlm:output": _outputs(manifest),
        "mlm:hyperparameters": {
            "width_multiplier": manifest.width_multiplier,
            "method": manifest.method,
            "precision": manifest.precision,
            "gflop_per_tile": manifest.gflop_per_tile,
            **arch.to_dict(),
            **({"opset": manifest.graph["opset"]} if "opset" in manifest.graph else {}),
        },
    }


def _name(text: str) -> str:
    """As MLM takes it: 3 characters or more, a letter first, a letter or digit last."""
    plain = re.sub(r"[^0-9A-Za-z_. -]+", "-", text).strip(" _.-")
    return plain if re.fullmatch(r"[A-Za-z].+[0-9A-Za-z]", plain) else f"model {plain}".strip()


def _batch(manifest: Manifest) -> int:
    """Tiles a batch: the plan's where the network takes it, else the largest that it is made for."""
    planned = manifest.plan.get("batch")
    if isinstance(planned, int) and planned > 0 and (not manifest.batches or planned in manifest.batches):
        return planned
    return manifest.batches[-1] if manifest.batches else cost.default_batch(manifest.architecture)


def _framework_version(manifest: Manifest) -> str | None:
    """Of ONNX, the first release with the network's operator set; else the library that it was proven with."""
    if manifest.runtime == "onnxruntime":
        if (opset := manifest.graph.get("opset")) is None:
            return None
        from onnx.helper import VERSION_TABLE

        return next((str(row[0]) for row in VERSION_TABLE if row[2] == opset), None)
    proven = "" if manifest.certificate is None else manifest.certificate.runtime
    found = re.search(r"\b\d+\.\d+\.\d+\b", proven)
    return found[0] if found else None


def _input(manifest: Manifest) -> dict[str, Any]:
    tile, r = manifest.tile_px, manifest.radiometry
    return {
        "name": manifest.input_name,
        "description": (
            f"Raw band values of processing level {' or '.join(r.levels)}, fed as they are. The physical value is raw "
            f"value * {r.scale:g} + {r.offset:g}: bring a scene of another scale or offset to that first. Clip and "
            "normalisation are inside the network (edgeslim:inside_the_network), and tiles are not resized."
        ),
        "bands": [band.name for band in manifest.bands],
        "input": _tensor(manifest, ["bands", "height", "width"], [len(manifest.bands), tile, tile]),
        # Null says that the caller has nothing to do; what the network does would be done twice.
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _inside(manifest: Manifest) -> list[dict[str, Any]]:
    """Of each band, what the network does to its raw values, in that order; each step as an MLM value scaling."""
    r = manifest.radiometry
    clips = r.band_clip or (r.clip,) * len(manifest.bands)
    steps = [
        [{"type": "clip", "minimum": low, "maximum": high}, {"type": "z-score", "mean": mean, "stddev": std}]
        for (low, high), mean, std in zip(clips, r.mean, r.std, strict=True)
    ]
    return [{"band": band.name, "value_scaling": one} for band, one in zip(manifest.bands, steps, strict=True)]


def _outputs(manifest: Manifest) -> list[dict[str, Any]]:
    logits: dict[str, Any] = {
        "name": manifest.output_name,
        "description": "Logits; their softmax are the classes' probabilities.",
        "tasks": [_CLASSIFY],
        "result": _tensor(manifest, ["class"], [len(manifest.classes)]),
        "classification:classes": [
            # MLM refers to classes of an older version, without a title: the description holds it.
            {
                "value": i,
                "name": safe_name(label.name),
                "description": label.title,
                "color_hint": label.color.lstrip("#").upper(),
            }
            for i, label in enumerate(manifest.classes)
        ],
        "post_processing_function": None,
    }
    if not manifest.features_name:
        return [logits]
    features = {
        "name": manifest.features_name,
        "description": "What the head was given: the encoder's pooled feature.",
        "tasks": [_FEATURES],
        "result": _tensor(manifest, ["embedding"], [manifest.architecture.dim]),
        "post_processing_function": None,
    }
    return [logits, features]


def _tensor(manifest: Manifest, dimensions: list[str], sizes: list[int]) -> dict[str, Any]:
    """A float32 tensor behind a batch; -1: a batch of any size, or of several."""
    batch = manifest.batches[0] if len(manifest.batches) == 1 else -1
    return {"shape": [batch, *sizes], "dim_order": ["batch", *dimensions], "data_type": "float32"}


def _processing(manifest: Manifest) -> dict[str, Any]:
    software = {"edgeslim": manifest.edgeslim_version}
    if manifest.certificate is not None:
        for text in (manifest.certificate.reference, manifest.certificate.runtime):
            name, _, version = text.partition(",")[0].partition(" ")
            software[name] = version
    levels = manifest.radiometry.levels
    return {
        # Of the input; MLM advises it. STAC has room for one.
        **({"processing:level": levels[0]} if len(levels) == 1 else {}),
        "processing:lineage": (
            f"Checkpoint {manifest.checkpoint_sha256} of {manifest.encoder}, slimmed to width multiplier "
            f"{manifest.cut} by method {manifest.method!r}, exported as {manifest.format} in "
            f"{manifest.precision}"
        ),
        "processing:software": software,
    }


def _assets(manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, Any]:
    batches = {name: batch for batch, name in manifest.models.items()}
    assets: dict[str, Any] = {}
    for name, sha256 in manifest.files.items():
        if name == ITEM_NAME:
            continue
        asset: dict[str, Any] = {"href": f"./{name}", "type": _MEDIA.get(Path(name).suffix, "application/octet-stream")}
        if name in batches:
            size = "any size" if batches[name] == ANY_BATCH else f"{batches[name]}"
            asset |= {"title": f"Network, batches of {size}", "roles": ["mlm:model", "mlm:compiled"]}
            asset["mlm:artifact_type"] = _FRAMEWORKS[manifest.runtime][1]
            # MLM wants them described in the Item, STAC allows that only where an asset names them, too.
            asset["bands"] = [{"name": band.name} for band in manifest.bands]
        elif Path(name).suffix == ".npz":
            asset |= {"title": "Golden tiles and the logits that they must give", "roles": ["data"]}
        else:
            asset |= {"title": "Weights of the network", "roles": ["mlm:weights"]}
        # Multihash: 12 = SHA-256, 20 = 32 bytes
        asset |= {"file:size": sizes[name], "file:checksum": "1220" + sha256}
        assets[name] = asset
    title = "All that the device needs to know, sealed by a hash of itself"
    assets[MANIFEST_NAME] = {
        "href": f"./{MANIFEST_NAME}",
        "type": _MEDIA[".json"],
        "title": title,
        "roles": ["metadata"],
    }
    return assets
