"""OpenVINO IR: the module that flies -> model.xml and model.bin, by way of ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.errors import MissingExtra
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.formats import HEAD, Written, is_rounded, onnx
from edgeslim.manifest import ANY_BATCH
from edgeslim.target import Target

_NUMBERED = re.compile(r"[A-Za-z]+_\d+")
_OPSET, _IR_VERSION = 20, 10
"""Of the ONNX graph that is converted: its Gelu and LayerNormalization become one operation each."""


def convert(model: nn.Module, example: torch.Tensor, target: Target, batches: tuple[int, ...], folder: Path) -> Written:
    """Write `model` with a dynamic batch; `batches` are all served by it. Raises whatever the converter raises."""
    through = replace(
        target,
        format="onnx",
        model_file="model.onnx",
        opset=_OPSET,
        ir_version=_IR_VERSION,
        sources={**target.sources, "opset": "of the intermediate graph", "ir_version": "likewise"},
    )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        between = onnx.convert(model, example, through, batches, Path(scratch))
        network = openvino.convert_model(between.folder / between.models[ANY_BATCH])
    return _write(network, target.model_file, folder, half=False)


def unfolded(model: FlightModel) -> FlightModel:
    """The model itself: of a bias behind LayerScale the converter makes another, which is no matrix."""
    return model


def quantise(
    base: Written, precision: str, calibration: NDArray[np.float32], kept: Collection[str], folder: Path
) -> Written:
    """Write the network in fp16 (weights), or int8: weights alone (dynamic) or activations too (static).

    `calibration` (n, bands, H, W) gives the ranges of static int8. Raises MissingExtra without nncf.
    """
    name = base.models[ANY_BATCH]
    network = openvino.Core().read_model(base.folder / name)
    if precision != "fp16":
        try:
            import nncf
        except ImportError:
            raise MissingExtra("nncf", "ground-openvino") from None
        # Matrix products with constant weights alone: of a ViT, the rest in int8 loses its accuracy.
        left_out = [
            op.get_friendly_name()
            for op in network.get_ops()
            if op.get_type_name() not in ("Constant", "Parameter", "Result")
            and (not _is_linear(op) or _layer(op) in kept)
        ]
        scope = nncf.IgnoredScope(names=left_out, validate=False)
        with _quiet():
            if precision == "int8-dynamic":
                mode = nncf.CompressWeightsMode.INT8_SYM
                network = nncf.compress_weights(network, mode=mode, ignored_scope=scope)
            else:
                network = nncf.quantize(
                    network,
                    nncf.Dataset([tile[None] for tile in calibration]),
                    model_type=nncf.ModelType.TRANSFORMER,
                    subset_size=len(calibration),
                    ignored_scope=scope,
                )
    return _write(network, name, folder, half=precision == "fp16")


def _is_linear(op: Any) -> bool:
    return bool(op.get_type_name() == "MatMul") and "Constant" in _sources(op)


def _sources(op: Any) -> set[str]:
    """What feeds an operation, seen through conversions of its weights."""
    found = set()
    for index in range(op.get_input_size()):
        source = op.input_value(index).get_node()
        while source.get_type_name() in ("Convert", "Multiply", "Subtract") and source.get_input_size():
            source = source.input_value(0).get_node()
        found.add(str(source.get_type_name()))
    return found


def _layer(op: Any) -> str:
    """The module's layer; what gives an output is called as that instead: the head's last operation."""
    name = str(op.get_friendly_name())
    return HEAD if name == onnx.NAMES[1] else onnx.layer_of(name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nncf draws progress bars and advises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write(network: Any, name: str, folder: Path, half: bool) -> Written:
    for index, op in enumerate(network.get_ordered_ops()):
        # OpenVINO numbers what has no name by a count of its whole process: the same network, other bytes.
        if _NUMBERED.fullmatch(op.get_friendly_name()):
            op.set_friendly_name(f"{op.get_type_name()}.{index}")
    path = folder / name
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if half:
            network = _halved(network, Path(scratch) / name)
        openvino.save_model(network, path, compress_to_fp16=False)
    operators = Counter(str(op.get_type_name()) for op in network.get_ops())
    return Written(folder, {ANY_BATCH: name}, onnx.NAMES, {"operators": dict(sorted(operators.items()))})


def _halved(network: Any, scratch: Path) -> Any:
    """The network with weights as float16, written to and read back from `scratch`.

    OpenVINO would round every constant: the normalisation's and the head's, too, which stay as they are here.
    """
    openvino.save_model(network, scratch, compress_to_fp16=True)
    halved = openvino.Core().read_model(scratch)
    exact = {op.get_friendly_name(): op for op in network.get_ops() if _is_exact(op)}
    for op in halved.get_ordered_ops():
        # What was compressed is called as before behind its conversion back.
        if op.get_type_name() == "Convert" and (kept := exact.get(op.get_friendly_name())) is not None:
            constant = openvino.op.Constant(kept.data.copy())
            constant.set_friendly_name(kept.get_friendly_name())
            op.output(0).replace(constant.output(0))
    return halved


def _is_exact(op: Any) -> bool:
    """Whether it is a constant that fp16 leaves in fp32."""
    if op.get_type_name() != "Constant" or op.get_element_type() != openvino.Type.f32:
        return False
    users = {_layer(target.get_node()) for target in op.output(0).get_target_inputs()}
    return HEAD in users or not is_rounded(op.data.shape, op.data.nbytes)
