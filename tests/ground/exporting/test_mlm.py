"""The artifact as a STAC Item: valid by its authors' schema and models, offline, and true to the manifest."""

from __future__ import annotations

import copy
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import pystac
import pystac.extensions.mlm
import pytest
from pydantic import ValidationError
from pystac.errors import STACValidationError
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from stac_model.schema import MLModelExtension, MLModelProperties

from edgeslim import cost
from edgeslim.ground.exporting.mlm import ITEM_NAME, mlm_item, write_item
from edgeslim.manifest import Manifest, read_manifest, sha256_of
from edgeslim.parity import CEILINGS, Certificate, compare
from edgeslim.profile import Band, ClassLabel
from tests.onboard.artifacts import SENTINEL2, make_artifact

SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
PREFIXES = {"file": "file", "mlm": "mlm", "processing": "processing", "raster": "raster", "eo": "eo"}
ITEM_FIELDS = {
    *("name", "architecture", "tasks", "framework", "framework_version", "memory_size", "total_parameters"),
    *("pretrained", "pretrained_source", "batch_size_suggestion", "accelerator", "accelerator_constrained"),
    *("accelerator_summary", "accelerator_count", "input", "output", "hyperparameters"),
}
"""Of MLM 1.5 in an Item's properties; its schema allows no others, its Python models do."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a validator went to the network")

    monkeypatch.setattr(socket, "socket", refuse)


def require_valid(item: dict[str, Any]) -> None:
    """STAC's own schema, MLM's own models, and in our words what of MLM's schema those models leave out."""
    item = json.loads(json.dumps(item))
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, item["stac_version"])
    MLModelProperties.model_validate(item["properties"])
    require_what_models_leave_out(item)


def require_what_models_leave_out(item: dict[str, Any]) -> None:
    properties, assets = item["properties"], item["assets"]
    bands = properties.get("bands", [])
    found = {key.partition(":")[0] for part in (properties, *bands, *assets.values()) for key in part if ":" in key}
    assert found - {"edgeslim"} == {url.split("/")[3] for url in item["stac_extensions"]}, "extensions"
    assert {key[4:] for key in properties if key.startswith("mlm:")} <= ITEM_FIELDS, "fields"
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"]), "mlm:name"
    assert SEMVER.fullmatch(properties.get("mlm:framework_version", "1.0.0")), "mlm:framework_version"
    # The schema lacks the "cpu" that the models have.
    assert properties["mlm:accelerator"] in (None, "cuda"), "mlm:accelerator"
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in properties["mlm:hyperparameters"]), "hyperparameters"
    names = [band["name"] for band in bands]
    for one in properties["mlm:input"]:
        dimensions = dict(zip(one["input"]["dim_order"], one["input"]["shape"], strict=True))
        assert dimensions["bands"] == len(one["bands"]), "bands dimension"
        assert set(one["bands"]) <= set(names), "bands unknown"
    for one in properties["mlm:output"]:
        dimensions = dict(zip(one["result"]["dim_order"], one["result"]["shape"], strict=True))
        classes = one.get("classification:classes", [])
        assert dimensions.get("class", 0) == len(classes), "class dimension"
        assert [c["value"] for c in classes] == list(range(len(classes))), "class values"
        for label in classes:
            assert re.fullmatch("[0-9A-Fa-f]{6}", label["color_hint"]), "color_hint"
            assert re.fullmatch("[0-9A-Za-z_-]+", label["name"]), "class name"
    models = {key for key, asset in assets.items() if "mlm:model" in asset["roles"]}
    assert models, "no model"
    assert models == {key for key, asset in assets.items() if "mlm:artifact_type" in asset}, "mlm:artifact_type"
    for asset in assets.values():
        assert re.fullmatch("1220[0-9a-f]{64}", asset.get("file:checksum", "1220" + "0" * 64)), "file:checksum"


def tiny(tmp_path: Path, **options: Any) -> tuple[Path, Manifest]:
    folder = make_artifact(tmp_path / "artifact", **options)
    return folder, read_manifest(folder)


def proven(runtime: str) -> Certificate:
    same = compare(np.eye(3), np.eye(3))
    return Certificate("numerics only", "seed 5", "torch 2.13.0, fp32", runtime, CEILINGS["fp32"], {"1": same}, same)


def sizes_of(manifest: Manifest) -> dict[str, int]:
    return dict.fromkeys(manifest.files, 100)


def variant(manifest: Manifest, kind: str) -> Manifest:
    """Artifacts unlike each other in what an Item says of them."""
    if kind == "openvino":
        return replace(
            manifest,
            format="openvino",
            runtime="openvino",
            models={"any": "model.xml"},
            files=dict.fromkeys(("golden.npz", "model.bin", "model.xml"), "ab" * 32),
            certificate=proven("openvino 2026.4.1, x86_64"),
            graph={"operators": {"MatMul": 1}},
        )
    if kind == "tflite":
        return replace(
            manifest,
            format="tflite",
            runtime="litert",
            precision="int8-dynamic",
            models={"1": "model.b1.tflite", "8": "model.b8.tflite"},
            files=dict.fromkeys(("golden.npz", "model.b1.tflite", "model.b8.tflite"), "ab" * 32),
            input_name="args_0:0",
            output_name="o:0",
            features_name="o:1",
            certificate=proven("ai-edge-litert 2.3.0, x86_64"),
        )
    if kind == "cuda":
        return replace(
            manifest,
            format="onnx-cuda",
            providers=("CUDAExecutionProvider",),
            features_name="features",
            certificate=proven("onnxruntime 1.31.1, x86_64"),
            graph={"opset": 20, "operators": {}},
            plan={"device": "jetson-orin", "batch": 4},
        )
    if kind == "radar":
        bands = (Band("VV", "vv"), Band("VH", "vh"), Band("elevation", "elevation"))
        return replace(manifest, bands=bands, radiometry=replace(manifest.radiometry, unit="dB", levels=("GRD",)))
    if kind == "odd names":
        labels = tuple(
            replace(label, name=f"{i}: größer & höher", color="#12aBcD") for i, label in enumerate(manifest.classes)
        )
        return replace(manifest, name="3·", classes=labels, licence="ask the authors", gsd_m=None)
    return manifest


KINDS = ("onnx", "openvino", "tflite", "cuda", "radar", "odd names")


@pytest.mark.parametrize("kind", KINDS)
def test_the_item_is_valid(tmp_path: Path, kind: str) -> None:
    manifest = variant(tiny(tmp_path)[1], kind)
    require_valid(mlm_item(manifest, sizes_of(manifest)))


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no time": (lambda i: i["properties"].pop("datetime"), "datetime"),
    "half a time range": (lambda i: i["properties"].pop("end_datetime"), "end_datetime"),
    "time is no time": (lambda i: i["properties"].update(start_datetime="long ago"), "long ago"),
    "no geometry": (lambda i: i.pop("geometry"), "geometry"),
    "licence with spaces": (lambda i: i["properties"].update(license="ask the authors"), "ask the authors"),
    "unit is a number": (lambda i: i["properties"]["bands"][0].update(unit=1), "unit|string"),
    "href missing": (lambda i: i["assets"]["golden.npz"].pop("href"), "href"),
    "no task": (lambda i: i["properties"].pop("mlm:tasks"), "mlm:tasks"),
    "unknown task": (lambda i: i["properties"].update({"mlm:tasks": ["flying"]}), "mlm:tasks"),
    "no input": (lambda i: i["properties"].pop("mlm:input"), "mlm:input"),
    "input of unknown type": (
        lambda i: i["properties"]["mlm:input"][0]["input"].update(data_type="float31"),
        "data_type",
    ),
    "a dimension too many": (
        lambda i: i["properties"]["mlm:input"][0]["input"]["dim_order"].append("time"),
        "Dimension order and shape",
    ),
    "z-score without mean": (
        lambda i: i["properties"]["mlm:input"][0].update(value_scaling=[{"type": "z-score", "stddev": 1}]),
        "value_scaling",
    ),
    "unknown resize": (lambda i: i["properties"]["mlm:input"][0].update(resize_type="squash"), "resize_type"),
    "parameters below 0": (lambda i: i["properties"].update({"mlm:total_parameters": -1}), "mlm:total_parameters"),
    "output without result": (lambda i: i["properties"]["mlm:output"][0].pop("result"), "result"),
    "unknown field": (lambda i: i["properties"].update({"mlm:colour": "red"}), "fields"),
    "undeclared extension": (lambda i: i["stac_extensions"].pop(), "extensions"),
    "name ends in a dot": (lambda i: i["properties"].update({"mlm:name": "tiny."}), "mlm:name"),
    "band that is not described": (lambda i: i["properties"]["mlm:input"][0]["bands"].__setitem__(0, "B99"), "bands"),
    "bands in the asset alone": (lambda i: i["properties"].pop("bands"), "extensions|bands unknown"),
    "bands in the item alone": (lambda i: i["assets"]["model.onnx"].pop("bands"), "False schema does not allow"),
    "model without a type": (lambda i: i["assets"]["model.onnx"].pop("mlm:artifact_type"), "mlm:artifact_type"),
    "no model": (lambda i: i["assets"]["model.onnx"].update(roles=["data"]), "no model"),
    "colour in words": (
        lambda i: i["properties"]["mlm:output"][0]["classification:classes"][0].update(color_hint="green"),
        "color_hint",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_item_is_refused(tmp_path: Path, name: str) -> None:
    manifest = tiny(tmp_path)[1]
    item = mlm_item(manifest, sizes_of(manifest))
    change, message = BREAKS[name]
    broken = copy.deepcopy(item)
    change(broken)
    with pytest.raises((STACValidationError, ValidationError, AssertionError), match=message):
        require_valid(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_the_libraries_of_stac_read_it(tmp_path: Path, kind: str) -> None:
    manifest = variant(tiny(tmp_path)[1], kind)
    data = mlm_item(manifest, sizes_of(manifest))
    item = pystac.Item.from_dict(data)
    read = pystac.extensions.mlm.MLMExtension.ext(item)
    assert read.total_parameters == manifest.total_parameters
    assert [c.color_hint for c in read.output[0].classes] == [c.color.lstrip("#").upper() for c in manifest.classes]
    assert read.input[0].input.shape[1:] == [3, 8, 8]
    assert MLModelExtension.ext(item).name == "mlm"
    assert item.to_dict(include_self_link=False) == json.loads(json.dumps(data))


def test_it_says_what_the_manifest_says(tmp_path: Path) -> None:
    labels = (ClassLabel("Sea or lake", "Sea, or a lake", "#2166ac"), ClassLabel("Forest", "Forest", "1B7837"))
    _, manifest = tiny(tmp_path, bands=SENTINEL2[1:4], labels=labels, raw_scale=2e-4, raw_offset=-0.1)
    properties = mlm_item(manifest, sizes_of(manifest))["properties"]
    assert properties["bands"][2] == {
        "name": "B04",
        "description": "red",
        "unit": "1",
        "statistics": {"mean": 1000.0, "stddev": 500.0},
        "raster:scale": 2e-4,
        "raster:offset": -0.1,
        "eo:common_name": "red",
        "eo:center_wavelength": 0.665,
    }
    assert properties["gsd"] == 10
    assert properties["license"] == "Apache-2.0"
    (given,) = properties["mlm:input"]
    assert given["bands"] == ["B02", "B03", "B04"]
    assert given["input"] == {
        "shape": [-1, 3, 8, 8],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    # What the network does is told, but not as something that is left to do.
    assert (given["value_scaling"], given["resize_type"], given["pre_processing_function"]) == (None, None, None)
    assert properties["edgeslim:inside_the_network"][0] == {
        "band": "B02",
        "value_scaling": [
            {"type": "clip", "minimum": 0.0, "maximum": 2750.0},
            {"type": "z-score", "mean": 1000.0, "stddev": 500.0},
        ],
    }
    ranges = ((0.0, 1000.0), (0.0, 2000.0), (10.0, 2750.0))
    each = replace(manifest, radiometry=replace(manifest.radiometry, band_clip=ranges))
    inside = mlm_item(each, sizes_of(each))["properties"]["edgeslim:inside_the_network"]
    assert [(step["value_scaling"][0]["minimum"], step["value_scaling"][0]["maximum"]) for step in inside] == [*ranges]
    (logits,) = properties["mlm:output"]
    assert logits["result"] == {"shape": [-1, 2], "dim_order": ["batch", "class"], "data_type": "float32"}
    assert logits["classification:classes"] == [
        {"value": 0, "name": "Sea-or-lake", "description": "Sea, or a lake", "color_hint": "2166AC"},
        {"value": 1, "name": "Forest", "description": "Forest", "color_hint": "1B7837"},
    ]
    told = properties["mlm:hyperparameters"]
    assert (told["width_multiplier"], told["method"], told["depth"], told["tile_px"]) == (1.0, "first", 1, 8)
    assert properties["edgeslim:levels"] == ["L1C", "L2A"]
    assert "processing:level" not in properties  # STAC has room for one
    assert properties["edgeslim:encoder"]["checkpoint_sha256"] == manifest.checkpoint_sha256
    footprint = cost.footprint(manifest.architecture, 2, properties["mlm:batch_size_suggestion"])
    assert properties["mlm:memory_size"] > footprint.weights_bytes + footprint.activations_bytes


def test_formats_and_devices_show(tmp_path: Path) -> None:
    found = {}
    plain = tiny(tmp_path)[1]
    for kind in KINDS:
        manifest = variant(plain, kind)
        found[kind] = mlm_item(manifest, sizes_of(manifest))
    told = {kind: item["properties"] for kind, item in found.items()}
    assert [told[k]["mlm:framework"] for k in ("onnx", "openvino", "tflite")] == ["ONNX", "OpenVINO", "LiteRT"]
    # Of ONNX, the first release that has the operator set.
    assert told["cuda"]["mlm:framework_version"] == "1.15.0"
    assert onnx.helper.VERSION_TABLE[-1][2] >= 20
    assert told["openvino"]["mlm:framework_version"] == "2026.4.1"
    assert told["openvino"]["processing:software"]["torch"] == "2.13.0"
    assert "mlm:framework_version" not in told["onnx"]
    assert told["cuda"]["mlm:accelerator"] == "cuda"
    assert told["cuda"]["mlm:accelerator_summary"] == "planned for jetson-orin"
    assert told["cuda"]["mlm:batch_size_suggestion"] == 4
    assert told["tflite"]["mlm:batch_size_suggestion"] == 8
    assert [output["result"]["shape"] for output in told["tflite"]["mlm:output"]] == [[-1, 3], [-1, 4]]
    assert told["radar"]["processing:level"] == "GRD"
    assert not any(key.startswith("eo:") for band in told["radar"]["bands"] for key in band)
    assert not any("/eo/" in url for url in found["radar"]["stac_extensions"])
    assert told["odd names"]["license"] == "other"
    assert told["odd names"]["edgeslim:encoder"]["licence"] == "ask the authors"
    roles = {name: asset["roles"] for name, asset in found["openvino"]["assets"].items()}
    assert roles == {
        "golden.npz": ["data"],
        "model.bin": ["mlm:weights"],
        "model.xml": ["mlm:model", "mlm:compiled"],
        "manifest.json": ["metadata"],
    }
    assert found["tflite"]["assets"]["model.b8.tflite"]["title"] == "Network, batches of 8"


def test_it_is_written_beside_the_manifest_with_every_files_hash(tmp_path: Path) -> None:
    folder, manifest = tiny(tmp_path)
    first = write_item(manifest, folder).read_bytes()
    # Written again with its own hash among the files, as an export has it afterwards: the same bytes.
    whole = replace(manifest, files={**manifest.files, ITEM_NAME: sha256_of(folder / ITEM_NAME)})
    assert write_item(whole, folder).read_bytes() == first
    item = json.loads(first)
    require_valid(item)
    assert {Path(asset["href"]).name for asset in item["assets"].values()} == {*manifest.files, "manifest.json"}
    for name in manifest.files:
        asset = item["assets"][name]
        assert asset["file:checksum"] == "1220" + sha256_of(folder / name)
        assert asset["file:size"] == (folder / name).stat().st_size
    assert str(tmp_path) not in first.decode()
