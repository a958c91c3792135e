"""ONNX: the module that flies -> model.onnx and weights.bin."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeslim.ground.flight import FlightModel
from edgeslim.ground.formats import HEAD, SMALLEST_BYTES, Written, is_rounded
from edgeslim.ground.formats.opset import OLDEST_OF_TORCH, lower_opset
from edgeslim.manifest import ANY_BATCH
from edgeslim.target import Target

NAMES = ("tiles", "logits", "features")
WEIGHTS_NAME = "weights.bin"
"""Beside the network: a runtime maps it into memory instead of unpacking a copy of it from the network's own file."""
_SCOPES = "pkg.torch.onnx.name_scopes"


def convert(model: nn.Module, example: torch.Tensor, target: Target, batches: tuple[int, ...], folder: Path) -> Written:
    """Write `model` with a dynamic batch, at the opset and IR version of the card; `batches` are all served by it.

    Shapes are inferred strictly and the file passes onnx.checker. Raises whatever the exporter raises.
    """
    program = _program(model, example, target)
    proto = program.model_proto
    assert target.ir_version is not None
    assert target.opset is not None
    lower_opset(proto, target.opset)
    proto.ir_version = min(proto.ir_version, target.ir_version)
    _name_nodes(proto)
    _strip(proto)
    return _write(proto, target.model_file, folder)


def unfolded(model: FlightModel) -> FlightModel:
    """The model itself: the exporter keeps LayerNorm and LayerScale."""
    return model


def _program(model: nn.Module, example: torch.Tensor, target: Target) -> torch.onnx.ONNXProgram:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=max(target.opset or 0, OLDEST_OF_TORCH),
                input_names=list(NAMES[:1]),
                output_names=list(NAMES[1:]),
                dynamic_shapes={"tiles": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program


def quantise(
    base: Written, precision: str, calibration: NDArray[np.float32], kept: Collection[str], folder: Path
) -> Written:
    """Write the network in fp16 (weights), dynamic or static int8 (matrix products with constant weights).

    Weights are int8 a column, activations uint8: the pair that processors without int8 products of two signed
    numbers are fast on. `calibration` (n, bands, H, W) gives the ranges of static int8.
    """
    path = base.folder / base.models[ANY_BATCH]
    proto = onnx.load(path)
    if precision == "fp16":
        _halve(proto)
    else:
        products = [node.name for node in proto.graph.node if node.op_type in ("MatMul", "Gemm")]
        products += [f"{name}_MatMul" for name in products]  # what the quantiser makes of a Gemm
        left_out = [name for name in products if layer_of(name) in kept]
        with tempfile.TemporaryDirectory(dir=folder) as scratch, _quiet():
            made = Path(scratch) / path.name
            if precision == "int8-dynamic":
                _dynamic(path, made, left_out)
            else:
                # Beside the network, of which they are: whichever layers are left out, the ranges stay the same.
                _static(path, made, left_out, calibration, base.folder.with_name(f"{base.folder.name}-ranges.json"))
            proto = onnx.load(made)
        del proto.metadata_props[:]
    proto.producer_name, proto.producer_version = "edgeslim", ""
    return _write(proto, path.name, folder)


def layer_of(node_name: str) -> str:
    """The module's layer that a node belongs to."""
    return node_name.partition("/")[0]


def _dynamic(path: Path, made: Path, left_out: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path,
        made,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=left_out,
        extra_options={"MatMulConstBOnly": True},
    )


def _static(path: Path, made: Path, left_out: list[str], calibration: NDArray[np.float32], ranges: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    caches = "calibration_cache_path" in inspect.signature(quantize_static).parameters  # older releases lack it

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tiles: Iterator[NDArray[np.float32]] = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            tile = next(self._tiles, None)
            return None if tile is None else {NAMES[0]: tile[None]}

    quantize_static(
        path,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=left_out,
        extra_options={"MatMulConstBOnly": True},
        **({"calibration_cache_path": ranges} if caches else {}),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises through the root logger and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _halve(proto: onnx.ModelProto) -> None:
    """Weights, but the head's and vectors, become float16. A runtime casts them as it loads, and computes as before."""
    graph = proto.graph
    of_head = {name for node in graph.node if layer_of(node.name) == HEAD for name in node.input}
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or tensor.name in of_head:
            continue
        if not is_rounded(values.shape, values.nbytes):
            continue
        half = np.clip(values, np.finfo(np.float16).min, np.finfo(np.float16).max).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], f"{name}/Cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)


def _write(proto: onnx.ModelProto, name: str, folder: Path) -> Written:
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, check_type=True)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    path = folder / name
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        location=WEIGHTS_NAME,
        size_threshold=SMALLEST_BYTES,
    )
    for file in (path, path.with_name(WEIGHTS_NAME)):  # onnx makes the weights private
        if file.is_file():
            umask = os.umask(0)
            os.umask(umask)
            file.chmod(0o666 & ~umask)
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in proto.graph.node)
    return Written(folder, {ANY_BATCH: name}, NAMES, {"opset": opset, "operators": dict(sorted(operators.items()))})


def _name_nodes(proto: onnx.ModelProto) -> None:
    """Call each node LAYER/OPERATOR after the module that it comes from."""
    taken: Counter[str] = Counter()
    for node in proto.graph.node:
        noted = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
        scopes = ast.literal_eval(noted)
        layer = scopes[-2] if len(scopes) > 1 else ""
        name = f"{layer}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _strip(proto: onnx.ModelProto) -> None:
    """Take out what the exporter notes for debugging: stack traces and source paths of this machine."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for graph in (proto.graph, *proto.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
