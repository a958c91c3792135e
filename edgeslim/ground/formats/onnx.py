"""ONNX: one function, torch module -> model.onnx."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from edgeslim.target import Target

INPUT_NAME, OUTPUT_NAME = "tiles", "logits"
WEIGHTS_NAME = "weights.bin"
"""Beside the network: a runtime maps it into memory instead of unpacking a copy of it from the network's own file."""
_SMALLEST_BYTES = 1024
"""Tensors smaller than this stay inside the network's file."""


def convert(model: nn.Module, example: torch.Tensor, target: Target, path: Path) -> None:
    """Write `model` as ONNX with a dynamic batch, its weights beside it, at the opset and IR version of the card.

    `example` is a (2, bands, H, W) float32 batch. Shapes are inferred strictly and the file passes onnx.checker.
    Raises whatever the exporter raises: the stage around it names the next step.
    """
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
                opset_version=target.opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes={"tiles": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    proto.ir_version = min(proto.ir_version, target.ir_version)
    _strip(proto)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, check_type=True)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        location=WEIGHTS_NAME,
        size_threshold=_SMALLEST_BYTES,
    )
    for file in (path, path.with_name(WEIGHTS_NAME)):  # onnx makes the weights private
        if file.is_file():
            umask = os.umask(0)
            os.umask(umask)
            file.chmod(0o666 & ~umask)


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
